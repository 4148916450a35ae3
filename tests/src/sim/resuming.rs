//! Clients whose sessions are lost, and who come back and say again what may not have come.

use fleetpool_coordinator_core::Event;
use fleetpool_proto::{PoolId, message::FromClient};

use super::{
    clients::Client,
    engine::{Engine, ToCoordinator, What, client_id, us},
};

/// How long the coordinator may not notice that a client's session is lost, in microseconds.
const UNNOTICED_US: u64 = 10_000_000;

/// The sessions of a client, one after the other.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// Which of them this is, or was last.
    pub(super) session: u64,
    /// It is not lost.
    pub(super) connected: bool,
    /// When the last one was lost.
    lost_at: u64,
    /// The session that the coordinator hears.
    pub(super) heard: Option<u64>,
    /// What was sent on a session before this one arrives until then.
    late_until: u64,
}

impl Client {
    /// Its session is over. What it has sent comes until `late_until`, what it was sent does not.
    pub(super) fn lose_session(&mut self, now: u64, late_until: u64) {
        if std::mem::take(&mut self.line.connected) {
            (self.line.lost_at, self.line.late_until) = (now, late_until);
        }
    }

    fn begin_session(&mut self) {
        self.line.session += 1;
        self.line.connected = true;
        self.messages_upto = 0;
        self.messages.clear();
        (self.up, self.down) = Default::default();
    }

    /// What the coordinator may not have heard.
    fn statement(&self) -> Vec<FromClient> {
        let is_safe = |message: &FromClient| match message {
            FromClient::Submit {
                first, payloads, ..
            } => first + payloads.items().len() as u64 <= self.safe,
            _ => false,
        };
        let said = self.said.iter().filter(|message| !is_safe(message));
        said.cloned().collect()
    }

    /// Whether what comes on that session now reaches the client.
    pub(super) fn hears(&self, session: u64) -> bool {
        self.line.connected && self.line.session == session
    }

    /// Whether what comes on that session now reaches the coordinator.
    pub(super) fn is_heard(&self, session: u64, now: u64) -> bool {
        self.line.heard == Some(session) && (self.hears(session) || now <= self.line.late_until)
    }
}

impl Engine {
    pub(super) fn client_connects(&mut self, number: usize, pools: Vec<PoolId>) {
        if self.journal.down {
            // It is said when there is somebody to hear it.
            return;
        }
        self.clients[number].begin_session();
        let delay = self.delay();
        let session = self.clients[number].line.session;
        let sent = self.clients[number].up.send(self.now, delay, None);
        if let Some((_, at)) = sent {
            let connected = ToCoordinator::ClientConnected(number, session);
            self.at(at, What::Coordinator(connected));
        }
        if self.durable {
            self.client_sends(number, FromClient::Resume { pools });
        }
    }

    pub(super) fn client_resumes(&mut self, number: usize) {
        let client = &self.clients[number];
        if client.said.is_empty() || client.line.connected || self.journal.down {
            return;
        }
        let (pool, again) = (client.pool, client.statement());
        self.client_connects(number, vec![pool]);
        for message in again {
            self.client_sends(number, message);
        }
    }

    pub(super) fn lose_client(&mut self, number: usize) {
        let client = &self.clients[number];
        if client.over || !client.line.connected {
            return;
        }
        let session = client.line.session;
        let late_until = self.now + self.chance.within(0..20_000);
        self.clients[number].lose_session(self.now, late_until);
        let wait = self.chance.within(0..UNNOTICED_US);
        let away = ToCoordinator::ClientAway(number, session);
        self.after(wait, What::Coordinator(away));
    }

    /// The coordinator has a session of the client.
    pub(super) fn client_is_here(&mut self, number: usize, session: u64) {
        if !self.clients[number].hears(session) {
            return;
        }
        let client = client_id(number);
        if self.clients[number].line.heard.is_some() {
            self.tell_coordinator(Event::ClientAway { client });
        }
        if session > 1 && !self.coordinator.knows(client) && self.is_given_up(number) {
            // It is sent away, and tells whoever waits.
            self.truth.refuse(self.clients[number].pool);
            self.client_ends(number);
            return;
        }
        self.clients[number].line.heard = Some(session);
        let user = format!("user{number}");
        self.tell_coordinator(Event::ClientConnected { client, user });
    }

    /// The coordinator sees that a session of the client is lost.
    pub(super) fn client_is_away(&mut self, number: usize, session: u64) {
        let line = &mut self.clients[number].line;
        if line.heard == Some(session) {
            line.heard = None;
            let client = client_id(number);
            self.tell_coordinator(Event::ClientAway { client });
        }
    }

    /// Whether a client that the coordinator does not know was away for too long.
    fn is_given_up(&mut self, number: usize) -> bool {
        let client = &self.clients[number];
        let away = self.now - client.line.lost_at;
        if away >= us(self.coordinator_options().client_grace) {
            return true;
        }
        // Nothing that it said may have come, or the disk has lost it.
        let unsaid = client.safe == 0 && client.is_without_outcomes();
        if !unsaid && !self.world.cuts_coordinators_power() {
            let what =
                format!("G10: client {number} is forgotten {away} us after its session was lost");
            self.check(Err(what));
        }
        false
    }
}
