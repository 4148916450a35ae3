//! How far a call's input is read ahead of its results. Pure.
//!
//! Far enough that no slot ever waits for the next task, and not so far that calls beside it wait behind it, or that
//! its results fill the memory of a caller who takes them slowly. So it starts small, doubles while results come
//! quickly, and shrinks with their size.

use std::time::{Duration, Instant};

/// Most tasks of one call that are on their way or wait for their caller: a quarter of a pool's window, so that
/// four such calls leave each other room.
const TASKS_MAX: u64 = fleetpool_proto::limits::POOL_WINDOW_TASKS / 4;
/// Tasks beyond one for each slot as long as none has come back: nobody knows yet how large their results are.
const TASKS_FIRST: u64 = 2;
/// Tasks beyond two for each slot, at least.
const TASKS_MIN: u64 = 8;
/// Bytes of results that may wait for their caller, as long as no slot has to wait for it.
const RESULT_BYTES_MAX: u64 = 32 << 20;
/// A window that is worked off faster than this is too small: its tasks are short against the way to them.
const SHORT: Duration = Duration::from_millis(250);
/// A window that takes longer than this is larger than it need be.
const LONG: Duration = Duration::from_secs(2);

/// The window of one call.
#[derive(Clone, Debug)]
pub(crate) struct Flow {
    window: u64,
    /// Results of the present window that have come, and since when they come.
    round: (u64, Instant),
    received: (u64, u64),
}

impl Flow {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            window: TASKS_MIN,
            round: (0, now),
            received: (0, 0),
        }
    }

    /// Whether another task may be sent while `open` tasks are on their way or wait for their caller.
    pub(crate) fn allows(&self, open: u64, slots: u64) -> bool {
        if self.received.0 == 0 {
            return open < slots + TASKS_FIRST;
        }
        let floor = TASKS_MIN + 2 * slots;
        open < self.window.max(floor).min(self.memory_bound().max(slots))
    }

    /// Takes in how many results have come in all, and their bytes.
    pub(crate) fn on_received(&mut self, received: (u64, u64), now: Instant) {
        self.round.0 += received.0 - self.received.0;
        self.received = received;
        if self.round.0 < self.window {
            return;
        }
        match now.saturating_duration_since(self.round.1) {
            took if took < SHORT => self.window = (self.window * 2).min(TASKS_MAX),
            took if took > LONG => self.window = (self.window / 2).max(TASKS_MIN),
            _ => {}
        }
        self.round = (0, now);
    }

    /// As many results as fit into memory; one always does.
    fn memory_bound(&self) -> u64 {
        let (count, bytes) = self.received;
        let one = bytes.checked_div(count).unwrap_or(0).max(1);
        (RESULT_BYTES_MAX / one).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the flow allows after `count` results of `bytes` each, that took `each`.
    #[track_caller]
    fn check(count: u64, bytes: u64, each: Duration, expect: u64) {
        let mut now = Instant::now();
        let mut flow = Flow::new(now);
        for received in 1..=count {
            now += each;
            flow.on_received((received, received * bytes), now);
        }
        let allowed = (0..).find(|&open| !flow.allows(open, 2));
        assert_eq!(allowed, Some(expect));
    }

    #[test]
    fn it_opens_for_short_tasks_and_stays_narrow_for_long_ones() {
        check(0, 0, Duration::ZERO, 4);
        check(1, 8, Duration::from_millis(1), TASKS_MIN + 4);
        check(100_000, 8, Duration::from_micros(3), TASKS_MAX);
        check(1_000, 8, Duration::from_millis(1), 256);
        check(1_000, 8, Duration::from_secs(1), TASKS_MIN + 4);
    }

    #[test]
    fn large_results_narrow_it() {
        check(10, 8 << 20, Duration::from_millis(1), 4);
        check(10, 1 << 30, Duration::from_millis(1), 2);
    }
}
