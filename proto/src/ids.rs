//! Names of things, as newtypes so that a host is never taken for a pool.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty), $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
    };
}

id!(
    /// A client's handle on N slots. Unique in a coordinator's life.
    PoolId(u64), "p"
);
id!(
    /// One client session of a coordinator.
    ClientId(u64), "c"
);
id!(
    /// A host as the coordinator numbers it; the same host keeps its number for the coordinator's life.
    HostId(u32), "h"
);
id!(
    /// A slot of a host, counted from 0.
    SlotNo(u16), "s"
);
id!(
    /// What many tasks of a pool have in common (function, timeout, environment), numbered by the client.
    SpecId(u32), "f"
);
id!(
    /// One try of a task. 1 is the first; numbers only grow, and are never used twice for a task.
    Attempt(u32), "#"
);

impl Attempt {
    /// The try after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// One call: the `index`-th task of a pool, counted from 0 in submission order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TaskId {
    /// The pool that the task belongs to.
    pub pool: PoolId,
    /// Its place in the order of submission.
    pub index: u64,
}

impl TaskId {
    /// The `index`-th task of `pool`.
    #[must_use]
    pub fn new(pool: PoolId, index: u64) -> Self {
        Self { pool, index }
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.pool, self.index)
    }
}

/// One try of one task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AttemptId {
    /// Which task.
    pub task: TaskId,
    /// Which try of it.
    pub attempt: Attempt,
}

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.task, self.attempt)
    }
}

/// What an agent is known by to others that it passes content on to, or gets it from: BLAKE3 of a certificate that it has made for
/// this life of its own. The coordinator tells either end of the other's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PeerPin(#[serde(with = "serde_bytes")] pub [u8; 32]);

impl fmt::Display for PeerPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PeerPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerPin({self})")
    }
}

/// What a certificate allows its holder to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Pools slots; the only one that listens.
    Coordinator,
    /// Offers a host's slots.
    Agent,
    /// Opens pools and looks.
    User,
    /// Also invites, revokes, cordons and cancels what is not theirs.
    Admin,
}

impl Role {
    /// Every role, for tables that must be whole.
    pub const ALL: [Self; 4] = [Self::Coordinator, Self::Agent, Self::User, Self::Admin];

    /// The word used in certificates and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Coordinator => "coordinator",
            Self::Agent => "agent",
            Self::User => "user",
            Self::Admin => "admin",
        }
    }

    /// The role of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }

    /// Whether a peer of this role may speak as a client.
    #[must_use]
    pub fn is_client(self) -> bool {
        matches!(self, Self::User | Self::Admin)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
