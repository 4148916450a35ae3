//! The pools that use this host: what each is, how many slots it has here, and the attempts that wait.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use fleetpool_proto::{
    Attempt, Outcome, PoolId, SlotNo, SpecId, Timestamp,
    message::{FromAgent, GrantRow, TaskRow},
    outcome::Loss,
    pool::{PoolOptions, Runtime, Spec},
};

use crate::{
    core::AgentCore,
    event::Action,
    facts::Fact,
    pace::Pace,
    reports::Reports,
    slots::{Fate, Phase, Queued},
    timers::{START_PAUSE, START_PAUSE_MAX},
};

/// Cancelled attempts that have not been granted yet and are remembered, a pool. Only a grant of large payloads can
/// be overtaken, so that a handful is usual; past this the oldest is forgotten, and its task runs for nothing.
const TOMBSTONES_MAX: usize = 4096;
/// Failed starts after which a pool that has never had a worker here is unfit.
const FAILURES_MAX: u32 = 3;
/// Failed starts in a row after which a pool is unfit although it once had workers: about five seconds of trying.
const FAILURES_IN_A_ROW_MAX: u32 = 10;

/// A pool, as far as this host is concerned.
#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) options: Box<PoolOptions>,
    pub(crate) specs: BTreeMap<SpecId, Box<Spec>>,
    /// Most of its tasks that run at once.
    pub(crate) allotted: u16,
    /// The newest `Allot` of this session.
    pub(crate) allotment: u64,
    /// The last `Allotted`, until that `Allot` has come true.
    pub(crate) allotted_owed: Option<u16>,
    pub(crate) queue: VecDeque<Queued>,
    /// Slots that have a worker of the pool.
    pub(crate) crew: Vec<SlotNo>,
    /// Workers it has been found to need, and gets back when they die.
    pub(crate) crew_wanted: u16,
    /// Workers with tasks in hand.
    pub(crate) busy: u16,
    pub(crate) pace: Pace,
    /// Contents that it waits for: nothing of it runs before they are here.
    pub(crate) awaited: u32,
    pub(crate) starts: Starts,
    /// Why the pool cannot work here.
    pub(crate) unfit: Option<String>,
    /// The coordinator knows that.
    pub(crate) unfit_told: bool,
    /// `Retract`s that wait for workers to give back.
    pub(crate) retractions: VecDeque<Retraction>,
    /// Cancelled before they were granted, in the order of their coming.
    pub(crate) tombstones: VecDeque<TaskRow>,
    pub(crate) reports: Reports,
    /// Given back by workers that an earlier life of this agent handed them to: their arguments are gone with it.
    pub(crate) returned: Vec<TaskRow>,
    /// It is over, and only its last workers are waited for.
    pub(crate) closing: bool,
    /// The coordinator has mentioned it in this session.
    pub(crate) mentioned: bool,
}

/// How many may be given back, and as the answer to what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Retraction {
    pub(crate) number: u64,
    pub(crate) count: u32,
}

/// How starting workers goes.
#[derive(Debug, Default)]
pub(crate) struct Starts {
    ever: bool,
    failures: u32,
    /// No worker is started before.
    pub(crate) not_before: Option<Timestamp>,
}

impl Starts {
    pub(crate) fn succeeded(&mut self) {
        *self = Self {
            ever: true,
            ..Self::default()
        };
    }

    /// Counts a failure; tells whether the pool has had its chances.
    pub(crate) fn failed(&mut self, now: Timestamp) -> bool {
        let pause = START_PAUSE * (1 << self.failures.min(16));
        self.not_before = Some(now + pause.min(START_PAUSE_MAX));
        self.failures += 1;
        let max = if self.ever {
            FAILURES_IN_A_ROW_MAX
        } else {
            FAILURES_MAX
        };
        self.failures >= max
    }
}

impl Pool {
    pub(crate) fn new(options: Box<PoolOptions>, tells_facts: bool) -> Self {
        let command = options.runtime == Runtime::Command;
        let pace = Pace::new(&options.runtime);
        Self {
            options,
            specs: BTreeMap::new(),
            allotted: 0,
            allotment: 0,
            allotted_owed: None,
            queue: VecDeque::new(),
            crew: Vec::new(),
            crew_wanted: 0,
            busy: 0,
            pace,
            awaited: u32::from(!command),
            starts: Starts::default(),
            unfit: None,
            unfit_told: false,
            retractions: VecDeque::new(),
            tombstones: VecDeque::new(),
            reports: Reports::new(tells_facts),
            returned: Vec::new(),
            closing: false,
            mentioned: true,
        }
    }

    pub(crate) fn is_command(&self) -> bool {
        self.options.runtime == Runtime::Command
    }

    /// Whether an attempt may be run again when nobody knows how it ended (G1, G5).
    pub(crate) fn is_rerunnable(&self) -> bool {
        self.options.retries.host_lost > 0
    }

