//! What becomes of an attempt: a result, another try, or a typed loss (G3, G5).

use bytes::Bytes;
use fleetpool_proto::{
    HostId, Outcome, Timestamp,
    frame::encode_header,
    message::{ReportRow, ResultRow, TaskRow},
    outcome::Loss,
    time::micros,
};

use crate::{
    host::Host,
    pool::Pool,
    queue::Pending,
    share::{Granted, Share},
};

/// Why a host no longer has what it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loser {
    /// Its agent has begun a new life: nothing of the earlier one is left.
    Dead,
    /// Its lease has run out: what may be rerun has been killed there, the rest may still run.
    Fenced,
    /// It has been silent for so long that nobody waits any more.
    Gone,
}

/// Takes in how attempts ended. Reports of attempts that are not current are only acknowledged.
pub(crate) fn settle_reports(
    pool: &mut Pool,
    id: HostId,
    rows: Vec<ReportRow>,
    payloads: Vec<Bytes>,
    now: Timestamp,
    checks_attempts: bool,
) {
    let (mut run_us, mut bytes, mut learned) = (0, 0, 0);
    let Some(share) = pool.shares.get_mut(&id) else {
        return;
    };
    let mut ended = Vec::with_capacity(rows.len());
    for (row, payload) in rows.into_iter().zip(payloads) {
        let current = share.tasks.get(row.index);
        if !current.is_some_and(|task| task.tries.attempt == row.attempt || !checks_attempts) {
            continue;
        }
        if matches!(row.outcome, Outcome::Done | Outcome::Failed) {
            run_us += row.run_us;
            bytes += payload.len() as u64;
            learned += 1;
        }
        ended.extend(share.take(row.index).map(|task| (task, row, payload)));
    }
    pool.granted -= ended.len() as u64;
    for (task, row, payload) in ended {
        end_attempt(pool, id, task, row, payload, now);
    }
    pool.learn(run_us, bytes, learned);
}

/// An attempt has ended as `row` says: the task goes round again or is over.
fn end_attempt(
    pool: &mut Pool,
    host: HostId,
    mut task: Granted,
    row: ReportRow,
    payload: Bytes,
    now: Timestamp,
) {
    if may_retry(pool, &task, row.outcome) {
        task.tries.may_have_begun = true;
        match row.outcome {
            Outcome::Failed | Outcome::TimedOut => task.tries.failed += 1,
            Outcome::HostLost => task.tries.host_lost += 1,
            _ => task.tries.worker_lost += 1,
        }
        pool.put_back(task.back_to_pending(row.index, now));
        return;
    }
    let queued = task.granted_at.since(task.since);
    let result = ResultRow {
        index: row.index,
        attempt: row.attempt,
        outcome: row.outcome,
        host,
        slot: row.slot,
        pid: row.pid,
        started_us: row.started_us,
        run_us: row.run_us,
        queue_us: micros(queued),
    };
    deliver(pool, result, payload);
}

fn may_retry(pool: &Pool, task: &Granted, outcome: Outcome) -> bool {
    let retries = pool.options.retries;
    !task.cancelled
        && !pool.is_ending()
        && match outcome {
            Outcome::Failed | Outcome::TimedOut => task.tries.failed < retries.failed,
            Outcome::WorkerLost | Outcome::OutOfMemory => {
                task.tries.worker_lost < retries.worker_lost
            }
            // Of an agent that was replaced under a worker which had to end with it: as good as fenced.
            Outcome::HostLost => task.tries.host_lost < retries.host_lost,
            _ => false,
        }
}

/// The task is over: its one outcome goes to the client.
fn deliver(pool: &mut Pool, row: ResultRow, payload: Bytes) {
    if pool.is_ending() {
        return;
    }
    pool.ended += 1;
    if !row.outcome.is_success() {
        pool.failed += 1;
    }
    pool.credit.on_result(payload.len() as u64);
    pool.out_rows.push(row);
    pool.out_payloads.push(payload);
}

