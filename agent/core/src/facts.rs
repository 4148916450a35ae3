//! What a core tells its successor: facts, each true from when it is told, and what they come to (G10).
//!
//! An agent's process may end while its keepers and their commands go on. The next one has to know what runs where, and
//! what has ended and is not acknowledged. What waits for a slot it need not know: the coordinator grants it again.
//! Facts, not events, so that a build which decides otherwise can read them. Fields are added, never removed.

use std::collections::BTreeMap;

use bytes::Bytes;
use fleetpool_proto::{
    Attempt, AttemptId, PoolId, SlotNo, SpecId, TaskId,
    message::{GrantRow, ReportRow, TaskRow},
    pool::{PoolOptions, Spec},
    rows::table,
};
use serde::{Deserialize, Serialize};

/// Something that is true from now on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fact {
    /// A pool is open, and is this.
    Pool {
        /// Its number.
        pool: PoolId,
        /// What it is.
        options: Box<PoolOptions>,
    },
    /// What tasks of a pool have in common.
    Spec {
        /// The pool.
        pool: PoolId,
        /// Its number.
        spec: SpecId,
        /// What it says.
        body: Box<Spec>,
    },
    /// So many of a pool's tasks may run at once.
    Allotted {
        /// The pool.
        pool: PoolId,
        /// Slots.
        slots: u16,
    },
    /// A pool is over and forgotten.
    PoolOver {
        /// Which.
        pool: PoolId,
    },
    /// A slot has a worker.
    Worker {
        /// The slot.
        slot: SlotNo,
        /// Which worker of that slot.
        generation: u64,
        /// Whose.
        pool: PoolId,
    },
    /// The slot's worker, and all that was in its hands, is gone.
    WorkerOver {
        /// The slot.
        slot: SlotNo,
    },
    /// The slot's worker has these behind those that it has.
    Handed {
        /// The slot.
        slot: SlotNo,
        /// When, in microseconds of the clock that goes on in sleep.
        at_us: u64,
        /// What.
        #[serde(with = "table")]
        tasks: Vec<GrantRow>,
    },
    /// The slot's worker has these no more, and they are not reported.
    Dropped {
        /// The slot.
        slot: SlotNo,
        /// When.
        at_us: u64,
        /// What.
        #[serde(with = "table")]
        tasks: Vec<TaskRow>,
    },
    /// Attempts have ended, in whatever hands they were; to be said until acknowledged.
    Reports {
        /// The pool.
        pool: PoolId,
        /// When.
        at_us: u64,
        /// How.
        #[serde(with = "table")]
        rows: Vec<ReportRow>,
        /// Their results or losses, a row each.
        payloads: Vec<Bytes>,
    },
    /// The coordinator knows of these ends.
    Acked {
        /// The pool.
        pool: PoolId,
        /// Which.
        #[serde(with = "table")]
        rows: Vec<TaskRow>,
    },
    /// Keepers fence by themselves at this time; `None`: at no time.
    Fence {
        /// When, in microseconds of the clock that goes on in sleep.
        at_us: Option<u64>,
    },
}

/// What facts come to: all that a core has to know of its predecessor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Inventory {
    pub(crate) pools: BTreeMap<PoolId, PoolEntry>,
    pub(crate) workers: BTreeMap<SlotNo, WorkerEntry>,
    /// Workers that each slot has had, where there was one.
    pub(crate) generations: BTreeMap<SlotNo, u64>,
    pub(crate) fence_us: Option<u64>,
}

/// A pool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct PoolEntry {
    pub(crate) options: Box<PoolOptions>,
    pub(crate) specs: BTreeMap<SpecId, Box<Spec>>,
    pub(crate) allotted: u16,
    pub(crate) reports: Reported,
}

/// Reports that are not acknowledged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "ReportTable", into = "ReportTable")]
pub(crate) struct Reported(BTreeMap<(u64, Attempt), (ReportRow, Bytes)>);

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct ReportTable {
    #[serde(with = "table")]
    rows: Vec<ReportRow>,
    payloads: Vec<Bytes>,
}

/// A worker, and what it has in hand.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct WorkerEntry {
    pub(crate) generation: u64,
    pub(crate) pool: PoolId,
    #[serde(with = "table")]
    pub(crate) handed: Vec<GrantRow>,
    /// When the first of them became the first.
    pub(crate) since_us: u64,
}

