//! Clients that are away: whose session was lost, or whose coordinator was killed. Their pools go on; what they may not
//! have heard is said again when they are back.

use std::collections::BTreeSet;

use fleetpool_proto::{
    ClientId, HostId, PoolId,
    journal::Fact,
    message::{ToAgent, ToClient},
};

use crate::{
    core::{Client, CoordinatorCore},
    host::Host,
    pool::Pool,
    retained::{Farewell, Finished},
};

impl CoordinatorCore {
    pub(crate) fn on_client_connected(&mut self, id: ClientId, user: String) {
        let client = self.clients.entry(id).or_default();
        if let Some(until) = client.away_until.take() {
            self.absences.remove(&(until, id));
        }
        *client = Client {
            user,
            ..Client::default()
        };
    }

    pub(crate) fn on_client_away(&mut self, id: ClientId) {
        let until = self.now + self.options.client_grace;
        let comes_back = self.has_pools(id);
        match self.clients.get_mut(&id) {
            Some(client) if client.resumes && comes_back => {
                let before = client.away_until.replace(until);
                client.hosts_told.clear();
                self.absences.extend([(until, id)]);
                if let Some(before) = before.filter(|before| *before != until) {
                    self.absences.remove(&(before, id));
                }
                self.hold_output(id, true);
            }
            _ => self.on_client_gone(id),
        }
    }

    /// Whether anything is done for this client.
    #[must_use]
    pub fn has_pools(&self, id: ClientId) -> bool {
        let theirs = |pool: &Pool| pool.client == id && !pool.is_left();
        self.pools.values().any(theirs) || self.finished.values().any(|pool| pool.client == id)
    }

    /// Gives up clients that have been away for too long.
    pub(crate) fn pass_absences(&mut self) {
        while let Some(&(at, id)) = self.absences.first() {
            if at > self.now {
                return;
            }
            self.absences.pop_first();
            self.on_client_gone(id);
        }
    }

    /// Whether results are kept for this client until it has consumed them.
    pub(crate) fn keeps_for(&self, id: ClientId) -> bool {
        self.options.durable && self.clients.get(&id).is_some_and(|client| client.resumes)
    }

    /// A client begins, or is back: it still has these pools.
    pub(crate) fn on_resume(&mut self, id: ClientId, pools: &[PoolId]) {
        let Some(client) = self.clients.get_mut(&id) else {
            return;
        };
        client.resumes = true;
        let attached = |pool: &&Pool| pool.client == id && !pool.is_detached();
        let theirs = self.pools.values().filter(attached);
        let dropped = theirs.map(|pool| pool.id).filter(|id| !pools.contains(id));
        for pool in dropped.collect::<Vec<_>>() {
            self.begin_end(pool, Farewell::default());
        }
        let theirs = self.finished.iter().filter(|(_, pool)| pool.client == id);
        let dropped = theirs.map(|(&id, _)| id).filter(|id| !pools.contains(id));
        for pool in dropped.collect::<Vec<_>>() {
            self.forget_finished(pool);
        }
        // What a task printed comes before its end.
        self.print_again(id);
        for &pool in pools {
            let waits = |found: &&mut Pool| {
                found.client == id && !found.is_ending() && !found.unprinted.is_empty()
            };
            match self.pools.get_mut(&pool).filter(waits) {
                Some(found) => {
                    found.results_wait = true;
                    found.tell_again();
                    self.touched.insert(pool);
                }
                None => self.say_again(id, pool),
            }
        }
        self.hold_output(id, false);
        self.tell_client_of_stop(id);
    }

    /// Results that a predecessor had may be told when all that this host has printed before is here.
    pub(crate) fn print_retained(&mut self, id: HostId) {
        let host = self.hosts.get(&id);
        let here = |host: &&Host| host.output_due.is_some_and(|due| due <= host.output_heard);
        if host.filter(here).is_some() {
            self.miss_output(id);
        }
    }

    /// No output of this host is waited for any more.
    pub(crate) fn miss_output(&mut self, id: HostId) {
        let Some(host) = self.hosts.get_mut(&id) else {
            return;
        };
        if host.output_due.take().is_none() {
            return;
        }
        let mut printed = Vec::new();
        for pool in self.pools.values_mut() {
            let before = pool.unprinted.len();
            pool.unprinted.retain(|_, (host, _)| *host != id);
            if before > 0 && pool.unprinted.is_empty() {
                printed.push((pool.id, pool.client, std::mem::take(&mut pool.results_wait)));
            }
        }
        for (pool, client, waited) in printed {
            if waited {
                self.say_again(client, pool);
            }
            self.touched.insert(pool);
        }
    }

    /// Has the tasks of a client that is away wait before they print more than its agents can keep, or lets them go on.
    fn hold_output(&mut self, client: ClientId, on: bool) {
        let theirs = self.pools.values_mut();
        let attached = |pool: &&mut Pool| pool.client == client && !pool.is_detached();
        for pool in theirs.filter(attached).filter(|pool| pool.muted != on) {
            pool.muted = on;
            for &id in pool.shares.keys() {
                if let Some(host) = self.hosts.get(&id) {
                    let hold = ToAgent::Hold { pool: pool.id, on };
                    self.outbox.agent(id, host, hold);
                }
            }
        }
    }

