//! Which waiting task goes to which worker, and which workers are started, replaced and let go.
//!
//! Run for a pool once after each batch of events that touched it (G2: a free slot and a waiting task never meet
//! without being brought together).

use std::time::Duration;

use fleetpool_proto::{PoolId, SlotNo, Timestamp};

use crate::{
    core::AgentCore,
    event::Action,
    facts::Fact,
    pools::Pool,
    slots::{Phase, Queued, Slot, Worker},
};

/// Work in hand that is worth a round trip to be taken over by an idle worker.
const WORTH_TAKING: Duration = Duration::from_micros(500);

impl AgentCore {
    pub(crate) fn dispatch(&mut self, id: PoolId) {
        let Some(pool) = self.pools.get_mut(&id) else {
            return;
        };
        pool.crew_wanted = pool.crew_needed();
        if pool.busy > pool.allotted {
            // Whatever ends first makes room; nobody's place is kept by tasks that have not begun.
            each_worker(pool, &mut self.slots, |worker| {
                self.out.extend(worker.give_back(usize::MAX));
            });
        } else if self.lease.holds(self.now) && pool.unfit.is_none() && pool.awaited == 0 {
            let mut hand = Hand {
                now: self.now,
                out: &mut self.out,
                facts: &mut self.facts,
            };
            hand.serve_idle(pool, &mut self.slots);
            hand.top_up(pool, &mut self.slots);
            hand.take_over(pool, &mut self.slots);
        }
        self.let_go(id);
        self.recruit(id);
    }

    /// Stops idle workers that the pool has no right to, or that have run all the tasks they may.
    fn let_go(&mut self, id: PoolId) {
        let Some(pool) = self.pools.get_mut(&id) else {
            return;
        };
        let tasks_max = pool.options.tasks_per_worker_max;
        let mut alive = 0;
        each_worker(pool, &mut self.slots, |worker| {
            alive += u16::from(!worker.is_leaving());
        });
        let mut surplus = alive.saturating_sub(pool.crew_wanted);
        for &number in pool.crew.iter().rev() {
            let Some(worker) = worker_of(&mut self.slots, number) else {
                continue;
            };
            let worn = tasks_max > 0 && !worker.command && worker.taken >= tasks_max;
            if worker.is_idle() && (surplus > 0 || worn) {
                self.out.push_back(worker.stop());
                surplus = surplus.saturating_sub(1);
            }
        }
    }

    /// Starts the workers that the pool lacks. Where the host has no empty slot, idle workers of others make room.
    fn recruit(&mut self, id: PoolId) {
        let fenced = self.keepers_fence();
        let Some(pool) = self.pools.get_mut(&id) else {
            return;
        };
        self.wanting.remove(&id);
        let ready = !fenced
            && pool.awaited == 0
            && pool.starts.not_before.is_none_or(|time| time <= self.now);
        let mut lacking = usize::from(pool.crew_wanted).saturating_sub(pool.crew.len());
        let command = pool.is_command();
        while ready && lacking > 0 {
            let Some(slot) = self.start_worker(id, command) else {
                self.wanting.insert(id);
                self.make_room(id, lacking);
                return;
            };
            if let Some(pool) = self.pools.get_mut(&id) {
                pool.crew.push(slot);
            }
            lacking -= 1;
        }
    }

    /// Stops idle workers of other pools until `count` slots are about to become empty.
    fn make_room(&mut self, wanting: PoolId, count: usize) {
        let leaving = |slot: &Slot| slot.worker.as_ref().is_some_and(Worker::is_leaving);
        let mut count =
            count.saturating_sub(self.slots.iter().filter(|slot| leaving(slot)).count());
        for (_, pool) in self.pools.iter_mut().filter(|(id, _)| **id != wanting) {
            let Pool {
                crew, crew_wanted, ..
            } = pool;
            for &number in crew.iter().rev() {
                let worker = worker_of(&mut self.slots, number);
                if let Some(worker) = worker.filter(|worker| count > 0 && worker.is_idle()) {
                    self.out.push_back(worker.stop());
                    *crew_wanted = crew_wanted.saturating_sub(1);
                    count -= 1;
                }
            }
        }
    }
}

impl Pool {
    /// Workers that the pool should have here: those it has needed so far, and one for each task that waits.
    fn crew_needed(&self) -> u16 {
        if self.closing || self.unfit.is_some() {
            return 0;
        }
        let waiting = u16::try_from(self.queue.len()).unwrap_or(u16::MAX);
        let demand = self.busy.saturating_add(waiting);
        self.crew_wanted.max(demand).min(self.allotted)
    }
}

/// Hands tasks to workers.
struct Hand<'a> {
    now: Timestamp,
    out: &'a mut std::collections::VecDeque<Action>,
    facts: &'a mut Option<Vec<Fact>>,
}

