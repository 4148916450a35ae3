//! A worker of the `native` or `python` runtime: a process that stays from task to task, and its keeper.
//!
//! Who printed what: while the worker has one task in hand at most, whatever comes out of its pipes is that
//! task's, and is read as it comes. With more in hand nothing is read but when the worker says, at the end of a
//! task, that the task has left something; then the worker waits until that has been read.

use std::{
    collections::{BTreeSet, VecDeque},
    fs::File,
    io,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::net::UnixStream,
    },
    sync::Arc,
    time::Duration,
};

use fleetpool_agent_core::{EndedTask, Event, TaskStart, WorkerEnd};
use fleetpool_proto::{
    AttemptId, DecodeError, Payloads, PoolId, SlotNo, TaskId,
    pool::{Initializer, Spec},
    worker::{DoneRow, FromWorker, RunRow, ToWorker},
};
use nix::{fcntl::OFlag, unistd::pipe2};
use tokio::{sync::mpsc, time::Instant};

use super::{
    Beginning, Order, Program, Shared, Start,
    dialect::Dialect,
    outlet::Outlet,
    pipes::{Author, Pipes},
    tray::{SETTLE, Tray},
};
use crate::{
    fence::Fence,
    keeper::message::{FromKeeper, Place, ToKeeper},
    spawner::Spawner,
    wire::{self, Incoming, Outgoing},
};

/// How long a worker that was told to stop may take before it is ended.
const STOP_MAX: Duration = Duration::from_secs(1);
/// How long the end of a dead worker's socket may take to come.
const LAST_WORDS_MAX: Duration = Duration::from_secs(1);
/// Between TERM and KILL for a worker that does not follow the protocol.
const RUDE_GRACE_MS: u32 = 1000;

/// Is the worker from its start until it and everything below it are gone, and has told so.
pub(crate) async fn run(
    start: Start,
    program: Program,
    shared: Shared,
    orders: mpsc::UnboundedReceiver<Order>,
) {
    let (slot, generation) = (start.slot, start.generation);
    let outlet = || Outlet::new(shared.inbox.clone(), Arc::clone(&start.room));
    let parts = Parts::make(&start, &program, &shared).await;
    // The template is to live as long.
    let (beginning, _template) = program.split();
    let seat = Seat {
        slot,
        generation,
        place: start.place,
    };
    let spawner = Some(Arc::clone(&shared.spawner));
    let worker =
        parts.and_then(|parts| Worker::new(seat, beginning, parts, outlet(), orders, spawner));
    match worker {
        Ok(worker) => drop(worker.serve().await),
        Err(error) => {
            let reason = format!("no process could be started for it: {error}");
            let mut outlet = outlet();
            outlet.event(Event::WorkerUnfit {
                slot,
                generation,
                reason,
            });
            outlet.flush();
        }
    }
}

/// What a worker and its keeper are reached by.
pub(super) struct Parts {
    pub(super) keeper: OwnedFd,
    pub(super) worker: OwnedFd,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
    /// Of a Python worker.
    pub(super) tray: Option<File>,
}

impl Parts {
    /// Has a keeper started for the worker that is to be, and given the other ends.
    pub(super) async fn make(
        start: &Start,
        program: &Program,
        shared: &Shared,
    ) -> io::Result<Self> {
        let (worker, theirs) = UnixStream::pair()?;
        let (stdout, out) = pipe2(OFlag::O_CLOEXEC)?;
        let (stderr, err) = pipe2(OFlag::O_CLOEXEC)?;
        let mut given = vec![theirs.as_raw_fd(), out.as_raw_fd(), err.as_raw_fd()];
        let fence = start.fence.as_ref();
        let (mut tray, name) = (None, start.name());
        let keeper = match program {
            Program::Native { .. } => {
                super::keeper(fence, &given, |given| match shared.relays {
                    true => shared.spawner.start_held(name, given),
                    false => shared.spawner.start_keeper(given),
                })
                .await?
            }
            Program::Python(template) => {
                given.push(tray.insert(Tray::memory()?).as_raw_fd());
                let fence = fence.map(Fence::as_raw_fd);
                template.fork(start.place.slot, fence, &given).await?
            }
        };
        Ok(Self {
            keeper: keeper.into(),
            worker: worker.into(),
            stdout,
            stderr,
            tray,
        })
    }
}

/// Where a worker is.
pub(super) struct Seat {
    pub(super) slot: SlotNo,
    pub(super) generation: u64,
    pub(super) place: Place,
}

