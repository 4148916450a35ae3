//! What is known about a task that has ended, read from the coordinator's row and its payload.

use std::borrow::Cow;

use fleetpool_proto::{HostId, Outcome, command::CommandEnd, message::ResultRow, outcome::Loss};

use crate::template::Command;

/// One task of a run: an input and the command made of it.
#[derive(Clone, Debug)]
pub(crate) struct Task {
    /// Its number among the inputs, counted from 1.
    pub(crate) seq: u64,
    /// Its inputs.
    pub(crate) values: Vec<Vec<u8>>,
    /// What it runs.
    pub(crate) command: Command,
    /// The only host it may run on.
    pub(crate) host: Option<Pinned>,
}

/// A host that a task is meant for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pinned {
    /// Its number.
    pub(crate) id: HostId,
    /// Its name.
    pub(crate) name: String,
}

impl Task {
    /// The name of the host that it is meant for; empty when any will do.
    pub(crate) fn host_name(&self) -> &str {
        self.host.as_ref().map_or("", |host| &host.name)
    }
}

/// How a task ended.
#[derive(Clone, Debug)]
pub(crate) struct Ended {
    /// The task.
    pub(crate) task: Task,
    /// Where it ran; empty when it never did.
    pub(crate) host: String,
    /// The command as it ran there.
    pub(crate) text: Vec<u8>,
    /// Its process; 0 when there was none.
    pub(crate) pid: u32,
    /// The try that counted.
    pub(crate) attempt: u32,
    /// When it began, in microseconds since 1970; 0 when it never did.
    pub(crate) started_us: u64,
    /// How long it ran, in microseconds.
    pub(crate) run_us: u64,
    /// How it ended.
    pub(crate) outcome: Outcome,
    /// Its exit status, where it exited.
    pub(crate) exit: Option<i32>,
    /// The signal that ended it, where one did.
    pub(crate) signal: Option<i32>,
    /// Why there is no result, in words; empty when it ended by itself.
    pub(crate) reason: String,
    /// Processes that it left running, and that were ended.
    pub(crate) leaked: u32,
}

impl Ended {
    /// Puts together what came for `task`; `host` is the name of the row's host.
    pub(crate) fn new(task: Task, host: Option<String>, row: &ResultRow, payload: &[u8]) -> Self {
        let host = host.unwrap_or_else(|| task.host_name().to_owned());
        let end = End::read(row.outcome, payload);
        Self {
            text: task.command.text(&host, u32::from(row.slot.0) + 1),
            task,
            host,
            pid: row.pid,
            attempt: row.attempt.0,
            started_us: row.started_us,
            run_us: row.run_us,
            outcome: row.outcome,
            exit: end.exit,
            signal: end.signal,
            reason: end.reason,
            leaked: end.leaked,
        }
    }

    /// A task that could not even be sent to its host.
    pub(crate) fn unsent(task: Task, reason: String) -> Self {
        let outcome = Outcome::NotStarted;
        let row = ResultRow {
            outcome,
            ..ResultRow::default()
        };
        Self {
            reason,
            ..Self::new(task, None, &row, &[])
        }
    }

    /// Seconds since 1970 when it began.
    pub(crate) fn start_s(&self) -> f64 {
        seconds(self.started_us)
    }

    /// Seconds that it ran.
    pub(crate) fn runtime_s(&self) -> f64 {
        seconds(self.run_us)
    }

    /// The command for people.
    pub(crate) fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.text)
    }

    /// The end in a few words: `exit 3`, `killed by signal 9`, `timed out after 2s`.
    pub(crate) fn words(&self) -> String {
        let mut words = match (self.outcome, self.exit, self.signal) {
            (Outcome::Done, ..) => "done".to_owned(),
            (Outcome::Failed | Outcome::WorkerLost, _, Some(signal)) => {
                format!("killed by {}", signal_name(signal))
            }
            (Outcome::Failed, Some(exit), None) => format!("exit {exit}"),
            (outcome, ..) => outcome.name().replace('_', " "),
        };
        if !self.reason.is_empty() {
            words = format!("{words}: {}", self.reason);
        }
        words
    }
}

