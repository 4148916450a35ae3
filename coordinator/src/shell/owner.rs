//! The task that owns the scheduler and every session. It takes what has come, tells the scheduler, does what the
//! scheduler asks for, and never waits for a peer.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use fleetpool_coordinator_core::{Action, CoordinatorCore, Event, SessionNo};
use fleetpool_net::{Peer, Session};
use fleetpool_proto::{
    ClientId, HostId, PoolId, Role, Timestamp,
    limits::{LEASE_MARGIN, OUTPUT_HELD_BYTES_MAX},
    message::{ToAgent, ToClient},
    pool::ContentHash,
    version::{Hello, Welcome, negotiate},
    view::Query,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until},
};

use super::{
    clock,
    content::{Asker, Contents, Step},
    counters::Counters,
    handle::{Options, Refused, Ticket, agent_welcome, first_client, pools_from},
    names::Names,
    outbound::{AbortOnDrop, Overrun, Relief, WAITING_BYTES_MAX},
    reader::{self, Ended, Proven},
    sessions::{AgentSession, ClientSession, Live, Place, Sessions},
};
use crate::access::Access;

/// Inputs that are handled before the actions they led to are taken: what comes together is placed and sent together.
const BATCH_MAX: usize = 256;

/// What the owning task is told.
#[derive(Debug)]
pub(crate) enum Input {
    /// A peer asks to be let in.
    Admit {
        peer: Peer,
        hello: Hello,
        reply: oneshot::Sender<Result<Ticket, Refused>>,
    },
    /// A peer that was let in has its session.
    Open {
        place: Place,
        session: Session,
        inbox: mpsc::Sender<Input>,
    },
    /// Something for the scheduler.
    Event(Event),
    /// A client asks.
    Ask {
        client: ClientId,
        question: u64,
        query: Query,
    },
    /// A client brings content; checked against its hash.
    Content {
        client: ClientId,
        hash: ContentHash,
        bytes: Bytes,
    },
    /// A session's reader has come to its end.
    Ended { place: Place, ended: Ended },
    /// A client that was behind with reading is not any more.
    Relieved { client: ClientId },
    /// An identity is not invited any more.
    Expel { identity: String, reason: String },
    /// That identity will not come back.
    Retire {
        identity: String,
        /// Whether all that it ran is known to be gone.
        ended: bool,
    },
    /// Somebody wants the counts.
    Counters {
        reply: oneshot::Sender<BTreeMap<String, u64>>,
    },
    /// The end.
    Stop {
        reason: String,
        done: oneshot::Sender<()>,
    },
}

/// The coordinator's state.
pub(crate) struct Owner {
    pub(super) options: Options,
    pub(super) access: Option<Arc<Access>>,
    pub(super) core: CoordinatorCore,
    pub(super) sessions: Sessions,
    pub(super) names: Names,
    contents: Contents,
    counters: Counters,
    /// For what is answered beside this task.
    pub(super) inbox: mpsc::WeakSender<Input>,
    pub(super) started: Timestamp,
    pub(super) now: Timestamp,
    next_session: SessionNo,
    next_client: u64,
    /// Set when it is told to stop.
    stopping: Option<oneshot::Sender<()>>,
}

impl Owner {
    pub(crate) fn new(
        options: Options,
        access: Option<Arc<Access>>,
        inbox: mpsc::WeakSender<Input>,
    ) -> Self {
        let now = clock::now();
        Self {
            core: CoordinatorCore::new(options.for_core()),
            next_client: first_client(options.epoch),
            options,
            access,
            sessions: Sessions::default(),
            names: Names::default(),
            contents: Contents::default(),
            counters: Counters::default(),
            inbox,
            started: now,
            now,
            next_session: 1,
            stopping: None,
        }
    }

    /// Runs until nobody can tell it anything any more, or it is told to stop.
    pub(crate) async fn run(mut self, mut inbox: mpsc::Receiver<Input>) {
        let mut inputs = Vec::with_capacity(BATCH_MAX);
        let timer = sleep_until(Instant::now());
        tokio::pin!(timer);
        let mut timer_at = None;
        while self.stopping.is_none() {
            let due = self.core.poll_timeout();
            if due != timer_at {
                timer_at = due;
                timer.as_mut().reset(deadline(due));
            }
            tokio::select! {
                count = inbox.recv_many(&mut inputs, BATCH_MAX) => {
                    if count == 0 {
                        break;
                    }
                }
                () = &mut timer, if due.is_some() => {
                    // The timer's clock stands still while the machine sleeps, so it may ring late, never early.
                    timer_at = None;
                }
            }
            self.turn(&mut inputs);
        }
        if let Some(done) = self.stopping.take() {
            // Each session gives its peer a bounded time to hear the goodbye.
            for (_, live) in self.sessions.places() {
                live.out.finished().await;
            }
            done.send(()).ok();
        }
    }