/// A task in the worker's hands.
struct Handed {
    attempt: AttemptId,
    /// Its number on the tray.
    number: u64,
}

pub(super) struct Worker {
    slot: SlotNo,
    generation: u64,
    pool: PoolId,
    dialect: Dialect,
    /// Of a worker that does not listen while it runs a task.
    tray: Option<Tray>,
    /// Numbers of tasks that were marked, until it is known whether the worker has come to them.
    void: BTreeSet<u64>,
    /// Tasks that were taken back, and that the worker has yet to come to.
    ghosts: VecDeque<AttemptId>,
    /// When that is known.
    settle_by: Option<Instant>,
    pid: u32,
    orders: mpsc::UnboundedReceiver<Order>,
    /// Where this process is an agent.
    spawner: Option<Arc<Spawner>>,
    outlet: Outlet,
    from_keeper: Incoming,
    to_keeper: Outgoing,
    from_worker: Incoming,
    to_worker: Outgoing,
    /// Its process is there.
    started: bool,
    /// Nobody waits for it to be there any more.
    is_abandoned: bool,
    ready: bool,
    /// The worker has closed its socket.
    silent: bool,
    pipes: Pipes,
    handed: VecDeque<Handed>,
    /// Whose output it is when nothing is in hand.
    last: Option<AttemptId>,
    /// Why it is of no use.
    unfit: Option<String>,
    /// How it ended, once its keeper has told.
    end: Option<WorkerEnd>,
    /// When it must have stopped.
    stop_by: Option<Instant>,
}

impl Worker {
    /// What it begins with is on its way.
    pub(super) fn new(
        seat: Seat,
        beginning: Beginning,
        parts: Parts,
        outlet: Outlet,
        orders: mpsc::UnboundedReceiver<Order>,
        spawner: Option<Arc<Spawner>>,
    ) -> io::Result<Self> {
        let (from_keeper, mut to_keeper) = wire::split(parts.keeper.into())?;
        let (from_worker, mut to_worker) = wire::split(parts.worker.into())?;
        let pool = PoolId(seat.place.pool);
        to_keeper.put(ToKeeper::Place(seat.place));
        let dialect = begin(beginning, &mut to_keeper, &mut to_worker);
        Ok(Self {
            slot: seat.slot,
            generation: seat.generation,
            pool,
            dialect,
            tray: parts.tray.map(Tray::of),
            void: BTreeSet::new(),
            ghosts: VecDeque::new(),
            settle_by: None,
            pid: 0,
            orders,
            spawner,
            outlet,
            from_keeper,
            to_keeper,
            from_worker,
            to_worker,
            started: false,
            is_abandoned: false,
            ready: false,
            silent: false,
            pipes: Pipes::new(parts.stdout, parts.stderr)?,
            handed: VecDeque::new(),
            last: None,
            unfit: None,
            end: None,
            stop_by: None,
        })
    }

    /// Is the worker until it is over; whether it was given up before it was there.
    pub(super) async fn serve(mut self) -> bool {
        while !self.is_abandoned {
            self.to_keeper.flush();
            self.to_worker.flush();
            self.outlet.flush();
            let reading = !self.outlet.is_behind();
            tokio::select! {
                biased;
                order = self.orders.recv() => match order {
                    Some(order) => self.on_order(order),
                    // The shell is gone: so is this end of the sockets, and with it the keeper.
                    None => return false,
                },
                () = self.outlet.flush_when_there_is_room(), if !reading => {}
                () = self.to_keeper.writable(), if self.to_keeper.is_behind() => {}
                () = self.to_worker.writable(), if self.to_worker.is_behind() => {}
                filled = self.from_worker.fill(), if reading && !self.silent => {
                    self.silent = !filled.unwrap_or(false);
                    let heard = self.hear_worker();
                    self.on_rudeness(heard);
                }
                filled = self.from_keeper.fill(), if reading => {
                    let heard = self.hear_keeper();
                    self.on_rudeness(heard);
                    if !filled.unwrap_or(false) {
                        break;
                    }
                }
                () = self.pipes.readable(), if reading && self.handed.len() <= 1 => {
                    let author = self.author();
                    self.pipes.read(author, &mut self.outlet);
                }
                () = until(self.settle_by), if self.settle_by.is_some() => self.settle(),
                () = until(self.stop_by), if self.stop_by.is_some() => {
                    self.stop_by = None;
                    self.end_it(RUDE_GRACE_MS);
                }
            }
        }
        let was_given_up = self.is_abandoned;
        self.bury().await;
        was_given_up
    }

