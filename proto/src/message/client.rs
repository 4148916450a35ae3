//! Between the coordinator and its clients.

use serde::{Deserialize, Serialize};

use super::agent::OutputRow;
use crate::{
    frame::{DecodeError, Message},
    ids::{Attempt, HostId, PoolId, SlotNo, SpecId},
    outcome::Outcome,
    pool::{ContentHash, PoolOptions, Spec},
    rows::{Payloads, rows, table},
    view::{Answer, Query},
};

/// What a client says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromClient {
    /// Opens a pool under a number of the client's own range.
    OpenPool {
        /// Its number.
        pool: PoolId,
        /// What it is.
        options: Box<PoolOptions>,
    },
    /// What tasks to come have in common.
    Define {
        /// The pool.
        pool: PoolId,
        /// Number of the specification.
        spec: SpecId,
        /// What it says.
        body: Box<Spec>,
    },
    /// Tasks `first`, `first + 1`, … of the pool. Within the credit given; repeated indexes are ignored.
    Submit {
        /// The pool.
        pool: PoolId,
        /// What they have in common.
        spec: SpecId,
        /// Index of the first.
        first: u64,
        /// The only host each may run on, a task each; empty: any.
        #[serde(default)]
        hosts: Vec<HostId>,
        /// Their arguments, a task each.
        payloads: Payloads,
    },
    /// Ends these tasks, running or not; each gets its outcome.
    Cancel {
        /// The pool.
        pool: PoolId,
        /// Their indexes.
        tasks: Vec<u64>,
    },
    /// No task from index `submitted` on will come; the pool ends when all before it have.
    Close {
        /// The pool.
        pool: PoolId,
        /// Tasks submitted in all.
        submitted: u64,
    },
    /// Ends the pool now: what runs is killed, nothing more is delivered but [`ToClient::PoolEnded`].
    Terminate {
        /// The pool.
        pool: PoolId,
    },
    /// Changes N.
    Resize {
        /// The pool.
        pool: PoolId,
        /// The new N.
        slots: Option<u32>,
    },
    /// Results consumed so far, in all: gives credit for new tasks.
    Consumed {
        /// The pool.
        pool: PoolId,
        /// Tasks.
        tasks: u64,
    },
    /// Asks for all that a detached pool's tasks have returned and printed, from the first, as if this client had opened it.
    Attach {
        /// The pool.
        pool: PoolId,
        /// Whether to wait for what is to come; else [`ToClient::PoolEnded`] comes behind what there is.
        follow: bool,
    },
    /// First on a session that takes the place of a lost one: the pools that the client still has. What was said of them and
    /// not acknowledged is said again behind it; the coordinator says again what was not consumed.
    Resume {
        /// Their numbers. Others of this client are ended.
        pools: Vec<PoolId>,
    },
    /// Output of a host has come, up to that number. Said by clients that may resume.
    HeardOutput {
        /// The host.
        host: HostId,
        /// The life of its agent.
        life: u64,
        /// The number, as in [`ToClient::Output`].
        number: u64,
    },
    /// Messages of results have come on this session, up to that number. Said by clients that may resume.
    HeardResults {
        /// The pool.
        pool: PoolId,
        /// The number, as in [`ToClient::Results`], up to which none is missing.
        number: u64,
    },
    /// The client has every result of a pool that has ended: it may be forgotten.
    Done {
        /// The pool.
        pool: PoolId,
    },
    /// Content that an agent needs; empty payload: the client does not have it.
    Content {
        /// Its hash.
        hash: ContentHash,
        /// One item: the bytes.
        payloads: Payloads,
    },
    /// A question; answered by [`ToClient::Answer`] with the same number.
    Ask {
        /// The client's number for it.
        question: u64,
        /// What is asked.
        query: Query,
    },
}

