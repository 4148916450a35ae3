//! What is to happen, by its time.

use std::{cmp::Reverse, collections::BinaryHeap};

use super::engine::What;

/// Things to happen: those of one instant in the order in which they were put in.
#[derive(Debug, Default)]
pub(super) struct Timeline {
    /// When, which one in the order of putting in, and its place: small, so that they are quickly put in order.
    order: BinaryHeap<Reverse<(u64, u64, u32)>>,
    number: u64,
    places: Vec<Option<What>>,
    free: Vec<u32>,
}

impl Timeline {
    pub(super) fn insert(&mut self, at: u64, what: What) {
        self.number += 1;
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            u32::try_from(self.places.len() - 1).expect("less than 4 billion things to happen")
        });
        self.places[place as usize] = Some(what);
        self.order.push(Reverse((at, self.number, place)));
    }

    /// The first thing, and when.
    pub(super) fn pop(&mut self) -> Option<(u64, What)> {
        let Reverse((at, _, place)) = self.order.pop()?;
        self.free.push(place);
        Some((at, self.places[place as usize].take()?))
    }

    /// When the next thing happens.
    pub(super) fn next(&self) -> Option<u64> {
        self.order.peek().map(|Reverse((at, ..))| *at)
    }
}
