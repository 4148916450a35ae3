//! Attempts that a host has and nobody here knows of: a predecessor granted them and lost its power before that was on disk.

use fleetpool_proto::{
    HostId, PoolId,
    journal::Fact,
    message::{HeldRow, HeldState, TaskRow},
};

use crate::{core::CoordinatorCore, host::Host, outbox::Outbox, pool::Pool};

impl CoordinatorCore {
    /// Takes what has begun on the host, and still waits here, for what it is.
    pub(crate) fn adopt(&mut self, id: HostId, held: &[HeldRow]) {
        let mut pools: Vec<PoolId> = held.iter().map(|row| row.pool).collect();
        pools.sort_unstable();
        pools.dedup();
        let now = self.now;
        for pool in pools {
            self.with(pool, id, |pool, host, outbox| {
                let rows = held.iter().filter(|row| row.pool == pool.id);
                let begun = rows.filter(|row| row.state != HeldState::Queued);
                let unknown: Vec<&HeldRow> =
                    begun.filter(|row| is_unknown(pool, id, row)).collect();
                if !unknown.is_empty() && !pool.is_ending() {
                    adopt_rows(pool, id, host, outbox, &unknown, now);
                }
            });
        }
    }
}

fn is_unknown(pool: &Pool, id: HostId, row: &HeldRow) -> bool {
    let share = pool.shares.get(&id);
    share.is_none_or(|share| share.tasks.get(row.index).is_none())
}

fn adopt_rows(
    pool: &mut Pool,
    id: HostId,
    host: &mut Host,
    outbox: &mut Outbox,
    rows: &[&HeldRow],
    now: fleetpool_proto::Timestamp,
) {
    let mut adopted = Vec::new();
    let mut running = 0;
    for row in rows {
        // What is granted to another host by now is that one's.
        let Some(mut task) = pool.queue.take(row.index) else {
            continue;
        };
        if task.tries.attempt >= row.attempt {
            pool.queue.push(task);
            continue;
        }
        pool.credit.on_gone(task.new_bytes());
        task.tries.attempt = row.attempt;
        pool.granted += 1;
        pool.shares.entry(id).or_default().grant(task, now);
        running += u16::from(row.state == HeldState::Running);
        adopted.push(TaskRow {
            index: row.index,
            attempt: row.attempt,
        });
    }
    if adopted.is_empty() {
        return;
    }
    host.pools.insert(pool.id);
    // They run, so they count, whatever was allotted.
    let share = pool.shares.get(&id);
    let (allot, ceiling) = share.map_or((0, 0), |share| (share.allot, share.ceiling));
    pool.set_slots(id, host, allot, ceiling + running);
    let pool = pool.id;
    outbox.record(|| Fact::Granted {
        pool,
        host: id,
        rows: adopted,
    });
}
