//! The session with the coordinator, and the lease (G1).
//!
//! The lease is the right to start tasks. It counts from when a renewal was *sent*, so that it ends here before the
//! coordinator can take it for ended. When it ends, attempts that may run again are killed and never mentioned
//! again: the coordinator grants them anew. Attempts that may not run twice run on and are reported when the
//! link is back.
//!
//! This process may itself be stopped when the lease ends. So keepers are told the time ahead, and end by themselves
//! what is still there when it has come ([`Action::FenceAt`]).

use std::{collections::VecDeque, time::Duration};

use fleetpool_proto::{
    PoolId, SlotNo, Timestamp,
    message::{FromAgent, HeldRow, HeldState, Registration},
};

use crate::{
    core::AgentCore,
    dispatch::each_worker,
    event::Action,
    facts::Fact,
    pools::Pool,
    slots::{Fate, Handed, Phase, Slot, Worker},
    timers::{FENCE_GRACE_MAX, FENCE_GRACE_MS_MAX},
};

/// Renewals on their way that are remembered: far more than fit into a lease.
const RENEWALS_MAX: usize = 16;
/// A lease is renewed this many times in its length.
const RENEWALS_A_LEASE: u32 = 3;
/// A new session is heard of again this soon, and then after as long as it has lasted, up to a part of its lease: whoever waits to
/// see that an agent stays sees it soon.
const RENEWAL_PAUSE: Duration = Duration::from_secs(1);

/// The session with the coordinator.
#[derive(Debug)]
pub(crate) enum Link {
    /// There is none.
    Down,
    /// There is one; `Register` waits until what the lease ended is gone, so that it need not be mentioned.
    Waiting(Box<Registration>),
    /// There is one.
    Up,
    /// There is one that is to be closed: nothing it brings counts.
    Left,
}

impl Link {
    pub(crate) fn is_up(&self) -> bool {
        matches!(self, Self::Up)
    }

    pub(crate) fn is_left(&self) -> bool {
        matches!(self, Self::Left)
    }
}

/// The right to start tasks.
#[derive(Debug, Default)]
pub(crate) struct Lease {
    length: Duration,
    /// When the session began that it comes by.
    since: Timestamp,
    /// When it ends; `None`: there is none.
    pub(crate) end: Option<Timestamp>,
    /// When the next renewal is sent.
    pub(crate) renew_at: Option<Timestamp>,
    renewal: u64,
    /// Renewals on their way: their numbers and when they were sent.
    sent: VecDeque<(u64, Timestamp)>,
    rtt_us: u64,
    /// A renewal of this session has been answered.
    answered: bool,
    /// When the last renewal that was answered was sent.
    renewed_at: Timestamp,
}

impl Lease {
    pub(crate) fn holds(&self, now: Timestamp) -> bool {
        self.end.is_some_and(|end| now < end)
    }
}

/// What the host's clock says, known at one instant.
#[derive(Debug, Default)]
pub(crate) struct WallClock {
    at: Timestamp,
    us: u64,
}

impl WallClock {
    /// Microseconds since 1970 at `time`; 0 when the clock has never been told.
    pub(crate) fn us_at(&self, time: Timestamp) -> u64 {
        if self.us == 0 {
            return 0;
        }
        (self.us + time.0.saturating_sub(self.at.0))
            .saturating_sub(self.at.0.saturating_sub(time.0))
    }
}

impl AgentCore {
    /// Tells the coordinator, where there is one.
    pub(crate) fn send(&mut self, message: FromAgent) {
        if self.link.is_up() {
            self.out.push_back(Action::Send(message));
        }
    }

    pub(crate) fn on_link_up(
        &mut self,
        registration: Box<Registration>,
        lease_ms: u64,
        now_us: u64,
    ) {
        self.on_link_down();
        self.lease.length = Duration::from_millis(lease_ms);
        // A lease that a coordinator has made longer when it stopped: this one goes by what it hears of this session.
        let end = self.now + self.lease.length;
        self.lease.end = self.lease.end.map(|longer| longer.min(end));
        self.lease.answered = false;
        self.lease.since = self.now;
        self.wall = WallClock {
            at: self.now,
            us: now_us,
        };
        self.link = Link::Waiting(registration);
    }