    /// Takes in what has come, then does what it led to.
    fn turn(&mut self, inputs: &mut Vec<Input>) {
        self.now = clock::now();
        for input in inputs.drain(..) {
            self.on_input(input);
        }
        if self.core.poll_timeout().is_some_and(|due| due <= self.now) {
            self.tell_core(Event::Tick);
        }
        while let Some(action) = self.core.poll_action() {
            self.on_action(action);
        }
    }

    fn on_input(&mut self, input: Input) {
        match input {
            Input::Admit { peer, hello, reply } => {
                let ticket = self
                    .admit(&peer, &hello)
                    .map_err(|reason| Refused { reason });
                // Whoever asked may have given up.
                reply.send(ticket).ok();
            }
            Input::Open {
                place,
                session,
                inbox,
            } => self.open(place, session, inbox),
            Input::Event(event) => self.tell_core(event),
            Input::Ask {
                client,
                question,
                query,
            } => self.on_ask(client, question, query),
            Input::Content {
                client,
                hash,
                bytes,
            } => {
                let steps = self.contents.on_content(client, hash, bytes);
                self.take_steps(steps);
            }
            Input::Ended { place, ended } => self.end(place, &ended),
            Input::Relieved { client } => self.on_relieved(client),
            Input::Expel { identity, reason } => {
                for place in self.sessions.places_of(&identity) {
                    self.end(place, &ended(&reason));
                }
            }
            Input::Retire { identity, ended } => {
                // An agent's identity has its host's name.
                if let Some(host) = self.names.get(&identity) {
                    if ended {
                        self.names.free(&identity);
                    }
                    self.tell_core(Event::Retire { host, ended });
                }
            }
            Input::Counters { reply } => {
                reply.send(self.counters.all()).ok();
            }
            Input::Stop { reason, done } => {
                for (_, live) in self.sessions.places() {
                    live.out.close(&reason);
                }
                self.stopping = Some(done);
            }
        }
    }

    pub(super) fn tell_core(&mut self, event: Event) {
        self.counters.on_event(&event);
        self.core.handle(self.now, event);
    }

    fn on_action(&mut self, action: Action) {
        self.counters.on_action(&action);
        match action {
            Action::ToAgent {
                host,
                session,
                message,
            } => self.send_agent(host, session, message),
            Action::ToClient { client, message } => self.send_client(client, message),
            Action::DropAgent {
                host,
                session,
                reason,
            } => self.end(Place::Agent { host, session }, &ended(&reason)),
            Action::FetchContent {
                host,
                session,
                client,
                hash,
            } => {
                let asker = Asker {
                    host,
                    session,
                    client,
                };
                let step = self.contents.on_fetch(asker, hash);
                self.take_steps(step);
            }
        }
    }

    fn send_agent(&mut self, host: HostId, session: SessionNo, message: ToAgent) {
        let Some(live) = self.sessions.agent(host, session) else {
            return;
        };
        if live.out.send(message, WAITING_BYTES_MAX) == Err(Overrun) {
            let reason =
                "it does not read what it is sent: look at the host's load and its network";
            self.end(Place::Agent { host, session }, &ended(reason));
        }
    }

    pub(super) fn send_client(&mut self, client: ClientId, message: ToClient) {
        let Some(live) = self.sessions.client(client) else {
            return;
        };
        match message {
            ToClient::Output { .. } => self.send_output(client, message),
            // Everything else is bounded by the credit of pools and the number of questions.
            message => live.out.send_credited(message),
        }
    }

    /// Passes on what tasks printed. Where that is more than the client reads, they are made to wait (G8).
    fn send_output(&mut self, client: ClientId, message: ToClient) {
        let Some(session) = self.sessions.clients.get_mut(&client) else {
            return;
        };
        let from = printed_by(&message);
        // What is under way when agents are told to hold still comes.
        let bytes_max = WAITING_BYTES_MAX + (1 + session.held.len()) * 2 * OUTPUT_HELD_BYTES_MAX;
        if session.live.out.send(message, bytes_max) == Err(Overrun) {
            let reason = "its tasks print more than it reads, and do not wait when they are told to: upgrade the agents";
            return self.end(Place::Client(client), &ended(reason));
        }
        if session.live.out.is_behind()
            && let Some(from) = from
            && session.held.insert(from)
        {
            let relieved = session.live.out.watch();
            self.hold(from, true);
            if relieved {
                self.on_relieved(client);
            }
        }
    }

