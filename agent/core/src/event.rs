//! What an agent's core is told, and what it asks for.

use bytes::Bytes;
use fleetpool_proto::{
    AttemptId, Outcome, PoolId, SlotNo, SpecId, Timestamp,
    message::{FromAgent, Registration, ToAgent},
    pool::ContentHash,
};

/// Something that happened on the host or on the link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A session with the coordinator is open. Answered by `Send(Register)`, then every unacknowledged report.
    LinkUp {
        /// The host as it is now; the core fills in `held`.
        registration: Box<Registration>,
        /// Length of leases that the coordinator grants, in milliseconds.
        lease_ms: u64,
        /// Wall-clock time in microseconds since 1970, for reports that never started.
        now_us: u64,
    },
    /// The session is gone. Tasks run on while the lease lasts.
    LinkDown,
    /// The coordinator said something.
    Message(ToAgent),
    /// The slot's worker is initialised and waits for tasks.
    WorkerReady {
        /// Its slot.
        slot: SlotNo,
        /// Which worker of that slot; events of earlier ones are stale.
        generation: u64,
        /// Its process; for the `command` runtime the keeper.
        pid: u32,
    },
    /// The slot's worker could not be started, or its initializer failed. Its processes are gone.
    WorkerUnfit {
        /// Its slot.
        slot: SlotNo,
        /// Which worker of that slot.
        generation: u64,
        /// Why, for people.
        reason: String,
    },
    /// The slot's worker and every process under it are gone.
    WorkerEnded {
        /// Its slot.
        slot: SlotNo,
        /// Which worker of that slot.
        generation: u64,
        /// How it ended. What the worker had finished before was told in `TaskEnded` events before this one.
        end: WorkerEnd,
    },
    /// The time of [`Action::FenceAt`] came before another, and the slot's keeper has begun to end the worker and every
    /// process under it. `WorkerEnded` follows.
    WorkerFenced {
        /// Its slot.
        slot: SlotNo,
        /// Which worker of that slot.
        generation: u64,
    },
    /// A worker that was taken over is there, and this is how.
    WorkerFound {
        /// Its slot.
        slot: SlotNo,
        /// Which worker of that slot.
        generation: u64,
        /// Its process, as in [`Event::WorkerReady`]; 0 when it is not ready.
        pid: u32,
        /// It is about to end: somebody told it to before.
        ending: bool,
        /// Tasks it was handed in its life and has kept.
        taken: u32,
    },
    /// The slot's worker and every process under it are gone, and so is who could say how much of what was in its hands it has
    /// done.
    WorkerVanished {
        /// Its slot.
        slot: SlotNo,
        /// Which worker of that slot.
        generation: u64,
    },
    /// The process of a running task is known (`command` runtime: a process a task).
    TaskPid {
        /// Its slot.
        slot: SlotNo,
        /// Which worker of that slot.
        generation: u64,
        /// The attempt.
        attempt: AttemptId,
        /// The process.
        pid: u32,
    },
    /// A task has ended, and (`command` runtime) nothing of its tree is left.
    TaskEnded {
        /// Its slot.
        slot: SlotNo,
        /// Which worker of that slot.
        generation: u64,
        /// How.
        task: EndedTask,
    },
    /// The worker gave back tasks that it had not begun.
    GivenBack {
        /// Its slot.
        slot: SlotNo,
        /// Which worker of that slot.
        generation: u64,
        /// The tasks.
        attempts: Vec<AttemptId>,
    },
    /// Content arrived (or cannot be had) that was asked for by `FetchProgram` or `FetchContent`; the shell has stored
    /// it. One answer to each.
    Content {
        /// The pool that waited for it.
        pool: PoolId,
        /// Why it cannot be had.
        error: Option<String>,
    },
    /// A pool cannot work here, whatever is tried.
    PoolUnfit {
        /// The pool.
        pool: PoolId,
        /// Why, for people.
        reason: String,
    },
    /// [`crate::AgentCore::poll_timeout`]'s time has come, or anything else woke the shell.
    Tick,
}

/// How a task ended by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndedTask {
    /// The attempt.
    pub attempt: AttemptId,
    /// How: `Done`, `Failed`, `NotStarted`, `OutOfMemory`; for a task that was killed on the core's request the
    /// core knows better and overrides it.
    pub outcome: Outcome,
    /// Its result or error.
    pub payload: Bytes,
    /// Its process.
    pub pid: u32,
    /// When it began, in microseconds since 1970; 0 when it never did.
    pub started_us: u64,
    /// How long it ran, in microseconds.
    pub run_us: u64,
}

/// How a worker ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkerEnd {
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// The status it exited with.
    pub exit: Option<i32>,
    /// The kernel took its memory.
    pub out_of_memory: bool,
    /// Its largest resident memory, in KiB; 0 when unknown.
    pub memory_kib_peak: u64,
    /// The last of what it wrote to stderr.
    pub stderr_tail: String,
    /// Its process; 0 when it never had one.
    pub pid: u32,
}

