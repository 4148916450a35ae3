//! Between the coordinator and its agents.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::{
    frame::{DecodeError, Message},
    ids::{Attempt, AttemptId, HostId, PeerPin, PoolId, SlotNo, SpecId, TaskId},
    outcome::Outcome,
    pool::{ContentHash, PoolOptions, Spec},
    rows::{Payloads, rows, table},
};

/// What an agent says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromAgent {
    /// First on every session: the host as it is, and what it still has of earlier grants.
    Register(Box<Registration>),
    /// Asks for the lease to be renewed. The lease counts from when this was sent.
    Renew {
        /// Number of the renewal; grows.
        renewal: u64,
        /// Round trip of the last renewal, in microseconds; 0 before there was one.
        rtt_us: u64,
    },
    /// At most `slots` tasks of the pool run here now, and no more will. Said again as they become fewer, until they
    /// are as many as were allotted.
    Allotted {
        /// The pool.
        pool: PoolId,
        /// Slots.
        slots: u16,
        /// Which [`ToAgent::Allot`] is coming true.
        allotment: u64,
    },
    /// Tasks began a while ago and still run. Short ones are never mentioned: their report says it all.
    Started {
        /// The pool.
        pool: PoolId,
        /// The tasks.
        #[serde(with = "table")]
        rows: Vec<StartedRow>,
    },
    /// Attempts have ended. Repeated on each new session until acknowledged.
    Reports {
        /// The pool.
        pool: PoolId,
        /// How.
        #[serde(with = "table")]
        rows: Vec<ReportRow>,
        /// Their results or losses, a row each.
        payloads: Payloads,
    },
    /// What tasks printed, in order. Repeated on each new session until acknowledged.
    Output {
        /// The pool.
        pool: PoolId,
        /// Number of this piece; grows in the agent's life, over all pools. 0: it has none, and is not kept.
        #[serde(default)]
        number: u64,
        /// Which task wrote it where.
        #[serde(with = "table")]
        rows: Vec<OutputRow>,
        /// The bytes: whole lines, except at a task's end and in over-long lines.
        payloads: Payloads,
    },
    /// These attempts are given back: they had not started and never will.
    Retracted {
        /// The pool.
        pool: PoolId,
        /// Which [`ToAgent::Retract`] is answered.
        retraction: u64,
        /// The attempts; fewer than asked when the rest had started.
        #[serde(with = "table")]
        rows: Vec<TaskRow>,
    },
    /// The pool cannot work here: its program or initializer failed. Its unstarted attempts are in `rows`.
    PoolUnfit {
        /// The pool.
        pool: PoolId,
        /// Why, for people.
        reason: String,
        /// Attempts given back unstarted.
        #[serde(with = "table")]
        rows: Vec<TaskRow>,
    },
    /// Asks for content by its hash.
    NeedContent {
        /// The pool that needs it.
        pool: PoolId,
        /// Which content.
        hash: ContentHash,
        /// The agent that was named by [`ToAgent::FetchFrom`] did not deliver it.
        #[serde(default)]
        again: bool,
    },
    /// Answers [`ToAgent::PassOn`]: where agents may come for the content.
    PassingOn {
        /// Which content.
        hash: ContentHash,
        /// The TCP port; 0: it is not passed on, nobody need come.
        port: u16,
        /// This host's addresses, as far as it knows them, the likeliest first; at most
        /// [`PASSING_ADDRESSES_MAX`](crate::limits::PASSING_ADDRESSES_MAX) count.
        addresses: Vec<IpAddr>,
        /// Which agents: those of the question that this answers. Of whom it has not read yet it lets nobody in. Empty: all that
        /// it was asked for, as far as it knows.
        #[serde(default)]
        peers: Vec<PeerPin>,
    },
}

/// A host and its agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Registration {
    /// The host's name, unique in the fleet.
    pub name: String,
    /// Slots it offers.
    pub slots: u16,
    /// Labels, sorted by key.
    pub labels: Vec<(String, String)>,
    /// Differs between two lives of the agent: what an earlier life ran is gone.
    pub incarnation: u64,
    /// The kernel's boot id.
    pub boot_id: String,
    /// The agent's process.
    pub pid: u32,
    /// Version of its build.
    pub build: String,
    /// Processors of the host.
    pub cpus: u32,
    /// Memory of the host, in MiB.
    pub memory_mib: u64,
    /// How process trees are contained: `cgroup v2`, `cgroup v1`, `subreaper`.
    pub containment: String,
    /// What a task may take there, and why no more is limited: for people.
    pub limits: String,
    /// How the agent is connected: `quic`, `unix`, `local`.
    pub carrier: String,
    /// What other agents know this one by when they pass content on to each other. `None`: it takes no part in that.
    pub pin: Option<PeerPin>,
    /// The number of the last output that was not acknowledged, and comes again behind this; 0: there is none.
    pub output: u64,
    /// Every attempt that this agent's life has been granted and that it has not been told to forget.
    #[serde(with = "table")]
    pub held: Vec<HeldRow>,
}

