//! A coordinator that stops on purpose, and its successor: hosts go on by longer leases meanwhile, so that nothing is killed, and
//! what is not back is waited for as long.

use std::time::Duration;

use fleetpool_proto::{
    ClientId, HostId, Timestamp,
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
        self.stopping = true;
        let length = PLANNED_STOP.max(self.longest_lease());
        // As long as this coordinator lives.
        self.older_leases = Some((length, Timestamp(u64::MAX)));
        self.outbox.record(|| lease(length, true));
        let hosts: Vec<HostId> = self.hosts.keys().copied().collect();
        hosts.into_iter().for_each(|id| self.tell_agent_of_stop(id));
        let clients: Vec<ClientId> = self.clients.keys().copied().collect();
        for id in clients {
            self.tell_client_of_stop(id);
        }
    }

    pub(crate) fn tell_agent_of_stop(&mut self, id: HostId) {
        let lease_ms = millis(self.longest_lease());
        if let Some(host) = self.hosts.get(&id).filter(|_| self.stopping) {
            self.outbox.agent(id, host, ToAgent::Stopping { lease_ms });
        }
    }

    pub(crate) fn tell_client_of_stop(&mut self, id: ClientId) {
        if self.stopping {
            let wait_ms = millis(PLANNED_STOP);
            self.outbox.client(id, ToClient::Stopping { wait_ms });
        }
    }

    /// The longest lease that a host may hold: this coordinator's, or a predecessor's as long as that may run.
    pub(crate) fn longest_lease(&self) -> Duration {
        self.older_leases
            .map_or(self.options.lease, |(length, _)| length)
    }

    /// How long hosts that are not back may run what a predecessor has granted, from the start of this coordinator.
    #[must_use]
    pub fn longest_fence(&self) -> Duration {
        self.options.fence_after(self.longest_lease())
    }

    /// When a host counts as fenced unless it is back.
    #[must_use]
    pub fn fenced_at(&self, id: HostId) -> Option<Timestamp> {
        Some(self.hosts.get(&id)?.fenced_at)
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
