//! Questions about the fleet, and their answers. Field names are what `--json` prints.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::ids::{HostId, PoolId, Role};

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Query {
    /// The hosts that a selector names; empty: all.
    Hosts {
        /// The selector.
        on: String,
    },
    /// Pools that live.
    Jobs,
    /// The fleet in one line.
    Status,
    /// What a pool waits for.
    Explain {
        /// Which.
        pool: PoolId,
    },
    /// Ends another client's pool (admins, or the same user).
    CancelJob {
        /// Which.
        pool: PoolId,
    },
    /// No new tasks on a host, or again some (admins).
    Cordon {
        /// The host's name.
        host: String,
        /// Whether new tasks are kept away.
        on: bool,
    },
    /// A new join token (admins).
    TokenCreate {
        /// How long it is good for, in seconds.
        ttl_s: u64,
        /// How many may join with it.
        uses: u32,
        /// The role that those who join get.
        role: Role,
        /// Labels that the joining agent's host will have.
        labels: Vec<(String, String)>,
    },
    /// The tokens that are still good (admins).
    TokenList,
    /// Makes a token useless (admins).
    TokenRevoke {
        /// Its public id.
        id: String,
    },
    /// A new identity, for a key that its future holder made (admins).
    IdentityIssue {
        /// What it may be.
        role: Role,
        /// Its id, unique in the registry.
        id: String,
        /// How long its certificate is valid, in seconds.
        ttl_s: u64,
        /// A PKCS #10 signing request in DER: proves possession of the key.
        csr: Bytes,
    },
    /// A tunnel from the coordinator to a host that cannot reach it (admins).
    TunnelAdd {
        /// The host, as ssh is told it.
        to: String,
    },
    /// No tunnel to it any more (admins).
    TunnelRemove {
        /// The host, as ssh is told it.
        to: String,
    },
    /// The tunnels that are wanted, and how they fare (admins).
    TunnelList,
    /// Who is in the registry (admins).
    IdentityList,
    /// Takes an identity out of the registry and closes its session (admins).
    IdentityRevoke {
        /// Its id.
        id: String,
        /// Of an agent: whether it is known to have ended with all that it ran, so that its lease need not be waited for.
        #[serde(default)]
        ended: bool,
    },
}

impl Query {
    /// Whether only admins may ask it.
    #[must_use]
    pub fn needs_admin(&self) -> bool {
        !matches!(
            self,
            Self::Hosts { .. }
                | Self::Jobs
                | Self::Status
                | Self::Explain { .. }
                | Self::CancelJob { .. }
        )
    }
}

/// What the coordinator answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// Hosts by name.
    Hosts(Vec<HostView>),
    /// Pools by number.
    Jobs(Vec<JobView>),
    /// The fleet.
    Status(StatusView),
    /// Sentences for people.
    Lines(Vec<String>),
    /// A token, whole: shown once.
    Token {
        /// What the joiner needs.
        token: String,
        /// What it is called in lists.
        id: String,
    },
    /// An identity's certificate and the CA's; both in DER.
    Identity {
        /// The certificate.
        cert: Bytes,
        /// The CA's own.
        ca: Bytes,
    },
    /// Tokens by id.
    Tokens(Vec<TokenView>),
    /// Identities by id.
    Identities(Vec<IdentityView>),
    /// Tunnels by host.
    Tunnels(Vec<TunnelView>),
    /// It is done.
    Ok,
    /// It is not, and why.
    Refused {
        /// A sentence for people.
        reason: String,
    },
}

/// A host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostView {
    /// Its number, for `Submit`.
    pub id: HostId,
    /// Its name.
    pub name: String,
    /// `up`, `cordoned`, `away` (not connected, lease not yet over) or `lost`.
    pub state: String,
    /// Slots it offers.
    pub slots: u16,
    /// Slots given to pools.
    pub allotted: u16,
    /// Tasks running on it, as far as reported.
    pub running: u32,
    /// Tasks it has been granted and has not reported.
    pub granted: u32,
    /// Labels.
    pub labels: Vec<(String, String)>,
    /// How it is connected.
    pub carrier: String,
    /// Round trip, in microseconds.
    pub rtt_us: u64,
    /// How it contains process trees: `cgroup v2`, `cgroup v1`, `subreaper`.
    pub containment: String,
    /// What a task may take there, and why no more is limited: for people.
    pub limits: String,
    /// Processors.
    pub cpus: u32,
    /// Memory, in MiB.
    pub memory_mib: u64,
    /// Its agent's process.
    pub pid: u32,
    /// Its agent's version.
    pub build: String,
    /// Milliseconds since its lease was renewed last.
    pub heard_ms: u64,
}

/// A pool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct JobView {
    /// Its number.
    pub id: PoolId,
    /// Its name.
    pub name: String,
    /// Who opened it.
    pub user: String,
    /// What its workers are.
    pub runtime: String,
    /// N; `None`: every slot.
    pub slots: Option<u32>,
    /// Slots it holds.
    pub allotted: u32,
    /// Tasks that wait at the coordinator.
    pub queued: u64,
    /// Tasks at agents.
    pub granted: u64,
    /// Tasks that have ended.
    pub ended: u64,
    /// Of these, how many did not succeed.
    pub failed: u64,
    /// Whether no more tasks will come.
    pub closed: bool,
    /// Whether it goes on without its client.
    pub detached: bool,
    /// `running`, or `ended`: what a detached one has returned and printed is kept for a while.
    pub state: String,
}

/// The fleet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StatusView {
    /// The cluster's name.
    pub cluster: String,
    /// The coordinator's version.
    pub build: String,
    /// Seconds since it started.
    pub uptime_s: u64,
    /// Starts of the coordinator so far.
    pub epoch: u64,
    /// Hosts that are connected.
    pub hosts_up: u32,
    /// Hosts that are away or lost.
    pub hosts_down: u32,
    /// Slots of connected hosts.
    pub slots: u32,
    /// Slots given to pools.
    pub allotted: u32,
    /// Pools that live.
    pub jobs: u32,
    /// Tasks that wait.
    pub queued: u64,
    /// Tasks at agents.
    pub granted: u64,
    /// Clients that are connected.
    pub clients: u32,
    /// The coordinator's disk is full: new tasks wait until there is room.
    pub disk_full: bool,
}

/// A join token, without its secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TokenView {
    /// Its public id.
    pub id: String,
    /// The role it gives.
    pub role: String,
    /// Uses left.
    pub uses_left: u32,
    /// Seconds until it is useless.
    pub expires_in_s: u64,
    /// Labels it binds.
    pub labels: Vec<(String, String)>,
}

/// An identity of the registry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IdentityView {
    /// Its id, the end of the SAN URI.
    pub id: String,
    /// Its role.
    pub role: String,
    /// Whether it has a live session.
    pub connected: bool,
    /// Seconds until its certificate ends.
    pub expires_in_s: u64,
}

/// A tunnel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TunnelView {
    /// The host, as ssh is told it.
    pub to: String,
    /// `up`, or why it is not; empty while it is begun.
    pub state: String,
}
