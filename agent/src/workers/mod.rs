//! Workers, as the shell sees them: one task of the runtime a worker, which takes orders and tells what happens.
//!
//! A worker's task talks to its keeper, and where workers stay (`native`, `python`) to the worker itself. It owns their sockets
//! and pipes. It decides nothing: what it is told to do comes from the core, and what it sees goes there. Where workers that stay
//! are to outlive their agent, that task is in a process of its own, the relay.

mod dialect;
mod keeper;
mod outlet;
mod pipes;
pub(crate) mod relay;
mod template;
mod tray;
mod warm;

pub(crate) use outlet::{weight, weight_of};
pub(crate) use template::{Outcome as TemplateOutcome, Template};

use std::{
    collections::BTreeSet,
    fs::File,
    io,
    os::{fd::RawFd, unix::net::UnixStream},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use fleetpool_agent_core::{Event, TaskStart};
use fleetpool_proto::{
    AttemptId, SlotNo, SpecId,
    message::Stream,
    pool::{Initializer, Spec},
};
use tokio::sync::{Semaphore, mpsc};

use crate::{
    fence::Fence,
    keeper::message::Place,
    spawner::{Name, Spawner},
};

/// What a worker is to do.
#[derive(Debug)]
pub(crate) enum Order {
    /// Know a specification, and the file that is its standard input, where that is large.
    Define(SpecId, Box<Spec>, Option<Arc<File>>),
    /// Run tasks.
    Run(Vec<TaskStart>),
    /// Give back up to so many that have not begun.
    GiveBack(u32),
    /// End one task (`command`).
    KillTask {
        /// Which.
        attempt: AttemptId,
        /// Milliseconds between TERM and KILL.
        grace_ms: u32,
    },
    /// End, with everything below.
    Kill {
        /// Milliseconds between TERM and KILL.
        grace_ms: u32,
    },
    /// End by itself.
    Stop,
    /// What it said up to this number is written down.
    Heard(u64),
}

/// What has happened at a worker. The output comes before the events.
#[derive(Debug)]
pub(crate) struct Told {
    /// What its tasks printed.
    pub(crate) output: Vec<Printed>,
    /// What its core is to know.
    pub(crate) events: Vec<Event>,
    /// With this, so much of what a keeper says has been told, where another agent may come after this one.
    pub(crate) heard: Option<Heard>,
}

/// How much of what a keeper says is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Heard {
    pub(crate) slot: SlotNo,
    pub(crate) generation: u64,
    /// The number of the last message.
    pub(crate) number: u64,
}

/// A piece of a task's output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Printed {
    pub(crate) attempt: AttemptId,
    pub(crate) pid: u32,
    pub(crate) stream: Stream,
    pub(crate) bytes: Bytes,
}

/// A worker to be.
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) slot: SlotNo,
    pub(crate) generation: u64,
    pub(crate) place: Place,
    /// What its keeper ends it by, where it may run again.
    pub(crate) fence: Option<Fence>,
    /// What is started once and stays, where that is so.
    pub(crate) program: Option<Program>,
    /// Its keeper or relay, where that is there already.
    pub(crate) found: Option<Found>,
    /// Bytes of output of its pool that may still be held for the coordinator.
    pub(crate) room: Arc<Semaphore>,
}

impl Start {
    /// What its keeper or relay is called, where that outlives this agent.
    fn name(&self) -> Name {
        Name {
            slot: self.slot.0,
            generation: self.generation,
        }
    }
}

/// A keeper or a relay that another agent has left.
#[derive(Debug)]
pub(crate) struct Found {
    /// It is a relay.
    pub(crate) stays: bool,
    pub(crate) socket: UnixStream,
    /// The number of the last message that the other has written down.
    pub(crate) heard: u64,
    /// What it is believed to have in hand.
    pub(crate) handed: Vec<AttemptId>,
}

/// What a worker that stays is.
#[derive(Debug)]
pub(crate) enum Program {
    /// A user's binary.
    Native {
        path: PathBuf,
        initializer: Option<Initializer>,
    },
    /// A fork of its pool's template.
    Python(Arc<Template>),
}

/// The same, of one that is being started.
#[derive(Debug)]
enum Beginning {
    /// A user's binary.
    Native {
        path: PathBuf,
        initializer: Option<Initializer>,
    },
    /// A fork of its pool's template.
    Python,
}

impl Program {
    fn split(self) -> (Beginning, Option<Arc<Template>>) {
        match self {
            Self::Native { path, initializer } => (Beginning::Native { path, initializer }, None),
            Self::Python(template) => (Beginning::Python, Some(template)),
        }
    }
}

/// What every worker shares.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    pub(crate) spawner: Arc<Spawner>,
    /// It is a service of its own: keepers of commands wait for another agent when this one has gone.
    pub(crate) keeps: bool,
    /// So do relays, and with them workers that stay.
    pub(crate) relays: bool,
    /// Where workers tell. Unbounded, because what is told is bounded by what was asked, and output by [`Start::room`].
    pub(crate) inbox: mpsc::UnboundedSender<Told>,
}

/// Orders to one worker; it is gone when `WorkerEnded` or `WorkerUnfit` is told.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) generation: u64,
    orders: mpsc::UnboundedSender<Order>,
    defined: BTreeSet<SpecId>,
}

impl Worker {
    /// Starts a worker; what becomes of it is told in the inbox.
    pub(crate) fn start(mut start: Start, shared: &Shared) -> Self {
        let generation = start.generation;
        let (orders, inbox) = mpsc::unbounded_channel();
        let shared = shared.clone();
        match start.program.take() {
            Some(program) if !shared.relays => {
                drop(tokio::spawn(warm::run(start, program, shared, inbox)));
            }
            program => drop(tokio::spawn(keeper::run(start, program, shared, inbox))),
        }
        Self {
            generation,
            orders,
            defined: BTreeSet::new(),
        }
    }

    /// Gives an order. One that has ended meanwhile does not hear it, which its end has told already.
    pub(crate) fn order(&self, order: Order) {
        let _ = self.orders.send(order);
    }

    /// Gives tasks, and first the specifications that it has not had.
    pub(crate) fn run(
        &mut self,
        tasks: Vec<TaskStart>,
        spec: impl Fn(SpecId) -> Option<(Spec, Option<Arc<File>>)>,
    ) {
        for task in &tasks {
            if !self.defined.contains(&task.spec)
                && let Some((body, file)) = spec(task.spec)
            {
                self.defined.insert(task.spec);
                self.order(Order::Define(task.spec, Box::new(body), file));
            }
        }
        self.order(Order::Run(tasks));
    }
}

/// Pause before a spawner that is behind is asked again.
const SPAWNER_PAUSE: Duration = Duration::from_millis(1);

/// A keeper that is asked for with the fence and these descriptors; the socket to it.
async fn keeper(
    fence: Option<&Fence>,
    descriptors: &[RawFd],
    ask: impl Fn(&[RawFd]) -> io::Result<UnixStream>,
) -> io::Result<UnixStream> {
    let fence = fence.map(Fence::as_raw_fd).into_iter();
    let descriptors: Vec<RawFd> = fence.chain(descriptors.iter().copied()).collect();
    when_it_listens(|| ask(&descriptors)).await
}

pub(crate) async fn when_it_listens<T>(ask: impl Fn() -> io::Result<T>) -> io::Result<T> {
    loop {
        match ask() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                tokio::time::sleep(SPAWNER_PAUSE).await;
            }
            started => return started,
        }
    }
}
