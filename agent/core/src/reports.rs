//! What the coordinator is told about a pool, in as few messages as can be, and what of it is kept until it is
//! acknowledged (G3).

use std::collections::BTreeMap;

use bytes::Bytes;
use fleetpool_proto::{
    Attempt, Outcome, PoolId, SlotNo,
    frame::encode_header,
    limits::{BATCH_BYTES_MAX, BATCH_TASKS_MAX},
    message::{FromAgent, ReportRow, TaskRow},
    outcome::Loss,
};

use crate::{
    core::AgentCore,
    facts::Fact,
    pools::{Pool, row_of},
    slots::Worker,
};

/// A pool's reports.
#[derive(Debug, Default)]
pub(crate) struct Reports {
    unacknowledged: BTreeMap<(u64, Attempt), (ReportRow, Bytes)>,
    /// Not told in this session.
    rows: Vec<ReportRow>,
    payloads: Vec<Bytes>,
    /// Not told as facts, where those are told.
    news: Option<Vec<(ReportRow, Bytes)>>,
}

impl Reports {
    pub(crate) fn new(tells_facts: bool) -> Self {
        Self {
            news: tells_facts.then(Vec::new),
            ..Self::default()
        }
    }

    /// Those that an earlier life of this agent has made. They are said in the first session.
    pub(crate) fn take_over(&mut self, reports: impl Iterator<Item = (ReportRow, Bytes)>) {
        let keyed = reports.map(|report| ((report.0.index, report.0.attempt), report));
        self.unacknowledged = keyed.collect();
    }

    /// Nobody wants to know any more.
    pub(crate) fn clear(&mut self) {
        *self = Self::new(self.news.is_some());
    }

    /// What a successor is to know and has not been told.
    pub(crate) fn take_news(&mut self) -> Vec<(ReportRow, Bytes)> {
        self.news.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// All that is not acknowledged.
    pub(crate) fn all(&self) -> impl Iterator<Item = (ReportRow, Bytes)> + '_ {
        self.unacknowledged.values().cloned()
    }

    pub(crate) fn add(&mut self, row: ReportRow, payload: Bytes) {
        if let Some(news) = &mut self.news {
            news.push((row.clone(), payload.clone()));
        }
        self.rows.push(row.clone());
        self.payloads.push(payload.clone());
        self.unacknowledged
            .insert((row.index, row.attempt), (row, payload));
    }

    /// Reports an attempt that has never begun and never will.
    pub(crate) fn add_unstarted(
        &mut self,
        index: u64,
        attempt: Attempt,
        outcome: Outcome,
        why: &Loss,
    ) {
        let row = ReportRow {
            index,
            attempt,
            outcome,
            slot: SlotNo(0),
            ..ReportRow::default()
        };
        self.add(row, encode_header(why));
    }

    pub(crate) fn add_cancelled(&mut self, index: u64, attempt: Attempt) {
        let why = Loss::because("cancelled before it started");
        self.add_unstarted(index, attempt, Outcome::Cancelled, &why);
    }

    pub(crate) fn holds(&self, key: &(u64, Attempt)) -> bool {
        self.unacknowledged.contains_key(key)
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = (u64, Attempt)> + '_ {
        self.unacknowledged.keys().copied()
    }

    /// A new session has heard nothing.
    pub(crate) fn say_again(&mut self) {
        let all = self.unacknowledged.values().cloned();
        (self.rows, self.payloads) = all.unzip();
    }

    /// What has not been told in this session, as messages of bounded size: one, as a rule.
    pub(crate) fn take_fresh(&mut self, pool: PoolId) -> Vec<FromAgent> {
        let mut rows = std::mem::take(&mut self.rows);
        let mut payloads = std::mem::take(&mut self.payloads);
        let mut messages = Vec::new();
        while !rows.is_empty() {
            let count = batch(&payloads);
            let later = (rows.split_off(count), payloads.split_off(count));
            messages.push(FromAgent::Reports {
                pool,
                rows,
                payloads: payloads.into(),
            });
            (rows, payloads) = later;
        }
        messages
    }

    /// Nobody listens: all that is kept is said again to the next session.
    fn drop_fresh(&mut self) {
        self.rows.clear();
        self.payloads.clear();
    }
}