    /// What was said in the session and has not been answered is settled by the next one's `Register`.
    pub(crate) fn on_link_down(&mut self) {
        self.link = Link::Down;
        self.lease.renew_at = None;
        self.lease.sent.clear();
        for (id, pool) in &mut self.pools {
            // Sessions keep their order, so numbers need to be compared within one only.
            pool.allotment = 0;
            pool.allotted_owed = None;
            pool.unfit_told = false;
            pool.mentioned = false;
            pool.retractions.clear();
            pool.tombstones.clear();
            each_worker(pool, &mut self.slots, |worker| worker.told = false);
            self.dirty.insert(*id);
        }
    }

    /// Sends `Register` and all that the coordinator has not acknowledged, once nothing is left that must not
    /// be mentioned.
    pub(crate) fn register_if_possible(&mut self) {
        if !matches!(self.link, Link::Waiting(_)) || self.fencing() {
            return;
        }
        let Link::Waiting(mut registration) = std::mem::replace(&mut self.link, Link::Up) else {
            return;
        };
        registration.held = self.held();
        self.send(FromAgent::Register(registration));
        self.renew();
        for (id, pool) in &mut self.pools {
            pool.reports.say_again();
            self.dirty.insert(*id);
        }
    }

    pub(crate) fn renew(&mut self) {
        self.lease.renewal += 1;
        if self.lease.sent.len() >= RENEWALS_MAX {
            self.lease.sent.pop_front();
        }
        self.lease.sent.push_back((self.lease.renewal, self.now));
        let lasted = self.now.since(self.lease.since).max(RENEWAL_PAUSE);
        self.lease.renew_at = Some(self.now + lasted.min(self.lease.length / RENEWALS_A_LEASE));
        self.send(FromAgent::Renew {
            renewal: self.lease.renewal,
            rtt_us: self.lease.rtt_us,
        });
    }

    pub(crate) fn on_renewed(&mut self, renewal: u64) {
        let lease = &mut self.lease;
        let Some(at) = lease.sent.iter().position(|(number, _)| *number == renewal) else {
            return;
        };
        let (_, sent) = lease.sent[at];
        lease.sent.drain(..=at);
        let rtt_us = fleetpool_proto::time::micros(self.now.since(sent));
        let first_known = std::mem::replace(&mut lease.rtt_us, rtt_us) == 0;
        let end = sent + lease.length;
        if !std::mem::replace(&mut lease.answered, true) {
            self.close_unmentioned();
        }
        if first_known && rtt_us > 0 {
            // What is sent ahead depends on it: the coordinator should not learn of it a third of a lease later.
            self.renew();
        }
        let lease = &mut self.lease;
        if end <= self.now {
            return;
        }
        if lease.end.is_none() {
            self.dirty.extend(self.pools.keys());
        }
        self.lease.end = self.lease.end.max(Some(end));
        self.lease.renewed_at = sent;
    }

    /// The lease is longer from now on, if there is one: until the next session begins.
    pub(crate) fn on_coordinator_stopping(&mut self, lease_ms: u64) {
        let end = self.lease.renewed_at + Duration::from_millis(lease_ms);
        self.lease.end = self.lease.end.map(|shorter| shorter.max(end));
    }

    /// A coordinator that has heard `Register` opens all its pools again before it answers the first renewal: those
    /// that it has not are over.
    fn close_unmentioned(&mut self) {
        let pools = self.pools.iter();
        let over: Vec<PoolId> = pools
            .filter(|(_, pool)| !pool.mentioned)
            .map(|(id, _)| *id)
            .collect();
        over.into_iter().for_each(|id| self.on_close_pool(id));
    }

    /// Fences the host off when its lease is over: from here on nothing starts, and what the coordinator will
    /// grant elsewhere dies.
    pub(crate) fn end_lease_if_over(&mut self) {
        if self.lease.end.is_some_and(|end| self.now >= end) {
            self.end_lease();
        }
    }

