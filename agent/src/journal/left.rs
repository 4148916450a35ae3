//! What an agent writes down for its successor, and what that comes to.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use fleetpool_agent_core::{Fact, Inventory};
use fleetpool_proto::{AttemptId, PoolId, SlotNo, TaskId, message::OutputRow, rows::table};
use serde::{Deserialize, Serialize};

use crate::workers::Printed;

/// Something that was written down. Fields and variants are added, never removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Entry {
    /// First: whose life this is.
    Begin {
        /// What the spawner knows it by.
        incarnation: u64,
        /// The kernel's boot id.
        boot_id: String,
    },
    /// All that was true, in the place of everything before.
    Whole(Box<Left>),
    /// What the core knows.
    Fact(Fact),
    /// Tasks have printed.
    Printed(Pieces),
    /// The next so many pieces are what the coordinator is told under this number.
    Framed {
        /// The number.
        number: u64,
        /// How many.
        pieces: u32,
    },
    /// The coordinator has what it was told up to this number.
    OutputAcked {
        /// The number.
        number: u64,
    },
    /// What a keeper said up to this number is in here.
    Heard {
        /// Its slot.
        slot: SlotNo,
        /// Which worker of that slot.
        generation: u64,
        /// The number.
        number: u64,
    },
}

/// Pieces of a pool's output, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Pieces {
    pub(crate) pool: PoolId,
    #[serde(with = "table")]
    pub(crate) rows: Vec<OutputRow>,
    pub(crate) payloads: Vec<Bytes>,
}

/// What an agent leaves to its successor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Left {
    pub(crate) inventory: Inventory,
    pub(crate) output: OutputLeft,
    /// How much of what the slot's worker said is in here: which worker, and the number of the last message.
    pub(crate) heard: BTreeMap<SlotNo, (u64, u64)>,
}

/// Output that the coordinator may not have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct OutputLeft {
    /// The last number that was given.
    pub(crate) number: u64,
    /// What was numbered and is not acknowledged.
    pub(crate) framed: VecDeque<(u64, Pieces)>,
    /// What has no number.
    pub(crate) printed: VecDeque<Pieces>,
}

impl Left {
    pub(crate) fn apply(&mut self, entry: Entry) {
        match entry {
            Entry::Begin { .. } => {}
            Entry::Whole(left) => *self = *left,
            Entry::Fact(fact) => {
                match &fact {
                    Fact::PoolOver { pool } => self.output.forget(*pool),
                    Fact::WorkerOver { slot } => drop(self.heard.remove(slot)),
                    _ => {}
                }
                self.inventory.apply(fact);
            }
            Entry::Printed(pieces) => self.output.printed.push_back(pieces),
            Entry::Framed { number, pieces } => self.output.frame(number, pieces as usize),
            Entry::OutputAcked { number } => {
                while self
                    .output
                    .framed
                    .pop_front_if(|(framed, _)| *framed <= number)
                    .is_some()
                {}
            }
            Entry::Heard {
                slot,
                generation,
                number,
            } => drop(self.heard.insert(slot, (generation, number))),
        }
    }
}

impl OutputLeft {
    fn frame(&mut self, number: u64, count: usize) {
        let mut frame = Pieces::default();
        while frame.rows.len() < count
            && let Some(mut first) = self.printed.pop_front()
        {
            let rest = first.split_off(count - frame.rows.len());
            frame.pool = first.pool;
            frame.rows.append(&mut first.rows);
            frame.payloads.append(&mut first.payloads);
            if !rest.rows.is_empty() {
                self.printed.push_front(rest);
            }
        }
        self.number = number;
        self.framed.push_back((number, frame));
    }

    /// The pool is over.
    fn forget(&mut self, pool: PoolId) {
        self.framed.retain(|(_, pieces)| pieces.pool != pool);
    }
}

impl Pieces {
    /// Those that go together, in their order.
    pub(crate) fn of<'a>(printed: impl IntoIterator<Item = &'a Printed>) -> Vec<Self> {
        let mut all: Vec<Self> = Vec::new();
        for printed in printed {
            let pool = printed.attempt.task.pool;
            if all.last().is_none_or(|last| last.pool != pool) {
                all.push(Self {
                    pool,
                    ..Self::default()
                });
            }
            if let Some(last) = all.last_mut() {
                last.rows.push(OutputRow {
                    index: printed.attempt.task.index,
                    attempt: printed.attempt.attempt,
                    stream: printed.stream,
                    pid: printed.pid,
                    ..OutputRow::default()
                });
                last.payloads.push(printed.bytes.clone());
            }
        }
        all
    }

    pub(crate) fn into_printed(self) -> impl Iterator<Item = Printed> {
        let pool = self.pool;
        let all = self.rows.into_iter().zip(self.payloads);
        all.map(move |(row, bytes)| Printed {
            attempt: AttemptId {
                task: TaskId::new(pool, row.index),
                attempt: row.attempt,
            },
            pid: row.pid,
            stream: row.stream,
            bytes,
        })
    }

    fn split_off(&mut self, at: usize) -> Self {
        let at = at.min(self.rows.len());
        Self {
            pool: self.pool,
            rows: self.rows.split_off(at),
            payloads: self.payloads.split_off(at.min(self.payloads.len())),
        }
    }
}
