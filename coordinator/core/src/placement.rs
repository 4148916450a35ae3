//! Which pool has how many slots of which host.
//!
//! Slots are *allotted*: the agent runs at most as many tasks of a pool as the last `Allot` said. Raising takes
//! effect at once; what was lowered counts as used until the agent has confirmed it (G1), and only then goes to another
//! pool, whose tasks would otherwise be bound to a slot that is not free (G2). Allotments are sticky: an idle pool
//! keeps its slots until another one wants them.

mod pinned;

use std::{cmp::Reverse, collections::BTreeMap, collections::BinaryHeap};

use fleetpool_proto::{HostId, PoolId};

use crate::{
    core::CoordinatorCore,
    fair::{self, Claim},
    pool::Pool,
};

impl CoordinatorCore {
    /// Gives slots to the pools that want more. Tells which pools got some.
    pub(crate) fn allot(&mut self) -> Vec<PoolId> {
        let asking = self.asking();
        if asking.is_empty() {
            return Vec::new();
        }
        let entitled = self.entitlements();
        let fair_share = |pool: &PoolId| entitled.get(pool).copied().unwrap_or(0);
        let before: Vec<u64> = asking.iter().map(|pool| self.allotted(*pool)).collect();
        let mut vacating = self.vacating_slots();
        for pool in &asking {
            self.give_pinned(*pool, fair_share(pool), Some(&mut vacating));
            self.give_free(*pool, fair_share(pool));
        }
        let idlers = self.idlers();
        for pool in &asking {
            self.take_idle(*pool, &idlers);
            self.give_pinned(*pool, u64::MAX, None);
            self.give_free(*pool, u64::MAX);
            self.preempt(*pool, &entitled, &mut vacating);
        }
        for &pool in &asking {
            let supply = self.supply;
            if let Some(pool) = self.pools.get_mut(&pool) {
                pool.asked_in_vain = Some((supply, pool.demand()));
            }
        }
        let gained = asking.iter().zip(before);
        gained
            .filter(|(pool, before)| self.allotted(**pool) > *before)
            .map(|(&pool, _)| pool)
            .collect()
    }

    /// Pools that want slots and have not just asked in vain, in the order in which they are served.
    fn asking(&self) -> Vec<PoolId> {
        let mut asking: Vec<&Pool> = self
            .unmet
            .iter()
            .filter_map(|id| self.pools.get(id))
            .filter(|pool| pool.asked_in_vain != Some((self.supply, pool.demand())))
            .collect();
        asking.sort_by_key(|pool| {
            let per_weight = pool.allotted / u64::from(pool.options.weight.max(1));
            (Reverse(pool.options.priority), per_weight, pool.id)
        });
        asking.iter().map(|pool| pool.id).collect()
    }

    /// Slots that will be free without anybody's asking again. Each is waited for by one pool.
    fn vacating_slots(&self) -> Vacating {
        let hosts = self.vacating.iter();
        hosts
            .filter_map(|&id| Some((id, u64::from(self.hosts.get(&id)?.vacating()))))
            .collect()
    }

    fn entitlements(&self) -> BTreeMap<PoolId, u64> {
        let claims = self.pools.values().filter(|pool| pool.demand() > 0);
        let claims = claims.map(|pool| Claim {
            pool: pool.id,
            priority: pool.options.priority,
            weight: pool.options.weight,
            demand: pool.demand(),
        });
        fair::shares(self.capacity, claims.collect())
    }

    fn allotted(&self, pool: PoolId) -> u64 {
        self.pools.get(&pool).map_or(0, |pool| pool.allotted)
    }

    /// Slots that the pool may still get, up to `limit` in all.
    fn want(&self, pool: PoolId, limit: u64) -> u64 {
        let Some(pool) = self.pools.get(&pool) else {
            return 0;
        };
        let free_demand = if pool.is_hungry() { pool.demand() } else { 0 };
        let target = free_demand.min(limit);
        target
            .saturating_sub(pool.allotted)
            .min(pool.room(&self.options))
    }

    /// Gives free slots, from the emptiest hosts first, so that a pool smaller than the fleet is spread over it.
    fn give_free(&mut self, id: PoolId, limit: u64) {
        let mut want = self.want(id, limit);
        let Some(pool) = self.pools.get(&id).filter(|_| want > 0) else {
            return;
        };
        let mut heap: BinaryHeap<(u16, Reverse<HostId>)> = self
            .free_hosts
            .iter()
            .filter_map(|&host_id| {
                let host = self.hosts.get(&host_id)?;
                let usable = pool.may_use(host_id, host);
                usable.then(|| (host.free(), Reverse(host_id)))
            })
            .collect();
        let mut additions: BTreeMap<HostId, u16> = BTreeMap::new();
        let all: u64 = heap.iter().map(|&(free, _)| u64::from(free)).sum();
        if all <= want {
            additions.extend(heap.drain().map(|(free, Reverse(host))| (host, free)));
        }
        while want > 0
            && let Some((free, Reverse(host))) = heap.pop()
        {
            *additions.entry(host).or_default() += 1;
            want -= 1;
            if free > 1 {
                heap.push((free - 1, Reverse(host)));
            }
        }
        for (host, slots) in additions {
            self.grow(id, host, slots);
        }
    }

