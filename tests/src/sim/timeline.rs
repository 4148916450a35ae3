//! What is to happen, by its time.

use super::engine::What;

/// Things to happen: those of one instant in the order in which they were put in.
///
/// A radix heap. Time only goes forward, so a thing needs no exact place: it lies in the bucket of the highest bit in which its
/// time differs from now's, and is looked at again when all that comes before is over.
#[derive(Debug)]
pub(super) struct Timeline {
    now: u64,
    /// Times, and places. What happens at the same time is in one bucket, in its order.
    buckets: [Vec<(u64, u32)>; 65],
    /// How much of the first bucket, which is of this instant, is over.
    over: usize,
    places: Vec<Option<What>>,
    free: Vec<u32>,
}

impl Default for Timeline {
    fn default() -> Self {
        Self {
            now: 0,
            buckets: std::array::from_fn(|_| Vec::new()),
            over: 0,
            places: Vec::new(),
            free: Vec::new(),
        }
    }
}

impl Timeline {
    /// Adds something that happens at that time, which is not over.
    pub(super) fn insert(&mut self, at: u64, what: What) {
        debug_assert!(at >= self.now, "time only goes forward");
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            u32::try_from(self.places.len() - 1).expect("less than 4 billion things to happen")
        });
        self.places[place as usize] = Some(what);
        let bucket = self.bucket(at);
        self.buckets[bucket].push((at, place));
    }

    /// The next thing, and when.
    pub(super) fn pop(&mut self) -> Option<(u64, What)> {
        if self.is_instant_over() {
            self.go_forward()?;
        }
        let (at, place) = self.buckets[0][self.over];
        self.over += 1;
        self.free.push(place);
        Some((at, self.places[place as usize].take()?))
    }

    /// Whether nothing more happens at the instant of what was popped last.
    pub(super) fn is_instant_over(&self) -> bool {
        self.over == self.buckets[0].len()
    }

    /// To the next instant at which something happens.
    fn go_forward(&mut self) -> Option<()> {
        self.buckets[0].clear();
        self.over = 0;
        let first = self.buckets.iter().position(|bucket| !bucket.is_empty())?;
        let mut nearest = std::mem::take(&mut self.buckets[first]);
        self.now = nearest.iter().map(|(at, _)| *at).min()?;
        for (at, place) in nearest.drain(..) {
            let bucket = self.bucket(at);
            self.buckets[bucket].push((at, place));
        }
        // Its room is used again.
        self.buckets[first] = nearest;
        Some(())
    }

    fn bucket(&self, at: u64) -> usize {
        (u64::BITS - (at ^ self.now).leading_zeros()) as usize
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::chance::Chance;

    #[test]
    fn things_happen_by_their_time_and_then_in_their_order() {
        let mut chance = Chance::new(1);
        let mut timeline = Timeline::default();
        let mut expected = BTreeSet::new();
        let (mut now, mut number) = (0, 0);
        while number < 20_000 || !expected.is_empty() {
            while number < 20_000 && (expected.is_empty() || chance.once_in(2)) {
                let far = 1 << chance.within(0..24);
                let at = now + chance.within(0..far);
                timeline.insert(at, What::AgentTimer(number));
                expected.insert((at, number));
                number += 1;
            }
            let (at, what) = timeline.pop().expect("something is left");
            let What::AgentTimer(popped) = what else {
                panic!("{what:?}");
            };
            assert_eq!(expected.pop_first(), Some((at, popped)));
            let next = expected.first().map(|(next, _)| *next);
            assert_eq!(timeline.is_instant_over(), next != Some(at));
            now = at;
        }
        assert!(timeline.pop().is_none());
    }
}