    fn on_order(&mut self, order: Order) {
        match order {
            Order::Define(spec, body, _) => {
                let Spec { function, code, .. } = *body;
                self.dialect
                    .define(spec, function, code, &mut self.to_worker);
            }
            Order::Run(tasks) => self.hand(tasks),
            Order::GiveBack(count) => self.ask_back(count),
            // A task of this runtime ends with its worker: the core says so by `Kill`.
            Order::KillTask { .. } => {}
            // Its keeper says nothing to be confirmed.
            Order::Heard(_) => {}
            Order::Kill { grace_ms } => {
                self.outlet.hurry();
                self.end_it(grace_ms);
            }
            Order::Stop => {
                self.say(ToWorker::Stop);
                self.stop_by = Some(Instant::now() + STOP_MAX);
            }
        }
    }

    fn end_it(&mut self, grace_ms: u32) {
        self.to_keeper.put(ToKeeper::End { grace_ms });
        // Its template may take as long as an import does. What it forks then finds closed sockets, and ends.
        self.is_abandoned = self.is_forked() && !self.started;
    }

    fn hand(&mut self, tasks: Vec<TaskStart>) {
        if self.handed.len() == 1 {
            // What is there now is the running task's; soon that cannot be told so easily.
            let author = self.author();
            self.pipes.read(author, &mut self.outlet);
        }
        for task in &tasks {
            let number = match &mut self.tray {
                Some(tray) => tray.number().unwrap_or(u64::MAX),
                None => 0,
            };
            let attempt = task.attempt;
            self.handed.push_back(Handed { attempt, number });
        }
        let (rows, payloads): (Vec<_>, Vec<_>) = tasks.into_iter().map(row).unzip();
        let payloads = Payloads::from(payloads);
        self.say(ToWorker::Run { rows, payloads });
    }

    fn say(&mut self, message: ToWorker) {
        self.dialect.put(message, &mut self.to_worker);
    }

    fn hear_worker(&mut self) -> Result<(), DecodeError> {
        while let Some(message) = self.dialect.take(&mut self.from_worker)? {
            self.on_worker_message(message);
        }
        Ok(())
    }

    fn on_worker_message(&mut self, message: FromWorker) {
        let (slot, generation) = (self.slot, self.generation);
        match message {
            FromWorker::Ready { pid } => {
                (self.ready, self.pid) = (true, pid);
                self.outlet.event(Event::WorkerReady {
                    slot,
                    generation,
                    pid,
                });
            }
            FromWorker::Unfit { reason } => self.unfit = Some(reason),
            FromWorker::Done { rows, payloads } => self.on_done(rows, payloads),
            FromWorker::GivenBack { rows } => {
                let pool = self.pool;
                self.on_given_back(rows.iter().map(|row| attempt(pool, row)).collect());
            }
        }
    }

    fn on_done(&mut self, rows: Vec<DoneRow>, payloads: Payloads) {
        // With one in hand, what is in the pipes now was written before the `Done`.
        let alone = self.handed.len() <= 1;
        let printed = rows.last().is_some_and(|row| row.printed);
        let (slot, generation, pid) = (self.slot, self.generation, self.pid);
        for (row, payload) in rows.into_iter().zip(payloads.into_items()) {
            let attempt = AttemptId {
                task: TaskId::new(self.pool, row.index),
                attempt: row.attempt,
            };
            if !self.let_end(attempt) {
                continue;
            }
            let author = Some(Author { attempt, pid });
            // One with a tray has looked into the pipes itself.
            if row.printed || alone && self.tray.is_none() {
                self.pipes.drain(author, &mut self.outlet);
            } else {
                // Nothing is left in the pipes, but the end of it may have been read before.
                self.pipes.finish_lines(author, &mut self.outlet);
            }
            self.outlet.event(Event::TaskEnded {
                slot,
                generation,
                task: EndedTask {
                    attempt,
                    outcome: row.outcome,
                    payload,
                    pid,
                    started_us: row.started_us,
                    run_us: row.run_us,
                },
            });
        }
        if printed {
            self.say(ToWorker::Go);
        }
        self.pipes.forget_tail();
    }

