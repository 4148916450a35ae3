//! A relay: the process between an agent and a worker that stays, so that the worker outlives the agent (G10).
//!
//! It is to the worker and to its keeper what an agent is elsewhere, by the same code; and to its agent what a keeper of commands
//! is. It numbers what it says and keeps it until its agent has written it down, and what comes by a next agent's socket goes on
//! from there. Unless its spawner says so it must never end before its agent has heard all of it, and been sent the worker's end, which
//! comes last; whatever ends it ends the worker.

use std::{
    collections::VecDeque,
    io,
    os::{
        fd::{AsFd as _, AsRawFd as _, OwnedFd},
        unix::net::UnixStream as Socket,
    },
    sync::Arc,
};

use bytes::Bytes;
use fleetpool_agent_core::{EndedTask, Event, TaskStart};
use fleetpool_proto::{
    AttemptId, Frame, Message as _, Payloads, PoolId, SlotNo, SpecId,
    limits::OUTPUT_HELD_BYTES_MAX,
    pool::Initializer,
    worker::{DoneRow, RunRow},
};
use nix::sys::prctl;
use tokio::{
    io::Interest,
    net::UnixStream,
    sync::{Semaphore, mpsc},
    task::JoinHandle,
};

use super::{
    Beginning, Order, Shared, Told,
    outlet::{Outlet, weight, weight_of},
    warm::{Parts, Seat, Worker, attempt},
};
use crate::{
    keeper::{
        message::{Attached, FromKeeper, Place, ToKeeper, one, only},
        unheard::Unheard,
    },
    spawner::{Control, Name, hear},
    wire::{self, Incoming, Outgoing},
};

/// Bytes of results after which the next are told apart.
const DONE_BYTES: usize = 1 << 20;

/// Has a relay started for a worker whose keeper is being started; its socket.
pub(super) async fn start(shared: &Shared, name: Name, parts: &Parts) -> io::Result<Socket> {
    let Parts {
        keeper,
        worker,
        stdout,
        stderr,
        tray,
    } = parts;
    let mut given: Vec<_> = [keeper, worker, stdout, stderr]
        .map(|fd| fd.as_raw_fd())
        .into();
    given.extend(tray.as_ref().map(|tray| tray.as_raw_fd()));
    super::when_it_listens(|| shared.spawner.start_relay(name, &given)).await
}

/// Is a relay until its worker is gone and its agent has heard of it; the status to exit with. The descriptors are its socket, those
/// that lead to the keeper and to the worker, the worker's stdout and stderr, and its tray, if it has one.
pub(crate) fn run(descriptors: Vec<OwnedFd>, lock: OwnedFd, control: OwnedFd) -> i32 {
    let _ = prctl::set_name(c"fleetpool-relay");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let served = runtime.and_then(|runtime| runtime.block_on(serve(descriptors, control)));
    drop(lock);
    match served {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("fleetpool: a relay cannot go on: {error}");
            1
        }
    }
}

async fn serve(descriptors: Vec<OwnedFd>, control: OwnedFd) -> io::Result<()> {
    let control = Socket::from(control);
    control.set_nonblocking(true)?;
    let control = UnixStream::from_std(control)?;
    let mut descriptors = descriptors.into_iter();
    let mut next = || {
        let missing = || io::Error::other("its descriptors are missing");
        descriptors.next().ok_or_else(missing)
    };
    let mut agent = Line::new(next()?)?;
    let parts = Parts {
        keeper: next()?,
        worker: next()?,
        stdout: next()?,
        stderr: next()?,
        tray: next().ok().map(Into::into),
    };
    // Who goes before it has said what this is for leaves nothing that another could go on with.
    let Some((seat, beginning)) = agent.first().await? else {
        return Ok(());
    };
    Relay::new(agent, control, seat, beginning, parts)?
        .serve()
        .await
}

/// The two directions of the agent's socket.
struct Line {
    incoming: Incoming,
    outgoing: Outgoing,
}

impl Line {
    fn new(socket: OwnedFd) -> io::Result<Self> {
        let (incoming, outgoing) = wire::split(socket.into())?;
        Ok(Self { incoming, outgoing })
    }

    /// What is said first; `None` at the end.
    async fn first(&mut self) -> io::Result<Option<(Seat, Beginning)>> {
        let mut place = Place::default();
        loop {
            while let Some(message) = self.incoming.take().map_err(io::Error::other)? {
                match message {
                    ToKeeper::Place(here) => place = here,
                    ToKeeper::Relay {
                        generation,
                        program,
                        initializer,
                        payloads,
                    } => {
                        let seat = Seat {
                            slot: SlotNo(u16::try_from(place.slot.saturating_sub(1)).unwrap_or(0)),
                            generation,
                            place,
                        };
                        let initializer = initializer.map(|function| Initializer {
                            function,
                            argument: only(payloads),
                        });
                        let beginning = match program {
                            Some(path) => Beginning::Native { path, initializer },
                            None => Beginning::Python,
                        };
                        return Ok(Some((seat, beginning)));
                    }
                    _ => {}
                }
            }
            if !self.incoming.fill().await? {
                return Ok(None);
            }
        }
    }
}

