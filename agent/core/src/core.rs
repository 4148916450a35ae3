//! The state machine's outside: events are sorted to their subjects, and what follows from a batch of them is
//! worked out once, when the shell asks for actions.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use fleetpool_proto::{PoolId, SlotNo, Timestamp, message::ToAgent};

use crate::{
    event::{Action, Event},
    facts::Fact,
    link::{Lease, Link, WallClock},
    pools::Pool,
    slots::{Slot, Worker},
};

/// What an agent's core has to know about its host.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Slots that the host offers.
    pub slots: u16,
    /// Facts are kept for [`AgentCore::take_facts`], so that a successor can go on where this core ends.
    pub tells_facts: bool,
    /// A bug to have, so that the simulator can show that it finds it.
    #[cfg(feature = "planted-bugs")]
    pub planted: Option<PlantedBug>,
}

/// Bugs for the simulator to find.
#[cfg(feature = "planted-bugs")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlantedBug {
    /// The lease ends and nothing is killed.
    LeaseIgnored,
    /// Keepers are not told of the lease.
    FenceUntold,
    /// Attempts are given back to the coordinator and run all the same.
    RetractIgnored,
    /// A `Cancel` that comes before its `Grant` is forgotten.
    TombstoneDropped,
}

/// The decisions of one host's agent. See the crate's documentation.
#[derive(Debug)]
pub struct AgentCore {
    #[cfg(feature = "planted-bugs")]
    pub(crate) options: Options,
    /// When the last event came.
    pub(crate) now: Timestamp,
    pub(crate) slots: Vec<Slot>,
    /// Slots without a worker.
    pub(crate) empty: BTreeSet<SlotNo>,
    pub(crate) pools: BTreeMap<PoolId, Pool>,
    /// Pools about which something has changed since the last settlement.
    pub(crate) dirty: BTreeSet<PoolId>,
    /// Pools that would start a worker if there were an empty slot.
    pub(crate) wanting: BTreeSet<PoolId>,
    pub(crate) link: Link,
    pub(crate) lease: Lease,
    /// When keepers fence by themselves, as they were told last.
    pub(crate) fence: Option<Timestamp>,
    pub(crate) wall: WallClock,
    /// When to look at the timers next; worked out when all actions are taken.
    pub(crate) alarm: Option<Timestamp>,
    pub(crate) out: VecDeque<Action>,
    /// What a successor is to know, where there may be one.
    pub(crate) facts: Option<Vec<Fact>>,
}

impl Options {
    /// Of a host with `slots` slots.
    #[must_use]
    pub fn new(slots: u16) -> Self {
        Self {
            slots,
            tells_facts: false,
            #[cfg(feature = "planted-bugs")]
            planted: None,
        }
    }
}

impl AgentCore {
    /// The core of a host without a session.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self {
            now: Timestamp::default(),
            slots: (0..options.slots).map(|_| Slot::default()).collect(),
            empty: (0..options.slots).map(SlotNo).collect(),
            facts: options.tells_facts.then(Vec::new),
            #[cfg(feature = "planted-bugs")]
            options,
            pools: BTreeMap::new(),
            dirty: BTreeSet::new(),
            wanting: BTreeSet::new(),
            link: Link::Down,
            lease: Lease::default(),
            fence: None,
            wall: WallClock::default(),
            alarm: None,
            out: VecDeque::new(),
        }
    }

    /// Takes in something that happened. `now` never goes back.
    pub fn handle(&mut self, now: Timestamp, event: Event) {
        self.now = self.now.max(now);
        // Before anything else: what the event brings may be older than the lease it was sent under.
        self.end_lease_if_over();
        if self.alarm.is_some_and(|alarm| alarm <= self.now) {
            self.on_alarm();
        }
        match event {
            Event::LinkUp {
                registration,
                lease_ms,
                now_us,
            } => self.on_link_up(registration, lease_ms, now_us),
            Event::LinkDown => self.on_link_down(),
            Event::Message(message) => self.on_message(message),
            Event::WorkerReady {
                slot,
                generation,
                pid,
            } => self.on_worker_ready(slot, generation, pid),
            Event::WorkerUnfit {
                slot,
                generation,
                reason,
            } => self.on_worker_unfit(slot, generation, reason),
            Event::WorkerEnded {
                slot,
                generation,
                end,
            } => self.on_worker_ended(slot, generation, &end),
            Event::WorkerFenced { slot, generation } => self.on_worker_fenced(slot, generation),
            Event::WorkerFound {
                slot,
                generation,
                pid,
                ending,
                taken,
            } => self.on_worker_found(slot, generation, pid, ending, taken),
            Event::WorkerVanished { slot, generation } => self.on_worker_vanished(slot, generation),
            Event::TaskPid {
                slot,
                generation,
                attempt,
                pid,
            } => self.on_task_pid(slot, generation, attempt, pid),
            Event::TaskEnded {
                slot,
                generation,
                task,
            } => self.on_task_ended(slot, generation, task),
            Event::GivenBack {
                slot,
                generation,
                attempts,
            } => self.on_given_back(slot, generation, &attempts),
            Event::Content { pool, error } => self.on_content(pool, error),
            Event::PoolUnfit { pool, reason } => self.on_pool_unfit(pool, reason),
            Event::Tick => {}
        }
    }

    /// The next thing to do. `None`: nothing until the next event.
    pub fn poll_action(&mut self) -> Option<Action> {
        if self.out.is_empty() {
            self.settle();
        }
        self.out.pop_front()
    }

    /// When to hand in a [`Event::Tick`] if nothing else happens. Right once [`AgentCore::poll_action`] has
    /// returned `None`.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        self.alarm
    }

    fn on_message(&mut self, message: ToAgent) {
        if self.link.is_left() {
            return;
        }
        match message {
            ToAgent::Renewed { renewal } => self.on_renewed(renewal),
            ToAgent::Stopping { lease_ms } => self.on_coordinator_stopping(lease_ms),
            ToAgent::OpenPool { pool, options } => self.on_open_pool(pool, options),
            ToAgent::ClosePool { pool } => self.on_close_pool(pool),
            ToAgent::Define { pool, spec, body } => self.on_define(pool, spec, body),
            ToAgent::Allot {
                pool,
                slots,
                allotment,
            } => self.on_allot(pool, slots, allotment),
            ToAgent::Grant {
                pool,
                rows,
                payloads,
            } => self.on_grant(pool, &rows, payloads.into_items()),
            ToAgent::Retract {
                pool,
                count,
                retraction,
            } => self.on_retract(pool, count, retraction),
            ToAgent::Cancel { pool, rows } => self.on_cancel(pool, &rows),
            ToAgent::Ack { pool, rows, .. } => self.on_ack(pool, &rows),
            // Output and content are the shell's affair; the core hears of content by `Event::Content`.
            ToAgent::Hold { .. }
            | ToAgent::Content { .. }
            | ToAgent::PassOn { .. }
            | ToAgent::FetchFrom { .. } => {}
        }
    }

    /// Works out what follows from the events since the last time.
    fn settle(&mut self) {
        self.tell_fence();
        self.register_if_possible();
        while let Some(pool) = self.dirty.pop_first() {
            self.dispatch(pool);
            self.report(pool);
        }
        self.alarm = self.next_alarm();
    }

    /// The worker that an event is about, unless it is one that has been replaced meanwhile.
    pub(crate) fn worker(&mut self, slot: SlotNo, generation: u64) -> Option<&mut Worker> {
        let slot = self.slots.get_mut(usize::from(slot.0))?;
        slot.worker
            .as_mut()
            .filter(|worker| worker.generation == generation)
    }
}
