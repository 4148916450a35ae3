//! How a run of `fleetpool` ends for whoever started it: an exit status, and a message where it is not good.

use std::{
    fmt,
    io::{self, Write as _},
};

/// The exit statuses, as `fleetpool --help` lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Everything asked for was done.
    Success,
    /// This many tasks failed; more than 100 of them are 101.
    Failed(u64),
    /// A timeout stopped the run.
    TimedOut,
    /// fleetpool itself failed: no cluster, refused, a disk full.
    Fleetpool,
    /// The selector names no host.
    NothingMatched,
    /// The command line makes no sense.
    Usage,
    /// Stopped by a signal with this number.
    Signal(i32),
}

/// Failed tasks that are still counted in the exit status; above it, every number looks the same.
const COUNTED_MAX: u64 = 100;

impl Exit {
    /// The number for the operating system.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Failed(count) => u8::try_from(count.min(COUNTED_MAX + 1)).unwrap_or(u8::MAX),
            Self::TimedOut => 124,
            Self::Fleetpool => 125,
            Self::NothingMatched => 126,
            Self::Usage => 2,
            Self::Signal(number) => u8::try_from(128 + number).unwrap_or(u8::MAX),
        }
    }
}

/// An end that needs words.
#[derive(Debug)]
pub(crate) struct Failure {
    /// What the shell sees.
    pub(crate) exit: Exit,
    /// What people see: what is wrong, where, and the way out. Empty: say nothing.
    pub(crate) message: String,
}

impl Failure {
    /// fleetpool itself failed.
    pub(crate) fn fleetpool(message: impl fmt::Display) -> Self {
        Self::new(Exit::Fleetpool, message)
    }

    /// The command line makes no sense.
    pub(crate) fn usage(message: impl fmt::Display) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// Ends with `exit` and a message.
    pub(crate) fn new(exit: Exit, message: impl fmt::Display) -> Self {
        Self {
            exit,
            message: message.to_string(),
        }
    }

    /// The reader of our output is gone: end as any Unix tool does, without a word.
    pub(crate) fn broken_pipe() -> Self {
        Self::new(Exit::Signal(13), "")
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Says something to whoever started fleetpool, if anybody listens.
pub(crate) fn say(text: &str) {
    let _ = writeln!(io::stderr(), "fleetpool: {text}");
}

/// `1 host`, `3 hosts`.
pub(crate) fn count(number: u64, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_statuses_are_those_of_the_manual() {
        let check = |exit: Exit, code| assert_eq!(exit.code(), code, "{exit:?}");
        check(Exit::Success, 0);
        check(Exit::Failed(1), 1);
        check(Exit::Failed(100), 100);
        check(Exit::Failed(101), 101);
        check(Exit::Failed(1_000_000), 101);
        check(Exit::TimedOut, 124);
        check(Exit::Fleetpool, 125);
        check(Exit::NothingMatched, 126);
        check(Exit::Usage, 2);
        check(Exit::Signal(2), 130);
    }
}
