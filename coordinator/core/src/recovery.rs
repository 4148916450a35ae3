//! From facts back to a scheduler: what a predecessor wrote down is taken in, one by one, and then its hosts and clients
//! are waited for. And the other way: a scheduler as facts, so that a journal need not grow for ever.

use std::time::Duration;

use bytes::Bytes;
use fleetpool_proto::{
    Attempt, ClientId, HostId, Payloads, PoolId, SpecId, Timestamp,
    journal::{Fact, ReturnedRow},
    message::{ResultRow, TaskRow},
    selector::Selector,
};

use crate::{
    core::CoordinatorCore,
    host::HostState,
    pool::Pool,
    queue::{Pending, Tries},
    ranges::Ranges,
    retained::{Farewell, Finished, Retained},
    share::Granted,
    stop::lease,
};

impl CoordinatorCore {
    /// Takes in what a predecessor wrote down, in its order. Call [`Self::recovered`] after the last.
    pub fn recover(&mut self, now: Timestamp, fact: Fact) {
        self.now = now;
        match fact {
            // The shell's.
            Fact::Begin { .. } | Fact::Name { .. } | Fact::Client { .. } => {}
            Fact::Lease { ms, .. } => {
                let length = Duration::from_millis(ms);
                let longer = length > self.options.lease;
                self.older_leases = longer.then_some((length, Timestamp::default()));
            }
            Fact::Host { host, facts } => {
                let host = self.hosts.entry(host).or_default();
                host.facts = *facts;
                host.state = HostState::Away;
            }
            Fact::Cordoned { host, on } => self.hosts.entry(host).or_default().cordoned = on,
            Fact::Opened {
                pool,
                client,
                user,
                options,
            } => {
                // It was parsed before it was written.
                let Ok(selector) = Selector::parse(&options.on) else {
                    return;
                };
                let mut new = Pool::new(pool, client, user, *options, selector, &self.options);
                new.keeps = !new.is_detached();
                new.tells_safe = true;
                self.pools.insert(pool, new);
            }
            Fact::Over { pool } => self.recover_over(pool),
            Fact::Allotted {
                pool,
                host,
                slots,
                ceiling,
            } => self.recover_allotted(pool, host, slots, ceiling),
            Fact::Granted { pool, host, rows } => {
                self.hosts.entry(host).or_default();
                let now = self.now;
                self.with(pool, host, |pool, facts, _| {
                    facts.pools.insert(pool.id);
                    for row in rows {
                        recover_granted(pool, host, &row, now);
                    }
                });
            }
            fact => self.recover_of_pool(fact),
        }
    }

    fn recover_of_pool(&mut self, fact: Fact) {
        let now = self.now;
        let Some(pool) = pool_of(&fact).and_then(|pool| self.pools.get_mut(&pool)) else {
            return;
        };
        match fact {
            Fact::Defined { spec, body, .. } => {
                pool.specs.insert(spec, body);
            }
            Fact::Submitted {
                spec,
                first,
                hosts,
                payloads,
                ..
            } => recover_submitted(pool, spec, first, &hosts, payloads.into_items(), now),
            Fact::Returned { rows, .. } => {
                rows.iter().for_each(|row| recover_returned(pool, row, now))
            }
            Fact::Ended { rows, payloads, .. } => {
                recover_ended(pool, rows, payloads.into_items());
            }
            Fact::Consumed { tasks, .. } => pool.credit.on_consumed(tasks),
            Fact::Heard { rows, .. } => pool.retained.forget(rows),
            Fact::Cancelled { tasks, .. } => recover_cancelled(pool, &tasks),
            Fact::Resized { slots, .. } => pool.options.slots = slots,
            Fact::Closed { submitted, .. } => pool.closed = Some(submitted),
            Fact::Ending {
                reason, refusal, ..
            } => pool.farewell = Some(Farewell { reason, refusal }),
            Fact::Totals {
                seen,
                ended,
                failed,
                delivered,
                consumed,
                bytes_gone,
                attempts_after,
                ..
            } => {
                pool.attempts_after = attempts_after;
                pool.seen = Ranges::default();
                for (start, end) in seen {
                    pool.seen.insert(start, end);
                }
                (pool.ended, pool.failed) = (ended, failed);
                pool.credit.restore(delivered, consumed, bytes_gone);
                pool.retained = Retained::default();
            }
            _ => {}
        }
    }

    fn recover_over(&mut self, id: PoolId) {
        let Some(pool) = self.pools.remove(&id) else {
            return;
        };
        for (host_id, share) in pool.shares {
            if let Some(host) = self.hosts.get_mut(&host_id) {
                host.allotted -= u32::from(share.allot);
                host.ceilings -= u32::from(share.ceiling);
                host.pools.remove(&id);
            }
        }
    }