    /// Asks for the last `count` tasks back, never the first.
    fn ask_back(&mut self, count: u32) {
        let Some(tray) = &mut self.tray else {
            return self.say(ToWorker::GiveBack { count });
        };
        let behind = self.handed.len().saturating_sub(1);
        for handed in self.handed.iter().rev().take(behind.min(count as usize)) {
            // A mark that cannot be made leaves the task where it is.
            if tray.void(handed.number).is_ok() {
                self.void.insert(handed.number);
            }
        }
        self.settle_by.get_or_insert(Instant::now() + SETTLE);
    }

    /// Takes back what was marked and the worker has not come to. Of the rest the worker tells itself.
    fn settle(&mut self) {
        self.settle_by = None;
        self.look_into_outbox();
        let begun = self.tray.as_ref().map_or(u64::MAX, Tray::begun);
        let void = std::mem::take(&mut self.void);
        let is_back = |handed: &&Handed| handed.number >= begun && void.contains(&handed.number);
        let back = self.handed.iter().filter(is_back);
        let back: Vec<_> = back.map(|handed| handed.attempt).collect();
        if self.tray.is_some() {
            self.ghosts.extend(&back);
        }
        self.let_back(back);
    }

    /// Takes in what the worker has done and not sent. It may be sent as well: what has ended ends once.
    fn look_into_outbox(&mut self) {
        let Some(Ok(mut unsent)) = self.tray.as_ref().map(Tray::outbox) else {
            return;
        };
        // What cannot be understood here was overwritten under our eyes, and so was sent.
        while let Ok(Some(message)) = self.dialect.read(&mut unsent) {
            self.on_worker_message(message);
        }
    }

    /// The worker says that it does not run these. Some it has only now come to, long after they were taken back: the same
    /// attempt may be in its hands again.
    fn on_given_back(&mut self, mut attempts: Vec<AttemptId>) {
        attempts.retain(|attempt| {
            let known = self.ghosts.iter().position(|ghost| ghost == attempt);
            known.map(|at| self.ghosts.remove(at)).is_none()
        });
        if !attempts.is_empty() || self.tray.is_none() {
            self.let_back(attempts);
        }
    }

    fn let_back(&mut self, attempts: Vec<AttemptId>) {
        self.handed
            .retain(|handed| !attempts.contains(&handed.attempt));
        self.outlet.event(Event::GivenBack {
            slot: self.slot,
            generation: self.generation,
            attempts,
        });
    }

    /// Takes an ended task out of hand; whether it was there.
    fn let_end(&mut self, attempt: AttemptId) -> bool {
        let is_it = |handed: &Handed| handed.attempt == attempt;
        let Some(at) = self.handed.iter().position(is_it) else {
            return false;
        };
        self.handed.remove(at);
        self.last = Some(attempt);
        true
    }

    /// Whose output it is now. Before the first task there is nobody; lines then wait for it.
    fn author(&self) -> Option<Author> {
        let running = self.handed.front().map(|handed| handed.attempt);
        let attempt = running.or(self.last)?;
        Some(Author {
            attempt,
            pid: self.pid,
        })
    }

    fn hear_keeper(&mut self) -> Result<(), DecodeError> {
        while let Some(message) = self.from_keeper.take()? {
            match message {
                FromKeeper::Fenced => self.outlet.event(Event::WorkerFenced {
                    slot: self.slot,
                    generation: self.generation,
                }),
                FromKeeper::WorkerStarted { pid } => self.on_started(pid),
                FromKeeper::WorkerNotStarted { reason } => self.unfit = Some(reason),
                FromKeeper::WorkerEnded {
                    exit,
                    signal,
                    out_of_memory,
                    memory_kib_peak,
                    ..
                } => {
                    self.end = Some(WorkerEnd {
                        exit,
                        signal,
                        out_of_memory,
                        memory_kib_peak,
                        ..WorkerEnd::default()
                    });
                }
                // Of commands, or of a relay.
                FromKeeper::Done { .. }
                | FromKeeper::Attached(_)
                | FromKeeper::Resumed
                | FromKeeper::Ready { .. }
                | FromKeeper::Running { .. }
                | FromKeeper::Printed { .. }
                | FromKeeper::Ended { .. }
                | FromKeeper::GivenBack { .. } => {}
            }
        }
        Ok(())
    }

    /// Its template has started it.
    fn is_forked(&self) -> bool {
        self.dialect == Dialect::Python
    }

    fn on_started(&mut self, pid: u32) {
        (self.started, self.pid) = (true, pid);
        if self.is_forked() {
            // From now on it has a keeper, and may begin.
            let (function, payloads) = (String::new(), Payloads::default());
            self.say(ToWorker::Init { function, payloads });
        }
    }

