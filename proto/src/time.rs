//! Time as the cores see it: a number that only grows, handed in by whoever has a clock.

use std::{
    ops::{Add, Sub},
    time::Duration,
};

/// Microseconds of a monotonic clock that goes on while the machine sleeps (`CLOCK_BOOTTIME`), from an
/// origin that means nothing. Two machines' timestamps cannot be compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// Time since `earlier`; zero when that lies ahead.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;
    fn add(self, rhs: Duration) -> Self {
        Self(self.0.saturating_add(micros(rhs)))
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Self;
    fn sub(self, rhs: Duration) -> Self {
        Self(self.0.saturating_sub(micros(rhs)))
    }
}

/// `duration` in whole microseconds, at most `u64::MAX` (584,000 years).
#[must_use]
pub fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Whole milliseconds.
#[must_use]
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_neither_runs_backwards_nor_over() {
        let (early, late) = (Timestamp(5), Timestamp(1_000_005));
        assert_eq!(late.since(early), Duration::from_secs(1));
        assert_eq!(early.since(late), Duration::ZERO);
        assert_eq!(early + Duration::from_secs(1), late);
        assert_eq!(early - Duration::from_secs(1), Timestamp(0));
        assert_eq!(late + Duration::MAX, Timestamp(u64::MAX));
    }
}