    pub(crate) fn end_lease(&mut self) {
        #[cfg(feature = "planted-bugs")]
        if self.options.planted == Some(crate::PlantedBug::LeaseIgnored) {
            self.lease.end = Some(Timestamp(u64::MAX));
            return;
        }
        self.lease.end = None;
        for (id, pool) in &mut self.pools {
            pool.allotted = 0;
            self.facts.iter_mut().for_each(|facts| {
                facts.push(Fact::Allotted {
                    pool: *id,
                    slots: 0,
                });
            });
            pool.allotted_owed = None;
            pool.queue.clear();
            pool.retractions.clear();
            let rerunnable = pool.is_rerunnable();
            let grace_ms = pool.options.kill_grace_ms.min(FENCE_GRACE_MS_MAX);
            each_worker(pool, &mut self.slots, |worker| {
                self.out.extend(if rerunnable {
                    worker.fence(grace_ms)
                } else {
                    worker.fence_unbegun()
                });
            });
            self.dirty.insert(*id);
        }
        if !matches!(self.link, Link::Down) {
            self.link = Link::Left;
            self.lease.renew_at = None;
            self.out.push_back(Action::DropLink {
                reason: "the lease ran out before it was renewed".to_owned(),
            });
        }
    }

    /// Keepers act when the grace that this agent would give is over, and until nothing is left that they may have to
    /// end. It comes before the tasks that a lease lets begin.
    pub(crate) fn tell_fence(&mut self) {
        let time = match self.lease.end {
            Some(end) => Some(end + FENCE_GRACE_MAX),
            None => self.fence.filter(|_| self.fencing()),
        };
        if time == self.fence {
            return;
        }
        #[cfg(feature = "planted-bugs")]
        if self.options.planted == Some(crate::PlantedBug::FenceUntold) {
            return;
        }
        self.fence = time;
        self.note(|| Fact::Fence {
            at_us: time.map(|time| time.0),
        });
        self.out.push_back(Action::FenceAt { time });
        if time.is_none() {
            self.dirty.extend(self.pools.keys());
        }
    }

    /// Whether keepers may be ending what they have: a new one would do so at once.
    pub(crate) fn keepers_fence(&self) -> bool {
        self.fence.is_some_and(|time| time <= self.now)
    }

    /// A keeper has found that its time has come. If this core believes otherwise, then because it was stopped before
    /// it could tell of the lease's renewal: the lease is over all the same.
    pub(crate) fn on_worker_fenced(&mut self, slot: SlotNo, generation: u64) {
        let Some(worker) = self.worker(slot, generation) else {
            return;
        };
        worker.phase = Phase::Killed;
        if self.lease.end.is_some() {
            self.end_lease();
        }
    }

    /// Whether anything is left that the lease's end has doomed.
    fn fencing(&self) -> bool {
        let doomed = |handed: &Handed| handed.fate == Fate::Fenced;
        let workers = self.slots.iter().filter_map(|slot| slot.worker.as_ref());
        workers.flat_map(|worker| &worker.handed).any(doomed)
    }

    fn held(&self) -> Vec<HeldRow> {
        self.pools
            .iter()
            .filter(|(_, pool)| !pool.closing)
            .flat_map(|(id, pool)| held_of(*id, pool, &self.slots))
            .collect()
    }
}

impl Worker {
    /// Everything in hand dies; what is being killed already has less time for it now.
    fn fence(&mut self, grace_ms: u32) -> Vec<Action> {
        for handed in &mut self.handed {
            handed.fate = Fate::Fenced;
        }
        match self.phase {
            _ if self.handed.is_empty() => Vec::new(),
            Phase::Ready if self.command => self.kill_task(grace_ms),
            _ => vec![self.kill(grace_ms)],
        }
    }

    /// What has begun goes on, the rest does not begin.
    fn fence_unbegun(&mut self) -> Vec<Action> {
        for handed in self.handed.iter_mut().skip(1) {
            handed.fate = Fate::Fenced;
        }
        Vec::from_iter(self.give_back(usize::MAX))
    }
}

fn held_of<'a>(
    id: PoolId,
    pool: &'a Pool,
    slots: &'a [Slot],
) -> impl Iterator<Item = HeldRow> + 'a {
    let row = move |index, attempt, state| HeldRow {
        pool: id,
        index,
        attempt,
        state,
    };
    let ended = pool
        .reports
        .keys()
        .map(move |(index, attempt)| row(index, attempt, HeldState::Ended));
    let workers = pool
        .crew
        .iter()
        .filter_map(|number| slots.get(usize::from(number.0))?.worker.as_ref());
    let running = workers
        .flat_map(|worker| &worker.handed)
        .map(move |handed| row(handed.task.index, handed.task.attempt, HeldState::Running));
    let queued = pool
        .queue
        .iter()
        .map(move |task| row(task.index, task.attempt, HeldState::Queued));
    ended.chain(running).chain(queued)
}
