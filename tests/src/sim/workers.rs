//! What the spawner, the keepers and the workers of a host do: start, run, fail, print, die.

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use fleetpool_agent_core::{EndedTask, Event, TaskStart, WorkerEnd};
use fleetpool_proto::{
    AttemptId, Outcome, PoolId, SlotNo,
    message::{FromAgent, OutputRow, Stream},
    pool::Runtime,
};

use super::{
    agents::Mail,
    engine::{Engine, What, us},
    plan::Lengths,
    truth::result,
    wire::encode,
};
use crate::chance::Chance;

/// Longest time that a worker takes to start, in microseconds.
const START_US_MAX: u64 = 30_000;
/// Longest task, in microseconds.
const LENGTH_US_MAX: u64 = 60_000_000;
/// One in this many processes ignores TERM and is only ended by KILL.
const STUBBORN_ONE_IN: u64 = 4;
/// Longest time that a keeper takes to end all that is below it, in microseconds.
const FENCED_US_MAX: u64 = 50_000;

/// A worker process, or the keeper of a command slot.
#[derive(Debug)]
pub(super) struct Worker {
    /// Unlike any other worker's of the world.
    pub(super) id: u64,
    generation: u64,
    command: bool,
    /// Its keeper ends it when the lease is over.
    fenced: bool,
    ready: bool,
    /// It begins nothing more.
    pub(super) dying: bool,
    todo: VecDeque<TaskStart>,
    running: Option<AttemptId>,
    runs: u64,
    last_order: u64,
    last_word: u64,
}

/// What an agent asks of a worker.
#[derive(Debug)]
pub(super) enum Order {
    Run(Vec<TaskStart>),
    GiveBack(u32),
    KillTask(AttemptId, u32),
    Kill(u32),
    Stop,
}

/// What happens to a worker.
#[derive(Debug)]
pub(super) enum ToWorker {
    Started(SlotNo),
    Order(SlotNo, Order),
    /// The `n`-th run of it is over, or killed.
    Over(SlotNo, u64, bool),
    Gone(SlotNo),
}

/// What a task does in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Done,
    Failed,
    Crash,
}

impl Worker {
    /// When an order that would come at `at` does: orders keep their order.
    pub(super) fn order_at(&mut self, at: u64) -> u64 {
        self.last_order = self.last_order.max(at);
        self.last_order
    }

    fn end(&self, signal: Option<i32>) -> WorkerEnd {
        WorkerEnd {
            signal,
            pid: self.pid(),
            ..WorkerEnd::default()
        }
    }

    fn pid(&self) -> u32 {
        1 + u32::try_from(self.id % 1_000_000).unwrap_or_default()
    }
}

impl Engine {
    pub(super) fn start_worker(
        &mut self,
        host: usize,
        slot: SlotNo,
        generation: u64,
        pool: PoolId,
    ) {
        let options = self.hosts[host]
            .core
            .as_ref()
            .and_then(|core| core.pool_options(pool));
        let Some(options) = options else {
            return self.check(Err(format!(
                "host {host} starts a worker of {pool}, which it does not know"
            )));
        };
        let command = options.runtime == Runtime::Command;
        let fenced = options.retries.host_lost > 0;
        let id = self.chance.next();
        let worker = Worker {
            id,
            generation,
            command,
            fenced,
            ready: false,
            dying: false,
            todo: VecDeque::new(),
            running: None,
            runs: 0,
            last_order: 0,
            last_word: 0,
        };
        if self.hosts[host].workers.insert(slot, worker).is_some() {
            self.check(Err(format!("host {host} starts a second worker on {slot}")));
        }
        let wait = self.chance.within(500..START_US_MAX);
        self.after(wait, What::Worker(host, id, ToWorker::Started(slot)));
    }

    pub(super) fn reach_worker(&mut self, host: usize, id: u64, message: ToWorker) {
        let slot = match &message {
            ToWorker::Started(slot)
            | ToWorker::Order(slot, _)
            | ToWorker::Over(slot, ..)
            | ToWorker::Gone(slot) => *slot,
        };
        let Some(worker) = self.hosts[host]
            .workers
            .get_mut(&slot)
            .filter(|worker| worker.id == id)
        else {
            return;
        };
        match message {
            ToWorker::Started(_) => self.worker_started(host, slot),
            ToWorker::Order(_, order) => self.obey(host, slot, order),
            ToWorker::Over(_, run, killed) if worker.runs == run && worker.running.is_some() => {
                self.task_over(host, slot, killed);
            }
            ToWorker::Over(..) => {}
            ToWorker::Gone(_) => self.worker_gone(host, slot, Some(9)),
        }
    }