    pub(crate) fn timeout_ms(&self, spec: SpecId) -> u64 {
        self.specs.get(&spec).map_or(0, |spec| spec.timeout_ms)
    }

    /// Takes back what was in a worker's hands and has not begun, in its old order.
    pub(crate) fn requeue(&mut self, tasks: impl DoubleEndedIterator<Item = Queued>) {
        for task in tasks.rev() {
            match task.payload {
                Some(_) => self.queue.push_front(task),
                None => self.returned.push(row_of(&task)),
            }
        }
    }

    fn bury(&mut self, row: TaskRow) {
        if self.tombstones.len() >= TOMBSTONES_MAX {
            self.tombstones.pop_front();
        }
        self.tombstones.push_back(row);
    }

    fn has_tombstone(&mut self, row: &GrantRow) -> bool {
        let same = |dead: &TaskRow| (dead.index, dead.attempt) == (row.index, row.attempt);
        let found = self.tombstones.iter().position(same);
        found.is_some_and(|at| self.tombstones.remove(at).is_some())
    }
}

impl AgentCore {
    pub(crate) fn on_open_pool(&mut self, id: PoolId, options: Box<PoolOptions>) {
        self.note(|| Fact::Pool {
            pool: id,
            options: options.clone(),
        });
        if let Some(pool) = self.pools.get_mut(&id) {
            // Said again by a coordinator that cannot know what this agent knows.
            pool.options = options;
            pool.closing = false;
            pool.mentioned = true;
            return;
        }
        let pool = Pool::new(options, self.tells_facts());
        if pool.awaited > 0 {
            self.out.push_back(Action::FetchProgram { pool: id });
        }
        self.pools.insert(id, pool);
    }

    pub(crate) fn on_close_pool(&mut self, id: PoolId) {
        let Some(pool) = self.pools.get_mut(&id) else {
            return;
        };
        pool.closing = true;
        pool.allotted = 0;
        if let Some(facts) = &mut self.facts {
            facts.push(Fact::Allotted { pool: id, slots: 0 });
        }
        pool.allotted_owed = None;
        pool.crew_wanted = 0;
        pool.queue.clear();
        pool.retractions.clear();
        pool.reports.clear();
        for number in &pool.crew {
            let slot = self.slots.get_mut(usize::from(number.0));
            let Some(worker) = slot.and_then(|slot| slot.worker.as_mut()) else {
                continue;
            };
            worker
                .handed
                .iter_mut()
                .for_each(|task| task.fate = Fate::Closed);
            let grace_ms = pool.options.kill_grace_ms;
            let actions = match worker.phase {
                // Nothing of the pool has begun there, so nothing needs time to end well.
                Phase::Starting => vec![worker.kill(0)],
                Phase::Ready if worker.is_busy() => worker.kill_if_fated(self.now, grace_ms),
                Phase::Ready => vec![worker.stop()],
                Phase::Stopping | Phase::Killed => Vec::new(),
            };
            self.out.extend(actions);
        }
        self.forget_if_over(id);
    }

    /// Forgets a closed pool when its last worker is gone.
    pub(crate) fn forget_if_over(&mut self, id: PoolId) {
        let over = |pool: &Pool| pool.closing && pool.crew.is_empty();
        if self.pools.get(&id).is_some_and(over) {
            self.pools.remove(&id);
            self.wanting.remove(&id);
            self.dirty.remove(&id);
            self.note(|| Fact::PoolOver { pool: id });
            self.out.push_back(Action::PoolClosed { pool: id });
        }
    }

    pub(crate) fn on_define(&mut self, id: PoolId, spec: SpecId, body: Box<Spec>) {
        self.note(|| Fact::Spec {
            pool: id,
            spec,
            body: body.clone(),
        });
        let Some(pool) = self.pools.get_mut(&id) else {
            return;
        };
        let content = body.content;
        let said_again = pool.specs.insert(spec, body).is_some();
        if let Some(hash) = content.filter(|_| !said_again) {
            pool.awaited += 1;
            self.out.push_back(Action::FetchContent { pool: id, hash });
        }
    }

    pub(crate) fn on_allot(&mut self, id: PoolId, slots: u16, allotment: u64) {
        let Some(pool) = self.pools.get_mut(&id) else {
            // It is over here, so nothing of it runs: true whatever the number.
            self.send(FromAgent::Allotted {
                pool: id,
                slots,
                allotment,
            });
            return;
        };
        if allotment < pool.allotment {
            return;
        }
        pool.allotment = allotment;
        pool.allotted = if pool.closing { 0 } else { slots };
        pool.allotted_owed = Some(u16::MAX);
        let slots = pool.allotted;
        self.note(|| Fact::Allotted { pool: id, slots });
        self.touch_all_in_want(id);
    }