    /// The client has read most of what waited.
    fn on_relieved(&mut self, client: ClientId) {
        let session = self.sessions.clients.get_mut(&client);
        let held = session.map(|session| std::mem::take(&mut session.held));
        for from in held.unwrap_or_default() {
            self.hold(from, false);
        }
    }

    fn hold(&mut self, (host, pool): (HostId, PoolId), on: bool) {
        if let Some(session) = self.sessions.agents.get(&host).map(|agent| agent.session) {
            self.send_agent(host, session, ToAgent::Hold { pool, on });
        }
    }

    fn take_steps(&mut self, steps: impl IntoIterator<Item = Step>) {
        for step in steps {
            match step {
                Step::Ask(client, hash) if self.sessions.client(client).is_none() => {
                    let steps = self.contents.on_client_gone(client);
                    tracing::debug!(%client, %hash, "content of a client that is gone");
                    self.take_steps(steps);
                }
                Step::Ask(client, hash) => self.send_client(client, ToClient::NeedContent { hash }),
                Step::Give(asker, hash, bytes) => {
                    let payloads = [bytes].into_iter().collect();
                    self.send_agent(
                        asker.host,
                        asker.session,
                        ToAgent::Content { hash, payloads },
                    );
                }
            }
        }
    }
}

/// Sessions: how they begin and end.
impl Owner {
    fn admit(&mut self, peer: &Peer, hello: &Hello) -> Result<Ticket, String> {
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
                let session = self.next_session;
                self.next_session += 1;
                Ok(Ticket {
                    welcome: agent_welcome(base, host, self.options.lease),
                    place: Place::Agent { host, session },
                })
            }
            (Role::User | Role::Admin, None) => {
                let client = ClientId(self.next_client);
                self.next_client += 1;
                let pools_from = pools_from(client);
                Ok(Ticket {
                    welcome: Welcome {
                        client,
                        pools_from,
                        ..base
                    },
                    place: Place::Client(client),
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

    fn open(&mut self, place: Place, session: Session, inbox: mpsc::Sender<Input>) {
        tracing::info!(peer = %session.peer, ?place, "session begins");
        match place {
            Place::Agent { host, session: no } => self.open_agent(host, no, session, inbox),
            Place::Client(client) => {
                let user = session.peer.id.clone();
                let relief = Some(Relief {
                    inbox: inbox.clone(),
                    client,
                });
                let reader = |receiver| reader::client(receiver, client, inbox);
                let session = ClientSession {
                    live: Live::start(session, relief, reader),
                    lifelines: Vec::new(),
                    held: BTreeSet::new(),
                };
                self.sessions.clients.insert(client, session);
                self.tell_core(Event::ClientConnected { client, user });
            }
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
    fn end(&mut self, place: Place, ended: &Ended) {
        let live = match place {
            Place::Agent { host, session } => self.end_agent(host, session, ended),
            Place::Client(client) | Place::Lifeline(client) => self.end_client(client),
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
        let fence = self.options.lease + self.options.lease / 10 + LEASE_MARGIN;
        let reserve = if ended.goodbye { Duration::ZERO } else { fence };
        self.names.release(self.now, &agent.live.peer.name, reserve);
        self.tell_core(Event::AgentDisconnected { host, session });
        Some(agent.live)
    }

    fn end_client(&mut self, client: ClientId) -> Option<Live> {
        // Who waits for it to read would wait for ever, and could not even be ended.
        self.on_relieved(client);
        let session = self.sessions.clients.remove(&client)?;
        let steps = self.contents.on_client_gone(client);
        self.take_steps(steps);
        self.tell_core(Event::ClientGone { client });
        Some(session.live)
    }
}

fn ended(reason: &str) -> Ended {
    Ended {
        reason: reason.to_owned(),
        goodbye: false,
    }
}

/// Whose task printed it, and where.
fn printed_by(message: &ToClient) -> Option<(HostId, PoolId)> {
    match message {
        ToClient::Output { pool, rows, .. } => rows.first().map(|row| (row.host, *pool)),
        _ => None,
    }
}

/// When the timer is to ring: at once for what is past, never for nothing.
fn deadline(due: Option<Timestamp>) -> Instant {
    /// Longer than any process lives, and short enough for every timer.
    const NEVER: Duration = Duration::from_hours(24 * 365);
    let wait = due.map_or(NEVER, |due| due.since(clock::now()).min(NEVER));
    // A timer counts whole milliseconds; a deadline must have passed when it rings.
    Instant::now() + wait + Duration::from_millis(1)
}
