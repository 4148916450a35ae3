//! What the scheduler may be told differently.

use std::time::Duration;

use fleetpool_proto::limits::{
    CLIENT_GRACE_LEASES, LEASE, LEASE_MARGIN, POOL_WINDOW_BYTES, POOL_WINDOW_TASKS,
};

/// Settings of a [`crate::CoordinatorCore`].
#[derive(Clone, Debug)]
pub struct Options {
    /// How long an agent may use its slots after it sent the renewal that was answered.
    pub lease: Duration,
    /// Added to lease + 10 % before a silent host's tasks are granted again.
    pub lease_margin: Duration,
    /// After this long without a word from a host, attempts that may not be rerun are given up as `Unknown`.
    pub lost_after: Duration,
    /// Tasks a pool may have submitted and not consumed, at least.
    pub window_tasks: u64,
    /// Bytes of arguments a pool may have waiting, and of results its client may be behind with.
    pub window_bytes: u64,
    /// Whether facts are given out for a journal, and pools outlive their client's session.
    pub durable: bool,
    /// Which start of the coordinator this is: numbers of decisions grow from one to the next.
    pub epoch: u64,
    /// How long a client whose session was lost may take to come back before its pools end.
    pub client_grace: Duration,
    /// A bug planted on purpose, so that the simulator can be shown to find it.
    #[cfg(feature = "planted-bugs")]
    pub planted: Option<PlantedBug>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            lease: LEASE,
            lease_margin: LEASE_MARGIN,
            lost_after: Duration::from_hours(1),
            window_tasks: POOL_WINDOW_TASKS,
            window_bytes: POOL_WINDOW_BYTES,
            durable: false,
            epoch: 0,
            client_grace: LEASE * CLIENT_GRACE_LEASES,
            #[cfg(feature = "planted-bugs")]
            planted: None,
        }
    }
}

/// Bugs that the simulator must find.
#[cfg(feature = "planted-bugs")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlantedBug {
    /// Reports are believed whatever attempt they are of.
    AttemptUnchecked,
    /// A silent host's tasks are granted again at once.
    NoLeaseMargin,
    /// Prefetched tasks are never taken back.
    NoRetract,
    /// Slots are given elsewhere before the agent has confirmed that it stopped using them.
    AllotUnconfirmed,
}

impl Options {
    /// How long after a renewal was received a host with a lease of that length counts as fenced.
    pub(crate) fn fence_after(&self, lease: Duration) -> Duration {
        #[cfg(feature = "planted-bugs")]
        if self.planted == Some(PlantedBug::NoLeaseMargin) {
            return lease / 2;
        }
        lease + lease / 10 + self.lease_margin
    }

    pub(crate) fn checks_attempts(&self) -> bool {
        #[cfg(feature = "planted-bugs")]
        return self.planted != Some(PlantedBug::AttemptUnchecked);
        #[cfg(not(feature = "planted-bugs"))]
        true
    }

    pub(crate) fn retracts(&self) -> bool {
        #[cfg(feature = "planted-bugs")]
        return self.planted != Some(PlantedBug::NoRetract);
        #[cfg(not(feature = "planted-bugs"))]
        true
    }

    pub(crate) fn waits_for_confirmation(&self) -> bool {
        #[cfg(feature = "planted-bugs")]
        return self.planted != Some(PlantedBug::AllotUnconfirmed);
        #[cfg(not(feature = "planted-bugs"))]
        true
    }
}
