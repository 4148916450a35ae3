//! How far a client may run ahead of its results (G7).

use std::collections::VecDeque;

/// Tasks and bytes that a pool's client may submit.
#[derive(Debug)]
pub(crate) struct Credit {
    window_tasks: u64,
    window_bytes: u64,
    /// Results that the client has consumed.
    consumed: u64,
    /// Bytes of arguments that wait no more.
    bytes_gone: u64,
    told: (u64, u64),
    /// Result batches that were sent and not consumed: (tasks, bytes).
    behind: VecDeque<(u64, u64)>,
    behind_bytes: u64,
    delivered: u64,
}

impl Credit {
    pub(crate) fn new(window_tasks: u64, window_bytes: u64) -> Self {
        Self {
            window_tasks,
            window_bytes,
            consumed: 0,
            bytes_gone: 0,
            told: (0, 0),
            behind: VecDeque::new(),
            behind_bytes: 0,
            delivered: 0,
        }
    }

    /// As it was: so many results delivered and consumed. What was not consumed counts without its bytes.
    pub(crate) fn restore(&mut self, delivered: u64, consumed: u64, bytes_gone: u64) {
        let (window_tasks, window_bytes) = (self.window_tasks, self.window_bytes);
        *self = Self {
            consumed: consumed.min(delivered),
            delivered,
            behind: [(delivered.saturating_sub(consumed), 0)].into(),
            bytes_gone,
            ..Self::new(window_tasks, window_bytes)
        };
    }

    /// The client may not have heard what it was told.
    pub(crate) fn tell_again(&mut self) {
        self.told = (0, 0);
    }

    /// Results that the client has consumed.
    pub(crate) fn consumed(&self) -> u64 {
        self.consumed
    }

    /// Results that were sent.
    pub(crate) fn delivered(&self) -> u64 {
        self.delivered
    }

    /// Bytes of arguments that wait no more.
    pub(crate) fn bytes_gone(&self) -> u64 {
        self.bytes_gone
    }

    /// An argument of this size waits no more: its task has been granted for the first time, or is over without. One that
    /// counted for longer would keep large arguments from all slots but a few (G2).
    pub(crate) fn on_gone(&mut self, bytes: u64) {
        self.bytes_gone += bytes;
    }

    /// There is a result of this size for the client.
    pub(crate) fn on_result(&mut self, bytes: u64) {
        self.behind_bytes += bytes;
    }

    /// Such results go out, as a batch.
    pub(crate) fn on_delivered(&mut self, tasks: u64, bytes: u64) {
        self.delivered += tasks;
        self.behind.push_back((tasks, bytes));
    }

    /// The client has consumed this many results in all. More than were delivered is a client's nonsense.
    pub(crate) fn on_consumed(&mut self, tasks: u64) {
        let tasks = tasks.min(self.delivered);
        let mut newly = tasks.saturating_sub(self.consumed);
        self.consumed = self.consumed.max(tasks);
        while let Some(front) = self.behind.front_mut() {
            if front.0 > newly {
                // A batch's bytes count as read with its last task.
                front.0 -= newly;
                return;
            }
            newly -= front.0;
            self.behind_bytes -= front.1;
            self.behind.pop_front();
        }
    }

    /// Whether the client is so far behind that nothing more should be started for it.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.behind_bytes > self.window_bytes
    }

    /// Bytes of results by which the client may still fall behind.
    pub(crate) fn room_for_results(&self) -> u64 {
        self.window_bytes.saturating_sub(self.behind_bytes)
    }

    /// New totals for the client, when they have grown enough to be worth a message. `slots` widens the window for
    /// pools with very many of them.
    pub(crate) fn poll(&mut self, slots: u64) -> Option<(u64, u64)> {
        let window_tasks = self.window_tasks.max(4 * slots);
        let tasks = self.consumed + window_tasks;
        let bytes = self.bytes_gone + self.window_bytes;
        let (told_tasks, told_bytes) = self.told;
        let worth = tasks >= told_tasks + window_tasks.div_ceil(8)
            || bytes >= told_bytes + self.window_bytes.div_ceil(8);
        if !worth {
            return None;
        }
        self.told = (tasks.max(told_tasks), bytes.max(told_bytes));
        Some(self.told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credit_follows_consumption_and_is_told_in_steps() {
        let mut credit = Credit::new(80, 1000);
        assert_eq!(credit.poll(1), Some((80, 1000)));
        credit.on_result(10);
        credit.on_delivered(40, 10);
        credit.on_consumed(9);
        assert_eq!(credit.poll(1), None);
        credit.on_consumed(10);
        assert_eq!(credit.poll(1), Some((90, 1000)));
    }

    #[test]
    fn a_client_that_is_behind_with_its_results_stops_the_pool() {
        let mut credit = Credit::new(80, 1000);
        credit.on_result(1500);
        credit.on_delivered(2, 1500);
        assert!(credit.is_exhausted());
        credit.on_consumed(2);
        assert!(!credit.is_exhausted());
    }

    #[test]
    fn consuming_more_than_was_delivered_gives_no_credit() {
        let mut credit = Credit::new(80, 1000);
        credit.poll(1);
        credit.on_consumed(1_000_000);
        assert_eq!(credit.poll(1), None);
    }
}