/// What the coordinator tells an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToAgent {
    /// The renewal was heard; the lease runs from when it was sent.
    Renewed {
        /// Its number.
        renewal: u64,
    },
    /// The coordinator stops on purpose, and has promised to grant nothing again for longer than that: the lease lasts as long, from
    /// when the last renewal that was answered was sent. The next session cuts it to its own length.
    Stopping {
        /// Length of the lease, in milliseconds.
        lease_ms: u64,
    },
    /// A pool that will be used on this host.
    OpenPool {
        /// Its number.
        pool: PoolId,
        /// What it is.
        options: Box<PoolOptions>,
    },
    /// The pool is over: kill what runs of it, end its workers, forget it.
    ClosePool {
        /// Which.
        pool: PoolId,
    },
    /// What tasks of a pool have in common; comes before the first grant that names it.
    Define {
        /// The pool.
        pool: PoolId,
        /// Number of the specification.
        spec: SpecId,
        /// What it says.
        body: Box<Spec>,
    },
    /// No task of the pool starts here from now on unless fewer than `slots` run. Answered by
    /// [`FromAgent::Allotted`]. Absolute; a lower `allotment` than one already seen is out of date.
    Allot {
        /// The pool.
        pool: PoolId,
        /// Slots.
        slots: u16,
        /// Number of this decision; grows.
        allotment: u64,
    },
    /// Tasks to run, in order.
    Grant {
        /// The pool.
        pool: PoolId,
        /// Which.
        #[serde(with = "table")]
        rows: Vec<GrantRow>,
        /// Their arguments, a row each.
        payloads: Payloads,
    },
    /// Give back up to `count` attempts that have not started, the last granted first.
    Retract {
        /// The pool.
        pool: PoolId,
        /// Most to give back.
        count: u32,
        /// Number of this request; grows.
        retraction: u64,
    },
    /// End these attempts; each is reported as `Cancelled`, also when it is not known (any more).
    Cancel {
        /// The pool.
        pool: PoolId,
        /// Which.
        #[serde(with = "table")]
        rows: Vec<TaskRow>,
    },
    /// These reports, and all output up to `output`, are safe with the coordinator: forget them.
    Ack {
        /// The pool of the reports.
        pool: PoolId,
        /// The highest number of output that has come, of whatever pool.
        #[serde(default)]
        output: u64,
        /// Which.
        #[serde(with = "table")]
        rows: Vec<TaskRow>,
    },
    /// Whether output of the pool is to wait: its client reads more slowly than its tasks print. While it waits, tasks
    /// that print wait with it (G8), and the others go on. Forgotten with the session.
    Hold {
        /// The pool.
        pool: PoolId,
        /// Whether it is to wait.
        on: bool,
    },
    /// Content that was asked for; empty payload: it cannot be had.
    Content {
        /// Its hash.
        hash: ContentHash,
        /// One item: the bytes.
        payloads: Payloads,
    },
    /// Content that this agent has, or is about to get, is to be passed on to these agents, as it comes. Answered by
    /// [`FromAgent::PassingOn`]. Said only to agents that have a [`pin`](Registration::pin).
    PassOn {
        /// Which content.
        hash: ContentHash,
        /// Its size in bytes.
        bytes: u64,
        /// Who may have it; nobody else may.
        peers: Vec<PeerPin>,
    },
    /// Content that was asked for is to be had of another agent. Where that fails, it is asked for `again`.
    FetchFrom {
        /// Which content.
        hash: ContentHash,
        /// Its size in bytes.
        bytes: u64,
        /// Where that agent may be reached, the likeliest first.
        addresses: Vec<SocketAddr>,
        /// What it is known by.
        pin: PeerPin,
    },
}

/// Where output went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Stream {
    /// Standard output.
    #[default]
    #[serde(rename = "o")]
    Stdout,
    /// Standard error.
    #[serde(rename = "e")]
    Stderr,
}

/// What an agent does with an attempt it still has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum HeldState {
    /// Waits for a slot.
    #[default]
    #[serde(rename = "q")]
    Queued,
    /// Runs, or may have begun to.
    #[serde(rename = "r")]
    Running,
    /// Has ended; the report follows.
    #[serde(rename = "e")]
    Ended,
}

