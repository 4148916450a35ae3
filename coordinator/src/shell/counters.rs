//! The one place where everything that happens is counted and traced, by its static name.

use std::collections::BTreeMap;

use fleetpool_coordinator_core::{Action, Event};

/// How often each event came and each action was taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    events: BTreeMap<&'static str, u64>,
    actions: BTreeMap<&'static str, u64>,
}

impl Counters {
    pub(crate) fn on_event(&mut self, event: &Event) {
        let name = event.name();
        tracing::trace!(name, ?event, "event");
        *self.events.entry(name).or_default() += 1;
    }

    pub(crate) fn on_action(&mut self, action: &Action) {
        let name = action.name();
        tracing::trace!(name, ?action, "action");
        *self.actions.entry(name).or_default() += 1;
    }

    /// Every count, as `event.NAME` and `action.NAME`.
    pub(crate) fn all(&self) -> BTreeMap<String, u64> {
        let named = |kind: &'static str, counts: &BTreeMap<&'static str, u64>| {
            let named = counts
                .iter()
                .map(|(name, count)| (format!("{kind}.{name}"), *count));
            named.collect::<Vec<_>>()
        };
        let (events, actions) = (named("event", &self.events), named("action", &self.actions));
        events.into_iter().chain(actions).collect()
    }
}
