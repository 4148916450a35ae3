//! Every way a task can end (G3: each task has exactly one of them).

use std::fmt;

use serde::{Deserialize, Serialize};

/// How an attempt, or in the end a task, ended. The payload beside it holds the details: the result for
/// [`Outcome::Done`], the runtime's own error for [`Outcome::Failed`], a [`Loss`] for the others.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(into = "u8", from = "u8")]
#[repr(u8)]
pub enum Outcome {
    /// It returned a result; a command exited with 0.
    Done = 0,
    /// It ended by itself with an error: an exception, a panic, an exit status that is not 0.
    Failed = 1,
    /// Its worker process died under it.
    WorkerLost = 2,
    /// It ran past its timeout and was killed.
    TimedOut = 3,
    /// The kernel killed it for want of memory.
    OutOfMemory = 4,
    /// It was cancelled, before it started or while it ran.
    Cancelled = 5,
    /// It could not be started: no such program, no such function, no such folder.
    NotStarted = 6,
    /// Its host was lost more often than its reruns allow.
    HostLost = 7,
    /// Its host was lost and it may not be rerun: nobody knows whether it ended.
    #[default]
    Unknown = 8,
}

impl Outcome {
    /// Every outcome, for tables that must be whole.
    pub const ALL: [Self; 9] = [
        Self::Done,
        Self::Failed,
        Self::WorkerLost,
        Self::TimedOut,
        Self::OutOfMemory,
        Self::Cancelled,
        Self::NotStarted,
        Self::HostLost,
        Self::Unknown,
    ];

    /// The word used in JSON, logs and messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::WorkerLost => "worker_lost",
            Self::TimedOut => "timed_out",
            Self::OutOfMemory => "out_of_memory",
            Self::Cancelled => "cancelled",
            Self::NotStarted => "not_started",
            Self::HostLost => "host_lost",
            Self::Unknown => "unknown",
        }
    }

    /// Whether the task did what it was asked to.
    #[must_use]
    pub fn is_success(self) -> bool {
        self == Self::Done
    }
}

impl From<Outcome> for u8 {
    fn from(outcome: Outcome) -> Self {
        outcome as Self
    }
}

impl From<u8> for Outcome {
    /// A number from a newer peer that this one has no word for is [`Outcome::Unknown`].
    fn from(code: u8) -> Self {
        Self::ALL
            .get(usize::from(code))
            .copied()
            .unwrap_or_default()
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why there is no result: what is known about a task that was lost, killed or never started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Loss {
    /// The reason in words, a lower-case fragment.
    pub message: String,
    /// The signal that ended the process.
    pub signal: Option<i32>,
    /// The status it exited with.
    pub exit: Option<i32>,
    /// Its largest resident memory, in KiB; 0 when unknown.
    pub memory_kib_peak: u64,
    /// The last lines it wrote to stderr.
    pub stderr_tail: String,
}

impl Loss {
    /// A loss of which only the reason is known.
    pub fn because(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            ..Self::default()
        }
    }
}
