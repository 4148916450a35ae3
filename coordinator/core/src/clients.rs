//! What clients say.

use std::collections::btree_map::Entry;

use bytes::Bytes;
use fleetpool_proto::{
    ClientId, HostId, PoolId, SpecId,
    journal::Fact,
    message::{FromClient, Refusal, TaskRow, ToAgent, ToClient},
    outcome::Loss,
    pool::PoolOptions,
    selector::Selector,
};

use crate::{core::CoordinatorCore, host::Host, pool::Pool, retained::Farewell, settle};

/// Why a detached job ends that nobody cancelled.
const UNFINISHED: &str = "the client that brought this job was gone before it had brought all of its tasks: the job is ended";

impl CoordinatorCore {
    pub(crate) fn on_client_message(&mut self, client: ClientId, message: FromClient) {
        if let FromClient::OpenPool { pool, options } = message {
            self.on_open_pool(client, pool, *options);
            return;
        }
        match message {
            FromClient::Define { pool, spec, body } => {
                if let Some(pool) = self.owned(client, pool) {
                    let id = pool.id;
                    if let Entry::Vacant(place) = pool.specs.entry(spec) {
                        let body = place.insert(body).clone();
                        self.outbox.record(|| Fact::Defined {
                            pool: id,
                            spec,
                            body,
                        });
                    }
                }
            }
            FromClient::Submit {
                pool,
                spec,
                first,
                hosts,
                payloads,
            } => self.on_submit(client, pool, spec, first, &hosts, payloads.into_items()),
            FromClient::Cancel { pool, tasks } => self.on_cancel(client, pool, tasks),
            FromClient::Close { pool, submitted } => {
                if let Some(pool) = self.owned(client, pool) {
                    pool.closed = Some(submitted);
                    let id = pool.id;
                    self.outbox.record(|| Fact::Closed {
                        pool: id,
                        submitted,
                    });
                    self.touched.insert(id);
                }
            }
            FromClient::Terminate { pool } => {
                if self.owned(client, pool).is_some() {
                    self.begin_end(pool, Farewell::default());
                }
            }
            FromClient::Resize { pool, slots } => self.on_resize(client, pool, slots),
            FromClient::Consumed { pool, tasks } => {
                if let Some(pool) = self.owned(client, pool) {
                    pool.credit.on_consumed(tasks);
                    let (id, tasks) = (pool.id, pool.credit.consumed());
                    self.touched.insert(id);
                    self.outbox.record(|| Fact::Consumed { pool: id, tasks });
                }
            }
            FromClient::Resume { pools } => self.on_resume(client, &pools),
            FromClient::HeardOutput { host, life, number } => {
                self.on_output_heard(client, host, life, number);
            }
            FromClient::HeardResults { pool, number } => {
                self.on_results_heard(client, pool, number);
            }
            FromClient::Done { pool } => self.on_done(client, pool),
            // Questions and content are the shell's.
            FromClient::OpenPool { .. }
            | FromClient::Content { .. }
            | FromClient::Attach { .. }
            | FromClient::Ask { .. } => {}
        }
    }

    /// The pool of that number, if it is this client's.
    fn owned(&mut self, client: ClientId, pool: PoolId) -> Option<&mut Pool> {
        self.pools
            .get_mut(&pool)
            .filter(|pool| pool.client == client)
    }

