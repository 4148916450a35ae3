//! The core against a shell and a coordinator that do whatever chance wants, with everything it promises checked
//! at each step.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use bytes::Bytes;
use fleetpool_proto::{
    Attempt, AttemptId, Outcome, PoolId, SlotNo, SpecId, TaskId, Timestamp,
    message::{FromAgent, GrantRow, Registration, TaskRow, ToAgent},
    pool::Spec,
};
use proptest::prelude::*;

use super::host::{command, native, once};
use crate::{Action, AgentCore, EndedTask, Event, Inventory, Options, TaskStart, WorkerEnd};

const LEASE_MS: u64 = 30_000;
/// Index of the first task granted; those below are cancelled without ever being granted.
const FIRST: u64 = 100;
const POOLS: [PoolId; 3] = [PoolId(1), PoolId(2), PoolId(3)];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Granted, and nothing heard of it since.
    Open,
    /// Reported in this session.
    Reported { session: u32 },
    /// Reported and acknowledged.
    Acknowledged,
    /// Given back unstarted.
    GivenBack,
    /// The lease has ended it.
    Dropped,
}

#[derive(Debug)]
struct Worker {
    generation: u64,
    pool: PoolId,
    ready: bool,
    stopping: bool,
    killed: bool,
    kill_task: Option<AttemptId>,
    asked: Option<u32>,
    handed: VecDeque<TaskStart>,
}

struct World {
    core: AgentCore,
    /// What the core has told a successor.
    left: Inventory,
    now: Timestamp,
    session: u32,
    up: bool,
    registered: bool,
    /// The pools are open in this session.
    opened: bool,
    sent: BTreeMap<u64, Timestamp>,
    lease_end: Option<Timestamp>,
    /// The lease has ended since the last `Register`.
    lapsed: bool,
    allotted: BTreeMap<PoolId, u16>,
    allotment: u64,
    next: u64,
    retraction: u64,
    attempts: BTreeMap<AttemptId, State>,
    cancelled: BTreeSet<AttemptId>,
    /// Handed to workers by an earlier life of the agent.
    bare: BTreeSet<AttemptId>,
    workers: BTreeMap<u16, Worker>,
    fetching: BTreeSet<PoolId>,
}

impl World {
    fn new(slots: u16) -> Self {
        let mut world = Self {
            core: AgentCore::new(options(slots)),
            left: Inventory::default(),
            now: Timestamp(0),
            session: 0,
            up: false,
            registered: false,
            opened: false,
            sent: BTreeMap::new(),
            lease_end: None,
            lapsed: false,
            allotted: BTreeMap::new(),
            allotment: 0,
            next: FIRST,
            retraction: 0,
            attempts: BTreeMap::new(),
            cancelled: BTreeSet::new(),
            bare: BTreeSet::new(),
            workers: BTreeMap::new(),
            fetching: BTreeSet::new(),
        };
        world.link_up();
        world
    }

    /// What a coordinator says to a host that has registered.
    fn open_pools(&mut self) {
        for (pool, options) in POOLS.into_iter().zip([command(), native(), once(native())]) {
            self.say(ToAgent::OpenPool {
                pool,
                options: Box::new(options),
            });
            let body = Spec {
                timeout_ms: if pool == PoolId(1) { 5000 } else { 0 },
                ..Spec::default()
            };
            self.say(ToAgent::Define {
                pool,
                spec: SpecId(0),
                body: Box::new(body),
            });
        }
    }

    fn event(&mut self, event: Event) {
        if self.lease_end.is_some_and(|end| end <= self.now) {
            self.lease_end = None;
            self.lapsed = true;
            self.allotted.clear();
        }
        self.core.handle(self.now, event);
        let actions: Vec<Action> = std::iter::from_fn(|| self.core.poll_action()).collect();
        let facts = self.core.take_facts();
        facts.into_iter().for_each(|fact| self.left.apply(fact));
        assert_eq!(self.left, self.core.inventory(), "a successor knows all");
        actions.into_iter().for_each(|action| self.act(action));
    }

