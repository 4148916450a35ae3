//! What a client has been told and may have to be told again: results, and that a pool is over.

use std::collections::VecDeque;

use bytes::Bytes;
use fleetpool_proto::{
    ClientId, PoolId,
    message::{Refusal, ResultRow, ToClient},
};

/// Results that went out in one message.
pub(crate) type Batch = (Vec<ResultRow>, Vec<Bytes>);

/// Messages of results, in the order in which they went out on the client's session. Each session numbers them from 1.
#[derive(Debug, Default)]
pub(crate) struct Retained {
    batches: VecDeque<Batch>,
    /// Messages of this session that have come.
    heard: u64,
    rows: u64,
}

/// A pool that is over, of which its client may not know: what it would say of the pool again is out of date.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) client: ClientId,
    /// Results that the client may not have.
    pub(crate) retained: Retained,
    pub(crate) ended: u64,
    /// It was ended before all of its tasks had.
    pub(crate) farewell: Option<Farewell>,
    /// A successor need not know of it: its job's file says that it is over.
    pub(crate) detached: bool,
}

/// Why a pool is ended before all of its tasks have.
#[derive(Clone, Debug, Default)]
pub(crate) struct Farewell {
    /// For the client; empty: it knows.
    pub(crate) reason: String,
    /// The coordinator refuses to go on.
    pub(crate) refusal: Option<Refusal>,
}

impl Farewell {
    /// What the client is told before the pool's end.
    pub(crate) fn message(&self, pool: PoolId) -> Option<ToClient> {
        let reason = self.reason.clone();
        match self.refusal {
            Some(kind) => Some(ToClient::Refused { pool, reason, kind }),
            None if reason.is_empty() => None,
            None => Some(ToClient::Notice { pool, text: reason }),
        }
    }
}

impl Retained {
    /// Adds a message; tells its number.
    pub(crate) fn push(&mut self, batch: Batch) -> u64 {
        self.rows += batch.0.len() as u64;
        self.batches.push_back(batch);
        self.heard + self.batches.len() as u64
    }

    /// All messages of this session up to that number have come; tells how many results those are.
    pub(crate) fn heard(&mut self, number: u64) -> u64 {
        let before = self.rows;
        while self.heard < number
            && let Some((rows, _)) = self.batches.pop_front()
        {
            self.heard += 1;
            self.rows -= rows.len() as u64;
        }
        before - self.rows
    }

    /// A new session has heard nothing.
    pub(crate) fn renumber(&mut self) {
        self.heard = 0;
    }

    /// The client has so many results, counted from the first that is here.
    pub(crate) fn forget(&mut self, mut count: u64) {
        while let Some((rows, payloads)) = self.batches.front_mut()
            && count > 0
        {
            let some = usize::try_from(count).unwrap_or(usize::MAX).min(rows.len());
            rows.drain(..some);
            payloads.drain(..some);
            count -= some as u64;
            self.rows -= some as u64;
            if rows.is_empty() {
                self.batches.pop_front();
            }
        }
    }

    /// Results in all of them.
    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    /// All of them with their numbers.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &Batch)> {
        (self.heard + 1..).zip(&self.batches)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(first: u64, count: u64) -> Batch {
        let row = |index| ResultRow {
            index,
            ..ResultRow::default()
        };
        let rows = (first..first + count).map(row).collect();
        (
            rows,
            vec![Bytes::new(); usize::try_from(count).unwrap_or_default()],
        )
    }

    fn indexes(retained: &Retained) -> Vec<u64> {
        let rows = retained.iter().flat_map(|(_, (rows, _))| rows);
        rows.map(|row| row.index).collect()
    }

    #[test]
    fn g3_what_has_come_is_forgotten_and_the_rest_is_numbered_anew() {
        let mut retained = Retained::default();
        assert_eq!(retained.push(batch(0, 3)), 1);
        assert_eq!(retained.push(batch(3, 2)), 2);
        assert_eq!(retained.heard(1), 3);
        assert_eq!(retained.heard(1), 0);
        assert_eq!(retained.push(batch(5, 1)), 3);
        retained.renumber();
        let numbers: Vec<u64> = retained.iter().map(|(number, _)| number).collect();
        assert_eq!((numbers, indexes(&retained)), (vec![1, 2], vec![3, 4, 5]));
    }

    #[test]
    fn results_are_forgotten_by_number_also_within_a_message() {
        let mut retained = Retained::default();
        retained.push(batch(0, 3));
        retained.push(batch(3, 3));
        retained.forget(4);
        assert_eq!((indexes(&retained), retained.rows()), (vec![4, 5], 2));
    }
}