/// What the shell is to do, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Tell the coordinator; dropped when there is no session.
    Send(FromAgent),
    /// Let the keepers of pools whose attempts may run again end everything by themselves at this time, unless they are
    /// given another before: so that it ends even while this process is stopped. `None`: at no time.
    FenceAt {
        /// When.
        time: Option<Timestamp>,
    },
    /// Start a worker for a pool on an empty slot. Answered by `WorkerReady`, `WorkerUnfit` or `WorkerEnded`.
    StartWorker {
        /// The slot.
        slot: SlotNo,
        /// The number of this worker on its slot.
        generation: u64,
        /// The pool; its options are [`crate::AgentCore::pool_options`].
        pool: PoolId,
    },
    /// Hand tasks to the slot's worker, behind those that it has.
    Run {
        /// The slot.
        slot: SlotNo,
        /// Which worker.
        generation: u64,
        /// The tasks in order.
        tasks: Vec<TaskStart>,
    },
    /// Ask the worker for tasks it has not begun; answered by `GivenBack`.
    GiveBack {
        /// The slot.
        slot: SlotNo,
        /// Which worker.
        generation: u64,
        /// Most to give back.
        count: u32,
    },
    /// End the running task of a `command` slot: its whole tree, TERM, grace, KILL. Its `TaskEnded` follows.
    /// Ignored when that task has ended meanwhile. Asked again with a shorter grace, the shorter one counts.
    KillTask {
        /// The slot.
        slot: SlotNo,
        /// Which worker.
        generation: u64,
        /// The task.
        attempt: AttemptId,
        /// Milliseconds between TERM and KILL.
        grace_ms: u32,
    },
    /// End the worker and every process under it: TERM, grace, KILL. `WorkerEnded` follows, always.
    /// Asked again with a shorter grace, the shorter one counts.
    KillWorker {
        /// The slot.
        slot: SlotNo,
        /// Which worker.
        generation: u64,
        /// Milliseconds between TERM and KILL.
        grace_ms: u32,
    },
    /// Let the idle worker end by itself; `WorkerEnded` follows, always.
    StopWorker {
        /// The slot.
        slot: SlotNo,
        /// Which worker.
        generation: u64,
    },
    /// Make sure the program of a pool is on this host; answered by `Content`. The core starts no worker of the
    /// pool before.
    FetchProgram {
        /// The pool.
        pool: PoolId,
    },
    /// Close the session: the lease ended under it, so the coordinator must hear by a new `Register` what is left.
    /// `LinkDown` follows, then `LinkUp` with the next session.
    DropLink {
        /// Why, for both logs.
        reason: String,
    },
    /// Make sure that content which a specification of a pool names is on this host; answered by `Content`. The core
    /// runs nothing of the pool before.
    FetchContent {
        /// The pool.
        pool: PoolId,
        /// The content.
        hash: ContentHash,
    },
    /// The pool is over: forget what the shell keeps for it.
    PoolClosed {
        /// The pool.
        pool: PoolId,
    },
}

/// A task for a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskStart {
    /// The attempt.
    pub attempt: AttemptId,
    /// What it has in common with others; [`crate::AgentCore::spec`].
    pub spec: SpecId,
    /// Its argument.
    pub payload: Bytes,
}

impl Event {
    /// The event's static name, for logs and counters.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::LinkUp { .. } => "link_up",
            Self::LinkDown => "link_down",
            Self::Message(message) => fleetpool_proto::Message::name(message),
            Self::WorkerReady { .. } => "worker_ready",
            Self::WorkerUnfit { .. } => "worker_unfit",
            Self::WorkerEnded { .. } => "worker_ended",
            Self::WorkerFenced { .. } => "worker_fenced",
            Self::WorkerFound { .. } => "worker_found",
            Self::WorkerVanished { .. } => "worker_vanished",
            Self::TaskPid { .. } => "task_pid",
            Self::TaskEnded { .. } => "task_ended",
            Self::GivenBack { .. } => "given_back",
            Self::Content { .. } => "content",
            Self::PoolUnfit { .. } => "pool_unfit",
            Self::Tick => "tick",
        }
    }
}

impl Action {
    /// The action's static name, for logs and counters.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Send(message) => fleetpool_proto::Message::name(message),
            Self::FenceAt { .. } => "fence_at",
            Self::StartWorker { .. } => "start_worker",
            Self::Run { .. } => "run",
            Self::GiveBack { .. } => "give_back",
            Self::KillTask { .. } => "kill_task",
            Self::KillWorker { .. } => "kill_worker",
            Self::StopWorker { .. } => "stop_worker",
            Self::FetchProgram { .. } => "fetch_program",
            Self::FetchContent { .. } => "fetch_content",
            Self::DropLink { .. } => "drop_link",
            Self::PoolClosed { .. } => "pool_closed",
        }
    }
}
