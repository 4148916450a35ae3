//! Tasks that end: by themselves, by their worker's death, because they are killed; and those that come back
//! unbegun.

use std::collections::{BTreeSet, VecDeque};

use fleetpool_proto::{
    Attempt, AttemptId, Outcome, SlotNo, Timestamp,
    command::CommandEnd,
    frame::{decode_header, encode_header},
    message::ReportRow,
    outcome::Loss,
};

use crate::{
    core::AgentCore,
    dispatch::{each_worker, worker_of},
    event::{Action, EndedTask, TaskStart, WorkerEnd},
    facts::Fact,
    link::WallClock,
    pools::{Pool, row_of},
    slots::{Fate, Handed, Phase, Queued, Worker},
};

impl Worker {
    /// Takes a task in hand.
    pub(crate) fn take(&mut self, task: Queued) -> TaskStart {
        let start = task.start(self.pool);
        self.taken = self.taken.saturating_add(1);
        self.handed.push_back(Handed {
            task,
            fate: Fate::Runs,
        });
        start
    }

    /// Whether tasks may be put behind those in hand.
    pub(crate) fn takes_more(&self) -> bool {
        let fated = |first: &Handed| first.fate != Fate::Runs;
        self.phase == Phase::Ready && !self.asked && !self.handed.front().is_some_and(fated)
    }

    /// Marks the tasks in hand that `wanted` names, takes them out of it, and goes about ending them.
    pub(crate) fn cancel(
        &mut self,
        wanted: &mut BTreeSet<(u64, Attempt)>,
        now: Timestamp,
        grace_ms: u32,
    ) -> Vec<Action> {
        let mut lowest = None;
        for (at, handed) in self.handed.iter_mut().enumerate() {
            if wanted.remove(&(handed.task.index, handed.task.attempt)) {
                lowest.get_or_insert(at);
                if handed.fate == Fate::Runs {
                    handed.fate = Fate::Cancelled;
                }
            }
        }
        match lowest {
            Some(0) => self.kill_if_fated(now, grace_ms),
            Some(at) => Vec::from_iter(self.give_back(self.handed.len() - at)),
            None => Vec::new(),
        }
    }

    /// Takes an ended task out of hand; `None` when it is not there (any more).
    fn let_end(&mut self, attempt: AttemptId, now: Timestamp) -> Option<Handed> {
        let pool = self.pool;
        let is_it = |handed: &Handed| handed.task.id(pool) == attempt;
        let at = if self.handed.front().is_some_and(is_it) {
            0
        } else {
            self.handed.iter().position(is_it)?
        };
        let handed = self.handed.remove(at);
        if at == 0 {
            self.next_first(now);
        }
        handed
    }

    /// Takes what the worker gave back out of hand, in the order it was handed.
    fn let_back(&mut self, attempts: &[AttemptId]) -> Vec<Handed> {
        let attempts: BTreeSet<AttemptId> = attempts.iter().copied().collect();
        let pool = self.pool;
        let (back, keep): (VecDeque<_>, VecDeque<_>) = self
            .handed
            .drain(..)
            .partition(|handed| attempts.contains(&handed.task.id(pool)));
        self.handed = keep;
        let count = u32::try_from(back.len()).unwrap_or(u32::MAX);
        self.taken = self.taken.saturating_sub(count);
        back.into()
    }
}

impl AgentCore {
    pub(crate) fn on_task_ended(&mut self, slot: SlotNo, generation: u64, ended: EndedTask) {
        let now = self.now;
        let Some(worker) = self.worker(slot, generation) else {
            return;
        };
        let id = worker.pool;
        let Some(handed) = worker.let_end(ended.attempt, now) else {
            return;
        };
        let Some(pool) = self.pools.get_mut(&id) else {
            return;
        };
        let Some(worker) = worker_of(&mut self.slots, slot) else {
            return;
        };
        pool.pace.observe(ended.run_us);
        if !pool.report_end(slot, &handed, ended)
            && let Some(facts) = &mut self.facts
        {
            facts.push(dropped(slot, now, &[handed]));
        }
        let next = worker.handed.front_mut();
        if let Some(next) = next.filter(|next| next.fate == Fate::Fenced) {
            // It has begun before it could be taken back; where that is for good, it goes on.
            if !pool.is_rerunnable() {
                next.fate = Fate::Runs;
            }
        }
        self.out
            .extend(worker.kill_if_fated(now, pool.options.kill_grace_ms));
        if !worker.is_busy() {
            pool.busy -= 1;
            self.touch_all_in_want(id);
        } else {
            self.dirty.insert(id);
        }
    }