rows! {
    /// An attempt of the message's pool.
    pub struct TaskRow, TaskColumns {
        /// The task.
        pub index: u64,
        /// Which try.
        pub attempt: Attempt,
    }
}

rows! {
    /// An attempt to run.
    pub struct GrantRow, GrantColumns {
        /// The task.
        pub index: u64,
        /// Which try.
        pub attempt: Attempt,
        /// What it has in common with others.
        pub spec: SpecId,
    }
}

rows! {
    /// An attempt that runs.
    pub struct StartedRow, StartedColumns {
        /// The task.
        pub index: u64,
        /// Which try.
        pub attempt: Attempt,
        /// Where it runs.
        pub slot: SlotNo,
        /// The process.
        pub pid: u32,
    }
}

rows! {
    /// How an attempt ended.
    pub struct ReportRow, ReportColumns {
        /// The task.
        pub index: u64,
        /// Which try.
        pub attempt: Attempt,
        /// How it ended.
        pub outcome: Outcome,
        /// Where it ran.
        pub slot: SlotNo,
        /// The process; 0 when none was started.
        pub pid: u32,
        /// When it began, in microseconds since 1970 by the host's clock; 0 when it never did.
        pub started_us: u64,
        /// How long it ran, in microseconds.
        pub run_us: u64,
    }
}

rows! {
    /// A piece of output.
    pub struct OutputRow, OutputColumns {
        /// The task.
        pub index: u64,
        /// Which try.
        pub attempt: Attempt,
        /// Where it was written to.
        pub stream: Stream,
        /// The process of the task (not the descendant that wrote it).
        pub pid: u32,
        /// The host. Filled in by the coordinator.
        pub host: HostId,
    }
}

rows! {
    /// An attempt that an agent has.
    pub struct HeldRow, HeldColumns {
        /// The pool.
        pub pool: PoolId,
        /// The task.
        pub index: u64,
        /// Which try.
        pub attempt: Attempt,
        /// What it is doing.
        pub state: HeldState,
    }
}

impl TaskRow {
    /// The row of an attempt.
    #[must_use]
    pub fn of(attempt: AttemptId) -> Self {
        Self {
            index: attempt.task.index,
            attempt: attempt.attempt,
        }
    }

    /// The attempt, of the pool that the message names.
    #[must_use]
    pub fn of_pool(&self, pool: PoolId) -> AttemptId {
        AttemptId {
            task: TaskId::new(pool, self.index),
            attempt: self.attempt,
        }
    }
}

impl Message for FromAgent {
    fn payloads(&mut self) -> Option<&mut Payloads> {
        match self {
            Self::Reports { payloads, .. } | Self::Output { payloads, .. } => Some(payloads),
            _ => None,
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Register(_) => "register",
            Self::Renew { .. } => "renew",
            Self::Allotted { .. } => "allotted",
            Self::Started { .. } => "started",
            Self::Reports { .. } => "reports",
            Self::Output { .. } => "output",
            Self::Retracted { .. } => "retracted",
            Self::PoolUnfit { .. } => "pool_unfit",
            Self::NeedContent { .. } => "need_content",
            Self::PassingOn { .. } => "passing_on",
        }
    }

    fn check(&self) -> Result<(), DecodeError> {
        match self {
            Self::Reports { rows, payloads, .. } => payloads.are(rows.len()),
            Self::Output { rows, payloads, .. } => payloads.are(rows.len()),
            _ => Ok(()),
        }
    }
}

impl Message for ToAgent {
    fn payloads(&mut self) -> Option<&mut Payloads> {
        match self {
            Self::Grant { payloads, .. } | Self::Content { payloads, .. } => Some(payloads),
            _ => None,
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Renewed { .. } => "renewed",
            Self::Stopping { .. } => "stopping",
            Self::OpenPool { .. } => "open_pool",
            Self::ClosePool { .. } => "close_pool",
            Self::Define { .. } => "define",
            Self::Allot { .. } => "allot",
            Self::Grant { .. } => "grant",
            Self::Retract { .. } => "retract",
            Self::Cancel { .. } => "cancel",
            Self::Ack { .. } => "ack",
            Self::Hold { .. } => "hold",
            Self::Content { .. } => "content",
            Self::PassOn { .. } => "pass_on",
            Self::FetchFrom { .. } => "fetch_from",
        }
    }

    fn check(&self) -> Result<(), DecodeError> {
        match self {
            Self::Grant { rows, payloads, .. } => payloads.are(rows.len()),
            Self::Content { payloads, .. } => payloads.are(1),
            _ => Ok(()),
        }
    }
}