/// What the coordinator tells a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToClient {
    /// The pool may have this many tasks submitted, in all, and this many bytes of arguments waiting.
    Credit {
        /// The pool.
        pool: PoolId,
        /// Tasks, counted from the pool's first.
        tasks: u64,
        /// Bytes of arguments, counted from the pool's first.
        bytes: u64,
    },
    /// The pool and its tasks up to `tasks` are safe with the coordinator, also if it is killed: they need not be said again.
    /// Said to clients that may resume.
    Submitted {
        /// The pool.
        pool: PoolId,
        /// Tasks, counted from the pool's first, none of which is missing.
        tasks: u64,
        /// And so is that no more will come.
        #[serde(default)]
        closed: bool,
    },
    /// The pool is not opened, or a call on it is refused.
    Refused {
        /// The pool.
        pool: PoolId,
        /// A sentence for people: what is wrong and what to do.
        reason: String,
        /// Which kind of refusal, for exit statuses.
        kind: Refusal,
    },
    /// The slots that the pool holds now.
    Slots {
        /// The pool.
        pool: PoolId,
        /// Slots allotted to it.
        allotted: u32,
        /// Slots of all hosts it may use.
        eligible: u32,
        /// Hosts it may use.
        hosts: u32,
    },
    /// The name of a host; comes before the first row that mentions it.
    Host {
        /// Its number.
        host: HostId,
        /// Its name.
        name: String,
    },
    /// Tasks have ended. Each task comes once.
    Results {
        /// The pool.
        pool: PoolId,
        /// Counts such messages of the pool on this session, from 1; 0: they are not kept, and need not be said to have come.
        #[serde(default)]
        number: u64,
        /// How.
        #[serde(with = "table")]
        rows: Vec<ResultRow>,
        /// Results or losses, a row each.
        payloads: Payloads,
    },
    /// What tasks printed, in order.
    Output {
        /// The pool.
        pool: PoolId,
        /// The life of the agent that numbers it.
        #[serde(default)]
        life: u64,
        /// Its number, which grows in that life; 0: it has none. What has come is not taken twice, and said to have come, by
        /// clients that may resume.
        #[serde(default)]
        number: u64,
        /// Which task wrote it where.
        #[serde(with = "table")]
        rows: Vec<OutputRow>,
        /// The bytes.
        payloads: Payloads,
    },
    /// Something that people should know; the pool goes on.
    Notice {
        /// The pool.
        pool: PoolId,
        /// A sentence.
        text: String,
    },
    /// Nothing of the pool runs any more and its number is free.
    PoolEnded {
        /// The pool.
        pool: PoolId,
    },
    /// The coordinator stops on purpose: it is worth waiting for it at least that long.
    Stopping {
        /// How long, in milliseconds.
        wait_ms: u64,
    },
    /// An agent needs content that this client's pool named.
    NeedContent {
        /// Which content.
        hash: ContentHash,
    },
    /// The answer to a question.
    Answer {
        /// The client's number for it.
        question: u64,
        /// What is so.
        answer: Answer,
    },
}

/// Why a pool was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// No host matches the selector, now.
    NoHostMatches,
    /// The request makes no sense: the reason says what.
    Invalid,
    /// The pool cannot work on any host: its program or initializer fails everywhere.
    Unfit,
    /// The peer may not do that.
    Forbidden,
}

rows! {
    /// How a task ended.
    pub struct ResultRow, ResultColumns {
        /// The task.
        pub index: u64,
        /// The try that counted.
        pub attempt: Attempt,
        /// How it ended.
        pub outcome: Outcome,
        /// Where it ran.
        pub host: HostId,
        /// On which slot.
        pub slot: SlotNo,
        /// As which process; 0 when none was started.
        pub pid: u32,
        /// When it began, in microseconds since 1970 by the host's clock; 0 when it never did.
        pub started_us: u64,
        /// How long it ran, in microseconds.
        pub run_us: u64,
        /// How long it waited at the coordinator before its last grant, in microseconds.
        pub queue_us: u64,
    }
}

impl Message for FromClient {
    fn payloads(&mut self) -> Option<&mut Payloads> {
        match self {
            Self::Submit { payloads, .. } | Self::Content { payloads, .. } => Some(payloads),
            _ => None,
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::OpenPool { .. } => "open_pool",
            Self::Define { .. } => "define",
            Self::Submit { .. } => "submit",
            Self::Cancel { .. } => "cancel",
            Self::Close { .. } => "close",
            Self::Terminate { .. } => "terminate",
            Self::Resize { .. } => "resize",
            Self::Consumed { .. } => "consumed",
            Self::Attach { .. } => "attach",
            Self::Resume { .. } => "resume",
            Self::HeardOutput { .. } => "heard_output",
            Self::HeardResults { .. } => "heard_results",
            Self::Done { .. } => "done",
            Self::Content { .. } => "content",
            Self::Ask { .. } => "ask",
        }
    }

    fn check(&self) -> Result<(), DecodeError> {
        match self {
            Self::Submit {
                hosts, payloads, ..
            } if !hosts.is_empty() => payloads.are(hosts.len()),
            Self::Content { payloads, .. } => payloads.are(1),
            _ => Ok(()),
        }
    }
}

impl Message for ToClient {
    fn payloads(&mut self) -> Option<&mut Payloads> {
        match self {
            Self::Results { payloads, .. } | Self::Output { payloads, .. } => Some(payloads),
            _ => None,
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Credit { .. } => "credit",
            Self::Submitted { .. } => "submitted",
            Self::Refused { .. } => "refused",
            Self::Slots { .. } => "slots",
            Self::Host { .. } => "host",
            Self::Results { .. } => "results",
            Self::Output { .. } => "output",
            Self::Notice { .. } => "notice",
            Self::Stopping { .. } => "stopping",
            Self::PoolEnded { .. } => "pool_ended",
            Self::NeedContent { .. } => "need_content",
            Self::Answer { .. } => "answer",
        }
    }

    fn check(&self) -> Result<(), DecodeError> {
        match self {
            Self::Results { rows, payloads, .. } => payloads.are(rows.len()),
            Self::Output { rows, payloads, .. } => payloads.are(rows.len()),
            _ => Ok(()),
        }
    }
}