struct Relay {
    pool: PoolId,
    /// Who listens, if anybody does.
    agent: Option<Line>,
    /// Where the spawner tells of the next agent.
    control: UnixStream,
    orders: mpsc::UnboundedSender<Order>,
    told: mpsc::UnboundedReceiver<Told>,
    /// Tells whether the worker was given up before it was there.
    worker: JoinHandle<bool>,
    /// Room for what tasks print, until the agent has written it down.
    room: Arc<Semaphore>,
    /// What was said, and the room that it takes.
    unheard: Unheard<(Frame, usize)>,
    pid: u32,
    defined: Vec<SpecId>,
    handed: VecDeque<AttemptId>,
    taken: u32,
    is_ending: bool,
    /// How it ended: to be said when all else is written down.
    last: Option<FromKeeper>,
    over: Over,
}

/// Tasks that have ended, to be told together.
#[derive(Default)]
struct Done {
    rows: Vec<DoneRow>,
    payloads: Vec<Bytes>,
    bytes: usize,
}

impl Done {
    fn add(&mut self, task: EndedTask) {
        self.rows.push(DoneRow {
            index: task.attempt.task.index,
            attempt: task.attempt.attempt,
            outcome: task.outcome,
            printed: false,
            started_us: task.started_us,
            run_us: task.run_us,
        });
        self.bytes += task.payload.len();
        self.payloads.push(task.payload);
    }
}

/// What woke the relay.
enum Woken {
    Spawner(Control),
    /// Whether the agent is there.
    Agent(bool),
    Room,
    Told(Option<Told>),
}

/// What is left to do.
#[derive(PartialEq, Eq)]
enum Over {
    /// The worker is there.
    No,
    /// It is gone, and nobody has been told.
    Gone,
    /// It is being told.
    Told,
}

impl Relay {
    fn new(
        agent: Line,
        control: UnixStream,
        seat: Seat,
        beginning: Beginning,
        parts: Parts,
    ) -> io::Result<Self> {
        let (orders, inbox) = mpsc::unbounded_channel();
        let (tells, told) = mpsc::unbounded_channel();
        let room = Arc::new(Semaphore::new(OUTPUT_HELD_BYTES_MAX));
        let outlet = Outlet::new(tells, Arc::clone(&room));
        let pool = PoolId(seat.place.pool);
        let worker = Worker::new(seat, beginning, parts, outlet, inbox, None)?;
        Ok(Self {
            pool,
            agent: Some(agent),
            control,
            orders,
            told,
            worker: tokio::spawn(worker.serve()),
            room,
            unheard: Unheard::default(),
            pid: 0,
            defined: Vec::new(),
            handed: VecDeque::new(),
            taken: 0,
            is_ending: false,
            last: None,
            over: Over::No,
        })
    }

    async fn serve(mut self) -> io::Result<()> {
        // More may have come with what was said first.
        self.hear()?;
        loop {
            if self.over == Over::Gone
                && self.unheard.is_empty()
                && let Some(agent) = &mut self.agent
                && let Some(last) = self.last.clone()
            {
                agent.outgoing.put(last);
                self.over = Over::Told;
            }
            if let Some(agent) = &mut self.agent {
                agent.outgoing.flush();
                let is_sent = !agent.outgoing.is_behind() && !agent.outgoing.is_broken();
                if self.over == Over::Told && is_sent {
                    return Ok(());
                }
            }
            match self.wait().await {
                Woken::Spawner(Control::Agent(socket)) => self.attach(socket)?,
                Woken::Spawner(Control::End) => return Ok(()),
                Woken::Agent(there) => {
                    self.hear()?;
                    if !there {
                        self.agent = None;
                    }
                }
                Woken::Told(Some(told)) => self.on_told(told),
                Woken::Told(None) => self.on_over().await,
                Woken::Spawner(Control::Nothing) | Woken::Room => {}
            }
        }
    }

    /// The one place where everything is waited for. Cancel-safe. That the agent is gone is known before anything is told it.
    async fn wait(&mut self) -> Woken {
        let (incoming, outgoing) = match &mut self.agent {
            Some(Line { incoming, outgoing }) => (Some(incoming), Some(&*outgoing)),
            None => (None, None),
        };
        tokio::select! {
            biased;
            heard = hear_spawner(&self.control) => Woken::Spawner(heard),
            there = fill(incoming) => Woken::Agent(there),
            () = writable(outgoing) => Woken::Room,
            told = self.told.recv(), if self.over == Over::No => Woken::Told(told),
        }
    }

