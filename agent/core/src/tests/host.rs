//! A host whose shell is the test: every event is said by hand, every action is looked at.

use std::time::Duration;

use bytes::Bytes;
use fleetpool_proto::{
    Attempt, AttemptId, Outcome, PoolId, SlotNo, SpecId, TaskId, Timestamp,
    frame::decode_header,
    message::{FromAgent, GrantRow, HeldState, Registration, ReportRow, TaskRow, ToAgent},
    outcome::Loss,
    pool::{ContentHash, PoolOptions, Runtime, Spec},
};

use crate::{Action, AgentCore, EndedTask, Event, Options, WorkerEnd};

pub(super) const LEASE: Duration = Duration::from_secs(30);
pub(super) const POOL: PoolId = PoolId(1);

pub(super) struct Host {
    pub(super) core: AgentCore,
    now: Timestamp,
    renewal: u64,
}

/// The first try of the `index`-th task.
pub(super) fn task(index: u64) -> AttemptId {
    AttemptId {
        task: TaskId::new(POOL, index),
        attempt: Attempt(1),
    }
}

pub(super) fn command() -> PoolOptions {
    PoolOptions::default()
}

pub(super) fn native() -> PoolOptions {
    PoolOptions {
        runtime: Runtime::Native {
            program: ContentHash([0; 32]),
            size: 1,
        },
        ..PoolOptions::default()
    }
}

/// What may not run twice.
pub(super) fn once(mut options: PoolOptions) -> PoolOptions {
    options.retries.host_lost = 0;
    options
}

impl Host {
    pub(super) fn new(slots: u16) -> Self {
        Self {
            core: AgentCore::new(Options::new(slots)),
            now: Timestamp(1_000_000),
            renewal: 0,
        }
    }

    /// A host with a session and a lease.
    pub(super) fn online(slots: u16) -> Self {
        let mut host = Self::new(slots);
        host.link_up();
        host.renewed();
        host
    }

    /// … and a pool that has all its slots, with the program here.
    pub(super) fn with_pool(slots: u16, options: PoolOptions) -> Self {
        let mut host = Self::online(slots);
        host.open(POOL, options);
        host.allot(POOL, slots, 1);
        host
    }

    /// … and workers for `slots` tasks, which wait.
    pub(super) fn with_idle_workers(slots: u16, options: PoolOptions) -> Self {
        let mut host = Self::with_pool(slots, options);
        host.grant(0..u64::from(slots));
        (0..slots).for_each(|slot| drop(host.ready(slot)));
        for slot in 0..slots {
            host.done(slot, u64::from(slot), 5_000_000);
        }
        host.ack(0..u64::from(slots));
        host
    }

    pub(super) fn open(&mut self, pool: PoolId, options: PoolOptions) {
        let fetch = options.runtime != Runtime::Command;
        self.say(ToAgent::OpenPool {
            pool,
            options: Box::new(options),
        });
        self.define(pool, 1, Spec::default());
        if fetch {
            self.event(Event::Content { pool, error: None });
        }
    }

    pub(super) fn define(&mut self, pool: PoolId, spec: u32, body: Spec) {
        self.say(ToAgent::Define {
            pool,
            spec: SpecId(spec),
            body: Box::new(body),
        });
    }

    pub(super) fn allot(&mut self, pool: PoolId, slots: u16, allotment: u64) -> Vec<Action> {
        self.say(ToAgent::Allot {
            pool,
            slots,
            allotment,
        })
    }

    pub(super) fn grant(&mut self, indexes: std::ops::Range<u64>) -> Vec<Action> {
        self.say(grant_of(POOL, indexes, 1))
    }

    pub(super) fn say(&mut self, message: ToAgent) -> Vec<Action> {
        self.event(Event::Message(message))
    }

    pub(super) fn event(&mut self, event: Event) -> Vec<Action> {
        self.core.handle(self.now, event);
        self.actions()
    }

    /// An event whose consequences are not asked for yet.
    pub(super) fn quietly(&mut self, event: Event) {
        self.core.handle(self.now, event);
    }

    pub(super) fn actions(&mut self) -> Vec<Action> {
        std::iter::from_fn(|| self.core.poll_action()).collect()
    }

    pub(super) fn pass(&mut self, time: Duration) -> Vec<Action> {
        self.now = self.now + time;
        self.event(Event::Tick)
    }

    /// Ticks as the shell does, at each timeout, until `time` has passed.
    pub(super) fn live(&mut self, time: Duration) -> Vec<Action> {
        let end = self.now + time;
        let mut actions = Vec::new();
        while let Some(next) = self.core.poll_timeout().filter(|next| *next <= end) {
            self.now = self.now.max(next);
            actions.extend(self.event(Event::Tick));
        }
        self.now = end;
        actions
    }

    pub(super) fn link_up(&mut self) -> Vec<Action> {
        let actions = self.event(Event::LinkUp {
            registration: Box::new(Registration::default()),
            lease_ms: 30_000,
            now_us: 5_000_000_000,
        });
        self.renewal += u64::from(!renewals(&actions).is_empty());
        actions
    }

    pub(super) fn renewed(&mut self) -> Vec<Action> {
        let renewal = self.renewal;
        self.say(ToAgent::Renewed { renewal })
    }

    pub(super) fn ready(&mut self, slot: u16) -> Vec<Action> {
        let generation = self.generation(slot);
        self.event(Event::WorkerReady {
            slot: SlotNo(slot),
            generation,
            pid: 100 + u32::from(slot),
        })
    }

    pub(super) fn generation(&self, slot: u16) -> u64 {
        let view = self.core.slots().nth(usize::from(slot));
        view.map_or(0, |view| view.generation)
    }

