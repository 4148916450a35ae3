//! What a coordinator tells its successor: the journal's records.
//!
//! Facts, not decisions that would have to be made again in the same way: a newer build reads what an older one wrote. A
//! prefix of a journal is what was true once. Fields are added, never removed or given another meaning.

use serde::{Deserialize, Serialize};

use crate::{
    frame::{DecodeError, Message},
    ids::{Attempt, ClientId, HostId, PoolId, SpecId},
    message::{Refusal, Registration, ResultRow, TaskRow},
    pool::{PoolOptions, Spec},
    rows::{Payloads, rows, table},
};

/// Something that is true from now on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fact {
    /// First in every file: who wrote it.
    Begin {
        /// The coordinator's start that wrote it.
        epoch: u64,
        /// The kernel's boot id then.
        boot_id: String,
        /// Version of its build, for people.
        build: String,
    },
    /// From here on hosts hold no leases that are longer than that.
    Lease {
        /// In milliseconds.
        ms: u64,
        /// The coordinator stops on purpose: nothing is granted behind this.
        stopping: bool,
    },
    /// A name belongs to a host, and to whoever proved to be it.
    Name {
        /// The host.
        host: HostId,
        /// Its name.
        name: String,
        /// The identity.
        id: String,
        /// Its public key's hash; empty for a local user.
        #[serde(with = "serde_bytes")]
        key: Vec<u8>,
        /// Where it was, for people.
        address: String,
    },
    /// A client that may come back.
    Client {
        /// The client.
        client: ClientId,
        /// Its identity.
        id: String,
        /// Its public key's hash; empty for a local user.
        #[serde(with = "serde_bytes")]
        key: Vec<u8>,
        /// It has no pools of its own, and watches detached ones.
        #[serde(default)]
        watches: bool,
    },
    /// A host is as it registered.
    Host {
        /// The host.
        host: HostId,
        /// What it said, without what it held.
        facts: Box<Registration>,
    },
    /// New tasks are kept away from a host, or may come again.
    Cordoned {
        /// The host.
        host: HostId,
        /// Whether they are kept away.
        on: bool,
    },
    /// A pool is open.
    Opened {
        /// The pool.
        pool: PoolId,
        /// Whose it is.
        client: ClientId,
        /// That client's user, for people.
        user: String,
        /// What it is.
        options: Box<PoolOptions>,
    },
    /// Tasks have this in common.
    Defined {
        /// The pool.
        pool: PoolId,
        /// Number of the specification.
        spec: SpecId,
        /// What it says.
        body: Box<Spec>,
    },
    /// Tasks `first`, `first + 1`, … wait.
    Submitted {
        /// The pool.
        pool: PoolId,
        /// What they have in common.
        spec: SpecId,
        /// Index of the first.
        first: u64,
        /// The only host each may run on; empty: any.
        hosts: Vec<HostId>,
        /// Their arguments.
        payloads: Payloads,
    },
    /// At most so many tasks of the pool run on the host, and are meant to.
    Allotted {
        /// The pool.
        pool: PoolId,
        /// The host.
        host: HostId,
        /// Slots as told to the agent.
        slots: u16,
        /// Most that may run there until it has confirmed.
        ceiling: u16,
    },
    /// Tasks that waited are the host's.
    Granted {
        /// The pool.
        pool: PoolId,
        /// The host.
        host: HostId,
        /// The attempts.
        #[serde(with = "table")]
        rows: Vec<TaskRow>,
    },
    /// Tasks that were a host's wait again.
    Returned {
        /// The pool.
        pool: PoolId,
        /// The tasks, and what their tries came to.
        #[serde(with = "table")]
        rows: Vec<ReturnedRow>,
    },
    /// Tasks are over.
    Ended {
        /// The pool.
        pool: PoolId,
        /// How.
        #[serde(with = "table")]
        rows: Vec<ResultRow>,
        /// Results or losses, a row each.
        payloads: Payloads,
    },
    /// What a detached pool's tasks returned and printed is kept up to there.
    Kept {
        /// The pool.
        pool: PoolId,
        /// Bytes of its file.
        bytes: u64,
    },
    /// The client has so many results more, in the order in which they ended.
    Heard {
        /// The pool.
        pool: PoolId,
        /// Results.
        rows: u64,
    },
    /// The client has consumed so many results, in all.
    Consumed {
        /// The pool.
        pool: PoolId,
        /// Results.
        tasks: u64,
    },
    /// Tasks are to end, running or not, submitted or not yet.
    Cancelled {
        /// The pool.
        pool: PoolId,
        /// Their indexes.
        tasks: Vec<u64>,
    },
    /// N is another.
    Resized {
        /// The pool.
        pool: PoolId,
        /// The new N.
        slots: Option<u32>,
    },
    /// No task from this index on will come.
    Closed {
        /// The pool.
        pool: PoolId,
        /// Tasks in all.
        submitted: u64,
    },
    /// The pool is being ended before all of its tasks have.
    Ending {
        /// The pool.
        pool: PoolId,
        /// Why, for its client; empty: the client knows.
        #[serde(default)]
        reason: String,
        /// What kind of reason it is, when the coordinator refuses to go on.
        #[serde(default)]
        refusal: Option<Refusal>,
    },
    /// Nothing of the pool is left, and its client knows that, or is gone.
    Over {
        /// The pool.
        pool: PoolId,
    },
    /// In a snapshot: what there is to know of a pool besides its waiting tasks, which follow.
    Totals {
        /// The pool.
        pool: PoolId,
        /// Indexes that have been submitted: from, up to and without.
        seen: Vec<(u64, u64)>,
        /// Tasks that are over, but for those whose results follow.
        ended: u64,
        /// Those of them that did not succeed.
        failed: u64,
        /// Results that were sent to the client, but for those that follow.
        delivered: u64,
        /// Results that the client has consumed.
        consumed: u64,
        /// Bytes of arguments that wait no more.
        bytes_gone: u64,
        /// Attempts are numbered above this.
        #[serde(default)]
        attempts_after: Attempt,
    },
}