impl Hand<'_> {
    /// Idle workers first: these tasks start now.
    fn serve_idle(&mut self, pool: &mut Pool, slots: &mut [Slot]) {
        for at in 0..pool.crew.len() {
            if pool.queue.is_empty() || pool.busy >= pool.allotted {
                return;
            }
            let number = pool.crew[at];
            if let Some(worker) = worker_of(slots, number).filter(|worker| worker.is_idle()) {
                let ahead = pool.ahead_of(worker).min(pool.fair_share());
                if self.run(pool, worker, ahead) {
                    pool.busy += 1;
                    worker.next_first(self.now);
                }
            }
        }
    }

    /// Then those that will soon have nothing more in hand, so that none waits a round trip between two tasks.
    fn top_up(&mut self, pool: &mut Pool, slots: &mut [Slot]) {
        if pool.pace.ahead() < 2 {
            return;
        }
        let held_up_after = pool.pace.patience();
        for at in 0..pool.crew.len() {
            if pool.queue.is_empty() {
                return;
            }
            let number = pool.crew[at];
            let Some(worker) = worker_of(slots, number).filter(|worker| worker.is_busy()) else {
                continue;
            };
            let ahead = pool.ahead_of(worker);
            let held_up = self.now.since(worker.first_since) >= held_up_after;
            if worker.takes_more() && !held_up && worker.handed.len() <= ahead / 2 {
                let count = (ahead - worker.handed.len()).min(pool.fair_share());
                self.run(pool, worker, count);
            }
        }
    }

    /// When nothing waits and a worker is idle, it shares in what the one with most in hand has not begun.
    fn take_over(&mut self, pool: &mut Pool, slots: &mut [Slot]) {
        if !pool.queue.is_empty() || pool.busy >= pool.allotted || pool.pace.ahead() < 2 {
            return;
        }
        let worker = |number: &SlotNo| slots.get(usize::from(number.0))?.worker.as_ref();
        let workers = || pool.crew.iter().filter_map(worker);
        if !workers().any(Worker::is_idle) || workers().any(|worker| worker.asked) {
            return;
        }
        let most = workers().max_by_key(|worker| worker.handed.len());
        let Some((number, in_hand)) = most.map(|worker| (worker.slot, worker.handed.len())) else {
            return;
        };
        let ahead = in_hand.saturating_sub(1);
        if ahead > 0
            && pool.pace.estimate(ahead) >= WORTH_TAKING
            && let Some(worker) = worker_of(slots, number)
        {
            self.out.extend(worker.give_back(ahead.div_ceil(2)));
        }
    }

    fn run(&mut self, pool: &mut Pool, worker: &mut Worker, count: usize) -> bool {
        let id = worker.pool;
        let count = count.min(pool.queue.len());
        if count == 0 {
            return false;
        }
        if let Some(facts) = self.facts {
            let rows = pool.queue.iter().take(count).map(Queued::row);
            facts.push(Fact::Handed {
                slot: worker.slot,
                at_us: self.now.0,
                tasks: rows.collect(),
            });
        }
        let tasks = pool.queue.drain(..count);
        let tasks = tasks.map(|task| worker.take(task)).collect();
        debug_assert_eq!(
            worker.phase,
            Phase::Ready,
            "{id}: only ready workers take tasks"
        );
        self.out.push_back(Action::Run {
            slot: worker.slot,
            generation: worker.generation,
            tasks,
        });
        true
    }
}

impl Pool {
    /// Most tasks that `worker` should have in hand.
    fn ahead_of(&self, worker: &Worker) -> usize {
        let left = match self.options.tasks_per_worker_max {
            0 => usize::MAX,
            // A command is a process of its own in any case.
            _ if worker.command => usize::MAX,
            max => max.saturating_sub(worker.taken) as usize + worker.handed.len(),
        };
        let ahead = if self.retractions.is_empty() {
            self.pace.ahead()
        } else {
            1
        };
        ahead.min(left)
    }

    /// What each slot gets when the waiting tasks are shared out evenly.
    fn fair_share(&self) -> usize {
        let slots = usize::from(self.allotted.max(1));
        self.queue.len().div_ceil(slots)
    }
}

pub(crate) fn worker_of(slots: &mut [Slot], number: SlotNo) -> Option<&mut Worker> {
    slots.get_mut(usize::from(number.0))?.worker.as_mut()
}

/// Calls `f` for each worker of the pool.
pub(crate) fn each_worker(pool: &Pool, slots: &mut [Slot], mut f: impl FnMut(&mut Worker)) {
    for &number in &pool.crew {
        if let Some(worker) = worker_of(slots, number) {
            f(worker);
        }
    }
}
