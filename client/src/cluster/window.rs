//! How many tasks a pool may submit, and what has been consumed of it. Pure.

use fleetpool_proto::limits::POOL_WINDOW_BYTES;

/// Results that may be consumed before the coordinator is told, as a part of the window: small enough that it never
/// runs dry for want of the message, large enough that the message costs nothing.
const REPORT_PART: u64 = 8;
/// Bytes of results after which the coordinator is told in any case: it starts nothing more while it thinks that its
/// client is far behind.
const REPORT_BYTES: u64 = POOL_WINDOW_BYTES / REPORT_PART;

/// The credit of a pool: everything is counted from the pool's first task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Window {
    submitted_tasks: u64,
    submitted_bytes: u64,
    credit_tasks: u64,
    credit_bytes: u64,
    consumed: u64,
    reported: u64,
    /// Bytes of the results that are consumed and not reported.
    unreported_bytes: u64,
}

impl Window {
    /// Takes a place for a task whose argument has `bytes`; `None` while there is no credit for it.
    ///
    /// A task fits as soon as the ones before it leave any room, so that an argument larger than the whole window
    /// can be sent at all.
    pub(crate) fn admit(&mut self, bytes: u64) -> Option<u64> {
        if self.is_full() {
            return None;
        }
        let index = self.submitted_tasks;
        self.submitted_tasks += 1;
        self.submitted_bytes = self.submitted_bytes.saturating_add(bytes);
        Some(index)
    }

    /// Whether no task may be submitted now.
    pub(crate) fn is_full(&self) -> bool {
        self.submitted_tasks >= self.credit_tasks || self.submitted_bytes >= self.credit_bytes
    }

    /// Tasks submitted so far, in all.
    pub(crate) fn submitted(&self) -> u64 {
        self.submitted_tasks
    }

    /// Takes in the coordinator's credit. Credit only grows: an overtaken message changes nothing.
    pub(crate) fn grant(&mut self, tasks: u64, bytes: u64) {
        self.credit_tasks = self.credit_tasks.max(tasks);
        self.credit_bytes = self.credit_bytes.max(bytes);
    }

    /// Counts results as consumed, and tells the total when it is time to say so to the coordinator.
    pub(crate) fn consume(&mut self, tasks: u64, bytes: u64) -> Option<u64> {
        self.consumed += tasks;
        self.unreported_bytes = self.unreported_bytes.saturating_add(bytes);
        let unreported = self.consumed - self.reported;
        let window = self.credit_tasks.saturating_sub(self.reported);
        if unreported * REPORT_PART < window && self.unreported_bytes < REPORT_BYTES {
            return None;
        }
        self.reported = self.consumed;
        self.unreported_bytes = 0;
        Some(self.consumed)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn window(tasks: u64, bytes: u64) -> Window {
        let mut window = Window::default();
        window.grant(tasks, bytes);
        window
    }

    #[test]
    fn nothing_is_admitted_before_credit_comes() {
        assert_eq!(Window::default().admit(0), None);
    }

    #[test]
    fn an_argument_larger_than_the_window_goes_alone() {
        let mut window = window(10, 100);
        assert_eq!(window.admit(1 << 30), Some(0));
        assert_eq!(window.admit(0), None);
        window.grant(10, (1 << 30) + 100);
        assert_eq!(window.admit(0), Some(1));
    }

    #[test]
    fn late_credit_takes_nothing_back() {
        let mut window = window(10, 100);
        window.grant(5, 50);
        assert_eq!((0..20).filter_map(|_| window.admit(1)).count(), 10);
    }

    #[test]
    fn large_results_are_reported_before_the_coordinator_holds_back() {
        let mut window = window(80_000, u64::MAX);
        assert_eq!(window.consume(1, REPORT_BYTES - 1), None);
        assert_eq!(window.consume(1, 1), Some(2));
        assert_eq!(window.consume(1, REPORT_BYTES - 1), None);
    }

    proptest! {
        /// A coordinator that gives `width` ahead of what it was told is consumed never starves the pool, and the
        /// pool never passes the credit.
        #[test]
        fn a_window_never_runs_dry(width in 1u64..2_000, steps in proptest::collection::vec(1u64..50, 1..200)) {
            let mut window = window(width, u64::MAX);
            let (mut credit, mut ended) = (width, 0);
            for step in steps {
                while window.admit(1).is_some() {}
                prop_assert!(window.submitted() <= credit);
                prop_assert!(window.submitted() > ended, "starved at {ended} of {credit}");
                let take = step.min(window.submitted() - ended);
                ended += take;
                if let Some(consumed) = window.consume(take, take) {
                    prop_assert_eq!(consumed, ended);
                    credit = consumed + width;
                    window.grant(credit, u64::MAX);
                }
            }
        }
    }
}