    /// Whether the pool has a slot of the host that it has no use for.
    fn leaves_idle(&self, pool: PoolId, host: HostId) -> bool {
        self.pools.get(&pool).is_some_and(|pool| {
            let idle = pool.shares.get(&host).is_some_and(|share| share.idle() > 0);
            idle && !pool.is_hungry() && pool.queue.len_pinned(host) == 0
        })
    }

    /// Pools with slots that they have no use for, but for tasks of one host. None becomes such by what is given out.
    fn idlers(&self) -> Vec<PoolId> {
        let idle = |pool: &&Pool| !pool.is_hungry() && !pool.idle.is_empty();
        self.pools
            .values()
            .filter(idle)
            .map(|pool| pool.id)
            .collect()
    }

    /// Moves slots that other pools leave idle.
    fn take_idle(&mut self, id: PoolId, idlers: &[PoolId]) {
        let mut want = self.want(id, u64::MAX);
        if want == 0 {
            return;
        }
        let idlers = idlers.iter().filter(|other| **other != id);
        let idle: Vec<(PoolId, HostId)> = idlers
            .filter_map(|other| self.pools.get(other))
            .flat_map(|pool| pool.idle.iter().map(|&host| (pool.id, host)))
            .filter(|&(pool, host)| self.leaves_idle(pool, host))
            .collect();
        for (owner, host) in idle {
            if want == 0 {
                return;
            }
            want -= self.move_idle(owner, host, id, want);
        }
    }

    fn move_idle(&mut self, owner: PoolId, host: HostId, to: PoolId, want: u64) -> u64 {
        let usable = match (self.pools.get(&to), self.hosts.get(&host)) {
            (Some(pool), Some(facts)) => pool.may_use(host, facts),
            _ => false,
        };
        let share = self
            .pools
            .get(&owner)
            .and_then(|pool| pool.shares.get(&host));
        let (Some(share), true) = (share, usable) else {
            return 0;
        };
        let idle = u64::try_from(share.idle()).unwrap_or(u64::MAX);
        let slots = u16::try_from(idle.min(want)).unwrap_or(u16::MAX);
        let left = share.allot - slots.min(share.allot);
        self.shrink(owner, host, left);
        u64::from(self.grow(to, host, slots))
    }

    /// Takes slots from pools that have more than their fair share: the next task that ends there is the last.
    fn preempt(&mut self, id: PoolId, entitled: &BTreeMap<PoolId, u64>, vacating: &mut Vacating) {
        let fair_share = |pool: PoolId| entitled.get(&pool).copied().unwrap_or(0);
        let mut want = self.want(id, fair_share(id));
        want -= self.claim_vacating(id, want, vacating);
        if want == 0 {
            return;
        }
        let rich: Vec<PoolId> = self
            .pools
            .values()
            .filter(|pool| pool.id != id && pool.allotted > fair_share(pool.id))
            .map(|pool| pool.id)
            .collect();
        for owner in rich {
            let hosts: Vec<HostId> = match self.pools.get(&owner) {
                Some(pool) => pool.shares.keys().copied().collect(),
                None => continue,
            };
            // A slot of each host in turn, so that the loss is spread.
            let mut taken = true;
            while taken {
                taken = false;
                for &host in &hosts {
                    if want == 0 || self.allotted(owner) <= fair_share(owner) {
                        break;
                    }
                    let moved = self.preempt_one(owner, host, id);
                    want -= u64::from(moved);
                    taken |= moved;
                }
            }
        }
    }

    /// Counts on slots that others are leaving already.
    fn claim_vacating(&self, id: PoolId, want: u64, vacating: &mut Vacating) -> u64 {
        let Some(pool) = self.pools.get(&id).filter(|_| want > 0) else {
            return 0;
        };
        let usable = |id: HostId| {
            let host = self.hosts.get(&id);
            host.is_some_and(|host| pool.may_use(id, host))
        };
        let hosts: Vec<HostId> = vacating.keys().copied().filter(|&id| usable(id)).collect();
        let mut claimed = 0;
        for host in hosts {
            claimed += claim(vacating, host, want - claimed);
        }
        claimed
    }

    fn preempt_one(&mut self, owner: PoolId, host: HostId, to: PoolId) -> bool {
        let usable = match (self.pools.get(&to), self.hosts.get(&host)) {
            (Some(pool), Some(facts)) => pool.may_use(host, facts),
            _ => false,
        };
        let allot = self.allot_of(owner, host);
        if !usable || allot == 0 {
            return false;
        }
        self.shrink(owner, host, allot - 1);
        self.grow(to, host, 1);
        true
    }
}

/// Slots of each host that are being left, and that no pool counts on yet.
type Vacating = BTreeMap<HostId, u64>;

fn claim(vacating: &mut Vacating, host: HostId, want: u64) -> u64 {
    let Some(left) = vacating.get_mut(&host) else {
        return 0;
    };
    let claimed = want.min(*left);
    *left -= claimed;
    claimed
}
