//! An allotment: what is told to an agent about a pool's slots there, and what counts until it has answered.

use std::cmp::Reverse;

use fleetpool_proto::{
    HostId, PoolId,
    journal::Fact,
    message::{TaskRow, ToAgent},
};

use crate::{
    core::CoordinatorCore,
    host::{Host, HostState},
    outbox::Outbox,
    pool::Pool,
    settle::{self, Loser},
};

impl CoordinatorCore {
    /// Gives up to `slots` free slots of a host; tells how many there were.
    pub(crate) fn grow(&mut self, pool: PoolId, host: HostId, slots: u16) -> u16 {
        let grown = self.with(pool, host, |pool, facts, outbox| {
            let slots = slots.min(facts.free());
            if slots > 0 {
                let allot = pool.shares.get(&host).map_or(0, |share| share.allot);
                set_allot(pool, host, facts, outbox, allot + slots);
            }
            slots
        });
        self.touched.insert(pool);
        grown.unwrap_or(0)
    }

    /// Lowers the slots of a pool on a host. From an agent where it has none left all that has not begun comes back.
    pub(crate) fn shrink(&mut self, pool: PoolId, host: HostId, to: u16) {
        self.with(pool, host, |pool, facts, outbox| {
            let Some(share) = pool.shares.get(&host) else {
                return;
            };
            if share.allot <= to {
                return;
            }
            set_allot(pool, host, facts, outbox, to);
        });
        let lost = self.hosts.get(&host).is_some_and(|host| !host.is_up());
        let ending = self.pools.get(&pool).is_some_and(|pool| pool.is_ending());
        if lost && ending {
            self.end_share_of_lost(pool, host);
        }
        self.supply += 1;
    }

    /// An ending pool does not wait for a host that is fenced.
    fn end_share_of_lost(&mut self, pool: PoolId, id: HostId) {
        let now = self.now;
        self.with(pool, id, |pool, host, outbox| {
            if host.state == HostState::Lost {
                settle::lose_share(pool, id, host, Loser::Gone, now);
                record(pool, id, outbox);
            }
        });
    }

    /// Lowers a pool by `slots`, idle ones first.
    pub(crate) fn give_back_slots(&mut self, id: PoolId, slots: u64) {
        let Some(pool) = self.pools.get(&id) else {
            return;
        };
        let mut shares: Vec<(usize, HostId, u16)> = pool
            .shares
            .iter()
            .filter(|(_, share)| share.allot > 0)
            .map(|(&host, share)| (share.idle(), host, share.allot))
            .collect();
        shares.sort_unstable_by_key(|&(idle, host, _)| (Reverse(idle), host));
        let mut left = slots;
        for (_, host, allot) in shares {
            let taken = left.min(u64::from(allot));
            if taken == 0 {
                return;
            }
            left -= taken;
            self.shrink(id, host, allot - u16::try_from(taken).unwrap_or(allot));
        }
    }

    pub(crate) fn allot_of(&self, pool: PoolId, host: HostId) -> u16 {
        let share = self
            .pools
            .get(&pool)
            .and_then(|pool| pool.shares.get(&host));
        share.map_or(0, |share| share.allot)
    }
}

/// Writes down what the pool has of a host.
pub(crate) fn record(pool: &Pool, host: HostId, outbox: &mut Outbox) {
    let share = pool.shares.get(&host);
    outbox.record(|| Fact::Allotted {
        pool: pool.id,
        host,
        slots: share.map_or(0, |share| share.allot),
        ceiling: share.map_or(0, |share| share.ceiling),
    });
}

/// Tells the agent how many tasks of the pool it may run.
fn set_allot(pool: &mut Pool, id: HostId, host: &mut Host, outbox: &mut Outbox, slots: u16) {
    host.pools.insert(pool.id);
    let share = pool.shares.entry(id).or_default();
    share.allotment = outbox.number();
    let ceiling = share.may_run_still().max(slots);
    pool.set_slots(id, host, slots, ceiling);
    record(pool, id, outbox);
    tell_allot(pool, id, host, outbox);
    pool.reindex(id, host);
}

fn tell_allot(pool: &mut Pool, id: HostId, host: &Host, outbox: &mut Outbox) {
    let Some(share) = pool.shares.get_mut(&id) else {
        return;
    };
    // One that has not registered yet is told then: it may have a new life, in which the pool has nothing of it.
    if !host.is_up() {
        return;
    }
    if !share.opened {
        share.opened = true;
        let options = Box::new(pool.options.clone());
        let open = ToAgent::OpenPool {
            pool: pool.id,
            options,
        };
        outbox.agent(id, host, open);
        if pool.muted {
            let hold = ToAgent::Hold {
                pool: pool.id,
                on: true,
            };
            outbox.agent(id, host, hold);
        }
    }
    let allot = ToAgent::Allot {
        pool: pool.id,
        slots: share.allot,
        allotment: share.allotment,
    };
    outbox.agent(id, host, allot);
}

/// Tells a new session of a host what the pool has there.
pub(crate) fn retell(pool: &mut Pool, id: HostId, host: &mut Host, outbox: &mut Outbox) {
    let Some(share) = pool.shares.get_mut(&id) else {
        return;
    };
    share.allotment = outbox.number();
    let rows: Vec<TaskRow> = share
        .tasks
        .iter()
        .filter(|(_, task)| task.cancelled)
        .map(|(index, task)| TaskRow {
            index,
            attempt: task.tries.attempt,
        })
        .collect();
    tell_allot(pool, id, host, outbox);
    if !rows.is_empty() {
        let pool = pool.id;
        outbox.agent(id, host, ToAgent::Cancel { pool, rows });
    }
    pool.reindex(id, host);
}

/// Asks for up to `count` of the tasks that were sent ahead. One request at a time is enough: its answer comes
/// within a round trip.
pub(crate) fn retract(
    pool: &mut Pool,
    id: HostId,
    host: &Host,
    outbox: &mut Outbox,
    count: usize,
) -> usize {
    let Some(share) = pool.shares.get_mut(&id) else {
        return 0;
    };
    let count = count.min(share.excess());
    if count == 0 || share.retraction.is_some() || host.session.is_none() {
        return 0;
    }
    let retraction = outbox.number();
    share.retraction = Some(retraction);
    let message = ToAgent::Retract {
        pool: pool.id,
        count: u32::try_from(count).unwrap_or(u32::MAX),
        retraction,
    };
    outbox.agent(id, host, message);
    pool.reindex(id, host);
    count
}