/// The task is over without having been reported by an agent.
pub(crate) fn deliver_loss(pool: &mut Pool, index: u64, outcome: Outcome, loss: &Loss) {
    let row = ResultRow {
        index,
        outcome,
        ..ResultRow::default()
    };
    deliver(pool, row, encode_header(loss));
}

/// Tasks that may run on this host only, which cannot run them, end here (G4).
pub(crate) fn refuse_pinned(pool: &mut Pool, id: HostId, why: &str) {
    let loss = Loss::because(why);
    while let Some(task) = pool.queue.pop_pinned(id) {
        let outcome = if task.tries.may_have_begun {
            Outcome::HostLost
        } else {
            Outcome::NotStarted
        };
        pool.credit.on_gone(task.new_bytes());
        deliver_loss(pool, task.index, outcome, &loss);
    }
}

/// A host gives back an attempt that it had not started: moved, free of charge.
pub(crate) fn take_back(pool: &mut Pool, id: HostId, row: &TaskRow, now: Timestamp) {
    let share = pool.shares.get(&id);
    let current = share.and_then(|share| share.tasks.get(row.index));
    if current.is_some_and(|task| task.tries.attempt == row.attempt) {
        requeue_unstarted(pool, id, row.index, now);
    }
}

/// Puts back a task that its host has certainly not started.
pub(crate) fn requeue_unstarted(pool: &mut Pool, id: HostId, index: u64, now: Timestamp) {
    let Some(task) = take(pool, id, index) else {
        return;
    };
    if task.cancelled {
        let loss = Loss::because("cancelled before it started");
        deliver_loss(pool, index, Outcome::Cancelled, &loss);
    } else {
        put_back(pool, task.back_to_pending(index, now));
    }
}

fn put_back(pool: &mut Pool, task: Pending) {
    if !pool.is_ending() {
        pool.put_back(task);
    }
}

fn take(pool: &mut Pool, id: HostId, index: u64) -> Option<Granted> {
    let task = pool.shares.get_mut(&id)?.take(index)?;
    pool.granted -= 1;
    Some(task)
}

/// Takes from a lost host what the pool had there. What may still be running stays counted against N (G1).
pub(crate) fn lose_share(
    pool: &mut Pool,
    id: HostId,
    host: &mut Host,
    loser: Loser,
    now: Timestamp,
) {
    let Some(share) = pool.shares.get(&id) else {
        return;
    };
    let waits = pool.options.waits_for_lost && !pool.reruns() && !pool.is_ending();
    if loser == Loser::Fenced && waits && !share.tasks.is_empty() {
        let may_run = share.may_run_still();
        pool.set_slots(id, host, 0, may_run);
        pool.reindex(id, host);
        return;
    }
    pool.set_slots(id, host, 0, 0);
    host.pools.remove(&pool.id);
    pool.forget_stock(id);
    if let Some(share) = pool.shares.remove(&id) {
        lose_tasks(pool, id, host, share, now);
    }
    pool.reindex(id, host);
}

fn lose_tasks(pool: &mut Pool, id: HostId, host: &Host, share: Share, now: Timestamp) {
    let loss = Loss::because(format!("host {} was lost", host.facts.name));
    for (index, mut task) in share.tasks.into_iter() {
        pool.granted -= 1;
        task.tries.may_have_begun = true;
        if task.running.is_some() {
            task.tries.host_lost += 1;
        }
        let outcome = if task.cancelled {
            Outcome::Cancelled
        } else if !pool.reruns() {
            Outcome::Unknown
        } else if task.tries.host_lost > pool.options.retries.host_lost {
            Outcome::HostLost
        } else {
            put_back(pool, task.back_to_pending(index, now));
            continue;
        };
        let (slot, pid) = task.running.unwrap_or_default();
        let row = ResultRow {
            index,
            attempt: task.tries.attempt,
            outcome,
            host: id,
            slot,
            pid,
            ..ResultRow::default()
        };
        deliver(pool, row, encode_header(&loss));
    }
}
