//! The way to the coordinator: a session that was given, or one dialled again and again.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use fleetpool_net::{
    Address, Carrier, ConnectError, Receiver, Sender, Session, connect_by, identity::Identity,
};
use fleetpool_proto::{
    Role,
    version::{Hello, Welcome},
};

/// Pause before a broken link is dialled again; doubles with each failure.
const DIAL_PAUSE: Duration = Duration::from_millis(100);
/// Longest such pause: well below a lease, so that a coordinator that is back is found in time.
const DIAL_PAUSE_MAX: Duration = Duration::from_secs(5);
/// UDP that did not pass is given another chance to be first after this long.
const UDP_RETRIED_AFTER: Duration = Duration::from_secs(600);

/// How an agent reaches its coordinator.
#[derive(Debug)]
pub enum Link {
    /// By this session, and when it ends the agent ends too: agents within their client's process.
    Session(Box<Session>, Welcome),
    /// By dialling, again whenever the session breaks; tasks run on meanwhile, as long as the lease lasts.
    Dial {
        /// Where the coordinator is.
        address: Address,
        /// What the agent proves itself with; a Unix socket needs none.
        identity: Option<Box<Identity>>,
    },
}

/// A live session, from the agent's side.
#[derive(Debug)]
pub(crate) struct Up {
    pub(crate) sender: Sender,
    pub(crate) receiver: Receiver,
    /// Whether the core has registered on it: before that nothing may be said.
    pub(crate) registered: bool,
}

/// An attempt to get a session.
pub(crate) type Dialling =
    Pin<Box<dyn Future<Output = Result<(Session, Welcome), ConnectError>> + Send>>;

/// Dials, with pauses that grow and are not those of other agents, which lost the same coordinator at the same time.
#[derive(Debug)]
pub(crate) struct Dialler {
    target: Arc<(Address, Option<Box<Identity>>)>,
    name: String,
    seed: u64,
    /// Failures in a row.
    failures: u32,
    dialled: u64,
    /// Whether there ever was a session.
    proven: bool,
    /// When TCP last was quicker than QUIC, which dials first: so UDP does not pass, or badly.
    by_tcp: Option<Instant>,
}

impl Dialler {
    /// `seed` differs between agents.
    pub(crate) fn new(
        address: Address,
        identity: Option<Box<Identity>>,
        name: &str,
        seed: u64,
    ) -> Self {
        Self {
            target: Arc::new((address, identity)),
            name: name.to_owned(),
            seed,
            failures: 0,
            dialled: 0,
            proven: false,
            by_tcp: None,
        }
    }

    /// The next attempt.
    pub(crate) fn dial(&mut self) -> Dialling {
        let pause = self.pause();
        self.dialled += 1;
        let target = Arc::clone(&self.target);
        let hello = Hello::new(Role::Agent, &self.name);
        let first = self.first();
        Box::pin(async move {
            tokio::time::sleep(pause).await;
            let (address, identity) = &*target;
            connect_by(first, address, identity.as_deref(), hello).await
        })
    }

    /// The attempt succeeded. The pause stays until the session has proved to be of use.
    pub(crate) fn on_session(&mut self, carrier: Carrier) {
        self.proven = true;
        self.by_tcp = match carrier {
            Carrier::Tcp => Some(self.by_tcp.unwrap_or_else(Instant::now)),
            _ => None,
        };
        self.failures = self.failures.clamp(1, 2);
    }

    /// The attempt failed; tells whether there is no use in trying again.
    pub(crate) fn on_failure(&mut self, error: &ConnectError) -> bool {
        self.failures += 1;
        let hopeless = matches!(
            error,
            ConnectError::NoIdentity { .. }
                | ConnectError::OwnCertificate { .. }
                | ConnectError::Untrusted { .. }
                | ConnectError::Rejected { .. }
                | ConnectError::Protocol { .. }
        );
        hopeless && !self.proven
    }

    /// The carrier that is to be dialled before the other.
    fn first(&mut self) -> Carrier {
        self.by_tcp = self.by_tcp.filter(|at| at.elapsed() < UDP_RETRIED_AFTER);
        match self.by_tcp {
            Some(_) => Carrier::Tcp,
            None => Carrier::Quic,
        }
    }

    /// None before the first attempt, then a random part of a bound that doubles ("full jitter").
    fn pause(&self) -> Duration {
        if self.failures == 0 {
            return Duration::ZERO;
        }
        let bound = (DIAL_PAUSE * (1 << self.failures.min(16))).min(DIAL_PAUSE_MAX);
        let hash = blake3::hash(&[self.seed.to_be_bytes(), self.dialled.to_be_bytes()].concat());
        let dice = hash
            .as_bytes()
            .first_chunk()
            .map_or(0, |bytes| u32::from_be_bytes(*bytes));
        bound.mul_f64(f64::from(dice) / f64::from(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dialler(seed: u64) -> Dialler {
        let address = "localhost:1".parse().unwrap();
        Dialler::new(address, None, "host", seed)
    }

    fn pauses(seed: u64) -> Vec<Duration> {
        let mut dialler = dialler(seed);
        let error = ConnectError::TimedOut { at: String::new() };
        let mut pause = || {
            let pause = dialler.pause();
            drop(dialler.dial());
            assert!(!dialler.on_failure(&error));
            pause
        };
        (0..20).map(|_| pause()).collect()
    }

    #[test]
    fn pauses_grow_within_bounds_and_differ() {
        let (one, other) = (pauses(1), pauses(2));
        assert_eq!(one[0], Duration::ZERO);
        assert!(one.iter().all(|pause| *pause <= DIAL_PAUSE_MAX));
        assert!(one.iter().any(|pause| *pause > DIAL_PAUSE_MAX / 2));
        assert_ne!(one[1..], other[1..]);
    }

    #[test]
    fn a_wrong_identity_is_hopeless_only_before_the_first_session() {
        let error = ConnectError::NoIdentity { at: String::new() };
        let mut dialler = dialler(1);
        assert!(dialler.on_failure(&error));
        dialler.on_session(Carrier::Quic);
        assert!(!dialler.on_failure(&error));
    }

    #[test]
    fn where_tcp_was_quicker_it_is_dialled_first_for_a_while() {
        let mut dialler = dialler(1);
        assert_eq!(dialler.first(), Carrier::Quic);
        dialler.on_session(Carrier::Tcp);
        assert_eq!(dialler.first(), Carrier::Tcp);
        dialler.by_tcp = Instant::now().checked_sub(UDP_RETRIED_AFTER);
        assert_eq!(dialler.first(), Carrier::Quic);
        dialler.on_session(Carrier::Tcp);
        dialler.on_session(Carrier::Quic);
        assert_eq!(dialler.first(), Carrier::Quic);
    }
}
