//! What the coordinator's core is told, and what it asks for.

use fleetpool_proto::{
    ClientId, HostId,
    journal::Fact,
    message::{FromAgent, FromClient, ToAgent, ToClient},
};

/// Number of an agent's session; grows with each session of any host. What an older session of a host brings
/// late is dropped.
pub type SessionNo = u64;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// An agent opened a session and was welcomed. Its first message is `Register`.
    AgentConnected {
        /// The host, numbered by the shell: the same name has the same number.
        host: HostId,
        /// The session.
        session: SessionNo,
    },
    /// An agent said something.
    FromAgent {
        /// The host.
        host: HostId,
        /// The session it came by.
        session: SessionNo,
        /// What it said.
        message: FromAgent,
    },
    /// An agent's session is gone; its lease still runs.
    AgentDisconnected {
        /// The host.
        host: HostId,
        /// The session.
        session: SessionNo,
    },
    /// A client opened a session and was welcomed, for the first time or again.
    ClientConnected {
        /// Its number.
        client: ClientId,
        /// Who it is, for people.
        user: String,
    },
    /// A client said something. Questions (`Ask`) and `Content` are the shell's and do not come here.
    FromClient {
        /// The client.
        client: ClientId,
        /// What it said.
        message: FromClient,
    },
    /// A client's session is lost, and it may come back. With a durable core only.
    ClientAway {
        /// The client.
        client: ClientId,
    },
    /// A client is gone: its pools end (G6).
    ClientGone {
        /// The client.
        client: ClientId,
    },
    /// A host may not come back: it is not listed any more once its session is gone.
    Retire {
        /// The host.
        host: HostId,
        /// Whether all that it ran is known to be gone.
        ended: bool,
    },
    /// An operator keeps new tasks away from a host, or lets them come again.
    Cordon {
        /// The host.
        host: HostId,
        /// Whether they are kept away.
        on: bool,
    },
    /// An operator ends a pool.
    EndPool {
        /// The pool.
        pool: fleetpool_proto::PoolId,
        /// Told to its client.
        reason: String,
    },
    /// The coordinator stops on purpose: nothing is granted any more, and leases become longer.
    Stop,
    /// `poll_timeout`'s time has come.
    Tick,
}

/// What the shell is to do, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Write this down, before anything that comes behind it is done.
    Record(Fact),
    /// Tell an agent; dropped when that session is gone.
    ToAgent {
        /// The host.
        host: HostId,
        /// The session it is meant for.
        session: SessionNo,
        /// What to say.
        message: ToAgent,
    },
    /// Tell a client; dropped when it is gone.
    ToClient {
        /// The client.
        client: ClientId,
        /// What to say.
        message: ToClient,
    },
    /// Close an agent's session: what it said cannot be, or another session of the host has taken over.
    DropAgent {
        /// The host.
        host: HostId,
        /// The session.
        session: SessionNo,
        /// Why, for both logs.
        reason: String,
    },
    /// An agent needs content that the pool's client named; answered outside the core by `ToAgent::Content`.
    FetchContent {
        /// The host.
        host: HostId,
        /// The session.
        session: SessionNo,
        /// The client that has it.
        client: ClientId,
        /// Which content.
        hash: fleetpool_proto::pool::ContentHash,
        /// Another agent was to deliver it, and did not.
        again: bool,
    },
}

impl Event {
    /// The event's static name, for logs and counters.
    #[must_use]
    pub fn name(&self) -> &'static str {
        use fleetpool_proto::Message as _;
        match self {
            Self::AgentConnected { .. } => "agent_connected",
            Self::FromAgent { message, .. } => message.name(),
            Self::AgentDisconnected { .. } => "agent_disconnected",
            Self::ClientConnected { .. } => "client_connected",
            Self::FromClient { message, .. } => message.name(),
            Self::ClientAway { .. } => "client_away",
            Self::ClientGone { .. } => "client_gone",
            Self::Cordon { .. } => "cordon",
            Self::Retire { .. } => "retire",
            Self::EndPool { .. } => "end_pool",
            Self::Stop => "stop",
            Self::Tick => "tick",
        }
    }
}

impl Action {
    /// The action's static name, for logs and counters.
    #[must_use]
    pub fn name(&self) -> &'static str {
        use fleetpool_proto::Message as _;
        match self {
            Self::Record(_) => "record",
            Self::ToAgent { message, .. } => message.name(),
            Self::ToClient { message, .. } => message.name(),
            Self::DropAgent { .. } => "drop_agent",
            Self::FetchContent { .. } => "fetch_content",
        }
    }
}
