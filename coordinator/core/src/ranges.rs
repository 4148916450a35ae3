//! A set of numbers that mostly grows at its end.

use std::collections::BTreeMap;

/// Disjoint half-open ranges by their start.
#[derive(Debug, Default)]
pub(crate) struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    /// Whether any number of `start..end` is in the set.
    pub(crate) fn overlaps(&self, start: u64, end: u64) -> bool {
        self.0
            .range(..end)
            .next_back()
            .is_some_and(|(_, &last_end)| last_end > start)
    }

    /// Whether `number` is in the set.
    pub(crate) fn contains(&self, number: u64) -> bool {
        self.overlaps(number, number + 1)
    }

    /// Every range.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.0.iter().map(|(&start, &end)| (start, end))
    }

    /// The first number that is not in the set.
    pub(crate) fn gap(&self) -> u64 {
        match self.0.first_key_value() {
            Some((&0, &end)) => end,
            _ => 0,
        }
    }

    /// Adds `start..end`, which must not overlap what is there.
    pub(crate) fn insert(&mut self, start: u64, end: u64) {
        if start == end {
            return;
        }
        let end = self.0.remove(&end).unwrap_or(end);
        match self.0.range_mut(..start).next_back() {
            Some((_, last_end)) if *last_end == start => *last_end = end,
            _ => {
                self.0.insert(start, end);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_become_one() {
        let mut ranges = Ranges::default();
        ranges.insert(0, 4);
        ranges.insert(8, 10);
        assert!(ranges.contains(3) && !ranges.contains(4) && ranges.overlaps(2, 6));
        ranges.insert(4, 8);
        assert_eq!(ranges.0, BTreeMap::from([(0, 10)]));
    }
}
