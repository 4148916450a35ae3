//! How many tasks a second go through the core alone: granted in batches, handed to native workers, ended in
//! batches, reported and acknowledged.
#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a bench has a clock and says what it found"
)]

use std::time::Instant;

use bytes::Bytes;
use fleetpool_agent_core::{Action, AgentCore, EndedTask, Event, Options};
use fleetpool_proto::{
    Attempt, AttemptId, Outcome, PoolId, SpecId, Timestamp,
    message::{FromAgent, GrantRow, Registration, TaskRow, ToAgent},
    pool::{ContentHash, PoolOptions, Runtime, Spec},
};

const POOL: PoolId = PoolId(1);
const TASKS: u64 = 2_000_000;
const BATCH: u64 = 1024;

fn main() {
    for slots in [2, 64] {
        let start = Instant::now();
        let ended = run(slots);
        let seconds = start.elapsed().as_secs_f64();
        let millions = TASKS as f64 / seconds / 1e6;
        println!("{slots:>4} slots: {ended} tasks, {millions:.2} million tasks/s");
    }
}

fn run(slots: u16) -> u64 {
    let mut now = Timestamp(1);
    let mut core = AgentCore::new(Options::new(slots));
    let options = PoolOptions {
        runtime: Runtime::Native {
            program: ContentHash([0; 32]),
            size: 1,
        },
        ..PoolOptions::default()
    };
    let registration = Box::new(Registration::default());
    core.handle(
        now,
        Event::LinkUp {
            registration,
            lease_ms: u64::MAX / 2,
            now_us: 1,
        },
    );
    while core.poll_action().is_some() {}
    let messages = [
        ToAgent::Renewed { renewal: 1 },
        ToAgent::OpenPool {
            pool: POOL,
            options: Box::new(options),
        },
        ToAgent::Define {
            pool: POOL,
            spec: SpecId(0),
            body: Box::new(Spec::default()),
        },
        ToAgent::Allot {
            pool: POOL,
            slots,
            allotment: 1,
        },
    ];
    for message in messages {
        core.handle(now, Event::Message(message));
    }
    core.handle(
        now,
        Event::Content {
            pool: POOL,
            error: None,
        },
    );
    let (mut granted, mut ended) = (0, 0);
    while ended < TASKS {
        if granted - ended < 4 * BATCH && granted < TASKS {
            core.handle(now, Event::Message(grant(granted)));
            granted += BATCH;
        }
        now.0 += 10;
        let actions: Vec<Action> = std::iter::from_fn(|| core.poll_action()).collect();
        assert!(
            !actions.is_empty() || granted - ended < 4 * BATCH,
            "nothing to do"
        );
        for action in actions {
            ended += answer(&mut core, now, action);
        }
    }
    ended
}

fn grant(first: u64) -> ToAgent {
    let row = |index| GrantRow {
        index,
        attempt: Attempt(1),
        spec: SpecId(0),
    };
    ToAgent::Grant {
        pool: POOL,
        rows: (first..first + BATCH).map(row).collect(),
        payloads: (0..BATCH).map(|_| Bytes::from_static(b"1234")).collect(),
    }
}

/// Does what the shell and the coordinator would; tells how many tasks have been reported.
fn answer(core: &mut AgentCore, now: Timestamp, action: Action) -> u64 {
    match action {
        Action::StartWorker {
            slot, generation, ..
        } => core.handle(
            now,
            Event::WorkerReady {
                slot,
                generation,
                pid: 1,
            },
        ),
        Action::Run {
            slot,
            generation,
            tasks,
        } => {
            for task in tasks {
                let task = ended(task.attempt);
                core.handle(
                    now,
                    Event::TaskEnded {
                        slot,
                        generation,
                        task,
                    },
                );
            }
        }
        Action::Send(FromAgent::Reports { pool, rows, .. }) => {
            let count = rows.len() as u64;
            let rows = rows
                .iter()
                .map(|row| TaskRow {
                    index: row.index,
                    attempt: row.attempt,
                })
                .collect();
            core.handle(
                now,
                Event::Message(ToAgent::Ack {
                    pool,
                    output: 0,
                    rows,
                }),
            );
            return count;
        }
        _ => {}
    }
    0
}

fn ended(attempt: AttemptId) -> EndedTask {
    EndedTask {
        attempt,
        outcome: Outcome::Done,
        payload: Bytes::from_static(b"5678"),
        pid: 1,
        started_us: 1,
        run_us: 1,
    }
}
