//! Which task goes to which slot, and what leaves before the next action is taken.

use bytes::Bytes;
use fleetpool_proto::{
    Attempt, HostId, Payloads, PoolId, Timestamp,
    journal::Fact,
    limits::{BATCH_BYTES_MAX, BATCH_TASKS_MAX},
    message::{GrantRow, Refusal, ResultRow, TaskRow, ToAgent, ToClient},
};

use crate::{
    allotment::retract,
    core::CoordinatorCore,
    host::{Host, Hosts},
    outbox::Outbox,
    pool::Pool,
    queue::{Pending, Queue},
    recovery::snapshot_finished,
    retained::{Farewell, Finished, Retained},
};

/// Bytes of arguments that a host is sent ahead of its slots.
const AHEAD_BYTES_MAX: u64 = 4 << 20;
/// Bytes of results in one message, unless a single one is larger.
const RESULT_BYTES_MAX: usize = 8 << 20;

impl CoordinatorCore {
    /// Does what the events since the last action led to: grants, allotments, retractions, results.
    pub(crate) fn place(&mut self) {
        if self.touched.is_empty() && !self.has_unmet_supply() {
            return;
        }
        let mut touched = std::mem::take(&mut self.touched);
        for &pool in &touched {
            self.feed(pool);
        }
        let gained = if self.stopping {
            Vec::new()
        } else {
            self.allot()
        };
        for pool in gained {
            self.feed(pool);
            touched.insert(pool);
        }
        touched.append(&mut self.touched);
        for pool in touched {
            self.finish_pass(pool);
        }
    }

    fn has_unmet_supply(&self) -> bool {
        self.unmet
            .iter()
            .filter_map(|id| self.pools.get(id))
            .any(|pool| {
                pool.asked_in_vain
                    .is_none_or(|(supply, _)| supply != self.supply)
            })
    }

    fn feed(&mut self, id: PoolId) {
        let now = self.now;
        let Some(pool) = self.pools.get_mut(&id) else {
            return;
        };
        record_returned(pool, &mut self.outbox);
        let grants = self.now >= self.settled_at && !self.stopping;
        if grants && !pool.is_ending() && !pool.credit.is_exhausted() {
            feed_pinned(pool, &self.hosts, &mut self.outbox, now);
            feed_idle(pool, &self.hosts, &mut self.outbox, now);
            feed_ahead(pool, &self.hosts, &mut self.outbox, now);
        }
        let unmet = is_unmet(pool, &self.hosts);
        let leaves_slots_idle = !pool.idle.is_empty() && !pool.is_hungry();
        if unmet {
            self.unmet.insert(id);
        } else {
            self.unmet.remove(&id);
        }
        if leaves_slots_idle && !self.unmet.is_empty() {
            self.supply += 1;
        }
    }

    /// After slots and tasks have been given out: takes tasks back for idle slots, and tells the client.
    fn finish_pass(&mut self, id: PoolId) {
        let Some(pool) = self.pools.get_mut(&id) else {
            return;
        };
        if self.options.retracts() {
            steal(pool, &self.hosts, &mut self.outbox);
        }
        self.send_results(id);
        let Some(pool) = self.pools.get_mut(&id) else {
            return;
        };
        tell_client(pool, &mut self.outbox);
        if let Some(farewell) = pool.why_hopeless(&self.hosts) {
            self.begin_end(id, farewell);
        }
        self.end_if_over(id);
    }

    fn send_results(&mut self, id: PoolId) {
        let Some(pool) = self.pools.get_mut(&id) else {
            return;
        };
        let client = pool.client;
        let rows = std::mem::take(&mut pool.out_rows);
        let payloads = std::mem::take(&mut pool.out_payloads);
        let mut hosts: Vec<HostId> = rows
            .iter()
            .filter(|row| row.attempt != Attempt::default())
            .map(|row| row.host)
            .collect();
        hosts.dedup();
        for host in hosts {
            self.name_host(client, host);
        }
        for batch in batches(rows.into_iter().zip(payloads)) {
            self.send_batch(id, batch);
        }
    }

