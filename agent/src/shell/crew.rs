//! The spawner, and the workers on the slots.

use std::{fs::File, io, path::PathBuf, sync::Arc, time::Duration};

use fleetpool_agent_core::TaskStart;
use fleetpool_proto::{
    PoolId, SlotNo,
    frame::decode_header,
    message::Registration,
    pool::{PoolOptions, Runtime},
};
use tokio::{io::AsyncReadExt as _, net::UnixStream, time::timeout};

use super::Shell;
use crate::{
    content::{Held, Store},
    facts,
    keeper::message::Place,
    options::{Error, Options, TaskLimits},
    spawner::{Contained, Spawner},
    workers::{Order, Program, Start, Template, Worker, when_it_listens},
};

/// How long a spawner may take to say what it holds tasks to. It makes a few folders.
const CONTAIN_TIME_MAX: Duration = Duration::from_secs(5);
/// What it may say, in bytes.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

impl Shell {
    pub(super) fn start_worker(&mut self, slot: SlotNo, generation: u64, pool: PoolId) {
        let template = self.template(pool);
        let Some(options) = self.core.pool_options(pool) else {
            return;
        };
        let rerunnable = options.retries.host_lost > 0;
        let fence = self.fence.clone().filter(|_| rerunnable);
        let start = Start {
            slot,
            generation,
            place: Place {
                fenced: fence.is_some(),
                ..self.place(slot, pool, options)
            },
            fence,
            program: program(options, &self.store, template),
            found: None,
            room: self.output.room(pool),
        };
        self.workers
            .insert(slot, Worker::start(start, &self.shared));
    }

    pub(super) fn place(&self, slot: SlotNo, pool: PoolId, options: &PoolOptions) -> Place {
        Place {
            host: self.options.name.clone(),
            slot: u32::from(slot.0) + 1,
            pool: pool.0,
            threads: (self.facts.cpus / u32::from(self.options.slots.max(1))).max(1),
            env: options.env.clone(),
            cwd: options.cwd.clone(),
            fenced: false,
        }
    }

    pub(super) fn run_tasks(&mut self, slot: SlotNo, generation: u64, tasks: Vec<TaskStart>) {
        let Some(pool) = tasks.first().map(|task| task.attempt.task.pool) else {
            return;
        };
        let runtime = self.core.pool_options(pool).map(|options| &options.runtime);
        let worker = self.workers.get_mut(&slot);
        if let Some(worker) = worker.filter(|worker| worker.generation == generation) {
            worker.run(tasks, |spec| {
                let mut spec = self.core.spec(pool, spec).cloned()?;
                // The core runs nothing of the pool before it is here.
                let mut file = None;
                match spec.content.and_then(|hash| self.store.held(hash)) {
                    Some(Held::File(stdin)) => file = Some(Arc::clone(stdin)),
                    Some(Held::Bytes(stdin)) if matches!(runtime, Some(Runtime::Command)) => {
                        spec.stdin = stdin.clone();
                    }
                    Some(Held::Bytes(code)) => spec.code = code.clone(),
                    None => {}
                }
                Some((spec, file))
            });
        }
    }

    pub(super) fn order(&mut self, slot: SlotNo, generation: u64, order: Order) {
        let worker = self.workers.get(&slot);
        if let Some(worker) = worker.filter(|worker| worker.generation == generation) {
            worker.order(order);
        }
    }

    /// The spawner has died: its keepers cannot be trusted to be buried, so all of them go, and another takes over.
    pub(super) fn restart_spawner(&mut self) -> Result<(), Error> {
        if self.shared.keeps {
            return Err(Error::SpawnerGone);
        }
        tracing::error!("the spawner is gone: its workers are ended, another one is started");
        for worker in self.workers.values() {
            worker.order(Order::Kill { grace_ms: 0 });
        }
        (self.shared.spawner, self.spawner_gone) =
            start_spawner(&self.options, self.lock.as_ref())?;
        if let Some(limits) = self.options.limits {
            // As before: what it says is known.
            self.shared.spawner.contain(limits).ok();
        }
        Ok(())
    }
}

/// What is started for a pool whose workers stay. The core asks for none before its program is here.
fn program(
    options: &PoolOptions,
    store: &Store,
    template: Option<Arc<Template>>,
) -> Option<Program> {
    match &options.runtime {
        Runtime::Command => None,
        Runtime::Native { program, .. } => Some(Program::Native {
            path: store
                .program(*program)
                .map(PathBuf::from)
                .unwrap_or_default(),
            initializer: options.initializer.clone(),
        }),
        Runtime::Python { .. } => template.map(Program::Python),
    }
}

pub(super) fn start_spawner(
    options: &Options,
    lock: Option<&File>,
) -> Result<(Arc<Spawner>, UnixStream), Error> {
    let start = || -> io::Result<_> {
        let spawner = match lock {
            Some(lock) => Spawner::start_locked(&options.spawner, lock.try_clone()?)?,
            None => Spawner::start(&options.spawner)?,
        };
        let gone = spawner.watch()?;
        Ok((Arc::new(spawner), gone))
    };
    start().map_err(|source| Error::Spawner {
        program: options.spawner.clone(),
        source,
    })
}

/// Has what runs here held to limits, where that is wanted, and puts down what came of it. What is wanted and cannot be is said.
pub(super) async fn contain(
    facts: &mut Registration,
    options: &Options,
    spawner: &Spawner,
    knows_how: bool,
) {
    let contained = match options.limits {
        Some(limits) if knows_how => ask_to_contain(spawner, limits).await,
        Some(_) => Contained::not("the spawner is of an older version: start it anew"),
        None => Contained::default(),
    };
    facts::tell_containment(facts, &contained);
    let (containment, limits) = (&facts.containment, &facts.limits);
    if options.limits.is_some() {
        tracing::info!(%containment, %limits, "tasks are held");
    }
    for option in contained.missed(&options.limits.unwrap_or_default()) {
        tracing::warn!("{option} is not held on this host: {limits}");
    }
}

async fn ask_to_contain(spawner: &Spawner, limits: TaskLimits) -> Contained {
    let asked = when_it_listens(|| spawner.contain(limits)).await;
    let answer = async {
        let mut answer = Vec::new();
        let socket = asked?;
        socket.set_nonblocking(true)?;
        let mut socket = UnixStream::from_std(socket)?.take(ANSWER_BYTES_MAX);
        timeout(CONTAIN_TIME_MAX, socket.read_to_end(&mut answer)).await??;
        decode_header(&answer).map_err(io::Error::other)
    };
    let answer: io::Result<Contained> = answer.await;
    answer.unwrap_or_else(|error| Contained::not(format!("the spawner does not say: {error}")))
}