    /// The agent's process is killed, and another takes over: workers live on, or those that stay do not.
    fn restart(&mut self, vanish: bool) {
        self.up = false;
        self.registered = false;
        let slots = u16::try_from(self.core.slots().count()).expect("a few slots");
        let (core, heirs) = AgentCore::resume(options(slots), self.now, self.left.clone());
        self.core = core;
        self.fetching.clear();
        let kept: Vec<u16> = heirs.iter().map(|heir| heir.slot.0).collect();
        assert_eq!(self.workers.keys().copied().collect::<Vec<_>>(), kept);
        for heir in heirs {
            let worker = &self.workers[&heir.slot.0];
            assert_eq!(heir.stays, worker.pool != PoolId(1));
            let handed = worker.handed.iter().map(|task| task.attempt);
            assert_eq!(handed.collect::<Vec<_>>(), heir.handed);
            self.bare.extend(heir.handed);
        }
        // What waited is granted again, and what was cancelled is cancelled again.
        let reported = self.left.reported();
        let handed = |id: &AttemptId| {
            let mut workers = self.workers.values();
            workers.any(|worker| worker.handed.iter().any(|task| task.attempt == *id))
        };
        for (id, state) in &mut self.attempts {
            let lost = self.left.in_hand(id) || reported.contains(id);
            if *state == State::Open && !lost && !handed(id) {
                *state = State::Dropped;
            }
        }
        self.cancelled.clear();
        let found = self.found_again(vanish);
        self.event(Event::Tick);
        for event in found {
            match event {
                Event::WorkerVanished { slot, .. } => drop(self.workers.remove(&slot.0)),
                Event::WorkerFound { slot, ending, .. } => {
                    self.workers.get_mut(&slot.0).expect("just listed").killed |= ending;
                }
                _ => {}
            }
            self.event(event);
        }
    }

    /// Workers as they are found, if they are.
    fn found_again(&mut self, vanish: bool) -> Vec<Event> {
        let mut found = Vec::new();
        for (slot, worker) in &mut self.workers {
            let (slot, generation) = (SlotNo(*slot), worker.generation);
            (worker.asked, worker.kill_task) = (None, None);
            if worker.pool != PoolId(1) && vanish {
                found.push(Event::WorkerVanished { slot, generation });
                continue;
            }
            worker.ready |= worker.pool == PoolId(1);
            found.push(Event::WorkerFound {
                slot,
                generation,
                pid: worker.ready.into(),
                ending: worker.stopping || worker.killed,
                taken: 0,
            });
            (worker.stopping, worker.killed) = (false, false);
        }
        found
    }

    fn say(&mut self, message: ToAgent) {
        if self.up {
            self.event(Event::Message(message));
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Send(message) => self.hear(message),
            Action::StartWorker {
                slot,
                generation,
                pool,
            } => {
                let worker = Worker {
                    generation,
                    pool,
                    ready: false,
                    stopping: false,
                    killed: false,
                    kill_task: None,
                    asked: None,
                    handed: VecDeque::new(),
                };
                let before = self.workers.insert(slot.0, worker);
                assert!(before.is_none(), "{slot} has a worker already");
                assert!(!self.fetching.contains(&pool), "{pool} has no program yet");
            }
            Action::Run {
                slot,
                generation,
                tasks,
            } => self.run(slot.0, generation, tasks),
            Action::GiveBack { slot, count, .. } => {
                // It may have ended by the very event before which the lease was found over.
                if let Some(worker) = self.workers.get_mut(&slot.0) {
                    assert!(worker.ready && !worker.killed && worker.asked.is_none());
                    worker.asked = Some(count);
                }
            }
            Action::KillTask { slot, attempt, .. } => {
                if let Some(worker) = self.workers.get_mut(&slot.0) {
                    assert_eq!(worker.pool, PoolId(1), "a command");
                    let mut behind = worker.handed.iter().skip(1);
                    let doomed = behind.any(|task| self.cancelled.contains(&task.attempt));
                    assert!(
                        !doomed || worker.asked.is_some(),
                        "what is not to begin is asked for before the way is free for it"
                    );
                    worker.kill_task = Some(attempt);
                }
            }
            Action::KillWorker { slot, .. } => {
                if let Some(worker) = self.workers.get_mut(&slot.0) {
                    worker.killed = true;
                }
            }
            Action::StopWorker { slot, .. } => {
                let worker = self.workers.get_mut(&slot.0).expect("a worker to stop");
                assert!(worker.handed.is_empty(), "only idle workers are stopped");
                worker.stopping = true;
            }
            Action::FetchProgram { pool } | Action::FetchContent { pool, .. } => {
                self.fetching.insert(pool);
            }
            Action::DropLink { .. } => {
                assert!(self.up && self.lapsed);
                self.up = false;
                self.registered = false;
            }
            Action::PoolClosed { .. } | Action::FenceAt { .. } => {}
        }
    }

