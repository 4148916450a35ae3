//! The one reader of a pool's events.

use std::sync::Arc;

use super::core::Core;
use crate::{
    cluster::{self, Delivery, Events, PoolEvent},
    error::Error,
    output::Printer,
};

/// Hands everything to whom it concerns until the pool has ended. What a task printed is passed on before the task's
/// result is.
pub(crate) async fn dispatch(core: Arc<Core>, mut events: Events, mut printer: Printer) {
    let mut notice = String::new();
    while let Some(delivery) = events.next_delivery().await {
        match delivery {
            Delivery::Results(rows, payloads) => core.on_results(rows, payloads),
            Delivery::Output(rows, payloads) => printer.print(core.hosts(), rows, payloads).await,
            Delivery::Other(event) => on_event(&core, event, &mut notice),
        }
    }
    core.finish();
}

fn on_event(core: &Core, event: PoolEvent, notice: &mut String) {
    match event {
        PoolEvent::Slots { eligible, .. } => core.set_slots(eligible),
        PoolEvent::Notice(text) => {
            tracing::warn!("{text}");
            *notice = text;
        }
        PoolEvent::Refused { reason, kind } => {
            core.fail(Error::Cluster(cluster::Error::Refused { reason, kind }));
        }
        PoolEvent::Lost(reason) => core.fail(Error::Cluster(cluster::Error::Lost { reason })),
        // An end that nobody here asked for was asked for elsewhere; the last notice says by whom.
        PoolEvent::Finished if !core.is_done() => {
            let reason = std::mem::take(notice);
            core.fail(Error::Terminated { reason });
        }
        PoolEvent::Finished => {}
        // These come in batches.
        PoolEvent::Output { .. } | PoolEvent::Ended { .. } => {}
    }
}
