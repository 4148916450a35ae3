//! What the owning task does about content: hands what peers say of it to [`Contents`](super::content::Contents), and does what
//! that wants done.

use std::net::{IpAddr, SocketAddr};

use fleetpool_coordinator_core::Event;
use fleetpool_net::{Carrier, Peer};
use fleetpool_proto::{
    ClientId, Timestamp,
    message::{FromAgent, ToAgent, ToClient},
};

use super::{content::Step, owner::Owner};

impl Owner {
    /// When the owner is to look at the time again.
    pub(super) fn poll_timeout(&self) -> Option<Timestamp> {
        let stop = self.stopping.as_ref().map(|stopping| stopping.until);
        let all = [self.core.poll_timeout(), self.contents.poll_timeout(), stop];
        all.into_iter().flatten().min()
    }

    /// Time has passed.
    pub(super) fn tick_contents(&mut self) {
        let due = self.contents.poll_timeout();
        if due.is_some_and(|due| due <= self.now) {
            let steps = self.contents.on_time(self.now);
            self.take_steps(steps);
        }
    }

    /// What an agent says of content, which the core has no part in.
    pub(super) fn overhear(&mut self, event: &Event) {
        let Event::FromAgent {
            host,
            session,
            message,
        } = event
        else {
            return;
        };
        let (host, session) = (*host, *session);
        match message {
            FromAgent::Register(registration) => {
                let live = self.sessions.agent(host, session);
                let ip = live.and_then(|live| ip_of(&live.peer));
                let pin = registration.pin;
                self.contents.on_agent(host, session, pin, ip);
            }
            FromAgent::PassingOn {
                hash,
                port,
                addresses,
                peers,
            } => {
                let steps = self
                    .contents
                    .on_passing_on(host, session, *hash, *port, addresses, peers);
                self.take_steps(steps);
            }
            _ => {}
        }
    }

    fn is_away(&self, client: ClientId) -> bool {
        self.sessions.client(client).is_none() && self.core.knows(client)
    }

    /// Nobody waits for clients that were away for too long.
    pub(super) fn give_up_contents(&mut self) {
        for client in self.contents.asked() {
            if !self.core.knows(client) {
                let steps = self.contents.on_client_gone(client);
                self.take_steps(steps);
            }
        }
    }

    pub(super) fn take_steps(&mut self, steps: impl IntoIterator<Item = Step>) {
        for step in steps {
            match step {
                // It is away: it is asked when it is back.
                Step::Ask(client, _) if self.is_away(client) => {}
                Step::Ask(client, hash) if self.sessions.client(client).is_none() => {
                    let steps = self.contents.on_client_gone(client);
                    tracing::debug!(%client, %hash, "content of a client that is gone");
                    self.take_steps(steps);
                }
                Step::Ask(client, hash) => self.send_client(client, ToClient::NeedContent { hash }),
                Step::Give(asker, hash, bytes) => {
                    let payloads = [bytes].into_iter().collect();
                    let message = ToAgent::Content { hash, payloads };
                    self.send_agent(asker.host, asker.session, message);
                }
                Step::PassOn {
                    host,
                    session,
                    hash,
                    bytes,
                    peers,
                } => {
                    let message = ToAgent::PassOn { hash, bytes, peers };
                    self.send_agent(host, session, message);
                }
                Step::FetchFrom {
                    asker,
                    hash,
                    bytes,
                    addresses,
                    pin,
                } => {
                    let message = ToAgent::FetchFrom {
                        hash,
                        bytes,
                        addresses,
                        pin,
                    };
                    self.send_agent(asker.host, asker.session, message);
                }
            }
        }
    }
}

/// Where a session comes from, when that is an address.
fn ip_of(peer: &Peer) -> Option<IpAddr> {
    match peer.carrier {
        Carrier::Quic | Carrier::Tcp => {
            let address: SocketAddr = peer.address.parse().ok()?;
            Some(address.ip().to_canonical())
        }
        Carrier::Ssh | Carrier::Unix | Carrier::Local => None,
    }
}