    pub(crate) fn on_given_back(&mut self, slot: SlotNo, generation: u64, attempts: &[AttemptId]) {
        let now = self.now;
        let Some(worker) = self.worker(slot, generation) else {
            return;
        };
        let id = worker.pool;
        worker.asked = false;
        let was_busy = worker.is_busy();
        let back = worker.let_back(attempts);
        if let Some(facts) = &mut self.facts {
            facts.push(dropped(slot, now, &back));
        }
        let Some(worker) = self.worker(slot, generation) else {
            return;
        };
        let again = worker.give_back_fated();
        let idle = was_busy && !worker.is_busy();
        let Some(pool) = self.pools.get_mut(&id) else {
            return;
        };
        self.out.extend(again);
        pool.take_back(back);
        if let Some(worker) = worker_of(&mut self.slots, slot) {
            self.out
                .extend(worker.kill_if_fated(now, pool.options.kill_grace_ms));
        }
        pool.busy -= u16::from(idle);
        self.touch_all_in_want(id);
    }

    pub(crate) fn on_worker_unfit(&mut self, slot: SlotNo, generation: u64, reason: String) {
        let Some(worker) = self.worker(slot, generation) else {
            return;
        };
        let wanted = worker.phase == Phase::Starting;
        self.worker_gone(slot, &WorkerEnd::default(), wanted.then_some(reason));
    }

    pub(crate) fn on_worker_ended(&mut self, slot: SlotNo, generation: u64, end: &WorkerEnd) {
        let Some(worker) = self.worker(slot, generation) else {
            return;
        };
        let (id, unready) = (worker.pool, worker.phase == Phase::Starting);
        let initializer = self
            .pools
            .get(&id)
            .and_then(|pool| pool.options.initializer.as_ref());
        let during = initializer.map_or(String::new(), |initializer| {
            format!(", in its initializer {} or before it", initializer.function)
        });
        let reason =
            unready.then(|| format!("its worker {} before it was ready{during}", how(end)));
        self.worker_gone(slot, end, reason);
    }

    /// The worker's slot is empty: what it ran has ended with it, what it had not begun waits again.
    pub(crate) fn worker_gone(
        &mut self,
        slot: SlotNo,
        end: &WorkerEnd,
        failed_to_start: Option<String>,
    ) {
        let entry = self.slots.get_mut(usize::from(slot.0));
        let Some(mut worker) = entry.and_then(|slot| slot.worker.take()) else {
            return;
        };
        self.empty.insert(slot);
        self.note(|| Fact::WorkerOver { slot });
        let id = worker.pool;
        let Some(pool) = self.pools.get_mut(&id) else {
            return;
        };
        pool.crew.retain(|&number| number != slot);
        if let Some(first) = worker.handed.pop_front() {
            pool.busy -= 1;
            let ran = Ran {
                since: worker.first_since,
                now: self.now,
                wall: &self.wall,
            };
            pool.report_death(&worker, &first, end, &ran);
            pool.take_back(worker.handed.drain(..).collect());
        }
        if let Some(reason) = failed_to_start {
            let mut works = false;
            each_worker(pool, &mut self.slots, |worker| {
                works |= worker.phase == Phase::Ready;
            });
            if pool.starts.failed(self.now) && !works {
                pool.unfit.get_or_insert(reason);
            }
        }
        self.touch_all_in_want(id);
        self.forget_if_over(id);
    }
}

/// From when to when a task ran, for reports that its worker could not make.
struct Ran<'a> {
    since: Timestamp,
    now: Timestamp,
    wall: &'a WallClock,
}

impl Pool {
    /// What has not begun waits again, unless it is not to run.
    fn take_back(&mut self, back: Vec<Handed>) {
        for handed in back.iter().filter(|handed| handed.fate == Fate::Cancelled) {
            self.reports
                .add_cancelled(handed.task.index, handed.task.attempt);
        }
        let runs = back.into_iter().filter(|handed| handed.fate == Fate::Runs);
        self.requeue(runs.map(|handed| handed.task));
    }

