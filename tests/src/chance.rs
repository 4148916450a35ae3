//! Randomness that is the same on every machine: nothing in a world is random but for this.

use std::ops::Range;

/// xoshiro256++ (Blackman and Vigna), seeded by SplitMix64.
#[derive(Clone, Debug)]
pub(crate) struct Chance([u64; 4]);

fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        let mut state = seed;
        Self(std::array::from_fn(|_| split_mix(&mut state)))
    }

    /// Chance that depends on nothing but these numbers, whatever else has happened.
    pub(crate) fn of(numbers: &[u64]) -> Self {
        let mix = |mixed: u64, number: &u64| {
            let mut state = mixed ^ number;
            split_mix(&mut state)
        };
        Self::new(numbers.iter().fold(0, mix))
    }

    pub(crate) fn next(&mut self) -> u64 {
        let [a, b, c, d] = self.0;
        let result = a.wrapping_add(d).rotate_left(23).wrapping_add(a);
        let t = b << 17;
        let (c, d) = (c ^ a, d ^ b);
        self.0 = [a ^ d, b ^ c, c ^ t, d.rotate_left(45)];
        result
    }

    /// A number of `range`; its start when it is empty.
    pub(crate) fn within(&mut self, range: Range<u64>) -> u64 {
        let width = range.end.saturating_sub(range.start);
        if width == 0 {
            return range.start;
        }
        // The bias is below width / 2^64.
        range.start + self.next() % width
    }

    /// True once in `n` times; never when `n` is 0.
    pub(crate) fn once_in(&mut self, n: u64) -> bool {
        n > 0 && self.next().is_multiple_of(n)
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        let at = self.within(0..from.len() as u64);
        from[usize::try_from(at).unwrap_or_default()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_numbers() {
        let draw = |seed| {
            let mut chance = Chance::new(seed);
            [(); 8].map(|()| chance.next())
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }

    #[test]
    fn numbers_stay_within_their_range() {
        let mut chance = Chance::new(7);
        assert!((0..1000).all(|_| (3..9).contains(&chance.within(3..9))));
        assert_eq!(chance.within(5..5), 5);
    }
}
