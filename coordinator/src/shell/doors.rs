//! Sessions: how they begin and end.

use std::{collections::BTreeSet, time::Duration};

use fleetpool_coordinator_core::{Event, SessionNo};
use fleetpool_net::{Carrier, Peer, Session};
use fleetpool_proto::{
    ClientId, HostId, Role,
    message::ToClient,
    time::micros,
    version::{Hello, Welcome, negotiate},
};
use tokio::sync::mpsc;

use super::{
    handle::{Ticket, agent_welcome, pools_from},
    outbound::{AbortOnDrop, Relief},
    owner::{Input, Owner, ended},
    reader::{self, Ended, Proven},
    sessions::{AgentSession, ClientSession, Live, Place},
};

impl Owner {
    pub(super) fn admit(&mut self, peer: &Peer, hello: &Hello) -> Result<Ticket, String> {
        let base = Welcome {
            protocol: negotiate(hello)?,
            build: env!("CARGO_PKG_VERSION").to_owned(),
            cluster: self.options.cluster.clone(),
            epoch: self.options.epoch,
            ..Welcome::default()
        };
        match (peer.role, hello.lifeline) {
            (Role::Coordinator, _) => Err(
                "a coordinator's identity is for listening with only: use another one".to_owned(),
            ),
            (Role::Agent, _) => {
                let host = self.names.check(self.now, peer)?;
                let session = self.number_session();
                Ok(Ticket {
                    welcome: agent_welcome(base, host, self.options.lease),
                    place: Place::Agent { host, session },
                })
            }
            (Role::User | Role::Admin, None) => {
                let client = self.client_of(peer, hello)?;
                let session = self.number_session();
                let pools_from = pools_from(client);
                let grace = self.durable.as_ref().map(|_| self.options.client_grace());
                let resume_ms = grace.map_or(0, |grace| micros(grace) / 1000);
                Ok(Ticket {
                    welcome: Welcome {
                        client,
                        pools_from,
                        resume_ms,
                        ..base
                    },
                    place: Place::Client { client, session },
                })
            }
            (Role::User | Role::Admin, Some(client)) => {
                let is_theirs = |live: &Live| live.is_of(peer);
                if !self.sessions.client(client).is_some_and(is_theirs) {
                    return Err(format!(
                        "there is no client {client} of this identity to hold a lifeline of"
                    ));
                }
                Ok(Ticket {
                    welcome: Welcome { client, ..base },
                    place: Place::Lifeline(client),
                })
            }
        }
    }

    fn number_session(&mut self) -> SessionNo {
        let session = self.next_session;
        self.next_session += 1;
        session
    }

    /// Which client it is: a new one, or one that has been here.
    fn client_of(&mut self, peer: &Peer, hello: &Hello) -> Result<ClientId, String> {
        let Some(client) = hello.resume else {
            let client = ClientId(self.next_client);
            self.next_client += 1;
            return Ok(client);
        };
        let durable = self.durable.as_ref();
        let known = durable.is_some_and(|durable| durable.knows(client, peer));
        let watches = durable.is_some_and(|durable| durable.watches(client));
        if known && (watches || self.core.knows(client)) {
            return Ok(client);
        }
        // Nobody else is or was this one, as far as is known, and it has nothing that this coordinator would have to know.
        let is_free = known || durable.is_some_and(|durable| !durable.has_met(client));
        if hello.unsaid && is_free && client.0 < self.next_client && !self.core.knows(client) {
            return Ok(client);
        }
        Err(format!(
            "client {client} was away for too long, or had no tasks: nothing of it is left"
        ))
    }

    pub(super) fn open(&mut self, place: Place, session: Session, inbox: mpsc::Sender<Input>) {
        tracing::info!(peer = %session.peer, ?place, "session begins");
        match place {
            Place::Agent { host, session: no } => self.open_agent(host, no, session, inbox),
            Place::Client {
                client,
                session: no,
            } => self.open_client(client, no, session, inbox),
            Place::Lifeline(client) => match self.sessions.clients.get_mut(&client) {
                None => session.sender.close("the client is gone"),
                Some(found) => {
                    // The sender stays with the reader: a session ends with its last sender.
                    let (sender, receiver) = (session.sender, session.receiver);
                    found.lifelines.push(AbortOnDrop::spawn(async move {
                        reader::lifeline(receiver, client, inbox).await;
                        drop(sender);
                    }));
                }
            },
        }
    }

    fn open_client(
        &mut self,
        client: ClientId,
        no: SessionNo,
        session: Session,
        inbox: mpsc::Sender<Input>,
    ) {
        let older = self.sessions.clients.get(&client).map(|old| old.session);
        if older.is_some_and(|older| older > no) {
            return session.sender.close("a newer session has taken over");
        }
        if older.is_some() {
            self.lose_client(client, "a newer session has taken over");
        }
        let user = session.peer.id.clone();
        let mut lifelines = Vec::new();
        if let Some(durable) = self.durable.as_mut() {
            durable.meet(client, &session.peer);
            let familiar = durable.familiar(client);
            lifelines.extend(
                familiar
                    .into_iter()
                    .flat_map(|known| known.lifelines.drain(..)),
            );
        }
        let relief = Some(Relief {
            inbox: inbox.clone(),
            client,
        });
        let reader = |receiver| reader::client(receiver, client, no, inbox);
        let session = ClientSession {
            session: no,
            live: Live::start(session, relief, reader),
            lifelines,
            attached: Vec::new(),
            held: BTreeSet::new(),
        };
        self.sessions.clients.insert(client, session);
        self.tell_core(Event::ClientConnected { client, user });
        for hash in self.contents.asked_of(client) {
            self.send_client(client, ToClient::NeedContent { hash });
        }
    }