impl Inventory {
    /// Takes a fact in. One that contradicts what is known is taken for what it says.
    pub fn apply(&mut self, fact: Fact) {
        match fact {
            Fact::Pool { pool, options } => self.pools.entry(pool).or_default().options = options,
            Fact::Spec { pool, spec, body } => {
                if let Some(pool) = self.pools.get_mut(&pool) {
                    pool.specs.insert(spec, body);
                }
            }
            Fact::Allotted { pool, slots } => {
                if let Some(pool) = self.pools.get_mut(&pool) {
                    pool.allotted = slots;
                }
            }
            Fact::PoolOver { pool } => drop(self.pools.remove(&pool)),
            Fact::Worker {
                slot,
                generation,
                pool,
            } => {
                self.generations.insert(slot, generation);
                let entry = WorkerEntry {
                    generation,
                    pool,
                    ..WorkerEntry::default()
                };
                self.workers.insert(slot, entry);
            }
            Fact::WorkerOver { slot } => drop(self.workers.remove(&slot)),
            Fact::Handed { slot, at_us, tasks } => {
                if let Some(worker) = self.workers.get_mut(&slot) {
                    worker.take(at_us, tasks);
                }
            }
            Fact::Dropped { slot, at_us, tasks } => {
                if let Some(worker) = self.workers.get_mut(&slot) {
                    for row in tasks {
                        worker.let_go(row.index, row.attempt, at_us);
                    }
                }
            }
            Fact::Reports {
                pool,
                at_us,
                rows,
                payloads,
            } => self.on_reports(pool, at_us, rows, payloads),
            Fact::Acked { pool, rows } => {
                if let Some(pool) = self.pools.get_mut(&pool) {
                    for row in rows {
                        pool.reports.0.remove(&(row.index, row.attempt));
                    }
                }
            }
            Fact::Fence { at_us } => self.fence_us = at_us,
        }
    }

    fn on_reports(&mut self, id: PoolId, at_us: u64, rows: Vec<ReportRow>, payloads: Vec<Bytes>) {
        for row in &rows {
            let worker = self.workers.get_mut(&row.slot);
            if let Some(worker) = worker.filter(|worker| worker.pool == id) {
                worker.let_go(row.index, row.attempt, at_us);
            }
        }
        if let Some(pool) = self.pools.get_mut(&id) {
            let new = Reported::of(rows.into_iter().zip(payloads));
            pool.reports.0.extend(new.0);
        }
    }
}

impl WorkerEntry {
    fn take(&mut self, at_us: u64, tasks: Vec<GrantRow>) {
        if self.handed.is_empty() {
            self.since_us = at_us;
        }
        self.handed.extend(tasks);
    }

    fn let_go(&mut self, index: u64, attempt: Attempt, at_us: u64) {
        let is_it = |row: &GrantRow| (row.index, row.attempt) == (index, attempt);
        let Some(at) = self.handed.iter().position(is_it) else {
            return;
        };
        self.handed.remove(at);
        if at == 0 {
            self.since_us = if self.handed.is_empty() { 0 } else { at_us };
        }
    }

    /// The attempts in hand, in order.
    pub(crate) fn attempts(&self) -> Vec<AttemptId> {
        let id = |row: &GrantRow| AttemptId {
            task: TaskId::new(self.pool, row.index),
            attempt: row.attempt,
        };
        self.handed.iter().map(id).collect()
    }
}

impl Reported {
    pub(crate) fn of(reports: impl Iterator<Item = (ReportRow, Bytes)>) -> Self {
        let keyed = reports.map(|report| ((report.0.index, report.0.attempt), report));
        Self(keyed.collect())
    }

    pub(crate) fn into_items(self) -> impl Iterator<Item = (ReportRow, Bytes)> {
        self.0.into_values()
    }
}

impl From<ReportTable> for Reported {
    fn from(table: ReportTable) -> Self {
        Self::of(table.rows.into_iter().zip(table.payloads))
    }
}

impl From<Reported> for ReportTable {
    fn from(reported: Reported) -> Self {
        let (rows, payloads) = reported.into_items().unzip();
        Self { rows, payloads }
    }
}

#[cfg(test)]
impl Inventory {
    pub(crate) fn reported(&self) -> std::collections::BTreeSet<AttemptId> {
        let of = |(id, pool): (&PoolId, &PoolEntry)| {
            let id = *id;
            let keys = pool.reports.0.keys().copied();
            let keys: Vec<_> = keys
                .map(|(index, attempt)| (TaskId::new(id, index), attempt))
                .collect();
            keys
        };
        let all = self.pools.iter().flat_map(of);
        all.map(|(task, attempt)| AttemptId { task, attempt })
            .collect()
    }

    pub(crate) fn in_hand(&self, id: &AttemptId) -> bool {
        self.workers
            .values()
            .any(|worker| worker.attempts().contains(id))
    }
}