    fn worker_started(&mut self, host: usize, slot: SlotNo) {
        let unfit = self.hosts[host].plan.unfit;
        let Some(worker) = self.hosts[host].workers.get_mut(&slot) else {
            return;
        };
        let (generation, pid) = (worker.generation, worker.pid());
        if unfit {
            self.say(
                host,
                slot,
                Event::WorkerUnfit {
                    slot,
                    generation,
                    reason: "no module named x".to_owned(),
                },
            );
            self.hosts[host].workers.remove(&slot);
            return;
        }
        worker.ready = true;
        self.say(
            host,
            slot,
            Event::WorkerReady {
                slot,
                generation,
                pid,
            },
        );
    }

    fn obey(&mut self, host: usize, slot: SlotNo, order: Order) {
        let Some(worker) = self.hosts[host].workers.get_mut(&slot) else {
            return;
        };
        let (id, generation) = (worker.id, worker.generation);
        match order {
            Order::Run(tasks) => {
                worker.todo.extend(tasks);
                self.begin_next(host, slot);
            }
            Order::GiveBack(count) => {
                let keep = worker.todo.len().saturating_sub(count as usize);
                let attempts = worker.todo.drain(keep..).map(|task| task.attempt).collect();
                self.say(
                    host,
                    slot,
                    Event::GivenBack {
                        slot,
                        generation,
                        attempts,
                    },
                );
            }
            Order::KillTask(attempt, grace_ms) => {
                if worker.running == Some(attempt) {
                    let run = worker.runs;
                    let (wait, _) = self.dies_after(grace_ms);
                    self.after(
                        wait,
                        What::Worker(host, id, ToWorker::Over(slot, run, true)),
                    );
                }
            }
            Order::Kill(grace_ms) => {
                let (wait, stubborn) = self.dies_after(grace_ms);
                if let Some(worker) = self.hosts[host].workers.get_mut(&slot) {
                    worker.dying |= !stubborn;
                }
                self.after(wait, What::Worker(host, id, ToWorker::Gone(slot)));
            }
            Order::Stop => self.worker_gone(host, slot, None),
        }
    }

    /// How long a process lives after TERM, and whether it ignores it.
    fn dies_after(&mut self, grace_ms: u32) -> (u64, bool) {
        let grace = u64::from(grace_ms) * 1000;
        if self.chance.once_in(STUBBORN_ONE_IN) {
            return (grace + 1000, true);
        }
        (self.chance.within(100..5000), false)
    }

    fn begin_next(&mut self, host: usize, slot: SlotNo) {
        let Some(worker) = self.hosts[host].workers.get_mut(&slot) else {
            return;
        };
        if worker.running.is_some() || worker.dying || !worker.ready {
            return;
        }
        let Some(task) = worker.todo.pop_front() else {
            return;
        };
        let attempt = task.attempt;
        worker.running = Some(attempt);
        worker.runs += 1;
        let (id, run, generation) = (worker.id, worker.runs, worker.generation);
        let (command, pid) = (worker.command, worker.pid());
        let now = self.now;
        self.trace.note(now, 3, "begin", attempt.task.index);
        self.trace
            .tell(now, || format!("host {host} {slot}: {attempt} begins"));
        let broken = self.truth.begin(now, host, slot, attempt);
        self.check(broken);
        let number = usize::try_from(attempt.task.pool.0 - 1).unwrap_or_default();
        let length = self.length_us(number, attempt.task.index);
        self.after(
            length,
            What::Worker(host, id, ToWorker::Over(slot, run, false)),
        );
        if command {
            self.say(
                host,
                slot,
                Event::TaskPid {
                    slot,
                    generation,
                    attempt,
                    pid,
                },
            );
        }
    }

    fn task_over(&mut self, host: usize, slot: SlotNo, killed: bool) {
        let now = self.now;
        let Some(worker) = self.hosts[host].workers.get_mut(&slot) else {
            return;
        };
        let Some(attempt) = worker.running else {
            return;
        };
        let (generation, pid, command) = (worker.generation, worker.pid(), worker.command);
        let end = if killed {
            End::Failed
        } else {
            self.end_of(attempt)
        };
        if end == End::Crash && !command {
            return self.worker_gone(host, slot, Some(11));
        }
        let Some(worker) = self.hosts[host].workers.get_mut(&slot) else {
            return;
        };
        worker.running = None;
        self.trace.note(now, 3, "end", attempt.task.index);
        self.trace.tell(now, || {
            format!("host {host} {slot}: {attempt} ends, killed: {killed}")
        });
        self.truth.gone(now, host, slot, attempt, !killed);
        self.print(host, attempt, pid);
        let number = usize::try_from(attempt.task.pool.0 - 1).unwrap_or_default();
        let done = end == End::Done;
        self.say(
            host,
            slot,
            Event::TaskEnded {
                slot,
                generation,
                task: EndedTask {
                    attempt,
                    outcome: if done { Outcome::Done } else { Outcome::Failed },
                    payload: if done { result(attempt) } else { Bytes::new() },
                    pid,
                    started_us: 1 + now,
                    run_us: self.length_us(number, attempt.task.index),
                },
            },
        );
        self.begin_next(host, slot);
    }