rows! {
    /// A task that waits again.
    pub struct ReturnedRow, ReturnedColumns {
        /// The task.
        pub index: u64,
        /// Its last attempt.
        pub attempt: Attempt,
        /// Tries that a lost host ended.
        pub host_lost: u32,
        /// Tries that a lost worker ended.
        pub worker_lost: u32,
        /// Tries that failed.
        pub failed: u32,
        /// An attempt has begun, or may have.
        pub may_have_begun: bool,
    }
}

impl Message for Fact {
    fn payloads(&mut self) -> Option<&mut Payloads> {
        match self {
            Self::Submitted { payloads, .. } | Self::Ended { payloads, .. } => Some(payloads),
            _ => None,
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Begin { .. } => "begin",
            Self::Lease { .. } => "lease",
            Self::Name { .. } => "name",
            Self::Client { .. } => "client",
            Self::Host { .. } => "host",
            Self::Cordoned { .. } => "cordoned",
            Self::Opened { .. } => "opened",
            Self::Defined { .. } => "defined",
            Self::Submitted { .. } => "submitted",
            Self::Allotted { .. } => "allotted",
            Self::Granted { .. } => "granted",
            Self::Returned { .. } => "returned",
            Self::Ended { .. } => "ended",
            Self::Kept { .. } => "kept",
            Self::Heard { .. } => "heard",
            Self::Consumed { .. } => "consumed",
            Self::Cancelled { .. } => "cancelled",
            Self::Resized { .. } => "resized",
            Self::Closed { .. } => "closed",
            Self::Ending { .. } => "ending",
            Self::Over { .. } => "over",
            Self::Totals { .. } => "totals",
        }
    }

    fn check(&self) -> Result<(), DecodeError> {
        match self {
            Self::Submitted {
                hosts, payloads, ..
            } if !hosts.is_empty() => payloads.are(hosts.len()),
            Self::Ended { rows, payloads, .. } => payloads.are(rows.len()),
            _ => Ok(()),
        }
    }
}
