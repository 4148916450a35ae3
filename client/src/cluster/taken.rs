//! Results and output that have come, so that none is taken twice when a coordinator says it again. Pure.

use std::collections::{BTreeMap, BTreeSet};

use fleetpool_proto::HostId;

/// A set of task numbers that mostly grows at its end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Taken {
    /// Disjoint half-open ranges by their start.
    ranges: BTreeMap<u64, u64>,
    count: u64,
}

impl Taken {
    /// Whether the number is new; it is in the set from now on.
    pub(crate) fn insert(&mut self, number: u64) -> bool {
        let before = self.ranges.range_mut(..=number).next_back();
        let (start, end) = match before {
            Some((_, end)) if *end > number => return false,
            Some((&start, end)) if *end == number => (start, end),
            _ => (number, self.ranges.entry(number).or_insert(number)),
        };
        *end = number + 1;
        self.count += 1;
        if let Some(further) = self.ranges.remove(&(number + 1)) {
            self.ranges.insert(start, further);
        }
        true
    }

    /// Adds a number of a count from 1; tells up to which none is missing, if that is more than before.
    pub(crate) fn insert_upto(&mut self, number: u64) -> Option<u64> {
        let upto = |ranges: &BTreeMap<u64, u64>| ranges.get(&1).map_or(0, |end| end - 1);
        let before = upto(&self.ranges);
        self.insert(number);
        Some(upto(&self.ranges)).filter(|now| *now > before)
    }

    /// Numbers in the set.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }
}

/// The output of each host that has come, by the numbers that its agent gives in each of its lives.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    /// The highest number.
    last: BTreeMap<(HostId, u64), u64>,
    /// Of what the coordinator is to be told.
    untold: BTreeSet<(HostId, u64)>,
}

impl Heard {
    /// Whether this output is new.
    pub(crate) fn is_news(&mut self, host: HostId, life: u64, number: u64) -> bool {
        let last = self.last.entry((host, life)).or_default();
        self.untold.insert((host, life));
        let is_news = number > *last;
        *last = number.max(*last);
        is_news
    }

    /// What the coordinator is to be told: a host, a life of its agent, and up to which number its output has come.
    pub(crate) fn take_untold(&mut self) -> Option<(HostId, u64, u64)> {
        let (host, life) = self.untold.pop_first()?;
        let number = self.last.get(&(host, life)).copied();
        Some((host, life, number.unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn g3_a_number_is_new_once(numbers in proptest::collection::vec(0u64..60, 0..200)) {
            let (mut taken, mut set) = (Taken::default(), BTreeSet::new());
            for number in numbers {
                prop_assert_eq!(taken.insert(number), set.insert(number));
                prop_assert_eq!(taken.count(), set.len() as u64);
            }
        }
    }

    #[test]
    fn g10_messages_have_come_up_to_the_first_that_is_missing() {
        let mut taken = Taken::default();
        let upto: Vec<_> = [2, 1, 4, 3].map(|number| taken.insert_upto(number)).into();
        assert_eq!(upto, [None, Some(2), None, Some(4)]);
    }

    #[test]
    fn g8_output_is_new_once_in_each_life_of_an_agent() {
        let mut heard = Heard::default();
        let host = HostId(1);
        let news: Vec<bool> = [(7, 1), (7, 3), (7, 2), (7, 3), (8, 1), (7, 3), (8, 1)]
            .into_iter()
            .map(|(life, number)| heard.is_news(host, life, number))
            .collect();
        assert_eq!(news, [true, true, false, false, true, false, false]);
        assert_eq!(heard.take_untold(), Some((host, 7, 3)));
        assert_eq!(heard.take_untold(), Some((host, 8, 1)));
        assert_eq!(heard.take_untold(), None);
    }
}