    fn recover_allotted(&mut self, pool: PoolId, id: HostId, slots: u16, ceiling: u16) {
        self.hosts.entry(id).or_default();
        self.with(pool, id, |pool, host, _| {
            host.pools.insert(pool.id);
            pool.set_slots(id, host, slots, ceiling);
            let gone = pool
                .shares
                .get(&id)
                .is_some_and(|share| share.tasks.is_empty());
            if slots == 0 && ceiling == 0 && gone {
                pool.shares.remove(&id);
                host.pools.remove(&pool.id);
            }
        });
    }

    /// All that was written down has been taken in. Hosts have their lease's time from now to come back with what they
    /// run, clients their grace; pools of others than `clients` are ended.
    ///
    /// `gap`: the end of what was written may be missing, as after a power cut. Then hosts may run what nobody knows of:
    /// nothing is granted before they have fenced it, and attempts get numbers that none of those has.
    pub fn recovered(&mut self, now: Timestamp, clients: &[ClientId], gap: bool) {
        self.now = self.now.max(now);
        let fence = self.longest_fence();
        if let Some((_, until)) = &mut self.older_leases {
            *until = self.now + fence;
        }
        if gap {
            self.settled_at = self.now + fence;
            for pool in self.pools.values_mut() {
                pool.attempts_after = Attempt(highest_attempt(pool).0 + ATTEMPTS_UNKNOWN_MAX);
                // Others are not granted before that is on disk.
                if pool.reruns() {
                    pool.queue.doubt_pinned();
                }
            }
        }
        let length = self.longest_lease();
        let hosts: Vec<HostId> = self.hosts.keys().copied().collect();
        for id in hosts {
            // One that had nothing when its coordinator stopped has nothing now.
            let idle = self
                .hosts
                .get(&id)
                .is_some_and(|host| host.pools.is_empty());
            let lease = self.options.lease;
            self.wait_for_lease(id, if idle && !gap { lease } else { length });
            if let Some(host) = self.hosts.get_mut(&id) {
                host.output_due = Some(u64::MAX);
            }
        }
        for &client in clients {
            let entry = self.clients.entry(client).or_default();
            entry.resumes = true;
            self.on_client_away(client);
        }
        let pools: Vec<PoolId> = self.pools.keys().copied().collect();
        for id in pools {
            self.recovered_pool(id);
        }
    }

    /// Whether nothing is granted yet, since hosts may run what nobody knows of. A coordinator that is killed now has a
    /// successor with the same `gap`.
    #[must_use]
    pub fn is_settling(&self) -> bool {
        self.settled_at > Timestamp::default()
    }

    fn recovered_pool(&mut self, id: PoolId) {
        let Some(pool) = self.pools.get_mut(&id) else {
            return;
        };
        let shares: Vec<HostId> = pool.shares.keys().copied().collect();
        let (client, ending, left) = (pool.client, pool.is_ending(), pool.is_left());
        for (_, (rows, _)) in pool.retained.iter() {
            let ran = rows.iter().filter(|row| row.attempt != Attempt::default());
            let ran = ran.filter(|row| self.hosts.contains_key(&row.host));
            let unprinted = ran.map(|row| (row.index, (row.host, row.attempt)));
            pool.unprinted.extend(unprinted);
        }
        for host in shares {
            self.with(id, host, |pool, facts, _| {
                let Some(share) = pool.shares.get(&host) else {
                    return;
                };
                let (allot, ceiling) = (share.allot, share.may_run_still().max(share.allot));
                pool.set_slots(host, facts, allot, ceiling);
                pool.reindex(host, facts);
            });
        }
        self.touched.insert(id);
        if ending {
            self.wind_up(id);
        } else if !left && !self.clients.contains_key(&client) {
            self.end_with_its_client(id);
        }
    }

    /// All that a successor needs to know, as if it had just been written down.
    #[must_use]
    pub fn snapshot(&self) -> Vec<Fact> {
        let mut facts = vec![lease(self.longest_lease(), false)];
        for (&id, host) in &self.hosts {
            let known = Box::new(host.facts.clone());
            facts.push(Fact::Host {
                host: id,
                facts: known,
            });
            if host.cordoned {
                facts.push(Fact::Cordoned { host: id, on: true });
            }
        }
        for pool in self.pools.values() {
            snapshot_pool(pool, &mut facts);
        }
        let finished = self.finished.iter().filter(|(_, pool)| !pool.detached);
        for (&id, pool) in finished {
            snapshot_finished(id, pool, &mut facts);
        }
        facts
    }

    /// Whether the client is connected, or may come back.
    #[must_use]
    pub fn knows(&self, client: ClientId) -> bool {
        self.clients.contains_key(&client)
    }

