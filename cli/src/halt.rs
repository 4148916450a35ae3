//! `--halt`: when a run stops early. Pure: counts go in, a verdict comes out.

use std::str::FromStr;

/// When to stop, in GNU parallel's words: `never`, or `now|soon,fail|success|done=N|N%`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Halt {
    /// Whatever happens, every task runs.
    #[default]
    Never,
    /// As soon as enough tasks have ended in a certain way.
    After {
        /// What becomes of the tasks that run.
        how: How,
        /// Which tasks count.
        what: What,
        /// How many of them.
        limit: Limit,
    },
}

/// What becomes of the tasks that run when the run stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// They are killed.
    Now,
    /// They run to their end; none starts any more.
    Soon,
}

/// Which tasks count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// Those that failed.
    Fail,
    /// Those that succeeded.
    Success,
    /// All.
    Done,
}

/// How many tasks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Limit {
    /// This many.
    Count(u64),
    /// This share of all tasks, in percent.
    Percent(f64),
}

/// Tasks that have ended so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Those that failed.
    pub(crate) failed: u64,
    /// Those that succeeded.
    pub(crate) succeeded: u64,
}

/// GNU parallel counts a percentage only from this many tasks on, so that the first failure of 1,000 is not 100 %.
const PERCENT_TASKS_MIN: u64 = 3;

impl Halt {
    /// Whether the run stops now, and how. `total` is the number of tasks in all.
    pub(crate) fn verdict(self, counts: Counts, total: Option<u64>) -> Option<How> {
        let Self::After { how, what, limit } = self else {
            return None;
        };
        let count = match what {
            What::Fail => counts.failed,
            What::Success => counts.succeeded,
            What::Done => counts.failed + counts.succeeded,
        };
        limit.is_reached(count, total).then_some(how)
    }

    /// Whether the number of all tasks must be known, so that inputs cannot be read lazily.
    pub(crate) fn needs_total(self) -> bool {
        matches!(
            self,
            Self::After {
                limit: Limit::Percent(_),
                ..
            }
        )
    }

    /// Whether tasks may be sent ahead of free slots. Where a run can stop, none must have begun that a stop at the
    /// end before it would have kept from beginning.
    pub(crate) fn allows_ahead(self) -> bool {
        self == Self::Never
    }

    /// Whether success is what the run waits for, so that the rest counts as neither.
    pub(crate) fn waits_for_success(self) -> bool {
        matches!(
            self,
            Self::After {
                what: What::Success,
                ..
            }
        )
    }
}

impl Limit {
    #[expect(clippy::cast_precision_loss, reason = "percentages need no 53 bits")]
    fn is_reached(self, count: u64, total: Option<u64>) -> bool {
        match (self, total) {
            (Self::Count(limit), _) => count >= limit,
            (Self::Percent(limit), Some(total)) => {
                count >= PERCENT_TASKS_MIN.min(total)
                    && count > 0
                    && count as f64 * 100.0 >= limit * total as f64
            }
            (Self::Percent(_), None) => false,
        }
    }
}

impl FromStr for Limit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let limit = match text.strip_suffix('%') {
            Some(percent) => percent
                .parse()
                .ok()
                .filter(|percent| *percent > 0.0 && *percent <= 100.0)
                .map(Self::Percent),
            None => text
                .parse()
                .ok()
                .filter(|count| *count > 0)
                .map(Self::Count),
        };
        limit.ok_or_else(|| {
            format!("`{text}` is neither a number from 1 up nor a percentage: write 3 or 10%")
        })
    }
}

impl FromStr for Halt {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if matches!(text, "never" | "0") {
            return Ok(Self::Never);
        }
        parse_after(text).ok_or_else(|| {
            format!(
                "`{text}` says nothing about when to stop: write now|soon,fail|success|done=N|N% as in `now,fail=1` or `soon,done=50%`, or `never`"
            )
        })
    }
}

fn parse_after(text: &str) -> Option<Halt> {
    let (how, rest) = text.split_once(',')?;
    let (what, limit) = rest.split_once('=')?;
    let how = match how {
        "now" => How::Now,
        "soon" => How::Soon,
        _ => return None,
    };
    let what = match what {
        "fail" => What::Fail,
        "success" => What::Success,
        "done" => What::Done,
        _ => return None,
    };
    let limit = limit.parse().ok()?;
    Some(Halt::After { how, what, limit })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(halt: &str, failed: u64, succeeded: u64, total: Option<u64>) -> Option<How> {
        let halt: Halt = halt.parse().unwrap();
        halt.verdict(Counts { failed, succeeded }, total)
    }

    #[test]
    fn counts_decide() {
        assert_eq!(verdict("never", 9, 9, Some(9)), None);
        assert_eq!(verdict("now,fail=1", 0, 9, None), None);
        assert_eq!(verdict("now,fail=1", 1, 9, None), Some(How::Now));
        assert_eq!(verdict("soon,fail=3", 2, 0, None), None);
        assert_eq!(verdict("soon,fail=3", 3, 0, None), Some(How::Soon));
        assert_eq!(verdict("now,success=1", 5, 1, None), Some(How::Now));
        assert_eq!(verdict("soon,done=4", 2, 2, None), Some(How::Soon));
    }

    #[test]
    fn a_percentage_is_of_all_tasks_and_from_three_on() {
        assert_eq!(verdict("now,fail=10%", 2, 0, Some(10)), None);
        assert_eq!(verdict("now,fail=10%", 3, 0, Some(10)), Some(How::Now));
        assert_eq!(verdict("now,fail=50%", 49, 0, Some(100)), None);
        assert_eq!(verdict("now,fail=50%", 50, 0, Some(100)), Some(How::Now));
        assert_eq!(verdict("now,fail=50%", 1, 0, Some(1)), Some(How::Now));
        assert_eq!(verdict("now,fail=50%", 0, 0, Some(0)), None);
        assert_eq!(verdict("now,done=100%", 0, 3, None), None);
    }

    #[test]
    fn nonsense_is_refused_with_what_would_do() {
        for text in [
            "",
            "now",
            "now,fail",
            "now,fail=0",
            "later,fail=1",
            "now,fail=-1",
            "now,fail=0%",
            "now,fail=101%",
            "fail=1",
            "now,fail=x",
        ] {
            let error = text.parse::<Halt>().unwrap_err();
            assert!(error.contains("now,fail=1"), "{text}: {error}");
        }
    }
}