    pub(super) fn ended(&self, slot: u16, index: u64, outcome: Outcome, run_us: u64) -> Event {
        Event::TaskEnded {
            slot: SlotNo(slot),
            generation: self.generation(slot),
            task: EndedTask {
                attempt: task(index),
                outcome,
                payload: Bytes::from_static(b"result"),
                pid: 7,
                started_us: 1,
                run_us,
            },
        }
    }

    pub(super) fn done(&mut self, slot: u16, index: u64, run_us: u64) -> Vec<Action> {
        let event = self.ended(slot, index, Outcome::Done, run_us);
        self.event(event)
    }

    pub(super) fn given_back(&mut self, slot: u16, indexes: &[u64]) -> Vec<Action> {
        let generation = self.generation(slot);
        self.event(Event::GivenBack {
            slot: SlotNo(slot),
            generation,
            attempts: indexes.iter().map(|&index| task(index)).collect(),
        })
    }

    pub(super) fn worker_ended(&mut self, slot: u16, end: WorkerEnd) -> Vec<Action> {
        let generation = self.generation(slot);
        self.event(Event::WorkerEnded {
            slot: SlotNo(slot),
            generation,
            end,
        })
    }

    pub(super) fn worker_fenced(&mut self, slot: u16) -> Vec<Action> {
        let generation = self.generation(slot);
        self.event(Event::WorkerFenced {
            slot: SlotNo(slot),
            generation,
        })
    }

    pub(super) fn cancel(&mut self, indexes: &[u64]) -> Vec<Action> {
        self.say(ToAgent::Cancel {
            pool: POOL,
            rows: indexes
                .iter()
                .map(|&index| TaskRow::of(task(index)))
                .collect(),
        })
    }

    pub(super) fn ack(&mut self, indexes: std::ops::Range<u64>) {
        self.say(ToAgent::Ack {
            output: 0,
            pool: POOL,
            rows: indexes.map(|index| TaskRow::of(task(index))).collect(),
        });
    }
}

pub(super) fn grant_of(pool: PoolId, indexes: std::ops::Range<u64>, spec: u32) -> ToAgent {
    let row = |index| GrantRow {
        index,
        attempt: Attempt(1),
        spec: SpecId(spec),
    };
    ToAgent::Grant {
        pool,
        rows: indexes.clone().map(row).collect(),
        payloads: indexes.map(|_| Bytes::new()).collect(),
    }
}

pub(super) fn sent(actions: &[Action]) -> impl Iterator<Item = &FromAgent> {
    actions.iter().filter_map(|action| match action {
        Action::Send(message) => Some(message),
        _ => None,
    })
}

/// What is said to run: `(slot, index)` in order.
pub(super) fn runs(actions: &[Action]) -> Vec<(u16, u64)> {
    let of = |action: &Action| match action {
        Action::Run { slot, tasks, .. } => tasks
            .iter()
            .map(|start| (slot.0, start.attempt.task.index))
            .collect(),
        _ => Vec::new(),
    };
    actions.iter().flat_map(of).collect()
}

pub(super) fn reports(actions: &[Action]) -> Vec<(u64, Outcome)> {
    let row = |(row, _): (ReportRow, Loss)| (row.index, row.outcome);
    reports_whole(actions).into_iter().map(row).collect()
}

pub(super) fn reports_whole(actions: &[Action]) -> Vec<(ReportRow, Loss)> {
    let of = |message: &FromAgent| match message {
        FromAgent::Reports { rows, payloads, .. } => rows
            .iter()
            .zip(payloads.items())
            .map(|(row, payload)| (row.clone(), decode_header(payload).unwrap_or_default()))
            .collect(),
        _ => Vec::new(),
    };
    sent(actions).flat_map(of).collect()
}

pub(super) fn allotted(actions: &[Action]) -> Vec<(u16, u64)> {
    let of = |message: &FromAgent| match message {
        FromAgent::Allotted {
            slots, allotment, ..
        } => Some((*slots, *allotment)),
        _ => None,
    };
    sent(actions).filter_map(of).collect()
}

pub(super) fn retracted(actions: &[Action]) -> Vec<(u64, Vec<u64>)> {
    let of = |message: &FromAgent| match message {
        FromAgent::Retracted {
            retraction, rows, ..
        } => Some((*retraction, rows.iter().map(|row| row.index).collect())),
        _ => None,
    };
    sent(actions).filter_map(of).collect()
}

pub(super) fn renewals(actions: &[Action]) -> Vec<u64> {
    let of = |message: &FromAgent| match message {
        FromAgent::Renew { renewal, .. } => Some(*renewal),
        _ => None,
    };
    sent(actions).filter_map(of).collect()
}

pub(super) fn held(actions: &[Action]) -> Option<Vec<(u64, HeldState)>> {
    sent(actions).find_map(|message| match message {
        FromAgent::Register(registration) => Some(
            registration
                .held
                .iter()
                .map(|row| (row.index, row.state))
                .collect(),
        ),
        _ => None,
    })
}

/// When the keepers are told to fence, in milliseconds after the start.
pub(super) fn fences(actions: &[Action]) -> Vec<Option<u64>> {
    let of = |action: &Action| match action {
        Action::FenceAt { time } => Some(time.map(|time| time.0 / 1000 - 1000)),
        _ => None,
    };
    actions.iter().filter_map(of).collect()
}

/// The names of actions that are neither messages nor about the fence.
pub(super) fn deeds(actions: &[Action]) -> Vec<&'static str> {
    let deed = |action: &&Action| !matches!(action, Action::Send(_) | Action::FenceAt { .. });
    actions.iter().filter(deed).map(Action::name).collect()
}
