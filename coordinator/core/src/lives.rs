//! The life of a host: its agent comes, registers, renews its lease, leaves, and is lost when it does not renew.

use std::time::Duration;

use fleetpool_proto::{
    HostId, PoolId, Timestamp,
    journal::Fact,
    message::{HeldRow, HeldState, Registration, TaskRow, ToAgent},
};

use crate::{
    allotment,
    core::CoordinatorCore,
    event::{Action, SessionNo},
    host::{Host, HostState},
    outbox::Outbox,
    pool::Pool,
    settle::{self, Loser},
};

impl CoordinatorCore {
    pub(crate) fn on_agent_connected(&mut self, id: HostId, session: SessionNo) {
        let host = self.hosts.entry(id).or_default();
        if host.session.is_some_and(|current| current > session) {
            return;
        }
        if let Some(older) = host.session.replace(session) {
            self.outbox.actions.push_back(Action::DropAgent {
                host: id,
                session: older,
                reason: "a newer session of this host has taken over".to_owned(),
            });
        }
        self.leave(id);
    }

    /// The host is connected no more, or not yet again.
    fn leave(&mut self, id: HostId) {
        self.change_host(id, |core| {
            if let Some(host) = core.hosts.get_mut(&id).filter(|host| host.is_up()) {
                host.state = HostState::Away;
            }
        });
    }

    pub(crate) fn on_agent_disconnected(&mut self, id: HostId, session: SessionNo) {
        let Some(host) = self.hosts.get_mut(&id) else {
            return;
        };
        if host.session != Some(session) {
            return;
        }
        host.session = None;
        self.leave(id);
    }

    pub(crate) fn on_register(&mut self, id: HostId, mut registration: Registration) {
        let Some(host) = self.hosts.get_mut(&id) else {
            return;
        };
        let same_life = host.facts.incarnation == registration.incarnation;
        if !same_life {
            // An agent registers only after every process of its predecessor is gone: that is as good as a fence.
            self.lose_host(id, Loser::Dead);
        }
        let Some(host) = self.hosts.get_mut(&id) else {
            return;
        };
        if !same_life {
            host.output_heard = 0;
        }
        let output = std::mem::take(&mut registration.output);
        host.output_due = host.output_due.and(Some(output));
        host.state = HostState::Up;
        host.retired = false;
        let held = std::mem::take(&mut registration.held);
        if host.facts != registration {
            host.facts = registration;
            let facts = || Box::new(host.facts.clone());
            self.outbox.record(|| Fact::Host {
                host: id,
                facts: facts(),
            });
        }
        self.renew_lease(id);
        self.adopt(id, &held);
        self.reconcile(id, &held);
        self.print_retained(id);
        self.tell_agent_of_stop(id);
    }

    /// Makes this side's picture of a host and the host's own agree.
    fn reconcile(&mut self, id: HostId, held: &[HeldRow]) {
        let mut known: Vec<PoolId> = Vec::new();
        let pools = self.hosts.get(&id).map(|host| host.pools.clone());
        for pool_id in pools.unwrap_or_default() {
            let now = self.now;
            self.with(pool_id, id, |pool, host, outbox| {
                reconcile_share(pool, id, host, outbox, held, now);
            });
            known.push(pool_id);
            self.touched.insert(pool_id);
        }
        let Some(host) = self.hosts.get(&id) else {
            return;
        };
        let mut strangers: Vec<PoolId> = held.iter().map(|row| row.pool).collect();
        strangers.sort_unstable();
        strangers.dedup();
        for pool in strangers {
            if known.binary_search(&pool).is_err() {
                self.outbox.agent(id, host, ToAgent::ClosePool { pool });
            }
        }
    }

    pub(crate) fn on_renew(&mut self, id: HostId, renewal: u64, rtt_us: u64) {
        if let Some(host) = self.hosts.get_mut(&id) {
            if rtt_us > 0 {
                host.rtt = std::time::Duration::from_micros(rtt_us);
            }
            self.outbox.agent(id, host, ToAgent::Renewed { renewal });
        }
        self.renew_lease(id);
    }

    pub(crate) fn renew_lease(&mut self, id: HostId) {
        self.wait_for_lease(id, self.options.lease);
    }

    /// The host may have a lease of that length from now.
    pub(crate) fn wait_for_lease(&mut self, id: HostId, lease: Duration) {
        let fenced_at = self.now + self.options.fence_after(lease);
        let gone_at = self.now + self.options.lost_after;
        let Some(host) = self.hosts.get_mut(&id) else {
            return;
        };
        host.heard_at = self.now;
        let before = std::mem::replace(&mut host.fenced_at, fenced_at);
        let before_gone = std::mem::replace(&mut host.gone_at, gone_at);
        self.deadlines.remove(&(before_gone, id));
        self.set_deadline(id, before, Some(fenced_at));
    }