    fn run(&mut self, slot: u16, generation: u64, tasks: Vec<TaskStart>) {
        assert!(self.lease_end.is_some(), "nothing starts without a lease");
        let in_hand: BTreeSet<AttemptId> = self
            .workers
            .values()
            .flat_map(|worker| worker.handed.iter().map(|task| task.attempt))
            .collect();
        let worker = self.workers.get_mut(&slot).expect("a worker to run it");
        assert_eq!(worker.generation, generation);
        assert!(worker.ready && !worker.stopping && !worker.killed);
        for task in &tasks {
            let id = task.attempt;
            assert_eq!(self.attempts.get(&id), Some(&State::Open), "{id} may run");
            assert!(!self.cancelled.contains(&id), "{id} was cancelled");
            assert!(!in_hand.contains(&id), "{id} is in hand already");
        }
        let pool = worker.pool;
        worker.handed.extend(tasks);
        let allotted = self.allotted.get(&pool).copied().unwrap_or_default();
        assert!(self.running(pool) <= usize::from(allotted), "G1: {pool}");
    }

    fn running(&self, pool: PoolId) -> usize {
        let of = |worker: &&Worker| worker.pool == pool && !worker.handed.is_empty();
        self.workers.values().filter(of).count()
    }

    fn hear(&mut self, message: FromAgent) {
        if !self.up {
            return; // Due at the instant at which the session ended.
        }
        if let FromAgent::Register(registration) = message {
            return self.hear_register(&registration);
        }
        assert!(self.registered, "Register is first, not {message:?}");
        match message {
            FromAgent::Renew { renewal, .. } => drop(self.sent.insert(renewal, self.now)),
            FromAgent::Allotted { pool, slots, .. } => {
                assert!(self.running(pool) <= usize::from(slots), "G1: {pool}");
            }
            FromAgent::Reports { pool, rows, .. } => {
                let session = self.session;
                for row in rows {
                    let id = attempt(pool, row.index, row.attempt);
                    let state = self.attempts.insert(id, State::Reported { session });
                    match state {
                        Some(State::Open) => {}
                        Some(State::Reported { session: before }) => {
                            assert_ne!(before, session, "{id} is reported once a session");
                        }
                        other => panic!("{id} is reported, but was {other:?}"),
                    }
                }
            }
            FromAgent::Retracted { pool, rows, .. } | FromAgent::PoolUnfit { pool, rows, .. } => {
                for row in rows {
                    let id = row.of_pool(pool);
                    let state = self.attempts.insert(id, State::GivenBack);
                    assert_eq!(state, Some(State::Open), "{id} is given back");
                    let held =
                        |worker: &Worker| worker.handed.iter().any(|task| task.attempt == id);
                    assert!(!self.workers.values().any(held), "{id} had not started");
                }
            }
            _ => {}
        }
    }

