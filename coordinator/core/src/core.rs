//! The scheduler's state, and how events reach it and actions leave it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use fleetpool_proto::{ClientId, HostId, PoolId, Timestamp};

use crate::{
    event::{Action, Event},
    host::{Host, Hosts},
    options::Options,
    outbox::Outbox,
    pool::{Pool, put},
    retained::Finished,
};

/// A client that is connected, or may come back.
#[derive(Debug, Default)]
pub(crate) struct Client {
    pub(crate) user: String,
    /// When it counts as gone, unless it is back by then; `None`: it is connected.
    pub(crate) away_until: Option<Timestamp>,
    /// It can come back when its session is lost, and knows what to say then.
    pub(crate) resumes: bool,
    /// Pools that were over when it came back: what it says again of them is out of date.
    pub(crate) over: BTreeSet<PoolId>,
    /// Hosts whose names it has been told.
    pub(crate) hosts_told: BTreeSet<HostId>,
}

/// The scheduler: pools, tasks, slots and leases of a fleet.
#[derive(Debug, Default)]
pub struct CoordinatorCore {
    pub(crate) options: Options,
    pub(crate) hosts: Hosts,
    pub(crate) pools: BTreeMap<PoolId, Pool>,
    pub(crate) clients: BTreeMap<ClientId, Client>,
    pub(crate) outbox: Outbox,
    /// Pools with something to do before the next action leaves.
    pub(crate) touched: BTreeSet<PoolId>,
    /// Pools that want more slots than they have.
    pub(crate) unmet: BTreeSet<PoolId>,
    /// Grows when slots may have become available to somebody.
    pub(crate) supply: u64,
    /// Hosts with slots that belong to no pool.
    pub(crate) free_hosts: BTreeSet<HostId>,
    /// Hosts with slots that will be free when a task has ended.
    pub(crate) vacating: BTreeSet<HostId>,
    /// Slots of all hosts that may be given tasks.
    pub(crate) capacity: u64,
    /// When hosts are to be looked at: fenced, or given up.
    pub(crate) deadlines: BTreeSet<(Timestamp, HostId)>,
    /// When clients that are away count as gone.
    pub(crate) absences: BTreeSet<(Timestamp, ClientId)>,
    /// Pools that are over, of which their clients may not know.
    pub(crate) finished: BTreeMap<PoolId, Finished>,
    /// Hosts whose output is to be acknowledged, and a pool of it.
    pub(crate) outputs_owed: BTreeMap<HostId, PoolId>,
    /// Before then nothing is granted: hosts may still run what nobody here knows of.
    pub(crate) settled_at: Timestamp,
    /// It was told to stop: nothing is granted or fenced any more.
    pub(crate) stopping: bool,
    /// Leases that a predecessor's hosts may hold, and until when; `None`: they are no longer than this one's.
    pub(crate) older_leases: Option<(Duration, Timestamp)>,
    pub(crate) now: Timestamp,
}

impl CoordinatorCore {
    /// A scheduler without hosts, clients and pools.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self {
            outbox: Outbox::new(options.epoch, options.durable),
            options,
            ..Self::default()
        }
    }

    /// Takes in what happened at `now`.
    pub fn handle(&mut self, now: Timestamp, event: Event) {
        self.now = self.now.max(now);
        match event {
            Event::AgentConnected { host, session } => self.on_agent_connected(host, session),
            Event::FromAgent {
                host,
                session,
                message,
            } => self.on_agent_message(host, session, message),
            Event::AgentDisconnected { host, session } => {
                self.on_agent_disconnected(host, session);
            }
            Event::ClientConnected { client, user } => self.on_client_connected(client, user),
            Event::FromClient { client, message } => self.on_client_message(client, message),
            Event::ClientAway { client } => self.on_client_away(client),
            Event::ClientGone { client } => self.on_client_gone(client),
            Event::Cordon { host, on } => self.on_cordon(host, on),
            Event::Retire { host, ended } => self.on_retire(host, ended),
            Event::EndPool { pool, reason } => self.on_end_pool(pool, reason),
            Event::Stop => self.on_stop(),
            Event::Tick => {}
        }
        self.pass_deadlines();
        self.pass_absences();
        self.settle_down();
        self.pass_older_leases();
    }

    /// Grants from now on, if it is time.
    fn settle_down(&mut self) {
        if self.is_settling() && self.now >= self.settled_at {
            self.settled_at = Timestamp::default();
            self.touched.extend(self.pools.keys());
        }
    }

    /// The next thing to do. What several events led to comes out together: placement runs once for all of them.
    pub fn poll_action(&mut self) -> Option<Action> {
        if self.outbox.actions.is_empty() {
            self.acknowledge_output();
            self.place();
        }
        self.outbox.actions.pop_front()
    }

    /// When `handle` wants to be called with [`Event::Tick`], at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        let host = self.deadlines.first().filter(|_| !self.stopping);
        let host = host.map(|&(at, _)| at);
        let client = self.absences.first().map(|&(at, _)| at);
        let settled = self.is_settling().then_some(self.settled_at);
        let leases = self.older_leases.map(|(_, until)| until);
        let times = host.into_iter().chain(client);
        times.chain(settled).chain(leases).min()
    }

    /// Sets when a host is to be looked at next.
    pub(crate) fn set_deadline(&mut self, id: HostId, before: Timestamp, at: Option<Timestamp>) {
        self.deadlines.remove(&(before, id));
        if let Some(at) = at {
            self.deadlines.insert((at, id));
        }
    }

    /// Changes what decides whether a host may be given tasks, and keeps every count that depends on it true.
    pub(crate) fn change_host(&mut self, id: HostId, change: impl FnOnce(&mut Self)) {
        self.count_host(id, false);
        change(self);
        self.count_host(id, true);
        self.supply += 1;
    }

    fn count_host(&mut self, id: HostId, add: bool) {
        let Some(host) = self.hosts.get(&id) else {
            return;
        };
        let slots = u64::from(host.usable());
        if add {
            self.capacity += slots;
        } else {
            self.capacity -= slots;
        }
        for pool in self.pools.values_mut() {
            pool.count_host(id, host, add);
            pool.reindex(id, host);
            self.touched.insert(pool.id);
        }
        self.refresh_free(id);
    }

    /// Brings the sets of hosts with free slots up to date.
    pub(crate) fn refresh_free(&mut self, id: HostId) {
        let host = self.hosts.get(&id);
        let is_free = host.is_some_and(|host| host.free() > 0);
        let is_vacating = host.is_some_and(|host| host.vacating() > 0);
        put(&mut self.free_hosts, id, is_free);
        put(&mut self.vacating, id, is_vacating);
    }

    /// Runs `act` on a pool and a host that both exist.
    pub(crate) fn with<R>(
        &mut self,
        pool: PoolId,
        id: HostId,
        act: impl FnOnce(&mut Pool, &mut Host, &mut Outbox) -> R,
    ) -> Option<R> {
        let pool = self.pools.get_mut(&pool)?;
        let host = self.hosts.get_mut(&id)?;
        let done = act(pool, host, &mut self.outbox);
        self.refresh_free(id);
        Some(done)
    }
}