/// `SIGKILL` for 9.
fn signal_name(signal: i32) -> String {
    nix::sys::signal::Signal::try_from(signal).map_or_else(
        |_| format!("signal {signal}"),
        |signal| signal.as_str().to_owned(),
    )
}

/// The part that the payload tells.
#[derive(Default)]
struct End {
    exit: Option<i32>,
    signal: Option<i32>,
    reason: String,
    leaked: u32,
}

impl End {
    /// A payload that cannot be read tells nothing; the outcome stands.
    fn read(outcome: Outcome, payload: &[u8]) -> Self {
        match outcome {
            Outcome::Done | Outcome::Failed => {
                let end: CommandEnd = rmp_serde::from_slice(payload).unwrap_or_default();
                Self {
                    exit: end.exit,
                    signal: end.signal,
                    leaked: end.leaked,
                    ..Self::default()
                }
            }
            _ => {
                let loss: Loss = rmp_serde::from_slice(payload).unwrap_or_default();
                Self {
                    exit: loss.exit,
                    signal: loss.signal,
                    reason: loss.message,
                    ..Self::default()
                }
            }
        }
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "microseconds since 1970 fit into 53 bits until 2255"
)]
fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

#[cfg(test)]
pub(crate) mod tests {
    use std::ffi::OsString;

    use super::*;
    use crate::template::{Syntax, Template};

    /// Task number `seq` of `echo VALUE`.
    pub(crate) fn task(seq: u64, value: &str) -> Task {
        let template = Template::parse(
            &[OsString::from("echo")],
            false,
            &Syntax::Inputs { sources: 1 },
        )
        .unwrap();
        let values = vec![value.as_bytes().to_vec()];
        Task {
            seq,
            command: template.command(seq, &values),
            values,
            host: None,
        }
    }

    /// Task number `seq` of `echo VALUE`, ended on web1.
    pub(crate) fn ended(seq: u64, value: &str, exit: i32) -> Ended {
        let outcome = if exit == 0 {
            Outcome::Done
        } else {
            Outcome::Failed
        };
        let row = ResultRow {
            outcome,
            pid: 77,
            started_us: 1_700_000_000_123_456,
            run_us: 12_345,
            ..ResultRow::default()
        };
        let end = CommandEnd {
            exit: Some(exit),
            ..CommandEnd::default()
        };
        Ended::new(
            task(seq, value),
            Some("web1".into()),
            &row,
            &rmp_serde::to_vec_named(&end).unwrap(),
        )
    }

    #[test]
    fn ends_are_told_in_words() {
        let check = |outcome, end: End, expect| {
            let mut ended = ended(1, "a", 0);
            (ended.outcome, ended.exit, ended.signal, ended.reason) =
                (outcome, end.exit, end.signal, end.reason);
            assert_eq!(ended.words(), expect);
        };
        let end = |exit, signal, reason: &str| End {
            exit,
            signal,
            reason: reason.into(),
            leaked: 0,
        };
        check(Outcome::Done, end(Some(0), None, ""), "done");
        check(Outcome::Failed, end(Some(3), None, ""), "exit 3");
        check(Outcome::Failed, end(None, Some(9), ""), "killed by SIGKILL");
        check(
            Outcome::TimedOut,
            end(None, Some(15), "ran past its 2s"),
            "timed out: ran past its 2s",
        );
        check(
            Outcome::Unknown,
            end(None, None, "its host was lost"),
            "unknown: its host was lost",
        );
    }

    #[test]
    fn a_payload_that_makes_no_sense_tells_nothing() {
        let row = ResultRow {
            outcome: Outcome::Failed,
            ..ResultRow::default()
        };
        let ended = Ended::new(task(1, "a"), None, &row, b"\xc1nonsense");
        assert_eq!((ended.exit, ended.outcome), (None, Outcome::Failed));
    }
}