    fn hear_register(&mut self, registration: &Registration) {
        self.registered = true;
        let held: BTreeSet<AttemptId> = registration
            .held
            .iter()
            .map(|row| attempt(row.pool, row.index, row.attempt))
            .collect();
        assert_eq!(held.len(), registration.held.len(), "held once");
        for (id, state) in &mut self.attempts {
            let known = matches!(state, State::Open | State::Reported { .. });
            if held.contains(id) {
                assert!(known, "{id} is held but was {state:?}");
            } else if *state == State::Open {
                let may = self.lapsed || self.bare.contains(id);
                assert!(may, "{id} is lost without need");
                *state = State::Dropped;
                let in_hand =
                    |worker: &Worker| worker.handed.iter().any(|task| task.attempt == *id);
                assert!(!self.workers.values().any(in_hand), "{id} still runs");
            } else {
                assert!(!known, "{id} is forgotten unacknowledged");
            }
        }
        self.lapsed = false;
    }

    fn link_up(&mut self) {
        self.session += 1;
        self.up = true;
        self.registered = false;
        self.opened = false;
        self.sent.clear();
        self.event(Event::LinkUp {
            registration: Box::new(Registration::default()),
            lease_ms: LEASE_MS,
            now_us: 1,
        });
    }

    fn link_down(&mut self) {
        self.up = false;
        self.registered = false;
        self.event(Event::LinkDown);
    }

    fn renewed(&mut self) {
        if self.registered && !std::mem::replace(&mut self.opened, true) {
            self.open_pools();
        }
        if let Some((renewal, sent)) = self.sent.pop_last().filter(|_| self.up) {
            let end = sent + Duration::from_millis(LEASE_MS);
            if end > self.now {
                self.lease_end = self.lease_end.max(Some(end));
            }
            self.say(ToAgent::Renewed { renewal });
        }
    }

    fn grant(&mut self, pool: PoolId, count: u64) {
        if !self.registered || !self.opened {
            return;
        }
        let indexes = self.next..self.next + count;
        self.next += count;
        let row = |index| GrantRow {
            index,
            attempt: Attempt(1),
            spec: SpecId(0),
        };
        let rows = indexes.clone().map(row).collect();
        for index in indexes.clone() {
            let id = attempt(pool, index, Attempt(1));
            self.attempts.insert(id, State::Open);
        }
        self.say(ToAgent::Grant {
            pool,
            rows,
            payloads: indexes.map(|_| Bytes::new()).collect(),
        });
    }

    /// Cancels what was granted, or will never be.
    fn cancel(&mut self, pool: PoolId, index: u64) {
        let id = attempt(pool, index, Attempt(1));
        let state = self.attempts.get(&id).copied();
        let stranger = state.is_none() && index < FIRST;
        if !self.registered || !(stranger || state == Some(State::Open)) {
            return;
        }
        self.attempts.insert(id, State::Open);
        self.cancelled.insert(id);
        self.say(ToAgent::Cancel {
            pool,
            rows: vec![TaskRow::of(id)],
        });
    }

    fn ack(&mut self) {
        let told: Vec<AttemptId> = self
            .attempts
            .iter()
            .filter(|(_, state)| matches!(state, State::Reported { .. }))
            .map(|(id, _)| *id)
            .collect();
        if !self.registered {
            return;
        }
        for id in told {
            self.attempts.insert(id, State::Acknowledged);
            self.say(ToAgent::Ack {
                output: 0,
                pool: id.task.pool,
                rows: vec![TaskRow::of(id)],
            });
        }
    }

    fn allot(&mut self, pool: PoolId, slots: u16) {
        if !self.registered {
            return;
        }
        if self.lease_end.is_some_and(|end| end > self.now) || !self.lapsed {
            self.allotted.insert(pool, slots);
        }
        self.allotment += 1;
        self.say(ToAgent::Allot {
            pool,
            slots,
            allotment: self.allotment,
        });
    }

    fn retract(&mut self, pool: PoolId, count: u32) {
        self.retraction += 1;
        let retraction = self.retraction;
        if self.registered {
            self.say(ToAgent::Retract {
                pool,
                count,
                retraction,
            });
        }
    }

    fn pass(&mut self, ms: u64) {
        let end = self.now + Duration::from_millis(ms);
        while let Some(next) = self.core.poll_timeout().filter(|next| *next <= end) {
            self.now = self.now.max(next);
            self.event(Event::Tick);
        }
        self.now = end;
        self.event(Event::Tick);
    }