    fn send_batch(
        &mut self,
        pool: PoolId,
        (rows, payloads, bytes): (Vec<ResultRow>, Vec<Bytes>, usize),
    ) {
        let Some(found) = self.pools.get_mut(&pool) else {
            return;
        };
        found.credit.on_delivered(rows.len() as u64, bytes as u64);
        let number = if found.keeps {
            found.retained.push((rows.clone(), payloads.clone()))
        } else {
            0
        };
        let payloads = Payloads::from(payloads);
        let detached = found.is_detached();
        if detached {
            // They are kept, which is as good as consumed.
            let delivered = found.credit.delivered();
            found.credit.on_consumed(delivered);
        }
        self.outbox.record(|| Fact::Ended {
            pool,
            rows: rows.clone(),
            payloads: match detached {
                true => vec![Bytes::new(); rows.len()].into(),
                false => payloads.clone(),
            },
        });
        let results = ToClient::Results {
            pool,
            number,
            rows,
            payloads,
        };
        if !found.results_wait {
            self.outbox.client(found.client, results);
        }
    }

    /// Forgets a pool when nothing more can come of it.
    fn end_if_over(&mut self, id: PoolId) {
        let over = self.pools.get(&id).is_some_and(|pool| {
            let complete = pool.is_complete() && self.is_printed(pool);
            complete && !pool.is_ending() || pool.is_ending() && pool.is_drained()
        });
        if !over {
            return;
        }
        let Some(mut pool) = self.pools.remove(&id) else {
            return;
        };
        self.unmet.remove(&id);
        for (&host_id, share) in &pool.shares {
            let Some(host) = self.hosts.get_mut(&host_id) else {
                continue;
            };
            host.allotted -= u32::from(share.allot);
            host.ceilings -= u32::from(share.ceiling);
            host.pools.remove(&id);
            if share.opened {
                self.outbox
                    .agent(host_id, host, ToAgent::ClosePool { pool: id });
            }
            self.refresh_free(host_id);
        }
        self.supply += 1;
        self.outbox
            .client(pool.client, ToClient::PoolEnded { pool: id });
        let (ending, detached) = (pool.is_ending(), pool.is_detached());
        let comes_back = pool.tells_safe && !pool.is_left();
        let comes_back = comes_back && self.clients.contains_key(&pool.client);
        if ending || detached || !comes_back {
            self.outbox.record(|| Fact::Over { pool: id });
        }
        if !comes_back {
            return;
        }
        let retained = std::mem::take(&mut pool.retained);
        let finished = Finished {
            client: pool.client,
            retained: if ending {
                Retained::default()
            } else {
                retained
            },
            ended: pool.ended,
            farewell: pool.farewell,
            detached,
        };
        if ending && !detached {
            // What its hosts had is not written down as ended.
            let mut facts = Vec::new();
            snapshot_finished(id, &finished, &mut facts);
            facts
                .into_iter()
                .for_each(|fact| self.outbox.record(|| fact));
        }
        self.finished.insert(id, finished);
    }
}

impl CoordinatorCore {
    /// Whether the client has all that its tasks printed: until then agents keep it, which forget it with the pool.
    fn is_printed(&self, pool: &Pool) -> bool {
        let mut hosts = self.hosts.values();
        let of_pool = |host: &Host| host.in_flight.iter().any(|printed| printed.pool == pool.id);
        pool.unprinted.is_empty() && !(pool.keeps && hosts.any(of_pool))
    }
}

/// Results in messages of their size, with the bytes in each.
fn batches(
    results: impl IntoIterator<Item = (ResultRow, Bytes)>,
) -> Vec<(Vec<ResultRow>, Vec<Bytes>, usize)> {
    let mut batches: Vec<(Vec<ResultRow>, Vec<Bytes>, usize)> = Vec::new();
    for (row, payload) in results {
        let fits = |batch: &&mut (Vec<ResultRow>, Vec<Bytes>, usize)| {
            batch.2 + payload.len() <= RESULT_BYTES_MAX && batch.0.len() < BATCH_TASKS_MAX
        };
        match batches.last_mut().filter(fits) {
            Some(batch) => {
                batch.2 += payload.len();
                batch.0.push(row);
                batch.1.push(payload);
            }
            None => {
                let bytes = payload.len();
                batches.push((vec![row], vec![payload], bytes));
            }
        }
    }
    batches
}

/// Writes down which tasks wait again, before they are given to anybody.
fn record_returned(pool: &mut Pool, outbox: &mut Outbox) {
    if !pool.returned.is_empty() {
        let rows = std::mem::take(&mut pool.returned);
        let pool = pool.id;
        outbox.record(|| Fact::Returned { pool, rows });
    }
}

