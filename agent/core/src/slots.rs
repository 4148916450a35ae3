//! The workers: one at most a slot, each for one pool, and the tasks it has in hand.

use std::collections::VecDeque;

use bytes::Bytes;
use fleetpool_proto::{
    Attempt, AttemptId, PoolId, SlotNo, SpecId, TaskId, Timestamp, message::GrantRow,
};

use crate::{
    core::AgentCore,
    event::{Action, TaskStart},
    facts::Fact,
    timers::KILL_WAITS_FOR_GIVE_BACK,
};

/// A slot of the host.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    /// Workers that the slot has had.
    pub(crate) generation: u64,
    pub(crate) worker: Option<Worker>,
}

/// Where a worker is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Asked for.
    Starting,
    /// Takes tasks.
    Ready,
    /// Asked to end, with nothing in hand.
    Stopping,
    /// Being killed.
    Killed,
}

/// What is to become of a task in a worker's hands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It ends by itself.
    Runs,
    /// It is killed, or not begun, and reported as cancelled.
    Cancelled,
    /// It is killed and reported as timed out.
    TimedOut,
    /// The lease has ended: it is killed, or not begun, and never mentioned again.
    Fenced,
    /// Its pool is over: it is killed, and nobody wants to know.
    Closed,
}

/// A granted attempt that has not begun.
#[derive(Clone, Debug)]
pub(crate) struct Queued {
    pub(crate) index: u64,
    pub(crate) attempt: Attempt,
    pub(crate) spec: SpecId,
    /// Its argument; `None` where an earlier life of this agent has handed it on, and it cannot be begun again here.
    pub(crate) payload: Option<Bytes>,
}

impl Queued {
    pub(crate) fn id(&self, pool: PoolId) -> AttemptId {
        AttemptId {
            task: TaskId::new(pool, self.index),
            attempt: self.attempt,
        }
    }

    /// All of it but its argument.
    pub(crate) fn row(&self) -> GrantRow {
        GrantRow {
            index: self.index,
            attempt: self.attempt,
            spec: self.spec,
        }
    }

    pub(crate) fn start(&self, pool: PoolId) -> TaskStart {
        TaskStart {
            attempt: self.id(pool),
            spec: self.spec,
            payload: self.payload.clone().unwrap_or_default(),
        }
    }
}

/// A task in a worker's hands. The first one runs; whether those behind it have begun, only the worker knows.
#[derive(Debug)]
pub(crate) struct Handed {
    pub(crate) task: Queued,
    pub(crate) fate: Fate,
}

/// A worker.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) slot: SlotNo,
    pub(crate) generation: u64,
    pub(crate) pool: PoolId,
    /// A process a task (`command`), so that a task can be killed without its worker.
    pub(crate) command: bool,
    pub(crate) phase: Phase,
    pub(crate) pid: u32,
    /// The process of the running task where it has its own; 0: not known.
    pub(crate) task_pid: u32,
    pub(crate) handed: VecDeque<Handed>,
    /// Tasks it was handed in its life and has kept.
    pub(crate) taken: u32,
    /// When the first task in hand became the first.
    pub(crate) first_since: Timestamp,
    /// The coordinator knows that the first one runs.
    pub(crate) told: bool,
    /// A `GiveBack` waits for its answer.
    pub(crate) asked: bool,
    /// The first task's `KillTask` is on its way.
    pub(crate) task_killed: bool,
    /// When the worker is killed although it has not given back what it holds.
    pub(crate) kill_by: Option<Timestamp>,
}

impl Worker {
    pub(crate) fn new(slot: SlotNo, generation: u64, pool: PoolId, command: bool) -> Self {
        Self {
            slot,
            generation,
            pool,
            command,
            phase: Phase::Starting,
            pid: 0,
            task_pid: 0,
            handed: VecDeque::new(),
            taken: 0,
            first_since: Timestamp::default(),
            told: false,
            asked: false,
            task_killed: false,
            kill_by: None,
        }
    }

    /// Whether it runs a task, or may at any instant.
    pub(crate) fn is_busy(&self) -> bool {
        !self.handed.is_empty()
    }

    /// Whether it waits for tasks.
    pub(crate) fn is_idle(&self) -> bool {
        self.phase == Phase::Ready && self.handed.is_empty()
    }

    /// Whether it is on its way out.
    pub(crate) fn is_leaving(&self) -> bool {
        matches!(self.phase, Phase::Stopping | Phase::Killed)
    }

    /// The running task's process.
    pub(crate) fn running_pid(&self) -> u32 {
        if self.command {
            self.task_pid
        } else {
            self.pid
        }
    }

