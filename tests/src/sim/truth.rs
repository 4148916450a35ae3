//! What happens in fact, seen from above, and whether it may (G1-G5).
//!
//! Nothing here is told to the cores, and nothing the cores say is believed: only workers that begin and end, and
//! outcomes that reach a client, count.

use std::collections::BTreeMap;

use bytes::Bytes;
use fleetpool_proto::{Attempt, AttemptId, Outcome, PoolId, SlotNo, message::ResultRow};

use super::plan::{Ending, PoolPlan, World};

/// A promise that was broken, in words.
pub(super) type Broken = Result<(), String>;

#[derive(Debug)]
pub(super) struct Truth {
    pools: BTreeMap<PoolId, PoolTruth>,
    hosts: Vec<HostTruth>,
    slots: u64,
    /// Longest that a free slot and a waiting task may be apart, in microseconds; `None`: the world is not quiet.
    apart_us_max: Option<u64>,
    pub(super) begun: u64,
    /// Some host cannot start workers.
    unfit: bool,
    /// The coordinator's machine loses its power: an outcome may be told before it is on disk, and what may run again does.
    cuts_power: bool,
}

#[derive(Debug)]
struct HostTruth {
    slots: Vec<SlotTruth>,
    /// What runs there: hardly more than it has slots.
    running: Vec<AttemptId>,
}

#[derive(Clone, Copy, Debug)]
struct SlotTruth {
    idle_since: Option<u64>,
}

#[derive(Debug)]
struct PoolTruth {
    tasks: Vec<TaskTruth>,
    sum: PoolSum,
}

#[derive(Debug)]
struct PoolSum {
    plan: PoolPlan,
    /// The largest N that was ever asked for.
    limit: u64,
    running: u64,
    /// Tasks that have come to the coordinator.
    arrived: u64,
    /// Tasks that have begun, or ended without.
    served: u64,
    hungry_since: Option<u64>,
    delivered: u64,
}

#[derive(Clone, Debug, Default)]
struct TaskTruth {
    begun: u32,
    last: Attempt,
    /// Attempts that run.
    running: u32,
    /// The attempt that ended by itself.
    finished: Option<Attempt>,
    outcome: Option<Outcome>,
    cancelled: bool,
}

impl Truth {
    pub(super) fn new(world: &World) -> Self {
        let host = |slots: u16| HostTruth {
            slots: vec![
                SlotTruth {
                    idle_since: Some(0)
                };
                usize::from(slots)
            ],
            running: Vec::new(),
        };
        let pool = |plan: &PoolPlan| PoolTruth {
            tasks: vec![TaskTruth::default(); usize::try_from(plan.tasks).unwrap_or_default()],
            sum: PoolSum {
                limit: plan.options.slots.map_or(u64::MAX, u64::from),
                plan: plan.clone(),
                running: 0,
                arrived: 0,
                served: 0,
                hungry_since: None,
                delivered: 0,
            },
        };
        Self {
            pools: (1..)
                .map(PoolId)
                .zip(world.pools.iter().map(pool))
                .collect(),
            hosts: world.hosts.iter().map(|plan| host(plan.slots)).collect(),
            slots: world.hosts.iter().map(|plan| u64::from(plan.slots)).sum(),
            // Round trips to notice and to act, a program to be fetched and a worker to be started on the way.
            apart_us_max: world.quiet.then_some(8 * world.delay_us.1 + 300_000),
            begun: 0,
            unfit: world.hosts.iter().any(|plan| plan.unfit),
            cuts_power: world.cuts_coordinators_power(),
        }
    }

