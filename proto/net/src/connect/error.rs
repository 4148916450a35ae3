//! Every way in which dialling can fail, each with what to do.

use std::io;

use fleetpool_proto::{
    limits::CONNECT_TIME_MAX,
    version::{PROTOCOL, PROTOCOL_MIN},
};

use crate::{identity::Problem, session::Closed};

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// There is nothing to show the coordinator.
    #[error("{at} wants an identity: name its folder with --identity, or join with a token first")]
    NoIdentity {
        /// Where.
        at: String,
    },
    /// Our own certificate would be refused.
    #[error("cannot connect to {at} with this identity: {problem}")]
    OwnCertificate {
        /// Where.
        at: String,
        /// What is wrong with it.
        problem: Problem,
    },
    /// The host's name means nothing.
    #[error("cannot find {at}: {error}; check the name, or use an IP address")]
    Resolve {
        /// Where.
        at: String,
        /// What the resolver said.
        error: io::Error,
    },
    /// Nobody is there.
    #[error("nobody listens on {at} ({why}): is the coordinator running, and is that its address?")]
    NobodyListens {
        /// Where.
        at: String,
        /// What the operating system said.
        why: String,
    },
    /// Nobody answers.
    #[error("{at} does not answer within {} s: is the host up, and may UDP or TCP pass to it?", CONNECT_TIME_MAX.as_secs())]
    TimedOut {
        /// Where.
        at: String,
    },
    /// What answers is not a coordinator of our cluster.
    #[error("{at} is not to be trusted: {reason}")]
    Untrusted {
        /// Where.
        at: String,
        /// What is wrong with its certificate.
        reason: String,
    },
    /// Our certificate was not accepted.
    #[error("{at} does not accept this identity: {reason}")]
    Rejected {
        /// Where.
        at: String,
        /// What the coordinator said.
        reason: String,
    },
    /// The coordinator has a reason not to let us in.
    #[error("{at} refuses: {reason}")]
    Refused {
        /// Where.
        at: String,
        /// What the coordinator said.
        reason: String,
    },
    /// It welcomed us to a protocol that this build does not speak.
    #[error(
        "{at} (build {build}) speaks protocol {protocol}, this build {PROTOCOL_MIN} to {PROTOCOL}: \
         upgrade the older of the two"
    )]
    Protocol {
        /// Where.
        at: String,
        /// Its protocol.
        protocol: u16,
        /// Its build.
        build: String,
    },
    /// The connection broke before it was a session.
    #[error("connecting to {at}: {closed}")]
    Broken {
        /// Where.
        at: String,
        /// How it ended.
        closed: Closed,
    },
    /// The operating system refused.
    #[error("cannot connect to {at}: {error}")]
    Io {
        /// Where.
        at: String,
        /// What it said.
        error: io::Error,
    },
}
