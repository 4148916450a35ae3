//! What goes wrong with hosts and sessions, and how it is noticed.

use std::time::Duration;

use fleetpool_coordinator_core::{Event, SessionNo};
use fleetpool_proto::HostId;

use super::{
    agents::Mail,
    clients::Deed,
    engine::{Engine, ToCoordinator, What, us},
    plan::Fault,
    workers::ToWorker,
};

/// A session in which nothing has been heard for so long is over, in microseconds: about QUIC's idle timeout.
const IDLE_US: std::ops::Range<u64> = 9_000_000..12_000_000;
/// How long one side of a broken session may not notice, in microseconds.
const UNNOTICED_US: u64 = 10_000_000;

impl Fault {
    /// How long the world is not itself.
    pub(super) fn lasts(&self) -> Duration {
        match *self {
            Self::Break(_) | Self::CancelJob { .. } => Duration::ZERO,
            Self::Cut { lasts, .. }
            | Self::PowerCut { lasts, .. }
            | Self::KillAgent { lasts, .. }
            | Self::Pause { lasts, .. }
            | Self::Cordon { lasts, .. }
            | Self::KillCoordinator { lasts, .. }
            | Self::StopCoordinator { lasts }
            | Self::LoseClient { lasts, .. } => lasts,
        }
    }

    fn host(&self) -> usize {
        let HostId(number) = match *self {
            Self::Break(host)
            | Self::Cut { host, .. }
            | Self::PowerCut { host, .. }
            | Self::KillAgent { host, .. }
            | Self::Pause { host, .. }
            | Self::Cordon { host, .. } => host,
            // The first stands for all.
            Self::KillCoordinator { .. }
            | Self::StopCoordinator { .. }
            | Self::LoseClient { .. }
            | Self::CancelJob { .. } => HostId(0),
        };
        number as usize
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Break(_) => "break",
            Self::Cut { .. } => "cut",
            Self::PowerCut { .. } => "power cut",
            Self::KillAgent { .. } => "kill agent",
            Self::Pause { .. } => "pause",
            Self::Cordon { .. } => "cordon",
            Self::KillCoordinator { .. } => "kill coordinator",
            Self::StopCoordinator { .. } => "stop coordinator",
            Self::LoseClient { .. } => "lose client",
            Self::CancelJob { .. } => "cancel job",
        }
    }
}

impl Engine {
    pub(super) fn strike(&mut self, fault: Fault) {
        let host = fault.host();
        let up = self.hosts[host].core.is_some() && !self.hosts[host].paused;
        let on_the_host = matches!(
            fault,
            Fault::Break(_)
                | Fault::PowerCut { .. }
                | Fault::KillAgent { .. }
                | Fault::Pause { .. }
        );
        if on_the_host && !up {
            return;
        }
        self.trace.note(self.now, host as u64, fault.name(), 0);
        self.trace.tell(self.now, || format!("fault: {fault:?}"));
        match fault {
            Fault::Break(_) => self.break_session(host),
            Fault::Cut {
                up, down, lasts, ..
            } => self.cut(host, up, down, lasts),
            Fault::PowerCut { .. } => self.power_off(host),
            Fault::KillAgent { .. } => self.kill_agent(host),
            Fault::Pause { lasts, .. } => self.pause(host, lasts),
            Fault::Cordon { host, .. } => self.tell_coordinator(Event::Cordon { host, on: true }),
            Fault::KillCoordinator { power, .. } => self.kill_coordinator(power),
            Fault::StopCoordinator { .. } => self.stop_coordinator(),
            Fault::LoseClient { client, .. } => self.lose_client(client),
            Fault::CancelJob { client } => self.cancel_job(client),
        }
        if fault.lasts() > Duration::ZERO {
            self.after(us(fault.lasts()), What::Healed(fault));
        }
    }

    pub(super) fn heal(&mut self, fault: Fault) {
        let number = fault.host();
        self.trace.tell(self.now, || format!("healed: {fault:?}"));
        match fault {
            Fault::Break(_) | Fault::Cut { .. } | Fault::CancelJob { .. } => {}
            Fault::LoseClient { client, .. } => self.client_does(client, Deed::Resume),
            Fault::PowerCut { .. } | Fault::KillAgent { .. } => {
                let host = &mut self.hosts[number];
                if host.core.is_none() {
                    host.boot();
                    self.dial_later(number);
                }
            }
            Fault::Pause { .. } => self.resume(number),
            // An operator who finds nobody there tries again.
            Fault::Cordon { .. } if self.journal.down => {
                self.after(us(Duration::from_secs(1)), What::Healed(fault));
            }
            Fault::Cordon { host, .. } => self.tell_coordinator(Event::Cordon { host, on: false }),
            Fault::KillCoordinator { .. } | Fault::StopCoordinator { .. } => {
                self.start_coordinator();
            }
        }
    }

    fn cancel_job(&mut self, client: usize) {
        if self.journal.down {
            // An operator who finds nobody there tries again.
            let again = What::Fault(Fault::CancelJob { client });
            return self.after(us(Duration::from_secs(1)), again);
        }
        let pool = self.clients[client].pool;
        if self.coordinator.jobs().iter().any(|job| job.id == pool) {
            self.truth.refuse(pool);
            let reason = "an operator has cancelled it".to_owned();
            self.tell_coordinator(Event::EndPool { pool, reason });
        }
    }