    /// A worker begins a task.
    pub(super) fn begin(&mut self, now: u64, host: usize, slot: SlotNo, id: AttemptId) -> Broken {
        self.begun += 1;
        let place = &mut self.hosts[host];
        place.running.push(id);
        if place.running.len() > place.slots.len() {
            return Err(format!(
                "G1: {} tasks run on host {host} of {} slots",
                place.running.len(),
                place.slots.len()
            ));
        }
        if let Some(slot) = place.slots.get_mut(usize::from(slot.0)) {
            slot.idle_since = None;
        }
        let Some((pool, task)) = find(&mut self.pools, id) else {
            return Err(format!(
                "{id} begins on host {host}, and nobody has submitted it"
            ));
        };
        task.begun += 1;
        if task.begun == 1 && task.outcome.is_none() {
            pool.served += 1;
        }
        let reruns = pool.plan.options.retries.host_lost > 0;
        if let Some(outcome) = task.outcome.filter(|_| !(reruns && self.cuts_power)) {
            return Err(format!(
                "G3: {id} begins on host {host} after the task's outcome, {outcome}, was delivered"
            ));
        }
        if id.attempt <= task.last {
            return Err(format!(
                "G3: {id} begins on host {host} after {} did",
                task.last
            ));
        }
        task.last = id.attempt;
        task.running += 1;
        pool.running += 1;
        if task.running > 1 {
            return Err(format!(
                "G5: {id} begins on host {host} while another attempt runs"
            ));
        }
        let retries = pool.plan.options.retries;
        let most = 1 + retries.worker_lost + retries.failed;
        if retries.host_lost == 0 && task.begun > most {
            return Err(format!(
                "G5: {id} is run {} times, and may {most} times",
                task.begun
            ));
        }
        if pool.running > pool.limit {
            return Err(format!(
                "G1: {} tasks run of a pool of {} slots: {id} on host {host} is one too many",
                pool.running, pool.limit
            ));
        }
        pool.eats(now, self.slots);
        Ok(())
    }

    /// Nothing of the task is left on the host.
    pub(super) fn gone(
        &mut self,
        now: u64,
        host: usize,
        slot: SlotNo,
        id: AttemptId,
        by_itself: bool,
    ) {
        let place = &mut self.hosts[host];
        let Some(at) = place.running.iter().position(|running| *running == id) else {
            return;
        };
        place.running.swap_remove(at);
        if let Some(slot) = place.slots.get_mut(usize::from(slot.0)) {
            slot.idle_since = Some(now);
        }
        if let Some((pool, task)) = find(&mut self.pools, id) {
            task.running -= 1;
            pool.running -= 1;
            if by_itself {
                task.finished = Some(id.attempt);
            }
            pool.note_hunger(now, self.slots);
        }
    }

    /// Tasks have come to the coordinator.
    pub(super) fn arrive(&mut self, now: u64, pool: PoolId, count: u64) {
        if let Some(pool) = self.pools.get_mut(&pool) {
            pool.sum.arrived += count;
            pool.sum.note_hunger(now, self.slots);
        }
    }

    pub(super) fn cancel(&mut self, pool: PoolId, index: u64) {
        let id = attempt(pool, index, Attempt(0));
        if let Some((_, task)) = find(&mut self.pools, id) {
            task.cancelled = true;
        }
    }

    pub(super) fn resize(&mut self, pool: PoolId, slots: Option<u32>) {
        if let Some(pool) = self.pools.get_mut(&pool) {
            pool.sum.limit = pool.sum.limit.max(slots.map_or(u64::MAX, u64::from));
        }
    }

    /// A client hears how a task ended.
    pub(super) fn deliver(
        &mut self,
        now: u64,
        pool: PoolId,
        row: &ResultRow,
        payload: &Bytes,
    ) -> Broken {
        let id = attempt(pool, row.index, row.attempt);
        let slots = self.slots;
        let Some((pool, task)) = find(&mut self.pools, id) else {
            return Err(format!(
                "G3: an outcome of {id}, which nobody has submitted"
            ));
        };
        let outcome = row.outcome;
        if let Some(before) = task.outcome.replace(outcome) {
            return Err(format!(
                "G3: {id} is {outcome}, but was delivered as {before} before"
            ));
        }
        if task.begun == 0 {
            pool.served += 1;
        }
        pool.delivered += 1;
        pool.note_hunger(now, slots);
        // That there was another may have been on no disk yet. It is over all the same.
        let may_be_forgotten =
            self.cuts_power && outcome == Outcome::Cancelled && task.running == 0;
        if row.attempt.0 > 0 && row.attempt < task.last && !may_be_forgotten {
            return Err(format!(
                "G3: {id} is delivered as {outcome}, but {} has begun since",
                task.last
            ));
        }
        let plan = &pool.plan;
        let may_be = match outcome {
            Outcome::Done | Outcome::Failed => {
                task.finished == Some(row.attempt) && task.running == 0
            }
            Outcome::Cancelled => task.cancelled,
            Outcome::TimedOut => plan.timeout_ms > 0,
            Outcome::Unknown => plan.options.retries.host_lost == 0,
            Outcome::HostLost => {
                plan.options.retries.host_lost > 0 || plan.pinned && task.running == 0
            }
            Outcome::WorkerLost | Outcome::OutOfMemory => task.begun > 0,
            Outcome::NotStarted => {
                plan.pinned && task.begun == 0 && (self.unfit || self.apart_us_max.is_none())
            }
        };
        if !may_be {
            return Err(format!(
                "G3: {id} is delivered as {outcome}, which it cannot be: {task:?}"
            ));
        }
        if outcome == Outcome::Done && *payload != result(id) {
            return Err(format!("G3: {id} is delivered with the result of another"));
        }
        Ok(())
    }