    /// Whether anybody wants to know.
    fn report_end(&mut self, slot: SlotNo, handed: &Handed, ended: EndedTask) -> bool {
        let mut row = ReportRow {
            index: handed.task.index,
            attempt: handed.task.attempt,
            outcome: ended.outcome,
            slot,
            pid: ended.pid,
            started_us: ended.started_us,
            run_us: ended.run_us,
        };
        let mut payload = ended.payload;
        match handed.fate {
            Fate::Fenced | Fate::Closed => return false,
            Fate::Runs => {}
            Fate::Cancelled | Fate::TimedOut => {
                let end: CommandEnd = decode_header(&payload).unwrap_or_default();
                let mut loss = self.loss_of_killed(handed);
                (loss.signal, loss.exit) = (end.signal, end.exit);
                loss.memory_kib_peak = end.memory_kib_peak;
                row.outcome = killed_outcome(handed.fate);
                payload = encode_header(&loss);
            }
        }
        self.reports.add(row, payload);
        true
    }

    /// It was being ended anyway, or was not to be begun.
    pub(crate) fn report_killed(&mut self, slot: SlotNo, handed: &Handed) {
        if matches!(handed.fate, Fate::Cancelled | Fate::TimedOut) {
            let row = ReportRow {
                index: handed.task.index,
                attempt: handed.task.attempt,
                outcome: killed_outcome(handed.fate),
                slot,
                ..ReportRow::default()
            };
            let loss = self.loss_of_killed(handed);
            self.reports.add(row, encode_header(&loss));
        }
    }

    fn report_death(&mut self, worker: &Worker, first: &Handed, end: &WorkerEnd, ran: &Ran<'_>) {
        let (outcome, message) = match first.fate {
            Fate::Fenced | Fate::Closed => return,
            Fate::Cancelled | Fate::TimedOut => (
                killed_outcome(first.fate),
                self.loss_of_killed(first).message,
            ),
            Fate::Runs if end.out_of_memory => (
                Outcome::OutOfMemory,
                "the kernel ended it for want of memory".to_owned(),
            ),
            Fate::Runs => (Outcome::WorkerLost, format!("its worker {}", how(end))),
        };
        let loss = Loss {
            message,
            signal: end.signal,
            exit: end.exit,
            memory_kib_peak: end.memory_kib_peak,
            stderr_tail: end.stderr_tail.clone(),
        };
        let known = [worker.running_pid(), worker.pid, end.pid];
        let row = ReportRow {
            index: first.task.index,
            attempt: first.task.attempt,
            outcome,
            slot: worker.slot,
            pid: known.into_iter().find(|&pid| pid != 0).unwrap_or_default(),
            started_us: ran.wall.us_at(ran.since),
            run_us: fleetpool_proto::time::micros(ran.now.since(ran.since)),
        };
        self.reports.add(row, encode_header(&loss));
    }

    fn loss_of_killed(&self, handed: &Handed) -> Loss {
        if handed.fate == Fate::TimedOut {
            let ms = self.timeout_ms(handed.task.spec);
            return Loss::because(format!("ran longer than its limit of {} s", seconds(ms)));
        }
        Loss::because("cancelled while it ran")
    }
}

fn dropped(slot: SlotNo, now: Timestamp, tasks: &[Handed]) -> Fact {
    Fact::Dropped {
        slot,
        at_us: now.0,
        tasks: tasks.iter().map(|handed| row_of(&handed.task)).collect(),
    }
}

fn killed_outcome(fate: Fate) -> Outcome {
    if fate == Fate::TimedOut {
        Outcome::TimedOut
    } else {
        Outcome::Cancelled
    }
}

/// How a process ended, in words that follow a subject.
fn how(end: &WorkerEnd) -> String {
    match (end.signal, end.exit) {
        (Some(signal), _) => format!("was ended by signal {signal}"),
        (None, Some(status)) => format!("exited with status {status}"),
        (None, None) => "ended".to_owned(),
    }
}

/// Milliseconds as a decimal number of seconds.
fn seconds(ms: u64) -> String {
    match (ms / 1000, ms % 1000) {
        (whole, 0) => whole.to_string(),
        (whole, rest) => format!("{whole}.{rest:03}")
            .trim_end_matches('0')
            .to_owned(),
    }
}