    /// Both sides notice, each in its own time; until then each believes that it is heard.
    fn break_session(&mut self, host: usize) {
        if let Some(session) = self.hosts[host].newest {
            let (first, second) = (0..50_000, 0..UNNOTICED_US);
            let agent_first = self.chance.once_in(2);
            let (agent, coordinator) = if agent_first {
                (first, second)
            } else {
                (second, first)
            };
            self.end_session(session, Some(agent), Some(coordinator), true);
        }
    }

    /// Every session ends, of which all but the coordinator hear.
    pub(super) fn end_all_sessions(&mut self) {
        let all = self.sessions.numbers();
        for session in all {
            self.end_session(session, Some(0..UNNOTICED_US), None, true);
        }
    }

    /// Ends a session, of which the agent and the coordinator hear within these times.
    fn end_session(
        &mut self,
        session: SessionNo,
        agent: Option<std::ops::Range<u64>>,
        coordinator: Option<std::ops::Range<u64>>,
        loses: bool,
    ) {
        let Some(entry) = self.sessions.get_mut(session) else {
            return;
        };
        if loses {
            entry.up.break_off(&mut self.chance);
            entry.down.break_off(&mut self.chance);
        }
        if std::mem::replace(&mut entry.over, true) {
            return;
        }
        let host = entry.host;
        let life = self.hosts[host].life;
        if let Some(within) = agent {
            let wait = self.chance.within(within);
            self.after(wait, What::Agent(host, life, Mail::Down(session)));
        }
        if let Some(within) = coordinator {
            let wait = self.chance.within(within);
            let gone = ToCoordinator::Disconnected(host, session);
            self.after(wait, What::Coordinator(gone));
        }
    }

    /// A short cut only delays; a long one ends the session, of which both sides hear by silence.
    fn cut(&mut self, host: usize, up: bool, down: bool, lasts: Duration) {
        let until = self.now + us(lasts);
        let entry = &mut self.hosts[host];
        entry.cut_up_until = if up { until } else { 0 }.max(entry.cut_up_until);
        entry.cut_down_until = if down { until } else { 0 }.max(entry.cut_down_until);
        let Some(session) = entry.newest.filter(|_| us(lasts) >= IDLE_US.start) else {
            return;
        };
        if let Some(entry) = self.sessions.get_mut(session) {
            if up {
                entry.up.cut();
            }
            if down {
                entry.down.cut();
            }
        }
        self.end_session(session, Some(IDLE_US), Some(IDLE_US), false);
    }

    fn power_off(&mut self, host: usize) {
        let slots: Vec<_> = self.hosts[host].workers.keys().copied().collect();
        for slot in slots {
            self.worker_gone(host, slot, None);
        }
        self.hosts[host].fall();
        if let Some(session) = self.hosts[host].newest {
            self.end_session(session, None, Some(IDLE_US), true);
        }
    }

    /// The keepers see that their agent is gone, and end all that they keep.
    fn kill_agent(&mut self, host: usize) {
        let workers: Vec<_> = self.hosts[host]
            .workers
            .iter_mut()
            .map(|(slot, worker)| {
                worker.dying = true;
                (*slot, worker.id)
            })
            .collect();
        for (slot, id) in workers {
            let wait = self.chance.within(0..2_000_000);
            self.after(wait, What::Worker(host, id, ToWorker::Gone(slot)));
        }
        self.hosts[host].fall();
        if let Some(session) = self.hosts[host].newest {
            self.end_session(session, None, Some(0..UNNOTICED_US), true);
        }
    }

    fn pause(&mut self, host: usize, lasts: Duration) {
        self.hosts[host].paused = true;
        let session = self.hosts[host].newest;
        if let Some(session) = session.filter(|_| us(lasts) >= IDLE_US.start) {
            self.end_session(session, Some(IDLE_US), Some(IDLE_US), false);
        }
    }

    pub(super) fn coordinator_hangs_up(&mut self, session: SessionNo) {
        let Some(host) = self.sessions.get(session).map(|entry| entry.host) else {
            return;
        };
        let cut = self.now < self.hosts[host].cut_down_until;
        let agent = if cut { IDLE_US } else { 0..10_000 };
        // The shell may still tell the core that the session it has dropped is gone.
        self.end_session(session, Some(agent), Some(0..10_000), true);
    }

    pub(super) fn agent_hangs_up(&mut self, host: usize) {
        let Some(session) = self.hosts[host].session else {
            return;
        };
        let cut = self.now < self.hosts[host].cut_up_until;
        let coordinator = if cut { IDLE_US } else { 0..10_000 };
        self.end_session(session, Some(0..10), Some(coordinator), true);
        if let Some(entry) = self.sessions.get(session).filter(|entry| entry.over) {
            // It was over already, and the agent hears of its own hanging up all the same.
            let (host, life) = (entry.host, self.hosts[host].life);
            self.after(10, What::Agent(host, life, Mail::Down(session)));
        }
    }
}