    /// Talks to another agent from now on: says how things are, and again all that is unheard.
    fn attach(&mut self, socket: OwnedFd) -> io::Result<()> {
        let mut agent = Line::new(socket)?;
        agent.outgoing.put(FromKeeper::Attached(Attached {
            pid: self.pid,
            running: None,
            waiting: self.handed.iter().copied().collect(),
            is_ending: self.is_ending,
            next: self.unheard.next(),
            is_starting: self.pid == 0,
            taken: self.taken,
        }));
        for (frame, _) in self.unheard.iter() {
            agent.outgoing.put_frame(frame.clone());
        }
        agent.outgoing.put(FromKeeper::Resumed);
        self.agent = Some(agent);
        if self.over == Over::Told {
            self.over = Over::Gone;
        }
        Ok(())
    }

    fn hear(&mut self) -> io::Result<()> {
        while let Some(agent) = &mut self.agent
            && let Some(message) = agent.incoming.take().map_err(io::Error::other)?
        {
            self.on_message(message);
        }
        Ok(())
    }

    fn hand(&mut self, rows: &[RunRow], payloads: Payloads) {
        let start = |(row, payload): (&RunRow, _)| TaskStart {
            attempt: attempt(self.pool, row),
            spec: row.spec,
            payload,
        };
        let tasks: Vec<_> = rows.iter().zip(payloads.into_items()).map(start).collect();
        if self.over != Over::No {
            let attempts = tasks.iter().map(|task| task.attempt).collect();
            return self.say(FromKeeper::GivenBack { attempts }, 0);
        }
        self.handed.extend(tasks.iter().map(|task| task.attempt));
        self.taken = self.taken.saturating_add(count(&tasks));
        self.order(Order::Run(tasks));
    }

    fn on_message(&mut self, message: ToKeeper) {
        match message {
            ToKeeper::Hand { rows, payloads } => self.hand(&rows, payloads),
            ToKeeper::Define {
                spec,
                mut body,
                payloads,
                ..
            } => {
                // A next agent does not know what is known.
                if !self.defined.contains(&spec) {
                    self.defined.push(spec);
                    body.code = only(payloads);
                    self.order(Order::Define(spec, body, None));
                }
            }
            ToKeeper::GiveBack { count } => self.order(Order::GiveBack(count)),
            ToKeeper::Kill { attempt, grace_ms } => {
                self.order(Order::KillTask { attempt, grace_ms });
            }
            ToKeeper::End { grace_ms } => {
                self.is_ending = true;
                self.order(Order::Kill { grace_ms });
            }
            ToKeeper::Stop => {
                self.is_ending = true;
                self.order(Order::Stop);
            }
            ToKeeper::Heard { number } => {
                let heard = self.unheard.heard(number);
                self.room.add_permits(heard.map(|(_, room)| room).sum());
            }
            // Known, or a keeper's.
            ToKeeper::Place(_)
            | ToKeeper::Relay { .. }
            | ToKeeper::Work { .. }
            | ToKeeper::Become { .. }
            | ToKeeper::Run { .. } => {}
        }
    }

    /// One that has ended meanwhile does not hear it, which its end tells.
    fn order(&self, order: Order) {
        let _ = self.orders.send(order);
    }

    fn on_told(&mut self, told: Told) {
        let mut room = weight(&told.output) as usize;
        for printed in told.output {
            let part = weight_of(&printed).min(room);
            room -= part;
            let message = FromKeeper::Printed {
                attempt: printed.attempt,
                pid: printed.pid,
                stream: printed.stream,
                payloads: one(printed.bytes),
            };
            self.say(message, part);
        }
        let mut done = Done::default();
        for event in told.events {
            match event {
                Event::TaskEnded { task, .. } => {
                    self.let_go(task.attempt);
                    if done.bytes >= DONE_BYTES {
                        self.say_done(&mut done);
                    }
                    done.add(task);
                }
                event => {
                    self.say_done(&mut done);
                    self.on_event(event);
                }
            }
        }
        self.say_done(&mut done);
    }

    fn say_done(&mut self, done: &mut Done) {
        let Done { rows, payloads, .. } = std::mem::take(done);
        if !rows.is_empty() {
            let (pid, payloads) = (self.pid, Payloads::from(payloads));
            self.say(
                FromKeeper::Done {
                    pid,
                    rows,
                    payloads,
                },
                0,
            );
        }
    }

