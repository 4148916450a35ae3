//! What people see of the fleet.

use fleetpool_proto::{
    PoolId, Timestamp,
    selector::Selector,
    time::millis,
    view::{HostView, JobView, StatusView},
};

use crate::{
    core::CoordinatorCore,
    host::{Host, HostState},
    pool::Pool,
};

impl CoordinatorCore {
    /// The hosts that have ever registered and that `on` names, by number.
    #[must_use]
    pub fn hosts(&self, on: &Selector, now: Timestamp) -> Vec<HostView> {
        self.hosts
            .iter()
            .filter(|(_, host)| host.is_listed())
            .filter(|(_, host)| on.matches(&host.facts.name, &host.facts.labels))
            .map(|(&id, host)| self.host_view(id, host, now))
            .collect()
    }

    fn host_view(&self, id: fleetpool_proto::HostId, host: &Host, now: Timestamp) -> HostView {
        let shares = || {
            host.pools
                .iter()
                .filter_map(|pool| self.pools.get(pool)?.shares.get(&id))
        };
        let tasks = || shares().flat_map(|share| share.tasks.iter().map(|(_, task)| task));
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let facts = &host.facts;
        HostView {
            id,
            name: facts.name.clone(),
            state: state_name(host).to_owned(),
            slots: facts.slots,
            allotted: u16::try_from(host.allotted).unwrap_or(u16::MAX),
            running: count(tasks().filter(|task| task.running.is_some()).count()),
            granted: count(tasks().count()),
            labels: facts.labels.clone(),
            carrier: facts.carrier.clone(),
            rtt_us: fleetpool_proto::time::micros(host.rtt),
            containment: facts.containment.clone(),
            limits: facts.limits.clone(),
            cpus: facts.cpus,
            memory_mib: facts.memory_mib,
            pid: facts.pid,
            build: facts.build.clone(),
            heard_ms: millis(now.since(host.heard_at)),
        }
    }

    /// The pools that live, by number.
    #[must_use]
    pub fn jobs(&self) -> Vec<JobView> {
        self.pools.values().map(job_view).collect()
    }

    /// The pools that go on without their clients, with their users.
    #[must_use]
    pub fn detached(&self) -> Vec<(PoolId, String)> {
        let detached = self.pools.values().filter(|pool| pool.is_detached());
        detached.map(|pool| (pool.id, pool.user.clone())).collect()
    }

    /// The name of a host.
    #[must_use]
    pub fn host_name(&self, id: fleetpool_proto::HostId) -> Option<&str> {
        self.hosts.get(&id).map(|host| host.facts.name.as_str())
    }

    /// The client that a pool belongs to, and its user.
    #[must_use]
    pub fn owner(&self, pool: PoolId) -> Option<(fleetpool_proto::ClientId, &str)> {
        let pool = self.pools.get(&pool)?;
        Some((pool.client, &pool.user))
    }

    /// The fleet in one line. The shell adds what only it knows: names, versions, times.
    #[must_use]
    pub fn status(&self) -> StatusView {
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let known = self.hosts.values().filter(|host| host.is_listed());
        let up = self.hosts.values().filter(|host| host.is_up());
        StatusView {
            hosts_up: count(up.clone().count()),
            hosts_down: count(known.filter(|host| !host.is_up()).count()),
            slots: up.clone().map(|host| u32::from(host.facts.slots)).sum(),
            allotted: up.map(|host| host.allotted).sum(),
            jobs: count(self.pools.len()),
            queued: self.pools.values().map(|pool| pool.queue.len_all()).sum(),
            granted: self.pools.values().map(|pool| pool.granted).sum(),
            clients: count(self.clients.len()),
            ..StatusView::default()
        }
    }
}

fn state_name(host: &Host) -> &'static str {
    match host.state {
        HostState::New => "new",
        HostState::Up if host.cordoned => "cordoned",
        HostState::Up => "up",
        HostState::Away => "away",
        HostState::Lost => "lost",
    }
}

fn job_view(pool: &Pool) -> JobView {
    JobView {
        id: pool.id,
        name: pool.options.name.clone(),
        user: pool.user.clone(),
        runtime: pool.options.runtime.name().to_owned(),
        slots: pool.options.slots,
        allotted: u32::try_from(pool.allotted).unwrap_or(u32::MAX),
        queued: pool.queue.len_all(),
        granted: pool.granted,
        ended: pool.ended,
        failed: pool.failed,
        closed: pool.closed.is_some(),
        detached: pool.is_detached(),
        state: "running".to_owned(),
    }
}