    /// Whether tasks of the pool may run a second time if nobody knows that they began.
    #[must_use]
    pub fn may_rerun(&self, pool: PoolId) -> bool {
        self.pools.get(&pool).is_none_or(Pool::reruns)
    }
}

/// Attempts of one task that may have been granted and not written down: far more than fit between two writes to a disk.
const ATTEMPTS_UNKNOWN_MAX: u32 = 1000;

fn highest_attempt(pool: &Pool) -> Attempt {
    let waiting = pool.queue.singles().map(|task| task.tries.attempt);
    let shares = pool.shares.values();
    let granted = shares.flat_map(|share| share.tasks.iter().map(|(_, task)| task.tries.attempt));
    let highest = waiting.chain(granted).max().unwrap_or_default();
    highest.max(pool.attempts_after)
}

fn pool_of(fact: &Fact) -> Option<PoolId> {
    match fact {
        Fact::Defined { pool, .. }
        | Fact::Submitted { pool, .. }
        | Fact::Returned { pool, .. }
        | Fact::Ended { pool, .. }
        | Fact::Heard { pool, .. }
        | Fact::Consumed { pool, .. }
        | Fact::Cancelled { pool, .. }
        | Fact::Resized { pool, .. }
        | Fact::Closed { pool, .. }
        | Fact::Ending { pool, .. }
        | Fact::Totals { pool, .. } => Some(*pool),
        _ => None,
    }
}

fn recover_submitted(
    pool: &mut Pool,
    spec: SpecId,
    first: u64,
    hosts: &[HostId],
    payloads: Vec<Bytes>,
    now: Timestamp,
) {
    let end = first + payloads.len() as u64;
    if !pool.seen.overlaps(first, end) {
        pool.seen.insert(first, end);
    }
    pool.cancelled_early
        .retain(|index| !(first..end).contains(index));
    pool.queue.submit(first, spec, now, hosts, payloads);
}

fn recover_granted(pool: &mut Pool, host: HostId, row: &TaskRow, now: Timestamp) {
    let Some(mut task) = pool.queue.take(row.index) else {
        return;
    };
    pool.credit.on_gone(task.new_bytes());
    task.tries.attempt = row.attempt;
    pool.granted += 1;
    pool.shares.entry(host).or_default().grant(task, now);
}

fn recover_returned(pool: &mut Pool, row: &ReturnedRow, now: Timestamp) {
    let task = match take_from_shares(pool, HostId::default(), row.index) {
        Some(task) => Some(task.back_to_pending(row.index, now)),
        None => pool.queue.take(row.index),
    };
    if let Some(mut task) = task {
        task.tries = Tries {
            attempt: row.attempt,
            host_lost: row.host_lost,
            worker_lost: row.worker_lost,
            failed: row.failed,
            may_have_begun: row.may_have_begun,
        };
        pool.queue.push(task);
    }
}

fn recover_ended(pool: &mut Pool, rows: Vec<ResultRow>, payloads: Vec<Bytes>) {
    let tasks = rows.len() as u64;
    let bytes = payloads.iter().map(|payload| payload.len() as u64).sum();
    for row in &rows {
        if take_from_shares(pool, row.host, row.index).is_none()
            && let Some(task) = pool.queue.take(row.index)
        {
            pool.credit.on_gone(task.new_bytes());
        }
        pool.ended += 1;
        if !row.outcome.is_success() {
            pool.failed += 1;
        }
    }
    pool.credit.on_result(bytes);
    pool.credit.on_delivered(tasks, bytes);
    if pool.is_detached() {
        pool.credit.on_consumed(pool.credit.delivered());
    } else {
        pool.retained.push((rows, payloads));
    }
}

/// Takes a task from the host that has it, most likely `host`.
fn take_from_shares(pool: &mut Pool, host: HostId, index: u64) -> Option<Granted> {
    let likely = pool.shares.get_mut(&host);
    let task = likely.and_then(|share| share.take(index));
    let task = task.or_else(|| {
        let mut shares = pool.shares.values_mut();
        shares.find_map(|share| share.take(index))
    })?;
    pool.granted -= 1;
    Some(task)
}

fn recover_cancelled(pool: &mut Pool, tasks: &[u64]) {
    for &index in tasks {
        if !pool.seen.contains(index) {
            pool.cancelled_early.insert(index);
            continue;
        }
        let mut shares = pool.shares.values_mut();
        if let Some(task) = shares.find_map(|share| share.tasks.get_mut(index)) {
            task.cancelled = true;
        }
    }
}