    fn on_rudeness(&mut self, heard: Result<(), DecodeError>) {
        if let Err(error) = heard {
            self.silent = true;
            self.unfit = Some(format!("it broke the worker protocol: {error}"));
            self.to_keeper.put(ToKeeper::End {
                grace_ms: RUDE_GRACE_MS,
            });
        }
    }

    /// Everything below the keeper is gone: what is still in the socket and in the pipes is all there will be.
    async fn bury(mut self) {
        let is_kept = !self.is_forked() || self.end.is_some() || !self.started;
        if !is_kept {
            self.sweep().await;
        }
        while !self.silent && !self.is_abandoned && self.last_words().await {
            let heard = self.hear_worker();
            self.on_rudeness(heard);
        }
        let author = self.author();
        self.pipes.drain(author, &mut self.outlet);
        self.look_into_outbox();
        if let Some(begun) = self.tray.as_ref().map(Tray::begun) {
            // What it had not come to is not what it died of, nor lost with it.
            let unbegun = self.handed.iter().filter(|handed| handed.number >= begun);
            let unbegun: Vec<_> = unbegun.map(|handed| handed.attempt).collect();
            self.let_back(unbegun);
        }
        let (slot, generation) = (self.slot, self.generation);
        let event = match self.unfit.filter(|_| !self.ready) {
            Some(reason) => Event::WorkerUnfit {
                slot,
                generation,
                reason: explain(reason, &self.pipes.tail()),
            },
            None => Event::WorkerEnded {
                slot,
                generation,
                end: WorkerEnd {
                    stderr_tail: self.pipes.tail(),
                    pid: self.pid,
                    ..self.end.unwrap_or_default()
                },
            },
        };
        self.outlet.event(event);
        self.outlet.finish(&mut self.orders).await;
    }
}

impl Worker {
    /// The keeper was killed. The spawner, whose child it was not, kills what it has left: when it is asked to, or when this relay has
    /// ended. Until then the worker is not to begin another task.
    async fn sweep(&mut self) {
        if let Some(spawner) = &self.spawner {
            if let Ok(swept) = super::when_it_listens(|| spawner.sweep()).await {
                let _ = wait_for_end(swept).await;
            }
            return;
        }
        if let Some(tray) = &mut self.tray {
            for handed in &self.handed {
                // Memory that cannot be written to cannot be read either: then all may have begun.
                tray.void(handed.number).ok();
            }
            tokio::time::sleep(SETTLE).await;
        }
    }

    /// Reads from the dead worker's socket. Somebody else may hold its other end, but nobody writes.
    async fn last_words(&mut self) -> bool {
        let filled = tokio::time::timeout(LAST_WORDS_MAX, self.from_worker.fill()).await;
        matches!(filled, Ok(Ok(true)))
    }
}

/// Has the keeper start the worker, and tells the worker what it begins with.
fn begin(beginning: Beginning, keeper: &mut Outgoing, worker: &mut Outgoing) -> Dialect {
    match beginning {
        Beginning::Native { path, initializer } => {
            keeper.put(ToKeeper::Work { program: path });
            worker.put(init(initializer));
            Dialect::Native
        }
        // Its template has started it.
        Beginning::Python => Dialect::Python,
    }
}

fn init(initializer: Option<Initializer>) -> ToWorker {
    let (function, payloads) = match initializer {
        Some(initializer) => (initializer.function, vec![initializer.argument]),
        None => (String::new(), Vec::new()),
    };
    let payloads = Payloads::from(payloads);
    ToWorker::Init { function, payloads }
}

pub(super) fn row(task: TaskStart) -> (RunRow, bytes::Bytes) {
    let row = RunRow {
        index: task.attempt.task.index,
        attempt: task.attempt.attempt,
        spec: task.spec,
    };
    (row, task.payload)
}

pub(super) fn attempt(pool: PoolId, row: &RunRow) -> AttemptId {
    AttemptId {
        task: TaskId::new(pool, row.index),
        attempt: row.attempt,
    }
}

/// The reason, and the last line that the worker wrote to stderr, which often says more.
fn explain(reason: String, tail: &str) -> String {
    match tail.trim_end().lines().last() {
        Some(line) => format!("{reason} (its last line on stderr: {line})"),
        None => reason,
    }
}

async fn wait_for_end(socket: UnixStream) -> io::Result<()> {
    let (mut incoming, _outgoing) = wire::split(socket)?;
    while incoming.fill().await? {}
    Ok(())
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}
