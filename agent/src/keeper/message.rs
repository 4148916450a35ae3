//! What an agent and its keepers say to each other: inline frames over their socket. A relay speaks as a keeper. Both ends are of
//! one build, but where a keeper or a relay has outlived its agent: fields and variants are added, never removed, and the spawner's
//! `VERSION` is raised where older builds would misunderstand.

use std::path::PathBuf;

use bytes::Bytes;
use fleetpool_proto::{
    AttemptId, Message, Outcome, Payloads, SpecId,
    message::Stream,
    pool::Spec,
    rows::table,
    worker::{DoneRow, RunRow},
};
use serde::{Deserialize, Serialize};

/// What an agent tells a keeper.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ToKeeper {
    /// First: where this is.
    Place(Place),
    /// Start this program as a worker, on the descriptors that came with the keeper's own; once, instead of `Run`.
    Work {
        /// The program's path.
        program: PathBuf,
    },
    /// First to a relay: what the worker is whose sockets came with the relay's own.
    Relay {
        /// Which worker of its slot.
        generation: u64,
        /// A native worker's program; `None`: Python.
        program: Option<PathBuf>,
        /// What it begins with, but for the argument.
        initializer: Option<String>,
        /// One item: the initializer's argument, where there is one.
        payloads: Payloads,
    },
    /// Become a pool's template: nothing of a keeper is left but its place below the spawner.
    Become {
        /// The interpreter: a path, or a name to be looked for as a shell does.
        program: PathBuf,
        /// Its arguments.
        args: Vec<String>,
    },
    /// What commands to come have in common.
    Define {
        /// Number of the specification.
        spec: SpecId,
        /// What it says, but for the standard input and the code.
        body: Box<Spec>,
        /// One item: the standard input, or (to a relay) the code.
        payloads: Payloads,
        /// The standard input is large: it is a file, whose descriptor comes with this.
        by_descriptor: bool,
    },
    /// A command to run, behind those that the keeper has.
    Run {
        /// The attempt.
        attempt: AttemptId,
        /// What it has in common with others.
        spec: SpecId,
        /// One item: a `CommandTask`.
        payloads: Payloads,
    },
    /// To a relay: tasks to run, behind those that the worker has.
    Hand {
        /// The tasks.
        #[serde(with = "table")]
        rows: Vec<RunRow>,
        /// Their arguments, a row each.
        payloads: Payloads,
    },
    /// Give back up to `count` commands not yet begun, the last first; answered by `GivenBack`.
    GiveBack {
        /// Most to give back.
        count: u32,
    },
    /// End this command's whole tree, if it still runs.
    Kill {
        /// Which.
        attempt: AttemptId,
        /// Milliseconds between TERM and KILL.
        grace_ms: u32,
    },
    /// End whatever runs, with its whole tree, forget the rest, and end.
    End {
        /// Milliseconds between TERM and KILL.
        grace_ms: u32,
    },
    /// End when the commands at hand have ended (of a worker: when it has).
    Stop,
    /// What was said up to this number, and this number, is written down: it need not be said again to another agent.
    Heard {
        /// Counted from 1, without what answers to an agent's coming.
        number: u64,
    },
}

/// Where a keeper's processes run, and what all of them are given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    /// The host's name.
    pub(crate) host: String,
    /// The slot, counted from 1.
    pub(crate) slot: u32,
    /// The pool's number.
    pub(crate) pool: u64,
    /// Processors that are a slot's share.
    pub(crate) threads: u32,
    /// The pool's variables, on top of the agent's own.
    pub(crate) env: Vec<(String, Option<String>)>,
    /// The pool's folder.
    pub(crate) cwd: Option<String>,
    /// The first descriptor that came with the keeper's own is its fence.
    pub(crate) fenced: bool,
}

