//! The spawner, and the workers on the slots.

use std::{fs::File, io, path::PathBuf, sync::Arc};

use fleetpool_agent_core::TaskStart;
use fleetpool_proto::{
    PoolId, SlotNo,
    pool::{PoolOptions, Runtime},
};
use tokio::net::UnixStream;

use super::Shell;
use crate::{
    content::{Held, Store},
    keeper::message::Place,
    options::{Error, Options},
    spawner::Spawner,
    workers::{Order, Program, Start, Template, Worker},
};

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
