//! A core that goes on where another ended (G10): its agent's process has been replaced, and its workers have not noticed.
//!
//! Workers are taken over with what they have in hand. Of one that is not there any more, nobody knows how much of that had
//! begun: it is reported as lost.

use fleetpool_proto::{
    AttemptId, Outcome, PoolId, SlotNo, Timestamp,
    message::{GrantRow, ReportRow},
    outcome::Loss,
};

use crate::{
    core::{AgentCore, Options},
    event::{Action, WorkerEnd},
    facts::{Fact, Inventory, PoolEntry, Reported, WorkerEntry},
    pools::Pool,
    slots::{Fate, Handed, Phase, Queued, Worker},
    timers::FENCE_GRACE_MAX,
};

/// A worker that a core has taken over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heir {
    /// Its slot.
    pub slot: SlotNo,
    /// Which worker of that slot.
    pub generation: u64,
    /// Whose.
    pub pool: PoolId,
    /// Its process stays from task to task (`native`, `python`).
    pub stays: bool,
    /// What it had in hand, as far as is known.
    pub handed: Vec<AttemptId>,
}

impl AgentCore {
    /// A core that goes on with what its predecessor has left, and the workers that it has taken over: each is to be told
    /// of as those that it starts. `now`: of the same clock that the predecessor had.
    #[must_use]
    pub fn resume(options: Options, now: Timestamp, left: Inventory) -> (Self, Vec<Heir>) {
        let mut core = Self::new(options);
        core.now = now;
        core.fence = left.fence_us.map(Timestamp);
        // Without one it is over, which is found at the first event.
        core.lease.end = Some(core.fence.map_or(now, |fence| fence - FENCE_GRACE_MAX));
        for (id, entry) in left.pools {
            core.open_again(id, entry);
        }
        for (number, generation) in left.generations {
            if let Some(slot) = core.slots.get_mut(usize::from(number.0)) {
                slot.generation = generation;
            }
        }
        let workers = left.workers.into_iter();
        let heirs = workers.filter_map(|(slot, entry)| core.take_over(slot, entry));
        let heirs = heirs.collect();
        core.dirty.extend(core.pools.keys());
        (core, heirs)
    }

    /// What a successor has to know.
    #[must_use]
    pub fn inventory(&self) -> Inventory {
        let numbered = || {
            self.slots
                .iter()
                .zip(0..)
                .map(|(slot, no)| (SlotNo(no), slot))
        };
        let generations = numbered().map(|(no, slot)| (no, slot.generation));
        let workers =
            numbered().filter_map(|(no, slot)| Some((no, entry_of(slot.worker.as_ref()?))));
        Inventory {
            pools: self
                .pools
                .iter()
                .map(|(id, pool)| (*id, pool.entry()))
                .collect(),
            workers: workers.collect(),
            generations: generations
                .filter(|(_, generation)| *generation > 0)
                .collect(),
            fence_us: self.fence.map(|time| time.0),
        }
    }

    /// What a successor has to know beyond what was taken before. Nothing may be done, nor anything acknowledged, that
    /// follows from it before it is written down.
    pub fn take_facts(&mut self) -> Vec<Fact> {
        self.tell_reports();
        self.facts.as_mut().map(std::mem::take).unwrap_or_default()
    }

    pub(crate) fn on_worker_found(
        &mut self,
        slot: SlotNo,
        generation: u64,
        pid: u32,
        ending: bool,
        taken: u32,
    ) {
        if pid != 0 {
            self.on_worker_ready(slot, generation, pid);
        }
        if let Some(worker) = self.worker(slot, generation) {
            worker.taken = taken;
            if ending {
                worker.phase = Phase::Killed;
            }
        }
    }

    pub(crate) fn on_worker_vanished(&mut self, slot: SlotNo, generation: u64) {
        let Some(worker) = self.worker(slot, generation) else {
            return;
        };
        let (id, handed) = (worker.pool, std::mem::take(&mut worker.handed));
        if let Some(pool) = self.pools.get_mut(&id) {
            pool.busy -= u16::from(!handed.is_empty());
            let wanted = handed.iter().filter(|handed| handed.fate == Fate::Runs);
            let lost: Vec<_> = wanted.map(|handed| handed.task.row()).collect();
            pool.lose(slot, &lost);
            for handed in handed {
                pool.report_killed(slot, &handed);
            }
        }
        self.worker_gone(slot, &WorkerEnd::default(), None);
    }

