//! What a run's exit status is. Pure: ends of tasks go in, the status comes out.

use fleetpool_proto::Outcome;

use crate::{failure::Exit, halt::Counts};

/// How a run has gone so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Verdict {
    /// Tasks that ended by themselves.
    pub(crate) counts: Counts,
    /// Tasks that ended because the run was stopped.
    pub(crate) stopped: u64,
    /// Of the failed ones, those that ran out of time.
    timed_out: u64,
    last: Option<Outcome>,
    end: Option<End>,
}

/// Why a run ended before its tasks were done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// A signal.
    Signal(i32),
    /// `--deadline`.
    Deadline,
    /// `--halt`, which waited for successes.
    HaltedBySuccess,
    /// `--halt`, which waited for anything else.
    Halted,
}

impl Verdict {
    /// A task has ended.
    pub(crate) fn add(&mut self, outcome: Outcome) {
        if outcome == Outcome::Cancelled && self.end.is_some() {
            self.stopped += 1;
            return;
        }
        self.timed_out += u64::from(outcome == Outcome::TimedOut);
        if outcome.is_success() {
            self.counts.succeeded += 1;
        } else {
            self.counts.failed += 1;
        }
        if self.end.is_none() {
            self.last = Some(outcome);
        }
    }

    /// The run is stopped; the first reason counts, unless a signal comes.
    pub(crate) fn stop(&mut self, end: End) {
        match (self.end, end) {
            (None, _) | (_, End::Signal(_)) => self.end = Some(end),
            (Some(_), _) => {}
        }
    }

    /// Why the run was stopped, if it was.
    pub(crate) fn end(&self) -> Option<End> {
        self.end
    }

    /// Tasks that have ended, one way or another.
    pub(crate) fn ended(&self) -> u64 {
        self.counts.failed + self.counts.succeeded + self.stopped
    }

    /// The exit status.
    pub(crate) fn exit(&self) -> Exit {
        let only_timeouts = self.timed_out == self.counts.failed && self.counts.succeeded == 0;
        match self.end {
            Some(End::Signal(number)) => Exit::Signal(number),
            Some(End::Deadline) => Exit::TimedOut,
            Some(End::HaltedBySuccess) => Exit::Success,
            Some(End::Halted) if self.last == Some(Outcome::TimedOut) => Exit::TimedOut,
            _ if self.counts.failed == 0 => Exit::Success,
            _ if only_timeouts => Exit::TimedOut,
            _ => Exit::Failed(self.counts.failed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(outcomes: &[Outcome], end: Option<End>, expect: Exit) {
        let mut verdict = Verdict::default();
        outcomes.iter().for_each(|outcome| verdict.add(*outcome));
        if let Some(end) = end {
            verdict.stop(end);
        }
        verdict.add(Outcome::Cancelled);
        assert_eq!(verdict.exit(), expect, "{outcomes:?} {end:?}");
    }

    #[test]
    fn the_exit_status_tells_how_the_run_went() {
        use Outcome::{Done, Failed, TimedOut};
        check(&[Done, Failed, Failed], None, Exit::Failed(3));
        check(&[Done, TimedOut], Some(End::Signal(2)), Exit::Signal(2));
        check(&[Done], Some(End::Deadline), Exit::TimedOut);
        check(&[Failed, Done], Some(End::HaltedBySuccess), Exit::Success);
        check(&[Done, Failed], Some(End::Halted), Exit::Failed(1));
        check(&[Done, TimedOut], Some(End::Halted), Exit::TimedOut);
        check(&[Done, Done], Some(End::Halted), Exit::Success);
    }

    #[test]
    fn a_run_in_which_nothing_but_timeouts_happened_was_stopped_by_them() {
        let exit = |outcomes: &[Outcome]| {
            let mut verdict = Verdict::default();
            outcomes.iter().for_each(|outcome| verdict.add(*outcome));
            verdict.exit()
        };
        assert_eq!(exit(&[]), Exit::Success);
        assert_eq!(exit(&[Outcome::Done]), Exit::Success);
        assert_eq!(
            exit(&[Outcome::TimedOut, Outcome::TimedOut]),
            Exit::TimedOut
        );
        assert_eq!(exit(&[Outcome::TimedOut, Outcome::Done]), Exit::Failed(1));
        assert_eq!(exit(&[Outcome::TimedOut, Outcome::Failed]), Exit::Failed(2));
    }
}