    fn on_open_pool(&mut self, client: ClientId, id: PoolId, options: PoolOptions) {
        let refuse = |core: &mut Self, kind, reason: String| {
            let pool = id;
            core.outbox
                .client(client, ToClient::Refused { pool, reason, kind });
        };
        let over = self.clients.get(&client);
        let is_over = over.is_some_and(|client| client.over.contains(&id));
        if is_over
            || self.finished.contains_key(&id)
            || self.owned(client, id).is_some() && self.options.durable
        {
            // Said again by a client that is back.
            return;
        }
        if self.pools.contains_key(&id) {
            refuse(self, Refusal::Invalid, format!("pool {id} is open already"));
            return;
        }
        if options.slots == Some(0) {
            let reason = "a pool needs at least one slot: ask for 1 or more, or leave the number out for all";
            refuse(self, Refusal::Invalid, reason.to_owned());
            return;
        }
        if options.detached && !self.options.durable {
            let reason = "a job that is to go on by itself needs a cluster that stays: name one with --cluster";
            refuse(self, Refusal::Invalid, reason.to_owned());
            return;
        }
        let selector = match Selector::parse(&options.on) {
            Ok(selector) => selector,
            Err(error) => {
                refuse(self, Refusal::Invalid, error.to_string());
                return;
            }
        };
        let user = self.clients.get(&client).map(|client| client.user.clone());
        let all = options.on.trim().is_empty();
        let mut pool = Pool::new(
            id,
            client,
            user.unwrap_or_default(),
            options,
            selector,
            &self.options,
        );
        for (&host_id, host) in &self.hosts {
            pool.count_host(host_id, host, true);
        }
        let may_serve = |(&id, host): (&HostId, &Host)| pool.may_use_again(id, host);
        let unmatched = pool.eligible_hosts == 0 && !all;
        if unmatched && !self.hosts.iter().any(may_serve) {
            refuse(self, Refusal::NoHostMatches, pool.no_host_matches());
            return;
        }
        pool.unmatched = unmatched;
        pool.keeps = self.keeps_for(client) && !pool.is_detached();
        pool.tells_safe = self.keeps_for(client);
        self.outbox.record(|| Fact::Opened {
            pool: id,
            client,
            user: pool.user.clone(),
            options: Box::new(pool.options.clone()),
        });
        self.pools.insert(id, pool);
        self.touched.insert(id);
    }

    fn on_submit(
        &mut self,
        client: ClientId,
        pool: PoolId,
        spec: SpecId,
        first: u64,
        hosts: &[HostId],
        payloads: Vec<Bytes>,
    ) {
        let now = self.now;
        let pool = self.pools.get_mut(&pool);
        let Some(pool) = pool.filter(|pool| pool.client == client) else {
            return;
        };
        let Some(end) = first.checked_add(payloads.len() as u64) else {
            return;
        };
        if pool.is_ending() || pool.seen.overlaps(first, end) {
            return;
        }
        pool.seen.insert(first, end);
        self.outbox.record(|| Fact::Submitted {
            pool: pool.id,
            spec,
            first,
            hosts: hosts.to_vec(),
            payloads: payloads.clone().into(),
        });
        pool.queue.submit(first, spec, now, hosts, payloads);
        for &host in hosts {
            let unfit = pool.shares.get(&host).is_some_and(|share| share.unfit);
            let why = if unfit {
                pool.unfit_reason.clone()
            } else {
                match self.hosts.get(&host) {
                    Some(host) => host.why_out_of_reach(),
                    None => Some(format!(
                        "there is no {host}: `fleetpool hosts` lists those there are"
                    )),
                }
            };
            if let Some(why) = why {
                settle::refuse_pinned(pool, host, &why);
            }
        }
        let early: Vec<u64> = pool.cancelled_early.range(first..end).copied().collect();
        for index in early {
            pool.cancelled_early.remove(&index);
            cancel_waiting(pool, index);
        }
        let id = pool.id;
        self.touched.insert(id);
    }

    fn on_cancel(&mut self, client: ClientId, pool: PoolId, mut tasks: Vec<u64>) {
        tasks.sort_unstable();
        let Some(pool) = self.pools.get_mut(&pool) else {
            return;
        };
        if pool.client != client || pool.is_ending() {
            return;
        }
        self.outbox.record(|| Fact::Cancelled {
            pool: pool.id,
            tasks: tasks.clone(),
        });
        let mut at_agents = Vec::new();
        for index in tasks {
            if !pool.seen.contains(index) {
                pool.cancelled_early.insert(index);
            } else if !cancel_waiting(pool, index) {
                at_agents.push(index);
            }
        }
        let id = pool.id;
        self.touched.insert(id);
        if !at_agents.is_empty() {
            self.cancel_granted(id, |index| at_agents.binary_search(&index).is_ok());
        }
    }

    /// Asks the agents to end the tasks of a pool that `which` names.
    fn cancel_granted(&mut self, pool: PoolId, which: impl Fn(u64) -> bool) {
        let Some(pool) = self.pools.get_mut(&pool) else {
            return;
        };
        for (&id, share) in &mut pool.shares {
            let mut rows = Vec::new();
            for (index, task) in share.tasks.iter_mut() {
                if !task.cancelled && which(index) {
                    task.cancelled = true;
                    rows.push(TaskRow {
                        index,
                        attempt: task.tries.attempt,
                    });
                }
            }
            if let Some(host) = self.hosts.get(&id).filter(|_| !rows.is_empty()) {
                let pool = pool.id;
                self.outbox.agent(id, host, ToAgent::Cancel { pool, rows });
            }
        }
    }

