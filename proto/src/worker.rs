//! The worker protocol: between an agent and a worker that stays from task to task, over the Unix stream
//! socket the worker inherits. `docs/worker-protocol.md` tells it for other languages.
//!
//! A worker runs one task at a time, in the order they came. It may hold tasks ahead; it gives back those it has
//! not begun when asked ([`ToWorker::GiveBack`]), at any time, also while a task runs.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    frame::{DecodeError, Message},
    ids::{Attempt, SpecId},
    outcome::Outcome,
    rows::{Payloads, rows, table},
};

/// The variable that tells a process to be a worker: the number of the inherited socket.
pub const WORKER_FD_ENV: &str = "FLEETPOOL_WORKER_FD";

/// What an agent tells a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToWorker {
    /// First: run this before anything else; answered by `Ready` or `Unfit`.
    Init {
        /// Name of the initializer; none when empty.
        function: String,
        /// Its encoded argument, one item.
        payloads: Payloads,
    },
    /// What tasks to come have in common.
    Define {
        /// Number of the specification.
        spec: SpecId,
        /// Name of the function.
        function: String,
    },
    /// Tasks, in order.
    Run {
        /// Which.
        #[serde(with = "table")]
        rows: Vec<RunRow>,
        /// Their arguments, a row each.
        payloads: Payloads,
    },
    /// Give back up to `count` tasks not yet begun, the last first; answered by `GivenBack`.
    GiveBack {
        /// Most to give back.
        count: u32,
    },
    /// What was printed has been read: begin the next task. Only after a `Done` with `printed`.
    Go,
    /// End when the tasks at hand have ended.
    Stop,
}

/// What a worker tells its agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromWorker {
    /// It is initialised.
    Ready {
        /// Its process.
        pid: u32,
    },
    /// Its initializer failed; the worker ends.
    Unfit {
        /// Why, for people.
        reason: String,
    },
    /// Tasks have ended, in the order they were run.
    Done {
        /// How.
        #[serde(with = "table")]
        rows: Vec<DoneRow>,
        /// Results or errors, a row each.
        payloads: Payloads,
    },
    /// These will not be run by this worker.
    GivenBack {
        /// Which.
        #[serde(with = "table")]
        rows: Vec<RunRow>,
    },
}

rows! {
    /// A task for a worker.
    pub struct RunRow, RunColumns {
        /// The task.
        pub index: u64,
        /// Which try.
        pub attempt: Attempt,
        /// What it has in common with others.
        pub spec: SpecId,
    }
}

rows! {
    /// A task that a worker has run.
    pub struct DoneRow, DoneColumns {
        /// The task.
        pub index: u64,
        /// Which try.
        pub attempt: Attempt,
        /// `Done`, `Failed` or `NotStarted`.
        pub outcome: Outcome,
        /// When it began, in microseconds since 1970.
        pub started_us: u64,
        /// How long it ran, in microseconds.
        pub run_us: u64,
        /// It left output in the pipes that has not been read: the worker waits for `Go`.
        pub printed: bool,
    }
}

/// An error of a native task: the payload of `Failed`, in MessagePack.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NativeError {
    /// The panic's message, or why the call could not be made.
    pub message: String,
    /// Where it panicked: `file:line:column`.
    pub location: String,
}

impl Message for ToWorker {
    fn payloads(&mut self) -> Option<&mut Payloads> {
        match self {
            Self::Init { payloads, .. } | Self::Run { payloads, .. } => Some(payloads),
            _ => None,
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Init { .. } => "init",
            Self::Define { .. } => "define",
            Self::Run { .. } => "run",
            Self::GiveBack { .. } => "give_back",
            Self::Go => "go",
            Self::Stop => "stop",
        }
    }

    fn check(&self) -> Result<(), DecodeError> {
        match self {
            Self::Init { payloads, .. } if payloads.items().len() > 1 => Err(
                DecodeError::Inconsistent("more than one initializer argument"),
            ),
            Self::Run { rows, payloads } => payloads.are(rows.len()),
            _ => Ok(()),
        }
    }
}

impl Message for FromWorker {
    fn payloads(&mut self) -> Option<&mut Payloads> {
        match self {
            Self::Done { payloads, .. } => Some(payloads),
            _ => None,
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Ready { .. } => "ready",
            Self::Unfit { .. } => "unfit",
            Self::Done { .. } => "done",
            Self::GivenBack { .. } => "given_back",
        }
    }

    fn check(&self) -> Result<(), DecodeError> {
        match self {
            Self::Done { rows, payloads } => payloads.are(rows.len()),
            _ => Ok(()),
        }
    }
}

impl ToWorker {
    /// One task.
    #[must_use]
    pub fn run_one(row: RunRow, argument: Bytes) -> Self {
        Self::Run {
            rows: vec![row],
            payloads: Payloads::from(vec![argument]),
        }
    }
}
