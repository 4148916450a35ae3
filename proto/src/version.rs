//! Who speaks which protocol: the first frame each way on a session.

use serde::{Deserialize, Serialize};

use crate::{
    frame::Message,
    ids::{ClientId, HostId, PoolId, Role},
    rows::Payloads,
};

/// The protocol this build speaks.
pub const PROTOCOL: u16 = 1;
/// The oldest protocol it still understands (G12: N and N-1).
pub const PROTOCOL_MIN: u16 = 1;
/// Names the protocol in TLS's ALPN; only the Hello inside it is versioned.
pub const ALPN: &[u8] = b"fleetpool";

/// What the dialling peer says first. Fields may be added, never removed or changed: every version reads it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hello {
    /// Newest protocol it speaks.
    pub protocol: u16,
    /// Oldest protocol it speaks.
    pub protocol_min: u16,
    /// The role it asks for; its certificate must allow it.
    pub role: Option<Role>,
    /// What it calls itself: a host's name, a user's.
    pub name: String,
    /// Version of its build, for people.
    pub build: String,
    /// Set on a connection that carries nothing but its own end: it lives as long as this client does, and the
    /// operating system closes it when the client is killed, long before an idle timeout would tell.
    pub lifeline: Option<ClientId>,
    /// Set by a client that lost its session: which client it was, and wants to be again.
    pub resume: Option<ClientId>,
    /// With that: nothing that it has was acknowledged. A coordinator that does not know it may take it for a new one, which says
    /// everything again.
    pub unsaid: bool,
}

impl Hello {
    /// This build's Hello.
    #[must_use]
    pub fn new(role: Role, name: impl Into<String>) -> Self {
        Self {
            protocol: PROTOCOL,
            protocol_min: PROTOCOL_MIN,
            role: Some(role),
            name: name.into(),
            build: env!("CARGO_PKG_VERSION").to_owned(),
            lifeline: None,
            resume: None,
            unsaid: false,
        }
    }

    /// The Hello of the lifeline of `client`.
    #[must_use]
    pub fn lifeline(role: Role, name: impl Into<String>, client: ClientId) -> Self {
        Self {
            lifeline: Some(client),
            ..Self::new(role, name)
        }
    }

    /// The Hello of `client`, which has lost its session.
    #[must_use]
    pub fn resume(role: Role, name: impl Into<String>, client: ClientId, unsaid: bool) -> Self {
        Self {
            resume: Some(client),
            unsaid,
            ..Self::new(role, name)
        }
    }
}

/// The coordinator's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HelloReply {
    /// The session is open.
    Welcome(Welcome),
    /// It is not; the peer is told why and what to do, and the session closes.
    Refused {
        /// A sentence for people.
        reason: String,
    },
}

/// What a welcomed peer needs to know.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Welcome {
    /// The protocol that both will speak.
    pub protocol: u16,
    /// Version of the coordinator's build, for people.
    pub build: String,
    /// Name of the cluster.
    pub cluster: String,
    /// Grows with every start of the coordinator.
    pub epoch: u64,
    /// Length of leases, in milliseconds (agents).
    pub lease_ms: u64,
    /// Number of this host (agents).
    pub host: HostId,
    /// Number of this session (clients).
    pub client: ClientId,
    /// First of the pool numbers that this client may use (clients).
    pub pools_from: PoolId,
    /// How long the coordinator waits for a client whose session is lost, in milliseconds; 0: it does not (clients).
    pub resume_ms: u64,
}

impl Message for Hello {
    fn payloads(&mut self) -> Option<&mut Payloads> {
        None
    }

    fn name(&self) -> &'static str {
        "hello"
    }
}

impl Message for HelloReply {
    fn payloads(&mut self) -> Option<&mut Payloads> {
        None
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Welcome(_) => "welcome",
            Self::Refused { .. } => "refused",
        }
    }
}

/// The protocol that a peer offering `hello` and this build can both speak.
///
/// # Errors
/// A sentence for the refused peer, when there is none.
pub fn negotiate(hello: &Hello) -> Result<u16, String> {
    let newest = hello.protocol.min(PROTOCOL);
    let oldest = hello.protocol_min.max(PROTOCOL_MIN);
    if newest >= oldest {
        return Ok(newest);
    }
    let who_is_old = if hello.protocol < PROTOCOL_MIN {
        "upgrade this side's fleetpool"
    } else {
        "upgrade the coordinator's fleetpool"
    };
    Err(format!(
        "speaks protocol {}-{} (build {}), the coordinator {PROTOCOL_MIN}-{PROTOCOL} (build {}): {who_is_old}",
        hello.protocol_min,
        hello.protocol,
        hello.build,
        env!("CARGO_PKG_VERSION"),
    ))
}