fn snapshot_pool(pool: &Pool, facts: &mut Vec<Fact>) {
    let id = pool.id;
    facts.push(Fact::Opened {
        pool: id,
        client: pool.client,
        user: pool.user.clone(),
        options: Box::new(pool.options.clone()),
    });
    for (&spec, body) in &pool.specs {
        facts.push(Fact::Defined {
            pool: id,
            spec,
            body: body.clone(),
        });
    }
    snapshot_totals(pool, facts);
    pool.queue.for_each_block(|first, spec, payloads| {
        facts.push(Fact::Submitted {
            pool: id,
            spec,
            first,
            hosts: Vec::new(),
            payloads: payloads.to_vec().into(),
        });
    });
    for task in pool.queue.singles() {
        snapshot_task(id, task, facts);
    }
    let mut cancelled: Vec<u64> = Vec::new();
    for (&host, share) in &pool.shares {
        let mut rows = Vec::new();
        for (index, task) in share.tasks.iter() {
            let pending = task.clone().back_to_pending(index, task.since);
            snapshot_task(id, &pending, facts);
            rows.push(TaskRow {
                index,
                attempt: task.tries.attempt,
            });
            cancelled.extend(task.cancelled.then_some(index));
        }
        facts.push(Fact::Allotted {
            pool: id,
            host,
            slots: share.allot,
            ceiling: share.ceiling,
        });
        facts.push(Fact::Granted {
            pool: id,
            host,
            rows,
        });
    }
    cancelled.extend(&pool.cancelled_early);
    if !cancelled.is_empty() {
        facts.push(Fact::Cancelled {
            pool: id,
            tasks: cancelled,
        });
    }
    facts.extend(pool.closed.map(|submitted| Fact::Closed {
        pool: id,
        submitted,
    }));
    facts.extend(ending(id, pool.farewell.as_ref()));
}

/// The sums, without the results that are kept, and those behind them.
fn snapshot_totals(pool: &Pool, facts: &mut Vec<Fact>) {
    let kept = pool.retained.iter().flat_map(|(_, (rows, _))| rows);
    let failed = kept.filter(|row| !row.outcome.is_success()).count() as u64;
    let rows = pool.retained.rows();
    facts.push(Fact::Totals {
        pool: pool.id,
        seen: pool.seen.iter().collect(),
        // A snapshot is taken when all that was decided has been sent.
        ended: pool.ended - rows,
        failed: pool.failed - failed,
        delivered: pool.credit.delivered() - rows,
        consumed: pool.credit.consumed(),
        bytes_gone: pool.credit.bytes_gone(),
        attempts_after: pool.attempts_after,
    });
    facts.extend(ended(pool.id, &pool.retained));
}

fn ended(pool: PoolId, retained: &Retained) -> impl Iterator<Item = Fact> + '_ {
    retained
        .iter()
        .map(move |(_, (rows, payloads))| Fact::Ended {
            pool,
            rows: rows.clone(),
            payloads: payloads.clone().into(),
        })
}

fn ending(pool: PoolId, farewell: Option<&Farewell>) -> Option<Fact> {
    farewell.map(|farewell| Fact::Ending {
        pool,
        reason: farewell.reason.clone(),
        refusal: farewell.refusal,
    })
}

/// A single task with its past.
fn snapshot_task(pool: PoolId, task: &Pending, facts: &mut Vec<Fact>) {
    facts.push(Fact::Submitted {
        pool,
        spec: task.spec,
        first: task.index,
        hosts: task.pin.into_iter().collect(),
        payloads: Payloads::from(vec![task.payload.clone()]),
    });
    if task.tries != Tries::default() {
        facts.push(Fact::Returned {
            pool,
            rows: vec![returned_row(task)],
        });
    }
}

/// A task that waits again, as a fact.
pub(crate) fn returned_row(task: &Pending) -> ReturnedRow {
    ReturnedRow {
        index: task.index,
        attempt: task.tries.attempt,
        host_lost: task.tries.host_lost,
        worker_lost: task.tries.worker_lost,
        failed: task.tries.failed,
        may_have_begun: task.tries.may_have_begun,
    }
}

pub(crate) fn snapshot_finished(id: PoolId, pool: &Finished, facts: &mut Vec<Fact>) {
    let before = pool.ended - pool.retained.rows();
    facts.push(Fact::Opened {
        pool: id,
        client: pool.client,
        user: String::new(),
        options: Box::default(),
    });
    facts.push(Fact::Totals {
        pool: id,
        seen: Vec::new(),
        ended: before,
        failed: 0,
        delivered: before,
        consumed: before,
        bytes_gone: 0,
        attempts_after: Attempt::default(),
    });
    facts.extend(ended(id, &pool.retained));
    facts.push(Fact::Closed {
        pool: id,
        submitted: pool.ended,
    });
    facts.extend(ending(id, pool.farewell.as_ref()));
}
