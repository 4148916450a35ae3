//! Everything that happens because time has passed.

use std::{collections::BTreeMap, time::Duration};

use fleetpool_proto::{
    PoolId, Timestamp,
    message::{FromAgent, StartedRow},
};

use crate::{
    core::AgentCore,
    dispatch::worker_of,
    event::Action,
    pools::Pool,
    slots::{Fate, Worker},
};

/// A task that runs this long is mentioned to the coordinator; shorter ones are known by their report alone.
const TOLD_AFTER: Duration = Duration::from_millis(20);
/// When one is mentioned, so are those that have run half as long: one message for many.
const TOLD_ALONG_AFTER: Duration = Duration::from_millis(10);
/// How long a worker that must be killed has to give back what it has not begun.
pub(crate) const KILL_WAITS_FOR_GIVE_BACK: Duration = Duration::from_millis(100);
/// Longest time between TERM and KILL when the lease has ended, in milliseconds: half of the coordinator's margin.
pub(crate) const FENCE_GRACE_MS_MAX: u32 = 1000;
/// The same, as a duration.
pub(crate) const FENCE_GRACE_MAX: Duration = Duration::from_millis(FENCE_GRACE_MS_MAX as u64);
/// Pause before another worker is started after one has failed; doubles with each failure in a row.
pub(crate) const START_PAUSE: Duration = Duration::from_millis(10);
/// Longest such pause.
pub(crate) const START_PAUSE_MAX: Duration = Duration::from_secs(1);

impl AgentCore {
    /// Does what has become due.
    pub(crate) fn on_alarm(&mut self) {
        let now = self.now;
        self.alarm = None;
        if self.lease.renew_at.is_some_and(|time| time <= now) {
            self.renew();
        }
        for (id, pool) in &self.pools {
            if pool.starts.not_before.is_some_and(|time| time <= now) {
                self.dirty.insert(*id);
            }
            for &number in &pool.crew {
                if let Some(worker) = worker_of(&mut self.slots, number) {
                    self.out.extend(worker.on_alarm(pool, now));
                }
            }
        }
        self.tell_started();
    }

    /// Mentions tasks that have run for a while.
    fn tell_started(&mut self) {
        let now = self.now;
        let workers = || self.slots.iter().filter_map(|slot| slot.worker.as_ref());
        let due = |worker: &Worker| worker.tell_at().is_some_and(|time| time <= now);
        if !self.link.is_up() || !workers().any(due) {
            return;
        }
        let mut rows: BTreeMap<PoolId, Vec<StartedRow>> = BTreeMap::new();
        for slot in &mut self.slots {
            if let Some(worker) = &mut slot.worker
                && now.since(worker.first_since) >= TOLD_ALONG_AFTER
                && let Some(row) = worker.started_row()
            {
                worker.told = true;
                rows.entry(worker.pool).or_default().push(row);
            }
        }
        for (pool, rows) in rows {
            self.send(FromAgent::Started { pool, rows });
        }
    }

    /// When something becomes due next.
    pub(crate) fn next_alarm(&self) -> Option<Timestamp> {
        // A lease that never ends needs no timer.
        let lease = self.lease.end.filter(|end| end.0 < u64::MAX);
        let mut next = Earliest(None);
        next.note(lease);
        next.note(self.lease.renew_at);
        for pool in self.pools.values() {
            if usize::from(pool.crew_wanted) > pool.crew.len() {
                let pause = pool.starts.not_before.filter(|time| *time > self.now);
                next.note(pause);
            }
            for number in &pool.crew {
                let slot = self.slots.get(usize::from(number.0));
                if let Some(worker) = slot.and_then(|slot| slot.worker.as_ref()) {
                    worker.note_alarms(pool, &mut next);
                    next.note(worker.tell_at().filter(|_| self.link.is_up()));
                }
            }
        }
        next.0
    }
}

/// The earliest of the times noted.
pub(crate) struct Earliest(Option<Timestamp>);

impl Earliest {
    fn note(&mut self, time: Option<Timestamp>) {
        if let Some(time) = time {
            self.0 = Some(self.0.map_or(time, |earliest| earliest.min(time)));
        }
    }
}

impl Worker {
    fn on_alarm(&mut self, pool: &Pool, now: Timestamp) -> Vec<Action> {
        let due = |time: Option<Timestamp>| time.is_some_and(|time| time <= now);
        let grace_ms = pool.options.kill_grace_ms;
        if due(self.kill_by) {
            return vec![self.kill(grace_ms)];
        }
        if due(self.times_out_at(pool))
            && let Some(first) = self.handed.front_mut()
        {
            first.fate = Fate::TimedOut;
            return self.kill_if_fated(now, grace_ms);
        }
        if due(self.held_up_at(pool)) {
            return Vec::from_iter(self.give_back(usize::MAX));
        }
        Vec::new()
    }

    fn note_alarms(&self, pool: &Pool, next: &mut Earliest) {
        next.note(self.kill_by);
        next.note(self.times_out_at(pool));
        next.note(self.held_up_at(pool));
    }

    /// When the running task has run as long as it may.
    fn times_out_at(&self, pool: &Pool) -> Option<Timestamp> {
        let first = self.handed.front()?;
        if first.fate != Fate::Runs {
            return None;
        }
        let limit_ms = pool.timeout_ms(first.task.spec);
        (limit_ms > 0).then(|| self.first_since + Duration::from_millis(limit_ms))
    }

    /// When the running task has run so long that those handed behind it go elsewhere (G2).
    fn held_up_at(&self, pool: &Pool) -> Option<Timestamp> {
        let behind = self.handed.len() > 1 && !self.asked && !self.is_leaving();
        behind.then(|| self.first_since + pool.pace.patience())
    }

    /// When the running task is mentioned to the coordinator.
    fn tell_at(&self) -> Option<Timestamp> {
        let first = self.handed.front()?;
        let untold = !self.told && !matches!(first.fate, Fate::Fenced | Fate::Closed);
        untold.then(|| self.first_since + TOLD_AFTER)
    }

    fn started_row(&self) -> Option<StartedRow> {
        self.tell_at()?;
        let first = self.handed.front()?;
        Some(StartedRow {
            index: first.task.index,
            attempt: first.task.attempt,
            slot: self.slot,
            pid: self.running_pid(),
        })
    }
}