    /// Asks for the last `count` tasks back, unless it has been asked already or has only what it runs.
    pub(crate) fn give_back(&mut self, count: usize) -> Option<Action> {
        let count = count.min(self.handed.len().saturating_sub(1));
        if count == 0 || self.asked || self.phase != Phase::Ready {
            return None;
        }
        self.asked = true;
        Some(Action::GiveBack {
            slot: self.slot,
            generation: self.generation,
            count: u32::try_from(count).unwrap_or(u32::MAX),
        })
    }

    /// Asks for what is not to begin, which is all from the first such task on.
    pub(crate) fn give_back_fated(&mut self) -> Option<Action> {
        let mut behind = self.handed.iter().skip(1);
        let at = behind.position(|handed| handed.fate != Fate::Runs)?;
        self.give_back(self.handed.len() - 1 - at)
    }

    /// Ends the running task when its fate is not to run. A worker that would end with it, and has more in hand,
    /// is asked for that first: so nothing can begin that is then killed for another's sake.
    pub(crate) fn kill_if_fated(&mut self, now: Timestamp, grace_ms: u32) -> Vec<Action> {
        let Some(fate) = self.handed.front().map(|first| first.fate) else {
            return Vec::new();
        };
        let action = match fate {
            Fate::Runs => None,
            _ if self.phase != Phase::Ready => None,
            _ if self.command && self.task_killed => None,
            _ if self.command => return self.kill_task(grace_ms),
            Fate::Fenced | Fate::Closed => Some(self.kill(grace_ms)),
            Fate::Cancelled | Fate::TimedOut if self.handed.len() == 1 => Some(self.kill(grace_ms)),
            Fate::Cancelled | Fate::TimedOut => {
                self.kill_by.get_or_insert(now + KILL_WAITS_FOR_GIVE_BACK);
                self.give_back(self.handed.len())
            }
        };
        action.into_iter().collect()
    }

    /// Ends the running task, and leaves the worker. First it gives back what is not to begin: the next task begins as
    /// soon as this one is gone.
    pub(crate) fn kill_task(&mut self, grace_ms: u32) -> Vec<Action> {
        let back = self.give_back_fated();
        let first = self.handed.front();
        let kill = first.map(|first| Action::KillTask {
            slot: self.slot,
            generation: self.generation,
            attempt: first.task.id(self.pool),
            grace_ms,
        });
        self.task_killed = true;
        back.into_iter().chain(kill).collect()
    }

    /// Ends the worker and whatever it runs.
    pub(crate) fn kill(&mut self, grace_ms: u32) -> Action {
        self.phase = Phase::Killed;
        self.kill_by = None;
        Action::KillWorker {
            slot: self.slot,
            generation: self.generation,
            grace_ms,
        }
    }

    /// Lets the idle worker go.
    pub(crate) fn stop(&mut self) -> Action {
        self.phase = Phase::Stopping;
        Action::StopWorker {
            slot: self.slot,
            generation: self.generation,
        }
    }

    /// The first task in hand is another one now.
    pub(crate) fn next_first(&mut self, now: Timestamp) {
        self.first_since = now;
        self.told = false;
        self.task_killed = false;
        self.task_pid = 0;
        if self.phase == Phase::Ready {
            self.kill_by = None;
        }
    }
}

impl AgentCore {
    /// Puts a new worker of a pool on the first empty slot.
    pub(crate) fn start_worker(&mut self, pool: PoolId, command: bool) -> Option<SlotNo> {
        let number = self.empty.pop_first()?;
        let slot = self.slots.get_mut(usize::from(number.0))?;
        slot.generation += 1;
        let generation = slot.generation;
        slot.worker = Some(Worker::new(number, generation, pool, command));
        self.note(|| Fact::Worker {
            slot: number,
            generation,
            pool,
        });
        self.out.push_back(Action::StartWorker {
            slot: number,
            generation,
            pool,
        });
        Some(number)
    }

    pub(crate) fn on_worker_ready(&mut self, slot: SlotNo, generation: u64, pid: u32) {
        let Some(worker) = self.worker(slot, generation) else {
            return;
        };
        worker.pid = pid;
        if worker.phase != Phase::Starting {
            return;
        }
        worker.phase = Phase::Ready;
        let id = worker.pool;
        if let Some(pool) = self.pools.get_mut(&id) {
            pool.starts.succeeded();
        }
        self.touch_all_in_want(id);
    }

    pub(crate) fn on_task_pid(
        &mut self,
        slot: SlotNo,
        generation: u64,
        attempt: AttemptId,
        pid: u32,
    ) {
        let Some(worker) = self.worker(slot, generation) else {
            return;
        };
        let pool = worker.pool;
        if worker
            .handed
            .front()
            .is_some_and(|first| first.task.id(pool) == attempt)
        {
            worker.task_pid = pid;
        }
    }

    /// A slot or a worker may have become free: whoever waits for one looks again.
    pub(crate) fn touch_all_in_want(&mut self, pool: PoolId) {
        self.dirty.insert(pool);
        self.dirty.append(&mut self.wanting);
    }
}