impl Pool {
    /// Why no host can work for it, if that is so. One that is away is waited for as long as its lease lasts.
    fn why_hopeless(&mut self, hosts: &Hosts) -> Option<Farewell> {
        if self.eligible_hosts > 0 {
            self.unmatched = false;
            return None;
        }
        let (reason, refusal) = match &self.unfit_reason {
            Some(reason) => (reason.clone(), Refusal::Unfit),
            None if self.unmatched => (self.no_host_matches(), Refusal::NoHostMatches),
            None => return None,
        };
        let may_serve = |(&id, host): (&HostId, &Host)| self.may_use_again(id, host);
        let hopeless = !self.is_ending() && !hosts.iter().any(may_serve);
        let refusal = Some(refusal);
        hopeless.then_some(Farewell { reason, refusal })
    }
}

/// Whether the pool has tasks that no slot of its own can take.
fn is_unmet(pool: &Pool, hosts: &Hosts) -> bool {
    if pool.is_ending() || pool.credit.is_exhausted() {
        return false;
    }
    let anywhere = pool.is_hungry() && pool.demand() > pool.allotted;
    anywhere
        || pool.queue.pinned_hosts().any(|id| {
            let allot = pool.shares.get(&id).map_or(0, |share| share.allot);
            hosts
                .get(&id)
                .is_some_and(|host| pool.may_use(id, host) && allot < host.facts.slots)
        })
}

fn feed_pinned(pool: &mut Pool, hosts: &Hosts, outbox: &mut Outbox, now: Timestamp) {
    let waiting: Vec<HostId> = pool.queue.pinned_hosts().collect();
    for id in waiting {
        let idle = pool.idle.contains(&id);
        let count = pool.shares.get(&id).map_or(0, |share| share.idle());
        if let Some(host) = hosts.get(&id).filter(|_| idle) {
            grant(pool, id, host, outbox, now, count, |queue| {
                queue.pop_pinned(id)
            });
        }
    }
}

/// A task for every slot that has none.
fn feed_idle(pool: &mut Pool, hosts: &Hosts, outbox: &mut Outbox, now: Timestamp) {
    let some = usize::try_from(pool.queue.len()).unwrap_or(usize::MAX);
    let idle: Vec<HostId> = pool.idle.iter().copied().take(some).collect();
    for id in idle {
        let count = pool.shares.get(&id).map_or(0, |share| share.idle());
        if let Some(host) = hosts.get(&id) {
            grant(pool, id, host, outbox, now, count, Queue::pop);
        }
    }
}

/// Tasks ahead of the slots, to hide the round trip. Less and less of what is left, as in guided self-scheduling
/// (Polychronopoulos and Kuck, 1987), so that the hosts end together. No more than the client has room for the results of:
/// what is out comes back, however slowly the client reads.
fn feed_ahead(pool: &mut Pool, hosts: &Hosts, outbox: &mut Outbox, now: Timestamp) {
    if pool.queue.len() == 0 {
        return;
    }
    let shares = u64::try_from(pool.shares.len()).unwrap_or(u64::MAX).max(1);
    let some = usize::try_from(pool.queue.len()).unwrap_or(usize::MAX);
    let refill: Vec<HostId> = pool.refill.iter().copied().take(some).collect();
    for id in refill {
        let left = pool.queue.len();
        let (Some(share), Some(host)) = (pool.shares.get(&id), hosts.get(&id)) else {
            continue;
        };
        if left == 0 {
            return;
        }
        if share.bytes > AHEAD_BYTES_MAX {
            continue;
        }
        let guided = usize::try_from((left / (2 * shares)).max(1)).unwrap_or(usize::MAX);
        let missing = pool
            .depth(share, host.rtt)
            .saturating_sub(share.tasks.len());
        let count = missing.min(guided).min(pool.room_for_results());
        grant(pool, id, host, outbox, now, count, Queue::pop);
    }
}