    /// Whether a free slot and a waiting task have been apart for too long.
    pub(super) fn look_for_idleness(&self, now: u64) -> Broken {
        let Some(most) = self.apart_us_max else {
            return Ok(());
        };
        let long = |since: Option<u64>| since.is_some_and(|since| now - since > most);
        let hungry = self
            .pools
            .iter()
            .find(|(_, pool)| long(pool.sum.hungry_since));
        let Some((id, pool)) = hungry else {
            return Ok(());
        };
        for (number, host) in self.hosts.iter().enumerate() {
            if host.slots.iter().any(|slot| long(slot.idle_since)) {
                let waiting = pool.sum.arrived - pool.sum.served;
                return Err(format!(
                    "G2: a slot of host {number} is free while {waiting} tasks of {id} wait"
                ));
            }
        }
        Ok(())
    }

    /// All is over: what must have been delivered has been, and nothing runs.
    pub(super) fn look_at_the_end(&self) -> Broken {
        for (number, host) in self.hosts.iter().enumerate() {
            if let Some(id) = host.running.first() {
                return Err(format!("G6: {id} still runs on host {number}"));
            }
        }
        for (id, pool) in &self.pools {
            let all = pool.tasks.len() as u64;
            let delivered = pool.sum.delivered;
            if pool.sum.plan.ending == Ending::Close && delivered < all {
                return Err(format!(
                    "G4: {delivered} outcomes of {id} were delivered, not {all}"
                ));
            }
        }
        Ok(())
    }

    /// Outcomes that have been delivered, over all pools.
    pub(super) fn delivered(&self) -> u64 {
        self.pools.values().map(|pool| pool.sum.delivered).sum()
    }

    /// Whether no outcomes of the pool are due.
    pub(super) fn is_refused(&self, pool: PoolId) -> bool {
        let refused = Ending::Vanish(std::time::Duration::ZERO);
        self.pools
            .get(&pool)
            .is_some_and(|pool| pool.sum.plan.ending == refused)
    }

    /// The pool cannot be served, or was cancelled: no outcomes are due.
    pub(super) fn refuse(&mut self, pool: PoolId) {
        if let Some(pool) = self.pools.get_mut(&pool) {
            pool.sum.plan.ending = Ending::Vanish(std::time::Duration::ZERO);
        }
    }
}

impl PoolSum {
    /// A task of it has begun.
    fn eats(&mut self, now: u64, slots: u64) {
        if self.limit < slots {
            // A free slot may be one that it has no right to, while its own stand free for moments again and again:
            // only when nothing begins at all does it starve.
            self.hungry_since = None;
        }
        self.note_hunger(now, slots);
    }

    fn note_hunger(&mut self, now: u64, slots: u64) {
        let hungry = self.arrived > self.served
            && self.running < slots.min(self.limit)
            && !self.plan.pinned
            // Its slots are as often between two workers as not.
            && self.plan.options.tasks_per_worker_max == 0;
        self.hungry_since = match self.hungry_since {
            Some(since) if hungry => Some(since),
            _ => hungry.then_some(now),
        };
    }
}

fn find(
    pools: &mut BTreeMap<PoolId, PoolTruth>,
    id: AttemptId,
) -> Option<(&mut PoolSum, &mut TaskTruth)> {
    let pool = pools.get_mut(&id.task.pool)?;
    let at = usize::try_from(id.task.index).ok()?;
    Some((&mut pool.sum, pool.tasks.get_mut(at)?))
}

fn attempt(pool: PoolId, index: u64, attempt: Attempt) -> AttemptId {
    AttemptId {
        task: fleetpool_proto::TaskId::new(pool, index),
        attempt,
    }
}

/// What an attempt returns: nobody else's result looks like it.
pub(super) fn result(id: AttemptId) -> Bytes {
    let mut bytes = id.task.index.to_be_bytes().to_vec();
    bytes.extend(id.attempt.0.to_be_bytes());
    bytes.into()
}
