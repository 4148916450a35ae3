//! How far ahead tasks are submitted. Pure.

/// Which tasks may be submitted yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Gate {
    /// All: the cluster's credit is the only limit.
    Open,
    /// As many as there are free slots, so that whatever is submitted runs at once, and stopping submission stops
    /// the run softly.
    Slots,
    /// In waves: each begins when all tasks before its first have ended. Holds where waves end, in tasks.
    Waves(Vec<u64>),
}

impl Gate {
    /// Tasks below this index may be submitted, when `ended` have ended and `slots` are held.
    pub(crate) fn limit(&self, ended: u64, slots: u32) -> u64 {
        match self {
            Self::Open => u64::MAX,
            Self::Slots => ended + u64::from(slots),
            Self::Waves(ends) => ends
                .iter()
                .copied()
                .find(|end| *end > ended)
                .unwrap_or(u64::MAX),
        }
    }

    /// Waves of `size` tasks after a first one of `canary`.
    pub(crate) fn waves(total: u64, canary: u64, size: u64) -> Self {
        let mut ends = Vec::new();
        let mut end = if canary > 0 { canary } else { size };
        while end < total {
            ends.push(end);
            end = end.saturating_add(size);
        }
        ends.push(total);
        Self::Waves(ends)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waves_open_one_after_another() {
        let gate = Gate::waves(10, 1, 4);
        assert_eq!(gate, Gate::Waves(vec![1, 5, 9, 10]));
        let check = |ended, expect| assert_eq!(gate.limit(ended, 99), expect, "after {ended}");
        check(0, 1);
        check(1, 5);
        check(4, 5);
        check(5, 9);
        check(9, 10);
    }

    #[test]
    fn a_wave_may_be_all_that_is_left() {
        assert_eq!(Gate::waves(3, 0, u64::MAX), Gate::Waves(vec![3]));
        assert_eq!(Gate::waves(3, 1, u64::MAX), Gate::Waves(vec![1, 3]));
        assert_eq!(Gate::waves(3, 5, 2), Gate::Waves(vec![3]));
    }

    #[test]
    fn free_slots_are_the_limit_where_a_run_must_stop_softly() {
        assert_eq!(Gate::Slots.limit(0, 0), 0);
        assert_eq!(Gate::Slots.limit(5, 2), 7);
    }
}