/// Sends up to `count` tasks to a host.
fn grant(
    pool: &mut Pool,
    id: HostId,
    host: &Host,
    outbox: &mut Outbox,
    now: Timestamp,
    count: usize,
    pop: impl Fn(&mut Queue) -> Option<Pending>,
) {
    let Some(share) = pool.shares.get_mut(&id) else {
        return;
    };
    let mut batch = Batch::new(pool.id, id);
    for _ in 0..count {
        if share.bytes > AHEAD_BYTES_MAX && share.idle() == 0 {
            break;
        }
        let Some(mut task) = pop(&mut pool.queue) else {
            break;
        };
        pool.credit.on_gone(task.new_bytes());
        task.tries.attempt = task.tries.attempt.max(pool.attempts_after).next();
        if share.specs_sent.insert(task.spec) {
            batch.send(host, outbox);
            let body = pool.specs.get(&task.spec).cloned().unwrap_or_default();
            let (pool, spec) = (pool.id, task.spec);
            outbox.agent(id, host, ToAgent::Define { pool, spec, body });
        }
        if batch.is_full(task.payload.len()) {
            batch.send(host, outbox);
        }
        batch.push(&task);
        pool.granted += 1;
        share.grant(task, now);
    }
    batch.send(host, outbox);
    pool.reindex(id, host);
}

/// Tasks that leave for a host in one message.
struct Batch {
    pool: PoolId,
    host: HostId,
    rows: Vec<GrantRow>,
    payloads: Vec<Bytes>,
    bytes: usize,
}

impl Batch {
    fn new(pool: PoolId, host: HostId) -> Self {
        Self {
            pool,
            host,
            rows: Vec::new(),
            payloads: Vec::new(),
            bytes: 0,
        }
    }

    fn is_full(&self, more: usize) -> bool {
        self.rows.len() >= BATCH_TASKS_MAX || self.bytes + more > BATCH_BYTES_MAX
    }

    fn push(&mut self, task: &Pending) {
        self.bytes += task.payload.len();
        self.rows.push(GrantRow {
            index: task.index,
            attempt: task.tries.attempt,
            spec: task.spec,
        });
        self.payloads.push(task.payload.clone());
    }

    fn send(&mut self, host: &Host, outbox: &mut Outbox) {
        if self.rows.is_empty() {
            return;
        }
        self.bytes = 0;
        let row = |row: &GrantRow| TaskRow {
            index: row.index,
            attempt: row.attempt,
        };
        outbox.record(|| Fact::Granted {
            pool: self.pool,
            host: self.host,
            rows: self.rows.iter().map(row).collect(),
        });
        let message = ToAgent::Grant {
            pool: self.pool,
            rows: std::mem::take(&mut self.rows),
            payloads: Payloads::from(std::mem::take(&mut self.payloads)),
        };
        outbox.agent(self.host, host, message);
    }
}

/// Takes tasks from hosts that have them in stock, when slots stand idle elsewhere and nothing waits here (G2).
fn steal(pool: &mut Pool, hosts: &Hosts, outbox: &mut Outbox) {
    if pool.idle.is_empty() || pool.surplus.is_empty() || pool.queue.len() > 0 || pool.is_ending() {
        return;
    }
    let stocked: Vec<(u32, HostId)> = pool.surplus.iter().rev().copied().collect();
    let idle = pool.idle.iter().filter_map(|id| pool.shares.get(id));
    // A host has one slot idle at least: no more of them need counting than there are hosts to take from.
    let mut wanted: usize = idle.take(stocked.len()).map(|share| share.idle()).sum();
    for (surplus, id) in stocked {
        if wanted == 0 {
            return;
        }
        let Some(host) = hosts.get(&id) else { continue };
        let half = usize::try_from(surplus.div_ceil(2)).unwrap_or(usize::MAX);
        let taken = retract(pool, id, host, outbox, half);
        wanted = wanted.saturating_sub(taken);
    }
}

fn tell_client(pool: &mut Pool, outbox: &mut Outbox) {
    if pool.is_ending() {
        return;
    }
    let id = pool.id;
    if let Some((tasks, bytes)) = pool.credit.poll(pool.allotted) {
        let credit = ToClient::Credit {
            pool: id,
            tasks,
            bytes,
        };
        outbox.client(pool.client, credit);
    }
    let safe = (pool.seen.gap(), pool.closed.is_some());
    if pool.tells_safe && pool.submitted_told != Some(safe) {
        pool.submitted_told = Some(safe);
        let submitted = ToClient::Submitted {
            pool: id,
            tasks: safe.0,
            closed: safe.1,
        };
        outbox.client(pool.client, submitted);
    }
    let fits = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    let slots = (
        fits(pool.allotted),
        fits(pool.eligible_slots),
        pool.eligible_hosts,
    );
    if pool.slots_told != Some(slots) {
        pool.slots_told = Some(slots);
        let (allotted, eligible, hosts) = slots;
        let message = ToClient::Slots {
            pool: id,
            allotted,
            eligible,
            hosts,
        };
        outbox.client(pool.client, message);
    }
}