    /// Sends what hosts printed and the client has not said to have.
    fn print_again(&mut self, client: ClientId) {
        let mut lines = Vec::new();
        for (&id, host) in &self.hosts {
            let theirs = host.in_flight.iter().filter(|one| one.client == client);
            lines.extend(theirs.map(|printed| {
                let output = ToClient::Output {
                    pool: printed.pool,
                    life: printed.life,
                    number: printed.number,
                    rows: printed.rows.clone(),
                    payloads: printed.payloads.clone(),
                };
                (id, output)
            }));
        }
        for (host, output) in lines {
            self.name_host(client, host);
            self.outbox.client(client, output);
        }
    }

    pub(crate) fn on_output_heard(&mut self, client: ClientId, id: HostId, life: u64, number: u64) {
        let Some(host) = self.hosts.get_mut(&id) else {
            return;
        };
        let before = host.output_safe();
        let pool = host.in_flight.front().map(|printed| printed.pool);
        let mut heard = BTreeSet::new();
        host.in_flight.retain(|printed| {
            let is_heard =
                printed.client == client && printed.life == life && printed.number <= number;
            if is_heard {
                heard.insert(printed.pool);
            }
            !is_heard
        });
        if let Some(pool) = pool.filter(|_| host.output_safe() != before) {
            self.outputs_owed.insert(id, pool);
        }
        // It may have been all that a pool's end waited for.
        heard.retain(|pool| self.pools.get(pool).is_some_and(Pool::is_complete));
        self.touched.append(&mut heard);
    }

    /// Nobody waits for it any more.
    pub(crate) fn forget_output_for(&mut self, client: ClientId) {
        for (&id, host) in &mut self.hosts {
            let pool = host.in_flight.front().map(|printed| printed.pool);
            let before = host.in_flight.len();
            host.in_flight.retain(|printed| printed.client != client);
            if let Some(pool) = pool.filter(|_| host.in_flight.len() != before) {
                self.outputs_owed.insert(id, pool);
            }
        }
    }

    /// Says what a client may not have heard of a pool.
    fn say_again(&mut self, client: ClientId, id: PoolId) {
        let (retained, farewell) = match (self.pools.get_mut(&id), self.finished.get_mut(&id)) {
            (Some(pool), _) if pool.client == client => {
                pool.tell_again();
                self.touched.insert(id);
                // A detached one's is in its file.
                let detached = pool.is_detached();
                (
                    &mut pool.retained,
                    pool.farewell.as_ref().filter(|_| !detached),
                )
            }
            (_, Some(pool)) if pool.client == client => {
                (&mut pool.retained, pool.farewell.as_ref())
            }
            // It never came, and comes now.
            _ => return,
        };
        let farewell = farewell.and_then(|farewell| farewell.message(id));
        retained.renumber();
        let messages: Vec<_> = retained
            .iter()
            .map(|(number, (rows, payloads))| (number, rows.clone(), payloads.clone()))
            .collect();
        for (number, rows, payloads) in messages {
            for row in &rows {
                if row.attempt != Default::default() {
                    self.name_host(client, row.host);
                }
            }
            let results = ToClient::Results {
                pool: id,
                number,
                rows,
                payloads: payloads.into(),
            };
            self.outbox.client(client, results);
        }
        if let Some(message) = farewell {
            self.outbox.client(client, message);
        }
        if self.finished.contains_key(&id) {
            if let Some(client) = self.clients.get_mut(&client) {
                client.over.insert(id);
            }
            let ended = ToClient::PoolEnded { pool: id };
            self.outbox.client(client, ended);
        }
    }

    /// Messages of results have come.
    pub(crate) fn on_results_heard(&mut self, client: ClientId, id: PoolId, number: u64) {
        let retained = match (self.pools.get_mut(&id), self.finished.get_mut(&id)) {
            (Some(pool), _) if pool.client == client => &mut pool.retained,
            (_, Some(pool)) if pool.client == client => &mut pool.retained,
            _ => return,
        };
        let rows = retained.heard(number);
        if rows > 0 {
            self.outbox.record(|| Fact::Heard { pool: id, rows });
        }
    }

    /// A client knows that a pool is over, and has all that there is of it.
    pub(crate) fn on_done(&mut self, client: ClientId, id: PoolId) {
        let is_theirs = |pool: &Finished| pool.client == client;
        if self.finished.get(&id).is_some_and(is_theirs) {
            self.forget_finished(id);
        }
    }

    pub(crate) fn forget_finished(&mut self, id: PoolId) {
        if self.finished.remove(&id).is_some() {
            self.outbox.record(|| Fact::Over { pool: id });
        }
    }

    pub(crate) fn forget_finished_of(&mut self, client: ClientId) {
        let theirs = self
            .finished
            .iter()
            .filter(|(_, pool)| pool.client == client);
        for pool in theirs.map(|(&id, _)| id).collect::<Vec<_>>() {
            self.forget_finished(pool);
        }
    }
}
