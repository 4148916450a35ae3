//! The task that owns the scheduler and every session. It takes what has come, tells the scheduler, does what the
//! scheduler asks for, and never waits for a peer.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use fleetpool_coordinator_core::{Action, CoordinatorCore, Event, SessionNo};
use fleetpool_net::{Peer, Session};
use fleetpool_proto::{
    ClientId, HostId, PoolId, Timestamp,
    limits::OUTPUT_HELD_BYTES_MAX,
    message::{ToAgent, ToClient},
    pool::ContentHash,
    version::Hello,
    view::Query,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until},
};

use super::{
    clock,
    content::{Asker, Contents},
    counters::Counters,
    durable::Durable,
    full::{FULL_RETRY, Standstill},
    handle::{Options, Refused, Ticket, first_client},
    names::Names,
    outbound::{Overrun, WAITING_BYTES_MAX},
    reader::Ended,
    sessions::{Place, Sessions},
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
    /// A client wants to see a detached job.
    Attach {
        client: ClientId,
        pool: PoolId,
        follow: bool,
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
    /// The disk has all of the journal up to there, or refuses.
    Synced(std::io::Result<u64>),
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
    pub(super) contents: Contents,
    pub(super) counters: Counters,
    /// What outlives this process.
    pub(super) durable: Option<Durable>,
    /// Why it cannot go on.
    pub(super) failed: Option<String>,
    failure: Option<oneshot::Sender<String>>,
    /// For those who cannot ask it while its disk is full.
    pub(super) standstill: Arc<Standstill>,
    /// For what is answered beside this task.
    pub(super) inbox: mpsc::WeakSender<Input>,
    pub(super) started: Timestamp,
    pub(super) now: Timestamp,
    pub(super) next_session: SessionNo,
    pub(super) next_client: u64,
    /// Set when it is told to stop.
    pub(super) stopping: Option<Stopping>,
}

/// A stop on purpose.
pub(super) struct Stopping {
    reason: String,
    done: oneshot::Sender<()>,
    /// What it has promised is in the journal up to there.
    promised: Option<u64>,
    /// It waits no longer for its disk.
    pub(super) until: Timestamp,
}

/// How long a coordinator that is told to stop waits for its disk to hold what it promises.
const STOP_MAX: Duration = Duration::from_secs(2);

impl Owner {
    pub(crate) fn new(
        options: Options,
        access: Option<Arc<Access>>,
        inbox: mpsc::WeakSender<Input>,
        failure: oneshot::Sender<String>,
    ) -> Self {
        let now = clock::now();
        Self {
            core: CoordinatorCore::new(options.for_core(access.is_some())),
            next_client: first_client(options.epoch),
            options,
            access,
            sessions: Sessions::default(),
            names: Names::default(),
            contents: Contents::default(),
            counters: Counters::default(),
            durable: None,
            failed: None,
            failure: Some(failure),
            standstill: Arc::default(),
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
        while !self.is_stopped() && self.failed.is_none() {
            if self.is_stuck() {
                self.stand_still(&mut inbox).await;
                continue;
            }
            let due = self.poll_timeout();
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
                () = tokio::time::sleep(FULL_RETRY), if self.has_parked() => {}
            }
            self.turn(&mut inputs);
        }
        if let Some((reason, failure)) = self.failed.take().zip(self.failure.take()) {
            failure.send(reason).ok();
        }
        if let Some(Stopping { reason, done, .. }) = self.stopping.take() {
            for (_, live) in self.sessions.places() {
                live.out.close(&reason);
            }
            // Each session gives its peer a bounded time to hear the goodbye.
            for (_, live) in self.sessions.places() {
                live.out.finished().await;
            }
            done.send(()).ok();
        }
    }

    /// Whether it was told to stop, and its peers know of what the disk has.
    fn is_stopped(&self) -> bool {
        self.stopping.as_ref().is_some_and(|stopping| {
            let durable = self.durable.as_ref().zip(stopping.promised);
            let waits = durable.is_some_and(|(durable, position)| !durable.is_on_disk(position));
            !waits || self.is_stuck() || clock::now() >= stopping.until
        })
    }

    /// Takes in what has come, then does what it led to.
    fn turn(&mut self, inputs: &mut Vec<Input>) {
        self.now = clock::now();
        // However much else comes, what was put off has its turn when there is room again, and before what came after it.
        for input in self.take_parked().into_iter().chain(inputs.drain(..)) {
            self.on_input(input);
        }
        if self.core.poll_timeout().is_some_and(|due| due <= self.now) {
            self.tell_core(Event::Tick);
        }
        self.trust_the_journal();
        self.tick_contents();
        self.act();
        if let Some((stopping, durable)) = self.stopping.as_mut().zip(self.durable.as_ref()) {
            stopping
                .promised
                .get_or_insert_with(|| durable.journal.position());
        }
    }

    pub(super) fn on_input(&mut self, input: Input) {
        let mut input = Some(input);
        if self.is_put_off(&mut input) {
            return;
        }
        let Some(input) = input else { return };
        match input {
            Input::Synced(synced) => self.on_synced(synced),
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
            Input::Event(event) => {
                self.overhear(&event);
                self.tell_core(event);
            }
            Input::Ask {
                client,
                question,
                query,
            } => self.on_ask(client, question, query),
            Input::Attach {
                client,
                pool,
                follow,
            } => self.on_attach(client, pool, follow),
            Input::Content {
                client,
                hash,
                bytes,
            } => {
                let steps = self.contents.on_content(client, hash, bytes, self.now);
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
                let until = self.now + STOP_MAX;
                self.stopping = Some(Stopping {
                    reason,
                    done,
                    promised: None,
                    until,
                });
                // What cannot be written down cannot be promised.
                if !self.is_stuck() {
                    self.tell_core(Event::Stop);
                }
            }
        }
    }

    pub(super) fn tell_core(&mut self, event: Event) {
        self.counters.on_event(&event);
        self.core.handle(self.now, event);
    }

    pub(super) fn on_action(&mut self, action: Action) {
        match action {
            // Written down already.
            Action::Record(_) => {}
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
                again,
            } => {
                let asker = Asker {
                    host,
                    session,
                    client,
                };
                self.give_up_contents();
                let steps = self.contents.on_fetch(asker, hash, again, self.now);
                self.take_steps(steps);
            }
        }
    }

    pub(super) fn send_agent(&mut self, host: HostId, session: SessionNo, message: ToAgent) {
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
            let place = Place::Client {
                client,
                session: session.session,
            };
            return self.end(place, &ended(reason));
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
    pub(super) fn on_relieved(&mut self, client: ClientId) {
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
}

pub(super) fn ended(reason: &str) -> Ended {
    Ended {
        reason: reason.to_owned(),
        goodbye: false,
        silent: false,
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
