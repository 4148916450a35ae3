//! What can go wrong between a client and its cluster.

use fleetpool_proto::{limits::PAYLOAD_BYTES_MAX, message::Refusal};

/// A call on a cluster that failed. None of these is about one task: those are results.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The cluster cannot be reached, or does not let this client in.
    #[error("cannot use the cluster at {address}: {reason}")]
    Connect {
        /// Where it was looked for.
        address: String,
        /// Why, and what to do.
        reason: String,
    },
    /// The embedded cluster could not be started.
    #[error("cannot start an embedded cluster: {reason}")]
    Start {
        /// Why, and what to do.
        reason: String,
    },
    /// The session with the cluster has ended: every call on it ends with this.
    #[error("the session with the cluster is lost: {reason}")]
    Lost {
        /// Why.
        reason: String,
    },
    /// The coordinator refused the pool, or a call on it.
    #[error("{reason}")]
    Refused {
        /// A sentence for people: what is wrong and what to do.
        reason: String,
        /// Which kind of refusal.
        kind: Refusal,
    },
    /// The pool takes no more tasks: it was closed or terminated.
    #[error("the pool is closed: submit before close() and terminate()")]
    Closed,
    /// An argument is larger than the wire allows.
    #[error(
        "an argument of {bytes} bytes is over the limit of {PAYLOAD_BYTES_MAX}: pass a path or cut it into parts"
    )]
    TooLarge {
        /// Its encoded size.
        bytes: usize,
    },
    /// Waiting for credit would have been needed.
    #[error("the pool has no credit for another task now: consume results, or use submit()")]
    NoCredit,
}
