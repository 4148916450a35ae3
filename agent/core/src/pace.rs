//! How long a pool's tasks take, and so how many a worker is handed at a time.
//!
//! Handing several saves a round trip a task, which is all the time that a short task takes. What is handed
//! can be taken back, but at the price of a round trip: so tasks are handed for a few milliseconds at most.

use std::time::Duration;

use fleetpool_proto::pool::Runtime;

/// Work that a worker is handed ahead. About fifty round trips to a worker, and the most that a task waits behind
/// tasks of the length that was expected.
const AHEAD: Duration = Duration::from_millis(2);
/// The same for commands. The shortest take a millisecond, so this is some five of them: as many as it takes for one
/// message to bring several, and for a slot to go on while its agent waits for a processor.
const COMMANDS_AHEAD: Duration = Duration::from_millis(5);
/// How long a Python task may hold up those behind it. Its worker tells of short tasks a millisecond late, and is off the
/// processor for some at a time where there are more processes than processors.
const PYTHON_PATIENCE: Duration = Duration::from_millis(10);
/// Tasks up to this length are handed one ahead, so that none waits for the agent between two of them: that takes a
/// tenth of a millisecond, and several where the machine is busy.
const NEXT_AHEAD: Duration = Duration::from_millis(20);
/// Most tasks handed to a worker, however short they are.
const HANDED_MAX: u32 = 1024;
/// How much a task counts in the mean: an eighth.
const WEIGHT: u64 = 8;

/// A running mean of run times.
#[derive(Clone, Debug)]
pub(crate) struct Pace {
    /// Work that a worker is handed.
    within: Duration,
    /// How long a task may hold up those behind it, beyond what was expected of it.
    patience: Duration,
    mean_ns: u64,
    /// Short tasks seen in a row, as a power of two: trust grows by doubling and is lost at once.
    trust: u32,
}

impl Pace {
    /// Of a pool that nothing is known of.
    pub(crate) fn new(runtime: &Runtime) -> Self {
        let within = match runtime {
            Runtime::Command => COMMANDS_AHEAD,
            Runtime::Native { .. } | Runtime::Python { .. } => AHEAD,
        };
        let patience = match runtime {
            Runtime::Python { .. } => PYTHON_PATIENCE,
            _ => within,
        };
        Self {
            within,
            patience,
            mean_ns: 0,
            trust: 0,
        }
    }

    /// Takes in a task's run time.
    pub(crate) fn observe(&mut self, run_us: u64) {
        let run_ns = run_us.saturating_mul(1000);
        self.mean_ns = if self.trust == 0 {
            run_ns
        } else {
            let (mean, run) = (self.mean_ns, run_ns);
            mean - mean / WEIGHT + run / WEIGHT
        };
        let short = run_ns < ns(NEXT_AHEAD);
        self.trust = if short { self.trust + 1 } else { 1 }.min(HANDED_MAX.ilog2() + 1);
    }

    /// Most tasks that a worker of the pool should have in hand.
    pub(crate) fn ahead(&self) -> usize {
        let trusted = 1 << self.trust.saturating_sub(1);
        let next = if self.mean_ns < ns(NEXT_AHEAD) { 2 } else { 1 };
        let fits = ns(self.within) / self.mean_ns.max(1);
        usize::try_from(fits.max(next).min(trusted)).unwrap_or(1)
    }

    /// From when on a task holds up those handed behind it.
    pub(crate) fn patience(&self) -> Duration {
        Duration::from_nanos(self.mean_ns) + self.patience
    }

    /// How long `tasks` will take.
    pub(crate) fn estimate(&self, tasks: usize) -> Duration {
        Duration::from_nanos(self.mean_ns.saturating_mul(tasks as u64))
    }
}

fn ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use fleetpool_proto::pool::ContentHash;

    use super::*;

    fn after(runs_us: &[u64]) -> usize {
        let mut pace = Pace::new(&Runtime::Native {
            program: ContentHash([0; 32]),
            size: 0,
        });
        runs_us.iter().for_each(|&run_us| pace.observe(run_us));
        pace.ahead()
    }

    #[test]
    fn what_is_unknown_is_handed_one_at_a_time() {
        assert_eq!(after(&[]), 1);
    }

    #[test]
    fn trust_in_short_tasks_doubles() {
        assert_eq!(after(&[0]), 1);
        assert_eq!(after(&[0, 0]), 2);
        assert_eq!(after(&[0, 0, 0, 0]), 8);
        assert_eq!(after(&[0; 40]), 1024);
    }

    #[test]
    fn two_milliseconds_of_work_are_handed() {
        assert_eq!(after(&[100; 40]), 20);
    }

    #[test]
    fn the_next_task_is_there_when_one_of_some_milliseconds_ends() {
        assert_eq!(after(&[5_000; 40]), 2);
        assert_eq!(after(&[50_000; 40]), 1);
    }

    #[test]
    fn one_long_task_ends_the_trust() {
        assert_eq!(after(&[[0; 40].as_slice(), &[1_000_000]].concat()), 1);
    }
}