/// What a keeper tells its agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum FromKeeper {
    /// First to an agent that has come after another: how things are. What the other has not heard follows, and `Resumed`.
    Attached(Attached),
    /// All that the other has not heard has been said.
    Resumed,
    /// It is there.
    Ready {
        /// Its process.
        pid: u32,
    },
    /// The lease was over, by the fence: it ends whatever runs, and itself.
    Fenced,
    /// A command began a while ago and still runs.
    Running {
        /// Which.
        attempt: AttemptId,
        /// Its process.
        pid: u32,
    },
    /// A command printed something: whole lines, except at its end and in over-long lines.
    Printed {
        /// Which.
        attempt: AttemptId,
        /// Its process.
        pid: u32,
        /// Where.
        stream: Stream,
        /// One item.
        payloads: Payloads,
    },
    /// A command has ended, and nothing is left of its tree but what may be.
    Ended {
        /// How.
        end: TaskEnd,
        /// One item: a `CommandEnd`, or a `Loss`.
        payloads: Payloads,
    },
    /// From a relay: the worker has ended these tasks, one after another.
    Done {
        /// The worker's process.
        pid: u32,
        /// How they ended.
        #[serde(with = "table")]
        rows: Vec<DoneRow>,
        /// Their results or errors, a row each.
        payloads: Payloads,
    },
    /// These commands will not be run by this keeper.
    GivenBack {
        /// Which.
        attempts: Vec<AttemptId>,
    },
    /// The worker's process runs.
    WorkerStarted {
        /// Its process.
        pid: u32,
    },
    /// The worker could not be started, or is of no use; the keeper ends.
    WorkerNotStarted {
        /// Why, for people.
        reason: String,
    },
    /// The worker has ended, and nothing is left of its tree; the keeper ends.
    WorkerEnded {
        /// The status it exited with.
        exit: Option<i32>,
        /// The signal that ended it.
        signal: Option<i32>,
        /// The kernel took its memory.
        out_of_memory: bool,
        /// Its largest resident memory, in KiB.
        memory_kib_peak: u64,
        /// Its process, as a relay knows it.
        #[serde(default)]
        pid: u32,
        /// The last of what it wrote to stderr, as a relay knows it.
        #[serde(default)]
        stderr_tail: String,
        /// It was given up before it was there. A keeper may come yet, and ends at once.
        #[serde(default)]
        was_given_up: bool,
    },
}

/// A keeper as its next agent finds it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Attached {
    /// Its process.
    pub(crate) pid: u32,
    /// What runs, and its process; to a relay that is not known.
    pub(crate) running: Option<(AttemptId, u32)>,
    /// What has not begun; of a relay: what it has in hand.
    pub(crate) waiting: Vec<AttemptId>,
    /// It takes nothing more.
    pub(crate) is_ending: bool,
    /// The number of the first message that follows.
    pub(crate) next: u64,
    /// Of a relay: its worker has not said that it is ready.
    pub(crate) is_starting: bool,
    /// Of a relay: tasks that its worker was handed and has kept.
    pub(crate) taken: u32,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TaskEnd {
    /// Which.
    pub(crate) attempt: AttemptId,
    /// How.
    pub(crate) outcome: Outcome,
    /// Its process; 0 when it never had one.
    pub(crate) pid: u32,
    /// When it began, in microseconds since 1970; 0 when it never did.
    pub(crate) started_us: u64,
    /// How long it ran, in microseconds.
    pub(crate) run_us: u64,
}

impl Message for ToKeeper {
    fn payloads(&mut self) -> Option<&mut Payloads> {
        match self {
            Self::Define { payloads, .. }
            | Self::Run { payloads, .. }
            | Self::Hand { payloads, .. }
            | Self::Relay { payloads, .. } => Some(payloads),
            _ => None,
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Place(_) => "place",
            Self::Work { .. } => "work",
            Self::Relay { .. } => "relay",
            Self::Become { .. } => "become",
            Self::Define { .. } => "define",
            Self::Run { .. } => "run",
            Self::Hand { .. } => "hand",
            Self::GiveBack { .. } => "give_back",
            Self::Kill { .. } => "kill",
            Self::End { .. } => "end",
            Self::Stop => "stop",
            Self::Heard { .. } => "heard",
        }
    }
}

impl Message for FromKeeper {
    fn payloads(&mut self) -> Option<&mut Payloads> {
        match self {
            Self::Printed { payloads, .. }
            | Self::Ended { payloads, .. }
            | Self::Done { payloads, .. } => Some(payloads),
            _ => None,
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Attached(_) => "attached",
            Self::Resumed => "resumed",
            Self::Ready { .. } => "ready",
            Self::Fenced => "fenced",
            Self::Running { .. } => "running",
            Self::Printed { .. } => "printed",
            Self::Ended { .. } => "ended",
            Self::Done { .. } => "done",
            Self::GivenBack { .. } => "given_back",
            Self::WorkerStarted { .. } => "worker_started",
            Self::WorkerNotStarted { .. } => "worker_not_started",
            Self::WorkerEnded { .. } => "worker_ended",
        }
    }
}

/// The one payload of a message, as its only item.
pub(crate) fn one(bytes: impl Into<Bytes>) -> Payloads {
    Payloads::from(vec![bytes.into()])
}

/// The one payload of a message; empty when it has none.
pub(crate) fn only(payloads: Payloads) -> Bytes {
    payloads.into_items().into_iter().next().unwrap_or_default()
}
