//! A coordinator that stops on purpose, and its successor: hosts go on by longer leases meanwhile, so that nothing is killed, and
//! what is not back is waited for as long.

use std::time::Duration;

use fleetpool_proto::{
    Timestamp,
    journal::Fact,
    limits::PLANNED_STOP,
    message::{ToAgent, ToClient},
    time::millis,
};

use crate::core::CoordinatorCore;

impl CoordinatorCore {
    /// Promises to grant nothing again for longer than leases are from now on.
    pub(crate) fn on_stop(&mut self) {
        if !self.options.durable {
            return;
        }
        // For ever, as far as this coordinator is concerned.
        self.settled_at = Timestamp(u64::MAX);
        let length = PLANNED_STOP.max(self.older_lease());
        self.outbox.record(|| lease(length, true));
        let lease_ms = millis(length);
        for (&id, host) in &self.hosts {
            self.outbox.agent(id, host, ToAgent::Stopping { lease_ms });
        }
        for &client in self.clients.keys() {
            let wait_ms = millis(PLANNED_STOP);
            self.outbox.client(client, ToClient::Stopping { wait_ms });
        }
    }

    /// The longest lease that a host may hold which is not back.
    pub(crate) fn older_lease(&self) -> Duration {
        self.older_leases
            .map_or(self.options.lease, |(length, _)| length)
    }

    /// How long a predecessor's hosts may run what it has granted, from the start of this coordinator.
    #[must_use]
    pub fn older_fence(&self) -> Duration {
        self.options.fence_after(self.older_lease())
    }

    /// A successor need not wait any more for leases that are over.
    pub(crate) fn pass_older_leases(&mut self) {
        if self
            .older_leases
            .take_if(|(_, until)| *until <= self.now)
            .is_some()
        {
            let length = self.options.lease;
            self.outbox.record(|| lease(length, false));
        }
    }
}

/// What a successor has to know of leases.
pub(crate) fn lease(length: Duration, stopping: bool) -> Fact {
    let ms = millis(length);
    Fact::Lease { ms, stopping }
}
