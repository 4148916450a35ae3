//! Why a pool's tasks wait, in sentences.

use fleetpool_proto::{HostId, PoolId};

use crate::{
    core::CoordinatorCore,
    host::{Host, HostState},
    pool::Pool,
};

/// Hosts that are named before the rest is only counted.
const NAMED_MAX: usize = 8;

impl CoordinatorCore {
    /// What a pool is doing and what it waits for; `None`: there is no such pool.
    #[must_use]
    pub fn explain(&self, id: PoolId) -> Option<Vec<String>> {
        let pool = self.pools.get(&id)?;
        let mut lines = vec![doing(pool)];
        if pool.is_ending() {
            lines.push(
                "it is being ended: it is over when every host has confirmed that, or is fenced"
                    .to_owned(),
            );
            return Some(lines);
        }
        let waiting = pool.queue.len_all();
        if waiting == 0 {
            lines.push(match pool.closed {
                Some(_) => {
                    "nothing waits: it is over when the tasks that are out have ended".to_owned()
                }
                None => "nothing waits: its client has not submitted more".to_owned(),
            });
            return Some(lines);
        }
        self.explain_waiting(pool, &mut lines);
        Some(lines)
    }

    fn explain_waiting(&self, pool: &Pool, lines: &mut Vec<String>) {
        if self.now < self.settled_at {
            let left = self.settled_at.since(self.now).as_secs() + 1;
            lines.push(format!("the coordinator's machine was down: nothing is started for {left} s more, until hosts have fenced what nobody knows of"));
        }
        if pool.credit.is_exhausted() {
            lines.push("its client is far behind with reading results: nothing more is started until it has read some".to_owned());
        }
        if pool.allotted >= pool.limit() {
            lines.push(format!(
                "it has all the {} slots that it asked for (-j)",
                pool.limit()
            ));
        }
        lines.extend(self.unusable(pool));
        let usable = |(id, host): &(&HostId, &Host)| pool.may_use(**id, host);
        let hosts: Vec<_> = self.hosts.iter().filter(usable).collect();
        if hosts.is_empty() {
            lines.push("no host can take its tasks now".to_owned());
        } else if pool.allotted < pool.limit() && pool.eligible_slots > pool.allotted {
            lines.extend(self.competitors(pool));
        } else if pool.allotted == pool.eligible_slots {
            lines.push(format!(
                "it has every slot there is for it: {}",
                pool.allotted
            ));
        }
        for host in pool.queue.pinned_hosts() {
            let count = pool.queue.len_pinned(host);
            let name = self.host_name(host).unwrap_or("?");
            lines.push(format!("{count} of them may run on {name} alone"));
        }
    }

    /// Other pools with slots that this one could use.
    fn competitors(&self, pool: &Pool) -> Option<String> {
        let others = self
            .pools
            .values()
            .filter(|other| other.id != pool.id && other.allotted > 0);
        let others: Vec<String> = others
            .map(|other| {
                let (id, slots, priority) = (other.id.0, other.allotted, other.options.priority);
                format!("job {id} has {slots} (priority {priority})")
            })
            .collect();
        (!others.is_empty()).then(|| {
            format!(
                "slots are shared, and are not all its own: {}",
                others.join(", ")
            )
        })
    }

    /// Hosts that it may not use, and why.
    fn unusable(&self, pool: &Pool) -> Vec<String> {
        let mut reasons: std::collections::BTreeMap<String, Vec<&str>> = Default::default();
        for (id, host) in self.hosts.iter().filter(|(_, host)| host.is_listed()) {
            if let Some(reason) = why_not(pool, *id, host) {
                reasons.entry(reason).or_default().push(&host.facts.name);
            }
        }
        let line = |(reason, hosts): (String, Vec<&str>)| {
            let named = hosts[..hosts.len().min(NAMED_MAX)].join(", ");
            let more = match hosts.len().saturating_sub(NAMED_MAX) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            format!("not on {named}{more}: {reason}")
        };
        reasons.into_iter().map(line).collect()
    }
}

fn doing(pool: &Pool) -> String {
    let tasks = |count: u64| if count == 1 { "task" } else { "tasks" };
    let (out, waiting) = (pool.granted, pool.queue.len_all());
    format!(
        "{out} {} with hosts, on {} slots; {waiting} waiting; {} ended, {} of them failed",
        tasks(out),
        pool.allotted,
        pool.ended,
        pool.failed
    )
}

fn why_not(pool: &Pool, id: HostId, host: &Host) -> Option<String> {
    if !pool.matches(host) {
        return Some(format!("the job is for `{}` only", pool.options.on));
    }
    let why = match host.state {
        HostState::New | HostState::Away => "not connected",
        HostState::Lost => "lost: not heard of for longer than its lease",
        HostState::Up if host.cordoned => "cordoned (`fleetpool uncordon` lets tasks come again)",
        HostState::Up => {
            let unfit = pool.shares.get(&id).is_some_and(|share| share.unfit);
            return unfit.then(|| {
                let reason = pool.unfit_reason.clone();
                reason.unwrap_or_else(|| "it cannot work for this job".to_owned())
            });
        }
    };
    Some(why.to_owned())
}
