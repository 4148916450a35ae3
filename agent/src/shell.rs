//! The shell around the core: hands it what happens, does what it says.
//!
//! One task owns the core, the session, and the handles on the spawner and the workers. It never decides about
//! tasks, and never waits for anything while it holds something that another waits for: sessions, workers and
//! the disk are all waited for in one place.

mod crew;
mod memory;
mod programs;
mod templates;

use std::{
    collections::{BTreeMap, VecDeque},
    fs::File,
    future::pending,
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use fleetpool_agent_core::{Action, AgentCore, Event};
use fleetpool_net::{Carrier, Cause, Closed, ConnectError, Receiver, Session, TrySendError};
use fleetpool_proto::{
    Frame, Message as _, SlotNo, Timestamp,
    message::{FromAgent, Registration, ToAgent},
    version::Welcome,
};
use tokio::{
    net::UnixStream,
    sync::mpsc,
    task::JoinSet,
    time::{Instant, Sleep, sleep, timeout},
};

use crew::{contain, start_spawner};
use memory::Memory;
use programs::Checked;
use templates::{Started, Templates};

use crate::{
    clock,
    content::Store,
    facts,
    fence::Fence,
    link::{Dialler, Dialling, Link, Up},
    options::{Error, Options},
    output::Output,
    passing::{Passed, Passing},
    spawner::Spawner,
    workers::{Order, Shared, Told, Worker},
};

/// Things taken in before the core is asked what to do: what came together is answered together.
const BATCH: usize = 256;
/// How long the coordinator may take to take the goodbye of an agent that is stopped.
const GOODBYE_TIME_MAX: Duration = Duration::from_secs(1);
/// Longest sleep. The runtime's clock stops while the machine sleeps and the core's does not, so a lease that
/// ended meanwhile is noticed this much later at most.
const NAP_MAX: Duration = Duration::from_secs(1);

/// Is an agent until its link is over for good.
///
/// # Errors
/// When it cannot begin, or its only session breaks.
pub async fn run(options: Options, link: Link) -> Result<(), Error> {
    run_until(options, link, pending()).await
}

/// The same, until `stop` is ready; then the coordinator hears goodbye, so that it need not find out by silence.
///
/// # Errors
/// As [`run`].
pub async fn run_until(
    options: Options,
    link: Link,
    stop: impl Future<Output = ()>,
) -> Result<(), Error> {
    let lock = match &options.state_dir {
        Some(folder) => Some(crate::state::lock(folder, options.spawner_is_service).await?),
        None => None,
    };
    facts::make_room_for_descriptors(options.slots);
    let mut shell = match lock {
        Some(lock) if options.spawner_is_service => Shell::take_over(options, lock).await?,
        lock => Shell::new(options, lock).await?,
    };
    match link {
        Link::Session(session, welcome) => {
            // An agent within its client's process needs none: its coordinator lives and is stopped with it.
            if session.peer.carrier != Carrier::Local {
                shell.fence = Some(Fence::new().map_err(Error::Fence)?);
            }
            shell.link_up(*session, &welcome);
        }
        Link::Dial { address, identity } => {
            if shell.fence.is_none() {
                shell.fence = Some(Fence::new().map_err(Error::Fence)?);
            }
            let (name, seed) = (&shell.options.name, shell.facts.incarnation);
            shell.dialler = Some(Dialler::new(address, identity, name, seed));
        }
    }
    tokio::select! {
        ended = shell.serve() => return ended,
        () = stop => {}
    }
    shell.leave().await;
    Ok(())
}

struct Shell {
    options: Options,
    facts: Registration,
    core: AgentCore,
    lock: Option<File>,
    /// What tells keepers of the lease.
    fence: Option<Fence>,
    /// Readable when the spawner is gone.
    spawner_gone: UnixStream,
    shared: Shared,
    inbox: mpsc::UnboundedReceiver<Told>,
    workers: BTreeMap<SlotNo, Worker>,
    link: Option<Up>,
    /// How the link that is over ended.
    ended: Option<Closed>,
    dialler: Option<Dialler>,
    dialling: Option<Dialling>,
    /// What the session has not taken yet.
    outbox: VecDeque<Frame>,
    output: Output,
    store: Store,
    checks: JoinSet<Checked>,
    passing: Passing,
    templates: Templates,
    alarm: Alarm,
    /// What a successor is to know, where there may be one.
    memory: Option<Memory>,
}

/// What woke the shell.
enum Woken {
    Told(Option<Told>),
    Frame(Result<Frame, Closed>),
    Dialled(Box<Result<(Session, Welcome), ConnectError>>),
    Room,
    Checked(Checked),
    Passed(Passed),
    Template(Started),
    SpawnerGone,
    Time,
}

impl Shell {
    async fn new(options: Options, lock: Option<File>) -> Result<Self, Error> {
        let (spawner, spawner_gone) = start_spawner(&options, lock.as_ref())?;
        let core = AgentCore::new(fleetpool_agent_core::Options::new(options.slots));
        let mut facts = facts::registration(&options);
        contain(&mut facts, &options, &spawner, true).await;
        Ok(Self::of(options, facts, lock, core, spawner, spawner_gone))
    }

    fn of(
        options: Options,
        facts: Registration,
        lock: Option<File>,
        core: AgentCore,
        spawner: Arc<Spawner>,
        spawner_gone: UnixStream,
    ) -> Self {
        let (told, inbox) = mpsc::unbounded_channel();
        let shared = Shared {
            spawner,
            keeps: options.spawner_is_service,
            relays: false,
            inbox: told,
        };
        Self {
            facts,
            core,
            lock,
            fence: None,
            spawner_gone,
            shared,
            inbox,
            workers: BTreeMap::new(),
            link: None,
            ended: None,
            dialler: None,
            dialling: None,
            outbox: VecDeque::new(),
            output: Output::default(),
            store: Store::new(options.cache_dir.clone(), options.local_programs.clone()),
            checks: JoinSet::new(),
            passing: Passing::default(),
            templates: Templates::default(),
            alarm: Alarm::new(),
            memory: None,
            options,
        }
    }

    async fn serve(&mut self) -> Result<(), Error> {
        loop {
            self.act();
            self.send();
            if self.link.is_none() && self.dialling.is_none() && self.knows_its_workers() {
                let Some(dialler) = &mut self.dialler else {
                    return self.how_it_ended();
                };
                self.dialling = Some(dialler.dial());
            }
            let woken = self.wait().await;
            self.take_in(woken)?;
        }
    }

    /// Says goodbye. What runs here ends with this process.
    async fn leave(&mut self) {
        if let Some(up) = self.link.take() {
            up.sender.close("the agent is stopped");
            timeout(GOODBYE_TIME_MAX, up.sender.finished()).await.ok();
        }
    }

    fn link_up(&mut self, session: Session, welcome: &Welcome) {
        let carrier = match session.peer.carrier {
            Carrier::Tcp if self.options.tunnelled => Carrier::Ssh,
            carrier => carrier,
        };
        // Within a process there is nobody to pass anything on to.
        let others = self.options.passes_on && carrier != Carrier::Local;
        if self.facts.pin.is_none() && others {
            self.facts.pin = self.passing.take_part();
        }
        let registration = facts::registration_on(&self.facts, carrier);
        self.link = Some(Up {
            sender: session.sender,
            receiver: session.receiver,
            registered: false,
        });
        self.tell(Event::LinkUp {
            registration,
            lease_ms: welcome.lease_ms,
            now_us: clock::wall_us(),
        });
        for (hash, pool) in self.store.waiting().collect::<Vec<_>>() {
            // What another agent is to deliver comes, or is asked for then.
            if !self.passing.is_awaited(hash) {
                self.ask_for(hash, pool);
            }
        }
    }

    /// What the end of the only session means for the agent.
    fn how_it_ended(&mut self) -> Result<(), Error> {
        match self.ended.take() {
            Some(closed) if closed.cause != Cause::Peer => Err(closed.into()),
            _ => Ok(()),
        }
    }

    fn link_down(&mut self, closed: Closed) {
        tracing::info!(%closed, "the session is over");
        self.link = None;
        self.ended = Some(closed);
        // What is of use to the next session as well is kept by those that said it.
        self.outbox.clear();
        self.output.release_all();
        self.tell(Event::LinkDown);
    }

    /// The one place where everything is waited for. Cancel-safe.
    async fn wait(&mut self) -> Woken {
        let timeout = self.core.poll_timeout();
        let Self {
            inbox,
            link,
            dialling,
            checks,
            passing,
            templates,
            outbox,
            alarm,
            ..
        } = self;
        let (receiver, room) = match link {
            Some(up) => (Some(&mut up.receiver), up.registered.then_some(&up.sender)),
            None => (None, None),
        };
        tokio::select! {
            biased;
            told = inbox.recv() => Woken::Told(told),
            frame = receive(receiver) => Woken::Frame(frame),
            dialled = dialled(dialling) => Woken::Dialled(Box::new(dialled)),
            () = sent(room, outbox.front()) => Woken::Room,
            Some(Ok(checked)) = checks.join_next() => Woken::Checked(checked),
            passed = passing.next() => Woken::Passed(passed),
            Some(started) = templates.started() => Woken::Template(started),
            _ = self.spawner_gone.readable() => Woken::SpawnerGone,
            () = alarm.ring_by(timeout) => Woken::Time,
        }
    }

    /// Takes in what woke the shell, and what else is there by now.
    fn take_in(&mut self, woken: Woken) -> Result<(), Error> {
        match woken {
            Woken::Told(told) => told.into_iter().for_each(|told| self.on_told(told)),
            Woken::Frame(Ok(frame)) => self.on_frame(frame),
            Woken::Frame(Err(closed)) => self.link_down(closed),
            Woken::Dialled(dialled) => self.on_dialled(*dialled)?,
            Woken::Room => drop(self.outbox.pop_front()),
            Woken::Checked(checked) => self.on_checked(checked),
            Woken::Passed(passed) => self.on_passed(passed),
            Woken::Template(started) => self.on_template(started),
            Woken::SpawnerGone => self.restart_spawner()?,
            Woken::Time => self.tell(Event::Tick),
        }
        for _ in 0..BATCH {
            let told = self.inbox.try_recv().ok();
            let frame = self.link.as_mut().and_then(|up| up.receiver.try_recv());
            if told.is_none() && frame.is_none() {
                break;
            }
            told.into_iter().for_each(|told| self.on_told(told));
            frame.into_iter().for_each(|frame| self.on_frame(frame));
        }
        Ok(())
    }

    /// Every event passes here.
    fn tell(&mut self, event: Event) {
        tracing::trace!(event = event.name());
        self.core.handle(clock::now(), event);
    }

    fn on_told(&mut self, mut told: Told) {
        self.remember_told(&told);
        self.output.add(&mut told);
        for event in told.events {
            if let Event::WorkerEnded {
                slot, generation, ..
            }
            | Event::WorkerVanished { slot, generation }
            | Event::WorkerUnfit {
                slot, generation, ..
            } = &event
                && self
                    .workers
                    .get(slot)
                    .is_some_and(|worker| worker.generation == *generation)
            {
                self.workers.remove(slot);
            }
            self.tell(event);
        }
    }

    fn on_frame(&mut self, frame: Frame) {
        match ToAgent::from_frame(frame) {
            Ok(ToAgent::Content { hash, payloads }) => {
                let bytes = payloads.into_items().into_iter().next();
                self.on_content(hash, bytes.unwrap_or_default());
            }
            Ok(ToAgent::PassOn { hash, bytes, peers }) => self.pass_on(hash, bytes, peers),
            Ok(ToAgent::FetchFrom {
                hash,
                bytes,
                addresses,
                pin,
            }) => self.fetch_from(hash, bytes, addresses, pin),
            Ok(ToAgent::Hold { pool, on }) => self.output.hold(pool, on),
            Ok(message @ ToAgent::Ack { output, .. }) => {
                self.output.acknowledged(output);
                self.remember_acknowledged(output);
                self.tell(Event::Message(message));
            }
            Ok(message @ ToAgent::Define { pool, .. }) => {
                self.tell(Event::Message(message));
                self.check_versions(pool);
            }
            Ok(message) => self.tell(Event::Message(message)),
            Err(error) => {
                self.drop_link(&format!("the coordinator sent what is no message: {error}"))
            }
        }
    }

    fn on_dialled(
        &mut self,
        dialled: Result<(Session, Welcome), ConnectError>,
    ) -> Result<(), Error> {
        self.dialling = None;
        match dialled {
            Ok((session, welcome)) => {
                let carrier = session.peer.carrier;
                self.dialler
                    .iter_mut()
                    .for_each(|dialler| dialler.on_session(carrier));
                tracing::info!(peer = %session.peer, cluster = welcome.cluster, "there is a session");
                self.link_up(session, &welcome);
            }
            Err(error) => {
                let hopeless = self
                    .dialler
                    .as_mut()
                    .is_none_or(|dialler| dialler.on_failure(&error));
                if hopeless {
                    return Err(Box::new(error).into());
                }
                tracing::warn!(%error, "no session; trying again");
            }
        }
        Ok(())
    }

    /// Ends the session; the end is then received as any other.
    fn drop_link(&mut self, reason: &str) {
        if let Some(up) = &self.link {
            tracing::warn!(reason, "dropping the session");
            up.sender.close(reason);
        }
    }

    /// Does everything that the core wants done.
    fn act(&mut self) {
        self.send_output();
        if self.memory.is_some() {
            return self.act_and_remember();
        }
        while let Some(action) = self.core.poll_action() {
            self.perform(action);
        }
    }

    fn perform(&mut self, action: Action) {
        tracing::trace!(action = action.name());
        match action {
            Action::Send(message) => self.say(message),
            Action::FenceAt { time } => self.fence.iter().for_each(|fence| fence.set(time)),
            Action::StartWorker {
                slot,
                generation,
                pool,
            } => self.start_worker(slot, generation, pool),
            Action::Run {
                slot,
                generation,
                tasks,
            } => self.run_tasks(slot, generation, tasks),
            Action::GiveBack {
                slot,
                generation,
                count,
            } => {
                self.order(slot, generation, Order::GiveBack(count));
            }
            Action::KillTask {
                slot,
                generation,
                attempt,
                grace_ms,
            } => {
                self.order(slot, generation, Order::KillTask { attempt, grace_ms });
            }
            Action::KillWorker {
                slot,
                generation,
                grace_ms,
            } => {
                self.order(slot, generation, Order::Kill { grace_ms });
            }
            Action::StopWorker { slot, generation } => self.order(slot, generation, Order::Stop),
            Action::FetchProgram { pool } => self.fetch_program(pool),
            Action::FetchContent { pool, hash } => self.fetch_blob(pool, hash),
            Action::DropLink { reason } => self.drop_link(&reason),
            Action::PoolClosed { pool } => {
                self.store.forget(pool);
                self.passing.keep_only(|hash| self.store.is_needed(hash));
                self.templates.forget(pool);
                self.output.forget(pool);
            }
        }
    }

    fn say(&mut self, mut message: FromAgent) {
        let Some(up) = &mut self.link else {
            return;
        };
        let mut first = false;
        if let FromAgent::Register(registration) = &mut message {
            registration.output = self.output.last_unacknowledged();
            first = true;
        }
        let frame = message.into_frame();
        if first {
            up.registered = true;
            self.outbox.push_front(frame);
            self.outbox.extend(self.output.unacknowledged());
            self.send_output();
        } else {
            self.outbox.push_back(frame);
        }
    }

    /// Puts what tasks printed behind what is to be sent: so it goes before the reports of these tasks' ends.
    fn send_output(&mut self) {
        if self.link.as_ref().is_some_and(|up| up.registered) {
            let before = self.output.number();
            self.outbox.extend(self.output.take_frames());
            self.remember_numbered(before);
        }
    }

    /// Sends what the session takes now.
    fn send(&mut self) {
        let usable = |up: &&Up| up.registered && up.sender.is_closed().is_none();
        let Some(up) = self.link.as_ref().filter(usable) else {
            return;
        };
        while let Some(frame) = self.outbox.pop_front() {
            match up.sender.try_send(frame) {
                Ok(()) => {}
                Err(TrySendError::Full(frame)) => return self.outbox.push_front(frame),
                // Its end is received in its turn; what is lost here is repeated to the next session.
                Err(TrySendError::Closed(_)) => {}
            }
        }
    }
}

/// The session's next frame; never, while there is no session.
async fn receive(receiver: Option<&mut Receiver>) -> Result<Frame, Closed> {
    match receiver {
        Some(receiver) => receiver.recv().await,
        None => pending().await,
    }
}

/// Waits until the session had room for the frame, which is then sent.
async fn sent(sender: Option<&fleetpool_net::Sender>, front: Option<&Frame>) {
    match (sender, front) {
        // An end of the session is received in its turn.
        (Some(sender), Some(frame)) => drop(sender.send(frame.clone()).await),
        _ => pending().await,
    }
}

/// The session that is being dialled; never, while none is.
async fn dialled(dialling: &mut Option<Dialling>) -> Result<(Session, Welcome), ConnectError> {
    match dialling {
        Some(dialling) => dialling.await,
        None => pending().await,
    }
}

/// Rings no later than it is asked to. To ring too early costs a look at the core; to set a timer anew for each task, as its
/// time limits come and go, would cost a system call each.
struct Alarm {
    timer: Pin<Box<Sleep>>,
    set_to: Option<Timestamp>,
}

impl Alarm {
    fn new() -> Self {
        Self {
            timer: Box::pin(sleep(Duration::ZERO)),
            set_to: None,
        }
    }

    /// Cancel-safe.
    async fn ring_by(&mut self, time: Option<Timestamp>) {
        let Some(time) = time else {
            return pending().await;
        };
        if self.set_to.is_none_or(|set_to| time < set_to) {
            let nap = time.since(clock::now()).min(NAP_MAX);
            self.timer.as_mut().reset(Instant::now() + nap);
            self.set_to = Some(time);
        }
        self.timer.as_mut().await;
        self.set_to = None;
    }
}