    fn open_agent(
        &mut self,
        host: HostId,
        no: SessionNo,
        session: Session,
        inbox: mpsc::Sender<Input>,
    ) {
        let newest = self.sessions.agents.get(&host).map(|agent| agent.session);
        if newest.is_some_and(|newest| newest > no) {
            session
                .sender
                .close("a newer session of this host has taken over");
            return;
        }
        // Between admission and now somebody else may have taken the name.
        if let Err(reason) = self.names.claim(self.now, &session.peer) {
            session.sender.close(&reason);
            return;
        }
        if let Some(older) = newest {
            let reason = "a newer session of this host has taken over";
            self.end(
                Place::Agent {
                    host,
                    session: older,
                },
                &ended(reason),
            );
            // Ending it released the name.
            self.names.claim(self.now, &session.peer).ok();
        }
        self.record_name(&session.peer.name);
        let labels = self.access.as_ref().zip(session.peer.key);
        let proven = Proven {
            name: session.peer.name.clone(),
            carrier: session.peer.carrier.name(),
            labels: labels
                .map(|(access, key)| access.registry.labels(key))
                .unwrap_or_default(),
        };
        let live = Live::start(session, None, |receiver| {
            reader::agent(receiver, host, no, proven, inbox)
        });
        self.sessions
            .agents
            .insert(host, AgentSession { session: no, live });
        self.tell_core(Event::AgentConnected { host, session: no });
    }

    /// Ends a session, if it has not ended already.
    pub(super) fn end(&mut self, place: Place, ended: &Ended) {
        let live = match place {
            Place::Agent { host, session } => self.end_agent(host, session, ended),
            Place::Client { client, session } => self.end_client_session(client, session, ended),
            Place::Lifeline(client) => self.end_client(client),
        };
        if let Some(live) = live {
            tracing::info!(peer = %live.peer, ?place, reason = ended.reason, "session ends");
            live.out.close(&ended.reason);
        }
    }

    fn end_agent(&mut self, host: HostId, session: SessionNo, ended: &Ended) -> Option<Live> {
        self.sessions.agent(host, session)?;
        let agent = self.sessions.agents.remove(&host)?;
        // A hold is forgotten with the session.
        for client in self.sessions.clients.values_mut() {
            client.held.retain(|(held, _)| *held != host);
        }
        // Who says goodbye leaves nothing running; of others the tasks may live until they are fenced.
        let fence = self.core.longest_fence();
        let reserve = if ended.goodbye { Duration::ZERO } else { fence };
        self.names.release(self.now, &agent.live.peer.name, reserve);
        self.tell_core(Event::AgentDisconnected { host, session });
        let steps = self.contents.on_agent_gone(host, session);
        self.take_steps(steps);
        Some(agent.live)
    }

    fn end_client_session(
        &mut self,
        client: ClientId,
        session: SessionNo,
        ended: &Ended,
    ) -> Option<Live> {
        let found = self.sessions.clients.get(&client)?;
        if found.session != session {
            return None;
        }
        // QUIC fell silent, and a connection that its process's end would have ended stands: it is the network.
        let carrier = found.live.peer.carrier;
        let lives = ended.silent && carrier == Carrier::Quic && !found.lifelines.is_empty();
        if lives && self.durable.is_some() {
            self.lose_client(client, &ended.reason);
            return None;
        }
        self.end_client(client)
    }

    /// A client's session is lost; it may come back.
    fn lose_client(&mut self, client: ClientId, reason: &str) {
        self.on_relieved(client);
        let Some(mut session) = self.sessions.clients.remove(&client) else {
            return;
        };
        let durable = self.durable.as_mut();
        if let Some(familiar) = durable.and_then(|durable| durable.familiar(client)) {
            familiar.lifelines = std::mem::take(&mut session.lifelines);
        }
        tracing::info!(%client, reason, "client is away");
        session.live.out.close(reason);
        self.tell_core(Event::ClientAway { client });
    }

    fn end_client(&mut self, client: ClientId) -> Option<Live> {
        // Who waits for it to read would wait for ever, and could not even be ended.
        self.on_relieved(client);
        let session = self.sessions.clients.remove(&client);
        let steps = self.contents.on_client_gone(client);
        self.take_steps(steps);
        if let Some(durable) = self.durable.as_mut() {
            durable.forget(client);
        }
        if session.is_some() || self.core.knows(client) {
            self.tell_core(Event::ClientGone { client });
        }
        Some(session?.live)
    }
}