    pub(crate) fn tells_facts(&self) -> bool {
        self.facts.is_some()
    }

    pub(crate) fn note(&mut self, fact: impl FnOnce() -> Fact) {
        if let Some(facts) = &mut self.facts {
            facts.push(fact());
        }
    }

    pub(crate) fn tell_reports(&mut self) {
        let Some(facts) = &mut self.facts else {
            return;
        };
        for (id, pool) in &mut self.pools {
            let (rows, payloads): (Vec<_>, Vec<_>) = pool.reports.take_news().into_iter().unzip();
            if !rows.is_empty() {
                facts.push(Fact::Reports {
                    pool: *id,
                    at_us: self.now.0,
                    rows,
                    payloads,
                });
            }
        }
    }

    fn open_again(&mut self, id: PoolId, entry: PoolEntry) {
        let mut pool = Pool::new(entry.options, self.tells_facts());
        pool.allotted = entry.allotted;
        pool.reports.take_over(entry.reports.into_items());
        if pool.awaited > 0 {
            self.out.push_back(Action::FetchProgram { pool: id });
        }
        for hash in entry.specs.values().filter_map(|spec| spec.content) {
            pool.awaited += 1;
            self.out.push_back(Action::FetchContent { pool: id, hash });
        }
        pool.specs = entry.specs;
        self.pools.insert(id, pool);
    }

    fn take_over(&mut self, number: SlotNo, entry: WorkerEntry) -> Option<Heir> {
        let id = entry.pool;
        let handed = entry.attempts();
        let pool = self.pools.get_mut(&id)?;
        let Some(slot) = self.slots.get_mut(usize::from(number.0)) else {
            pool.lose(number, &entry.handed);
            self.note(|| Fact::WorkerOver { slot: number });
            return None;
        };
        let command = pool.is_command();
        let mut worker = Worker::new(number, entry.generation, id, command);
        // One that stays is ready when it says so, or has been handed something.
        if command || !entry.handed.is_empty() {
            worker.phase = Phase::Ready;
        }
        worker.first_since = Timestamp(entry.since_us);
        worker.handed = entry.handed.iter().map(handed_before).collect();
        pool.busy += u16::from(worker.is_busy());
        pool.crew.push(number);
        pool.crew_wanted += 1;
        slot.worker = Some(worker);
        self.empty.remove(&number);
        Some(Heir {
            slot: number,
            generation: entry.generation,
            pool: id,
            stays: !command,
            handed,
        })
    }
}

impl Pool {
    fn entry(&self) -> PoolEntry {
        PoolEntry {
            options: self.options.clone(),
            specs: self.specs.clone(),
            allotted: self.allotted,
            reports: Reported::of(self.reports.all()),
        }
    }

    /// These were in the hands of a worker that is not there any more, and nobody knows how much of it had begun.
    fn lose(&mut self, slot: SlotNo, handed: &[GrantRow]) {
        let outcome = if self.is_rerunnable() {
            Outcome::HostLost
        } else {
            Outcome::Unknown
        };
        let why =
            "its worker, and what was known of it, was ended with its agent or with its relay";
        for row in handed {
            let row = ReportRow {
                index: row.index,
                attempt: row.attempt,
                outcome,
                slot,
                ..ReportRow::default()
            };
            let loss = fleetpool_proto::frame::encode_header(&Loss::because(why));
            self.reports.add(row, loss);
        }
    }
}

fn entry_of(worker: &Worker) -> WorkerEntry {
    let since_us = if worker.is_busy() {
        worker.first_since.0
    } else {
        0
    };
    WorkerEntry {
        generation: worker.generation,
        pool: worker.pool,
        handed: worker
            .handed
            .iter()
            .map(|handed| handed.task.row())
            .collect(),
        since_us,
    }
}

fn handed_before(row: &GrantRow) -> Handed {
    Handed {
        task: Queued {
            index: row.index,
            attempt: row.attempt,
            spec: row.spec,
            payload: None,
        },
        fate: Fate::Runs,
    }
}