    /// Whatever a worker does next. `wild`: it may also die.
    fn step(&mut self, pick: usize, wild: u8) {
        let slots: Vec<u16> = self.workers.keys().copied().collect();
        if slots.is_empty() {
            return;
        }
        let slot = slots[pick % slots.len()];
        let worker = self.workers.get_mut(&slot).expect("just listed");
        let generation = worker.generation;
        let slot_no = SlotNo(slot);
        if worker.stopping || worker.killed || wild == 0 {
            self.workers.remove(&slot);
            let event = Event::WorkerEnded {
                slot: slot_no,
                generation,
                end: WorkerEnd::default(),
            };
            return self.event(event);
        }
        if !worker.ready {
            worker.ready = true;
            let event = Event::WorkerReady {
                slot: slot_no,
                generation,
                pid: 1,
            };
            return self.event(event);
        }
        if let Some(count) = worker.asked.filter(|_| wild.is_multiple_of(2)) {
            worker.asked = None;
            let keep =
                worker.handed.len() - (count as usize).min(worker.handed.len().saturating_sub(1));
            let attempts = worker
                .handed
                .drain(keep..)
                .map(|task| task.attempt)
                .collect();
            let event = Event::GivenBack {
                slot: slot_no,
                generation,
                attempts,
            };
            return self.event(event);
        }
        if let Some(task) = worker.handed.pop_front() {
            worker.kill_task = None;
            let event = Event::TaskEnded {
                slot: slot_no,
                generation,
                task: EndedTask {
                    attempt: task.attempt,
                    outcome: Outcome::Done,
                    payload: Bytes::new(),
                    pid: 1,
                    started_us: 1,
                    run_us: 3,
                },
            };
            self.event(event);
        }
    }

    /// Everything works from here on: all that was granted must come to an end.
    fn settle(&mut self) {
        let slots = u16::try_from(self.core.slots().count()).expect("a few slots");
        for _ in 0..3 {
            for pool in std::mem::take(&mut self.fetching) {
                self.event(Event::Content { pool, error: None });
            }
            if !self.up {
                self.link_up();
            }
            for step in 0..4000 {
                self.step(step, 4);
                self.renewed();
            }
            for pool in POOLS {
                self.allot(pool, slots);
            }
            self.pass(2000);
        }
        for step in 0..4000 {
            self.step(step, 4);
            self.step(step, 3);
        }
        let open = self
            .attempts
            .iter()
            .find(|(_, state)| **state == State::Open);
        assert_eq!(open, None, "every attempt ends");
    }
}

fn options(slots: u16) -> Options {
    Options {
        tells_facts: true,
        ..Options::new(slots)
    }
}

fn attempt(pool: PoolId, index: u64, attempt: Attempt) -> AttemptId {
    AttemptId {
        task: TaskId::new(pool, index),
        attempt,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_promised_holds(slots in 1u16..5, steps in prop::collection::vec((0u8..21, 0u8..20, 0u16..1000), 1..400)) {
        let mut world = World::new(slots);
        world.renewed();
        for (what, how, much) in steps {
            let pool = POOLS[usize::from(how) % POOLS.len()];
            match what {
                0 | 1 => world.grant(pool, u64::from(much % 40)),
                2 => world.cancel(pool, u64::from(much) % (world.next + 1)),
                3 => world.retract(pool, u32::from(much % 30)),
                4 | 5 => world.allot(pool, much % (slots + 1)),
                6 => world.pass(u64::from(much)),
                7 if how == 0 => world.pass(LEASE_MS + 1),
                8 if how < 5 && world.up => world.link_down(),
                8 | 9 if !world.up => world.link_up(),
                10 => world.renewed(),
                20 if how < 8 => world.restart(how < 2),
                11 => world.ack(),
                12 => {
                    let pool = world.fetching.pop_first();
                    if let Some(pool) = pool {
                        world.event(Event::Content { pool, error: None });
                    }
                }
                _ => world.step(usize::from(much), how),
            }
        }
        world.settle();
    }
}