    fn on_event(&mut self, event: Event) {
        let message = match event {
            Event::WorkerReady { pid, .. } => {
                self.pid = pid;
                FromKeeper::Ready { pid }
            }
            Event::WorkerFenced { .. } => {
                self.is_ending = true;
                FromKeeper::Fenced
            }
            Event::GivenBack { attempts, .. } => {
                attempts.iter().for_each(|attempt| self.let_go(*attempt));
                self.taken = self.taken.saturating_sub(count(&attempts));
                FromKeeper::GivenBack { attempts }
            }
            Event::WorkerUnfit { reason, .. } => {
                self.last = Some(FromKeeper::WorkerNotStarted { reason });
                return;
            }
            Event::WorkerEnded { end, .. } => {
                self.last = Some(FromKeeper::WorkerEnded {
                    exit: end.exit,
                    signal: end.signal,
                    out_of_memory: end.out_of_memory,
                    memory_kib_peak: end.memory_kib_peak,
                    pid: end.pid,
                    stderr_tail: end.stderr_tail,
                    was_given_up: false,
                });
                return;
            }
            // What a worker that stays does not tell.
            _ => return,
        };
        self.say(message, 0);
    }

    /// The worker, and all that it had to tell, is there no more.
    async fn on_over(&mut self) {
        self.over = Over::Gone;
        self.is_ending = true;
        let gave_up = (&mut self.worker).await.unwrap_or(false);
        if let Some(FromKeeper::WorkerEnded { was_given_up, .. }) = &mut self.last {
            *was_given_up = gave_up;
        }
    }

    fn let_go(&mut self, attempt: AttemptId) {
        if let Some(at) = self.handed.iter().position(|handed| *handed == attempt) {
            self.handed.remove(at);
        }
    }

    fn say(&mut self, message: FromKeeper, room: usize) {
        let frame = message.into_frame();
        if let Some(agent) = &mut self.agent {
            agent.outgoing.put_frame(frame.clone());
        }
        self.unheard.push((frame, room));
    }
}

fn count<T>(of: &[T]) -> u32 {
    u32::try_from(of.len()).unwrap_or(u32::MAX)
}

/// What the spawner says next. Cancel-safe.
async fn hear_spawner(control: &UnixStream) -> Control {
    if control.readable().await.is_err() {
        return Control::End;
    }
    let heard = control.try_io(Interest::READABLE, || match hear(control.as_fd()) {
        Control::Nothing => Err(io::ErrorKind::WouldBlock.into()),
        heard => Ok(heard),
    });
    heard.unwrap_or(Control::Nothing)
}

/// Reads what the agent says; whether it is there. Cancel-safe; never, while nobody is there.
async fn fill(incoming: Option<&mut Incoming>) -> bool {
    match incoming {
        Some(incoming) => incoming.fill().await.unwrap_or(false),
        None => std::future::pending().await,
    }
}

/// Waits until the agent takes more of what it has not taken. Cancel-safe.
async fn writable(outgoing: Option<&Outgoing>) {
    match outgoing.filter(|outgoing| outgoing.is_behind()) {
        Some(outgoing) => outgoing.writable().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use nix::unistd::pipe;
    use tokio::time::timeout;

    use super::{super::tray::Tray, *};

    /// On a busy machine all of it is there when a relay begins to listen.
    #[tokio::test]
    async fn what_comes_with_the_first_that_a_relay_is_told_is_heard() {
        let sockets = [(); 4].map(|()| Socket::pair().expect("sockets"));
        let [
            (agent, line),
            (_keeper, to_keeper),
            (_worker, to_worker),
            (_spawner, control),
        ] = sockets;
        let [(stdout, _out), (stderr, _err)] = [(); 2].map(|()| pipe().expect("pipes"));
        let tray = Tray::memory().expect("a file");
        let descriptors = vec![
            line.into(),
            to_keeper.into(),
            to_worker.into(),
            stdout,
            stderr,
            tray.into(),
        ];
        let (mut incoming, mut outgoing) = wire::split(agent).expect("a socket");
        outgoing.put(ToKeeper::Place(Place::default()));
        outgoing.put(ToKeeper::Relay {
            generation: 1,
            program: None,
            initializer: None,
            payloads: Payloads::default(),
        });
        outgoing.put(ToKeeper::End { grace_ms: 0 });
        outgoing.flush();
        while outgoing.is_behind() {
            outgoing.writable().await;
            outgoing.flush();
        }
        tokio::spawn(serve(descriptors, control.into()));
        let told = async {
            for number in 1.. {
                while incoming.fill().await.expect("readable") {
                    match incoming.take().expect("a message") {
                        Some(last @ FromKeeper::WorkerEnded { .. }) => return Some(last),
                        Some(_) => break,
                        None => {}
                    }
                }
                outgoing.put(ToKeeper::Heard { number });
                outgoing.flush();
            }
            None
        };
        let last = timeout(Duration::from_secs(20), told).await;
        let last = last.expect("it hears that it is to end");
        let is_right = |last: &FromKeeper| {
            matches!(
                last,
                FromKeeper::WorkerEnded {
                    was_given_up: true,
                    ..
                }
            )
        };
        assert!(last.as_ref().is_some_and(is_right));
    }
}