/// How many of `payloads` go into one message; at least one.
fn batch(payloads: &[Bytes]) -> usize {
    let mut bytes = 0;
    let fits = |payload: &&Bytes| {
        bytes += payload.len();
        bytes <= BATCH_BYTES_MAX
    };
    let count = payloads
        .iter()
        .take(BATCH_TASKS_MAX)
        .take_while(fits)
        .count();
    count.max(1)
}

impl AgentCore {
    pub(crate) fn on_ack(&mut self, id: PoolId, rows: &[TaskRow]) {
        self.tell_reports();
        self.note(|| Fact::Acked {
            pool: id,
            rows: rows.to_vec(),
        });
        if let Some(pool) = self.pools.get_mut(&id) {
            for row in rows {
                let key = (row.index, row.attempt);
                pool.reports.unacknowledged.remove(&key);
            }
        }
    }

    /// Tells the coordinator what has happened to a pool since the last time.
    pub(crate) fn report(&mut self, id: PoolId) {
        let Some(pool) = self.pools.get_mut(&id) else {
            return;
        };
        if !self.link.is_up() {
            pool.reports.drop_fresh();
            pool.returned.clear();
            return;
        }
        let mut messages = pool.reports.take_fresh(id);
        messages.extend(pool.unfitness(id));
        let slots = &self.slots;
        let asked = pool.crew.iter().any(|number| {
            let slot = slots.get(usize::from(number.0));
            let worker: Option<&Worker> = slot.and_then(|slot| slot.worker.as_ref());
            worker.is_some_and(|worker| worker.asked)
        });
        if !asked {
            #[cfg(feature = "planted-bugs")]
            let kept = (self.options.planted == Some(crate::PlantedBug::RetractIgnored))
                .then(|| pool.queue.clone());
            messages.extend(pool.retracted(id));
            #[cfg(feature = "planted-bugs")]
            kept.into_iter().for_each(|queue| pool.queue = queue);
        }
        messages.extend(pool.without_slots(id));
        messages.extend(pool.without_arguments(id));
        messages.extend(pool.allotment_come_true(id));
        messages.into_iter().for_each(|message| self.send(message));
    }
}

impl Pool {
    /// How far the last `Allot` has come true, when that is further than was said.
    fn allotment_come_true(&mut self, id: PoolId) -> Option<FromAgent> {
        let said = self.allotted_owed?;
        let slots = self.busy.max(self.allotted);
        if slots >= said {
            return None;
        }
        self.allotted_owed = (slots > self.allotted).then_some(slots);
        Some(FromAgent::Allotted {
            pool: id,
            slots,
            allotment: self.allotment,
        })
    }

    /// Answers to `Retract`, once all workers that were asked have given back what they had.
    fn retracted(&mut self, id: PoolId) -> Vec<FromAgent> {
        let retractions = std::mem::take(&mut self.retractions);
        let answer = |retraction: &crate::pools::Retraction| {
            let keep = self.queue.len().saturating_sub(retraction.count as usize);
            FromAgent::Retracted {
                pool: id,
                retraction: retraction.number,
                rows: self.queue.drain(keep..).map(|task| row_of(&task)).collect(),
            }
        };
        retractions.iter().map(answer).collect()
    }

    /// Where a pool has no slot its tasks are of no use: a grant that comes after its slots have been taken away would
    /// wait here for ever.
    fn without_slots(&mut self, id: PoolId) -> Option<FromAgent> {
        let useless = self.allotted == 0 && !self.queue.is_empty();
        useless.then(|| FromAgent::Retracted {
            pool: id,
            retraction: 0,
            rows: self.queue.drain(..).map(|task| row_of(&task)).collect(),
        })
    }

    /// What cannot be begun here: another life of this agent had its argument.
    fn without_arguments(&mut self, id: PoolId) -> Option<FromAgent> {
        (!self.returned.is_empty()).then(|| FromAgent::Retracted {
            pool: id,
            retraction: 0,
            rows: std::mem::take(&mut self.returned),
        })
    }

    fn unfitness(&mut self, id: PoolId) -> Option<FromAgent> {
        let reason = self.unfit.clone()?;
        if self.unfit_told && self.queue.is_empty() {
            return None;
        }
        self.unfit_told = true;
        Some(FromAgent::PoolUnfit {
            pool: id,
            reason,
            rows: self.queue.drain(..).map(|task| row_of(&task)).collect(),
        })
    }
}