    fn on_resize(&mut self, client: ClientId, pool: PoolId, slots: Option<u32>) {
        let Some(pool) = self.owned(client, pool) else {
            return;
        };
        pool.options.slots = slots.map(|slots| slots.max(1));
        pool.asked_in_vain = None;
        let (id, too_many) = (pool.id, pool.allotted.saturating_sub(pool.limit()));
        let slots = pool.options.slots;
        self.outbox.record(|| Fact::Resized { pool: id, slots });
        self.touched.insert(id);
        self.give_back_slots(id, too_many);
    }

    pub(crate) fn on_client_gone(&mut self, client: ClientId) {
        if let Some(until) = self
            .clients
            .remove(&client)
            .and_then(|gone| gone.away_until)
        {
            self.absences.remove(&(until, client));
        }
        self.forget_finished_of(client);
        self.forget_output_for(client);
        let theirs: Vec<PoolId> = self
            .pools
            .values()
            .filter(|pool| pool.client == client && !pool.is_left())
            .map(|pool| pool.id)
            .collect();
        for pool in theirs {
            self.end_with_its_client(pool);
        }
    }

    /// Ends a pool whose client is gone. Whoever looks at a detached job later is told why it is not whole.
    pub(crate) fn end_with_its_client(&mut self, pool: PoolId) {
        match self.pools.get(&pool).is_some_and(Pool::is_detached) {
            true => self.on_end_pool(pool, UNFINISHED.to_owned()),
            false => self.begin_end(pool, Farewell::default()),
        }
    }

    pub(crate) fn on_end_pool(&mut self, pool: PoolId, reason: String) {
        let farewell = Farewell {
            reason,
            refusal: None,
        };
        self.begin_end(pool, farewell);
    }

    /// Starts to end a pool: nothing more is granted or delivered, what runs is killed. It is over when every agent
    /// has confirmed, or is fenced.
    pub(crate) fn begin_end(&mut self, id: PoolId, farewell: Farewell) {
        let Some(pool) = self.pools.get_mut(&id) else {
            return;
        };
        if pool.farewell.is_none() {
            self.outbox.record(|| Fact::Ending {
                pool: id,
                reason: farewell.reason.clone(),
                refusal: farewell.refusal,
            });
            if let Some(message) = farewell.message(id) {
                self.outbox.client(pool.client, message);
            }
            pool.farewell = Some(farewell);
        }
        self.wind_up(id);
    }

    /// Takes away all that a pool that is being ended waits for.
    pub(crate) fn wind_up(&mut self, id: PoolId) {
        let Some(pool) = self.pools.get_mut(&id) else {
            return;
        };
        pool.queue.clear();
        pool.returned.clear();
        pool.out_rows.clear();
        pool.out_payloads.clear();
        self.touched.insert(id);
        self.cancel_granted(id, |_| true);
        let hosts: Vec<HostId> = self
            .pools
            .get(&id)
            .map(|pool| pool.shares.keys().copied().collect())
            .unwrap_or_default();
        for host in hosts {
            self.shrink(id, host, 0);
        }
    }

    /// Tells a client a host's name before the first row that mentions it.
    pub(crate) fn name_host(&mut self, client: ClientId, host: HostId) {
        let Some(known) = self.clients.get_mut(&client) else {
            return;
        };
        if !known.hosts_told.insert(host) {
            return;
        }
        let name = self.hosts.get(&host).map(|host| host.facts.name.clone());
        let name = name.unwrap_or_default();
        self.outbox.client(client, ToClient::Host { host, name });
    }
}

/// Ends a task that no agent has; `false` when it is not waiting.
fn cancel_waiting(pool: &mut Pool, index: u64) -> bool {
    let Some(bytes) = pool.queue.remove(index) else {
        return false;
    };
    pool.credit.on_gone(bytes);
    let loss = Loss::because("cancelled before it started");
    settle::deliver_loss(pool, index, fleetpool_proto::Outcome::Cancelled, &loss);
    true
}