    pub(crate) fn on_content(&mut self, id: PoolId, error: Option<String>) {
        let Some(pool) = self.pools.get_mut(&id) else {
            return;
        };
        match error {
            None => pool.awaited = pool.awaited.saturating_sub(1),
            Some(error) => pool.unfit = Some(format!("its program cannot be had: {error}")),
        }
        self.dirty.insert(id);
    }

    pub(crate) fn on_pool_unfit(&mut self, id: PoolId, reason: String) {
        if let Some(pool) = self.pools.get_mut(&id) {
            pool.unfit.get_or_insert(reason);
            self.dirty.insert(id);
        }
    }

    pub(crate) fn on_grant(&mut self, id: PoolId, rows: &[GrantRow], payloads: Vec<Bytes>) {
        let Some(pool) = self.pools.get_mut(&id).filter(|pool| !pool.closing) else {
            // Overtaken by its pool's end. Given back, so that nobody waits for it.
            let rows = rows.iter().map(row_of_grant).collect();
            self.send(FromAgent::Retracted {
                pool: id,
                retraction: 0,
                rows,
            });
            return;
        };
        let mut defined = None;
        pool.queue.reserve(rows.len());
        for (row, payload) in rows.iter().zip(payloads) {
            if !pool.tombstones.is_empty() && pool.has_tombstone(row) {
                continue;
            }
            if defined != Some(row.spec) && !pool.specs.contains_key(&row.spec) {
                let why = format!("its specification {} has not come to the host", row.spec);
                let outcome = Outcome::NotStarted;
                pool.reports
                    .add_unstarted(row.index, row.attempt, outcome, &Loss::because(why));
                continue;
            }
            defined = Some(row.spec);
            pool.queue.push_back(Queued {
                index: row.index,
                attempt: row.attempt,
                spec: row.spec,
                payload: Some(payload),
            });
        }
        self.dirty.insert(id);
    }

    pub(crate) fn on_retract(&mut self, id: PoolId, count: u32, retraction: u64) {
        let Some(pool) = self.pools.get_mut(&id) else {
            self.send(FromAgent::Retracted {
                pool: id,
                retraction,
                rows: Vec::new(),
            });
            return;
        };
        pool.retractions.push_back(Retraction {
            number: retraction,
            count,
        });
        let wanted: usize = pool.retractions.iter().map(|one| one.count as usize).sum();
        let mut missing = wanted.saturating_sub(pool.queue.len());
        for number in &pool.crew {
            let slot = self.slots.get_mut(usize::from(number.0));
            let worker = slot.and_then(|slot| slot.worker.as_mut());
            if let Some(worker) = worker.filter(|_| missing > 0) {
                let ahead = worker.handed.len().saturating_sub(1);
                self.out.extend(worker.give_back(missing));
                missing = missing.saturating_sub(ahead);
            }
        }
        self.dirty.insert(id);
    }

    pub(crate) fn on_cancel(&mut self, id: PoolId, rows: &[TaskRow]) {
        let Some(pool) = self.pools.get_mut(&id) else {
            self.cancel_unknown(id, rows);
            return;
        };
        let mut wanted: BTreeSet<(u64, Attempt)> =
            rows.iter().map(|row| (row.index, row.attempt)).collect();
        let reports = &mut pool.reports;
        pool.queue.retain(|task| {
            let hit = wanted.remove(&(task.index, task.attempt));
            if hit {
                reports.add_cancelled(task.index, task.attempt);
            }
            !hit
        });
        let grace_ms = pool.options.kill_grace_ms;
        for number in &pool.crew {
            let slot = self.slots.get_mut(usize::from(number.0));
            if let Some(worker) = slot.and_then(|slot| slot.worker.as_mut()) {
                self.out
                    .extend(worker.cancel(&mut wanted, self.now, grace_ms));
            }
        }
        wanted.retain(|key| !pool.reports.holds(key));
        for (index, attempt) in wanted {
            pool.bury(TaskRow { index, attempt });
            pool.reports.add_cancelled(index, attempt);
        }
        #[cfg(feature = "planted-bugs")]
        if self.options.planted == Some(crate::PlantedBug::TombstoneDropped) {
            pool.tombstones.clear();
        }
        self.dirty.insert(id);
    }

    /// Answers for a pool that is over: there is no place to keep the answer, and nobody to miss it.
    fn cancel_unknown(&mut self, id: PoolId, rows: &[TaskRow]) {
        let mut reports = Reports::default();
        for row in rows {
            reports.add_cancelled(row.index, row.attempt);
        }
        let messages = reports.take_fresh(id);
        messages.into_iter().for_each(|message| self.send(message));
    }
}

pub(crate) fn row_of(task: &Queued) -> TaskRow {
    TaskRow {
        index: task.index,
        attempt: task.attempt,
    }
}

fn row_of_grant(row: &GrantRow) -> TaskRow {
    TaskRow {
        index: row.index,
        attempt: row.attempt,
    }
}
