//! Slots for tasks that wait for a host by name.

use fleetpool_proto::{HostId, PoolId};

use super::{Vacating, claim};
use crate::{core::CoordinatorCore, pool::Pool};

impl CoordinatorCore {
    /// Gives slots of the very hosts that tasks wait for by name, up to `limit` in all: free ones, then others' idle
    /// ones, then, where `vacating` is at hand, the next that another pool gives up.
    pub(super) fn give_pinned(
        &mut self,
        id: PoolId,
        limit: u64,
        mut vacating: Option<&mut Vacating>,
    ) {
        let hosts: Vec<HostId> = match self.pools.get(&id) {
            Some(pool) => pool.queue.pinned_hosts().collect(),
            None => return,
        };
        for host in hosts {
            let wanted = self.wanted_on(id, host);
            for _ in 0..wanted {
                if !self.give_slot_of(id, host, limit, vacating.as_deref_mut()) {
                    break;
                }
            }
        }
    }

    fn wanted_on(&self, id: PoolId, host_id: HostId) -> u64 {
        let (Some(pool), Some(host)) = (self.pools.get(&id), self.hosts.get(&host_id)) else {
            return 0;
        };
        if !pool.may_use(host_id, host) {
            return 0;
        }
        let allot = pool.shares.get(&host_id).map_or(0, |share| share.allot);
        let waiting = pool.queue.len_pinned(host_id);
        waiting.min(u64::from(host.facts.slots.saturating_sub(allot)))
    }

    /// Gives a slot of the host, or sees to it that one will be free.
    fn give_slot_of(
        &mut self,
        id: PoolId,
        host_id: HostId,
        limit: u64,
        vacating: Option<&mut Vacating>,
    ) -> bool {
        let (Some(pool), Some(host)) = (self.pools.get(&id), self.hosts.get(&host_id)) else {
            return false;
        };
        if pool.room(&self.options) == 0 || pool.allotted >= limit {
            // The next try finds room when a slot that stands idle elsewhere has been given back.
            self.give_back_useless(id, host_id);
            return false;
        }
        if host.free() == 0 {
            let Some((idle, victim)) = self.slot_to_take(id, host_id) else {
                return false;
            };
            if !idle {
                let Some(vacating) = vacating else {
                    return false;
                };
                if claim(vacating, host_id, 1) > 0 {
                    return true;
                }
            }
            let allot = self.allot_of(victim, host_id);
            self.shrink(victim, host_id, allot - 1);
        }
        self.grow(id, host_id, 1);
        true
    }

    /// A pool that gives up a slot of this host: an idle one, else the one with the most.
    fn slot_to_take(&self, for_pool: PoolId, host: HostId) -> Option<(bool, PoolId)> {
        let pools = self.hosts.get(&host)?.pools.iter();
        pools
            .filter(|&&pool| pool != for_pool && self.allot_of(pool, host) > 0)
            .filter(|&&pool| self.may_lose(pool, host, for_pool))
            .max_by_key(|&&pool| (self.leaves_idle(pool, host), self.allot_of(pool, host)))
            .map(|&pool| (self.leaves_idle(pool, host), pool))
    }

    /// Whether a slot of the host may go over to a pool whose tasks wait for that host. Not from one whose tasks do,
    /// too, unless that evens them out: it would take the slot back.
    fn may_lose(&self, pool: PoolId, host: HostId, to: PoolId) -> bool {
        let bound = |pool: &Pool| pool.queue.len_pinned(host) > 0;
        let also_bound = self.pools.get(&pool).is_some_and(bound);
        !also_bound || self.allot_of(pool, host) > self.allot_of(to, host) + 1
    }

    /// Lowers a pool by a slot on another host than `but`, where nothing waits that could use it.
    fn give_back_useless(&mut self, id: PoolId, but: HostId) {
        let Some(pool) = self.pools.get(&id).filter(|pool| !pool.is_hungry()) else {
            return;
        };
        let useless = pool.shares.iter().find(|&(&host, share)| {
            host != but && share.idle() > 0 && pool.queue.len_pinned(host) == 0
        });
        if let Some((&host, share)) = useless {
            let left = share.allot - 1;
            self.shrink(id, host, left);
        }
    }
}