    /// Keepers kill what may run again, and say so first.
    pub(super) fn keepers_fence(&mut self, host: usize) {
        let workers = self.hosts[host].workers.iter_mut();
        let fenced: Vec<_> = workers
            .filter(|(_, worker)| worker.fenced)
            .map(|(slot, worker)| {
                worker.dying = true;
                (*slot, worker.id, worker.generation)
            })
            .collect();
        for (slot, id, generation) in fenced {
            self.say(host, slot, Event::WorkerFenced { slot, generation });
            let wait = self.chance.within(0..FENCED_US_MAX);
            self.after(wait, What::Worker(host, id, ToWorker::Gone(slot)));
        }
    }

    /// The process and all below it are gone.
    pub(super) fn worker_gone(&mut self, host: usize, slot: SlotNo, signal: Option<i32>) {
        let Some(worker) = self.hosts[host].workers.get_mut(&slot) else {
            return;
        };
        let (generation, end) = (worker.generation, worker.end(signal));
        if let Some(attempt) = worker.running.take() {
            let now = self.now;
            self.trace.tell(now, || {
                format!("host {host} {slot}: {attempt} dies with its worker")
            });
            self.truth.gone(now, host, slot, attempt, false);
        }
        self.say(
            host,
            slot,
            Event::WorkerEnded {
                slot,
                generation,
                end,
            },
        );
        self.hosts[host].workers.remove(&slot);
    }

    /// Tells the agent, after all that the worker has said before.
    fn say(&mut self, host: usize, slot: SlotNo, event: Event) {
        let hop = self.chance.within(10..80);
        let (now, life) = (self.now, self.hosts[host].life);
        let Some(worker) = self.hosts[host].workers.get_mut(&slot) else {
            return;
        };
        worker.last_word = worker.last_word.max(now + hop);
        let at = worker.last_word;
        self.at(at, What::Agent(host, life, Mail::Told(event)));
    }

    fn print(&mut self, host: usize, attempt: AttemptId, pid: u32) {
        let number = usize::try_from(attempt.task.pool.0 - 1).unwrap_or_default();
        let one_in = self.world.pools[number].prints_one_in;
        if !self.chance.once_in(one_in) || self.hosts[host].paused {
            return;
        }
        let row = OutputRow {
            index: attempt.task.index,
            attempt: attempt.attempt,
            stream: Stream::Stdout,
            pid,
            ..OutputRow::default()
        };
        let (parcel, has_body) = encode(FromAgent::Output {
            number: 0,
            pool: attempt.task.pool,
            rows: vec![row],
            payloads: vec![Bytes::from_static(b"a line\n")].into(),
        });
        self.send_up(host, parcel, has_body);
    }

    /// How long a task runs: the same wherever and whenever it does.
    pub(super) fn length_us(&self, pool: usize, index: u64) -> u64 {
        let mut chance = Chance::of(&[self.world.seed, 2, pool as u64, index]);
        match self.world.pools[pool].lengths {
            Lengths::Between(least, most) => chance.within(us(least)..us(most) + 1),
            Lengths::HeavyTailed(usual) => {
                let mut length = usual.max(Duration::from_micros(1));
                while chance.once_in(10) && us(length) < LENGTH_US_MAX {
                    length *= 10;
                }
                let length = us(length);
                chance
                    .within(length / 2..length * 3 / 2 + 1)
                    .min(LENGTH_US_MAX)
            }
        }
    }

    fn end_of(&self, attempt: AttemptId) -> End {
        let number = usize::try_from(attempt.task.pool.0 - 1).unwrap_or_default();
        let plan = &self.world.pools[number];
        let numbers = [
            self.world.seed,
            3,
            attempt.task.pool.0,
            attempt.task.index,
            u64::from(attempt.attempt.0),
        ];
        let mut chance = Chance::of(&numbers);
        if chance.once_in(plan.crashes_one_in) {
            End::Crash
        } else if chance.once_in(plan.fails_one_in) {
            End::Failed
        } else {
            End::Done
        }
    }
}