    /// Looks at hosts whose time has come.
    pub(crate) fn pass_deadlines(&mut self) {
        if self.stopping {
            return;
        }
        while let Some(&(at, id)) = self.deadlines.first() {
            if at > self.now {
                return;
            }
            self.deadlines.pop_first();
            let Some(host) = self.hosts.get_mut(&id) else {
                continue;
            };
            if host.state == HostState::Lost {
                self.lose_host(id, Loser::Gone);
                continue;
            }
            let gone_at = host.gone_at.max(at);
            if let Some(session) = host.session.take() {
                self.outbox.actions.push_back(Action::DropAgent {
                    host: id,
                    session,
                    reason: "it has not renewed its lease".to_owned(),
                });
            }
            self.deadlines.insert((gone_at, id));
            self.change_host(id, |core| {
                if let Some(host) = core.hosts.get_mut(&id) {
                    host.state = HostState::Lost;
                }
                core.lose_host(id, Loser::Fenced);
            });
            self.miss_output(id);
            self.refuse_bound_to(id);
        }
    }

    /// What waits for a lost host alone has nowhere to go: it ends here (G4).
    fn refuse_bound_to(&mut self, id: HostId) {
        for pool in self.pools.values_mut() {
            if pool.queue.len_pinned(id) > 0
                && let Some(why) = self.hosts.get(&id).and_then(Host::why_out_of_reach)
            {
                settle::refuse_pinned(pool, id, &why);
                self.touched.insert(pool.id);
            }
        }
    }

    /// Takes from a host what it can no longer be running.
    fn lose_host(&mut self, id: HostId, loser: Loser) {
        let pools = self.hosts.get(&id).map(|host| host.pools.clone());
        for pool_id in pools.unwrap_or_default() {
            let now = self.now;
            self.with(pool_id, id, |pool, host, outbox| {
                settle::lose_share(pool, id, host, loser, now);
                allotment::record(pool, id, outbox);
            });
            self.touched.insert(pool_id);
        }
        self.supply += 1;
    }

    /// A host that is not to come back. Where it has ended, that is as good as a fence.
    pub(crate) fn on_retire(&mut self, id: HostId, ended: bool) {
        let Some(host) = self.hosts.get_mut(&id) else {
            return;
        };
        host.retired = true;
        if ended {
            self.lose_host(id, Loser::Dead);
            self.miss_output(id);
        }
    }

    /// Stops new tasks on a host, or lets them come again.
    pub(crate) fn on_cordon(&mut self, id: HostId, on: bool) {
        self.change_host(id, |core| {
            if let Some(host) = core.hosts.get_mut(&id) {
                host.cordoned = on;
            }
        });
        self.outbox.record(|| Fact::Cordoned { host: id, on });
        let pools = self
            .hosts
            .get(&id)
            .filter(|_| on)
            .map(|host| host.pools.clone());
        for pool in pools.unwrap_or_default() {
            self.shrink(pool, id, 0);
        }
    }
}

fn reconcile_share(
    pool: &mut Pool,
    id: HostId,
    host: &mut Host,
    outbox: &mut Outbox,
    held: &[HeldRow],
    now: Timestamp,
) {
    let Some(share) = pool.shares.get_mut(&id) else {
        return;
    };
    share.forget_session();
    let mut never_came: Vec<u64> = share.tasks.iter().map(|(index, _)| index).collect();
    let mut stale = Vec::new();
    for row in held.iter().filter(|row| row.pool == pool.id) {
        match share.tasks.get_mut(row.index) {
            Some(task) if task.tries.attempt == row.attempt => {
                if row.state != HeldState::Queued && task.running.is_none() {
                    task.running = Some(Default::default());
                }
                if let Ok(at) = never_came.binary_search(&row.index) {
                    never_came.remove(at);
                }
            }
            _ if row.state != HeldState::Ended => stale.push(TaskRow {
                index: row.index,
                attempt: row.attempt,
            }),
            _ => {}
        }
    }
    if !stale.is_empty() {
        let (pool, rows) = (pool.id, stale);
        outbox.agent(id, host, ToAgent::Cancel { pool, rows });
    }
    // What the agent does not hold it never got, or has dropped unstarted when its lease ended: it costs no rerun.
    for index in never_came {
        settle::requeue_unstarted(pool, id, index, now);
    }
    allotment::retell(pool, id, host, outbox);
}
