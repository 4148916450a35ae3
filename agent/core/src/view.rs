//! What the core knows, for the shell, for logs and for tests.

use fleetpool_proto::{
    AttemptId, PoolId, SlotNo, SpecId,
    pool::{PoolOptions, Spec},
};

use crate::{
    core::AgentCore,
    slots::{Phase, Worker},
};

/// A slot and its worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotView {
    /// The slot.
    pub slot: SlotNo,
    /// Workers that it has had.
    pub generation: u64,
    /// The pool of its worker; `None`: it has no worker.
    pub pool: Option<PoolId>,
    /// `empty`, `starting`, `idle`, `busy`, `stopping` or `killed`.
    pub state: &'static str,
    /// What it runs.
    pub running: Option<AttemptId>,
    /// Tasks that it has in hand behind that.
    pub ahead: usize,
}

impl AgentCore {
    /// What a pool is, while it is open here.
    #[must_use]
    pub fn pool_options(&self, pool: PoolId) -> Option<&PoolOptions> {
        self.pools.get(&pool).map(|pool| &*pool.options)
    }

    /// What tasks of a pool have in common.
    #[must_use]
    pub fn spec(&self, pool: PoolId, spec: SpecId) -> Option<&Spec> {
        self.pools.get(&pool)?.specs.get(&spec).map(|spec| &**spec)
    }

    /// All of a pool's.
    pub fn specs(&self, pool: PoolId) -> impl Iterator<Item = &Spec> {
        let specs = self.pools.get(&pool).map(|pool| &pool.specs);
        specs.into_iter().flatten().map(|(_, spec)| &**spec)
    }

    /// The slots in their order.
    pub fn slots(&self) -> impl Iterator<Item = SlotView> + '_ {
        self.slots.iter().zip(0..).map(|(slot, number)| {
            let worker = slot.worker.as_ref();
            let first = worker.and_then(|worker| Some((worker.pool, worker.handed.front()?)));
            SlotView {
                slot: SlotNo(number),
                generation: slot.generation,
                pool: worker.map(|worker| worker.pool),
                state: worker.map_or("empty", state),
                running: first.map(|(pool, first)| first.task.id(pool)),
                ahead: worker.map_or(0, |worker| worker.handed.len().saturating_sub(1)),
            }
        })
    }

    /// The pools that this host has been told of and has not forgotten.
    pub fn pools(&self) -> impl Iterator<Item = PoolId> + '_ {
        self.pools.keys().copied()
    }

    /// Attempts that wait for a slot, of all pools.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.pools.values().map(|pool| pool.queue.len()).sum()
    }

    /// Reports that the coordinator has not acknowledged, of all pools.
    #[must_use]
    pub fn unacknowledged(&self) -> usize {
        self.pools
            .values()
            .map(|pool| pool.reports.keys().count())
            .sum()
    }
}

fn state(worker: &Worker) -> &'static str {
    match worker.phase {
        Phase::Starting => "starting",
        Phase::Ready if worker.is_busy() => "busy",
        Phase::Ready => "idle",
        Phase::Stopping => "stopping",
        Phase::Killed => "killed",
    }
}
