//! Weighted max-min fair shares (water filling), highest priority first.
//!
//! Source: Bertsekas and Gallager, *Data Networks*, 2nd ed., 6.5.2, with weights and integer slots.

use std::{cmp::Reverse, collections::BTreeMap};

use fleetpool_proto::PoolId;

/// A pool's claim on slots.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claim {
    pub(crate) pool: PoolId,
    pub(crate) priority: i32,
    pub(crate) weight: u32,
    /// Slots it could use.
    pub(crate) demand: u64,
}

/// How many of `capacity` slots each pool is entitled to: to one at least, if there are as many. Slots that cannot be
/// divided evenly go to the older pools.
pub(crate) fn shares(capacity: u64, mut claims: Vec<Claim>) -> BTreeMap<PoolId, u64> {
    claims.sort_by_key(|claim| (Reverse(claim.priority), claim.pool));
    let mut left = capacity;
    let mut entitled = BTreeMap::new();
    for class in claims.chunk_by(|a, b| a.priority == b.priority) {
        left -= fill(left, class, &mut entitled);
    }
    entitled
}

/// Shares `capacity` among pools of one priority; tells how much of it was used.
fn fill(capacity: u64, class: &[Claim], entitled: &mut BTreeMap<PoolId, u64>) -> u64 {
    let mut left = capacity;
    let mut open: Vec<Claim> = class.to_vec();
    open.sort_by_key(|claim| (claim.demand / u64::from(claim.weight.max(1)), claim.pool));
    let mut weights: u64 = open
        .iter()
        .map(|claim| u64::from(claim.weight.max(1)))
        .sum();
    for (at, claim) in open.iter().enumerate() {
        let weight = u64::from(claim.weight.max(1));
        let fair = left * weight / weights;
        let remainder = !(left * weight).is_multiple_of(weights);
        let behind = (open.len() - at - 1) as u64;
        // The last slots that do not divide: nobody smaller is left to take them, so the first in line does.
        let share = claim
            .demand
            .min(fair + u64::from(remainder && behind > 0))
            .min(left.saturating_sub(behind).max(1))
            .min(left);
        entitled.insert(claim.pool, share);
        left -= share;
        weights -= weight;
    }
    capacity - left
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(capacity: u64, claims: &[(i32, u32, u64)], expect: &[u64]) {
        let claims = claims
            .iter()
            .zip(0..)
            .map(|(&(priority, weight, demand), id)| Claim {
                pool: PoolId(id),
                priority,
                weight,
                demand,
            })
            .collect();
        let got: Vec<u64> = shares(capacity, claims).into_values().collect();
        assert_eq!(got, expect);
    }

    #[test]
    fn slots_are_shared_by_weight_and_nobody_gets_more_than_it_can_use() {
        check(12, &[(0, 1, 100), (0, 1, 100)], &[6, 6]);
        check(12, &[(0, 1, 2), (0, 1, 100)], &[2, 10]);
        check(12, &[(0, 1, 100), (0, 2, 100)], &[4, 8]);
        check(3, &[(0, 1, 100), (0, 1, 100)], &[2, 1]);
        check(0, &[(0, 1, 5)], &[0]);
    }

    #[test]
    fn small_pools_are_not_forgotten() {
        check(4, &[(0, 1, 100), (0, 2, 100), (0, 3, 3)], &[1, 1, 2]);
        check(2, &[(0, 1, 9), (0, 1, 9), (0, 1, 9)], &[1, 1, 0]);
        check(4, &[(0, 1, 1), (0, 100, 100)], &[1, 3]);
    }

    #[test]
    fn a_higher_priority_is_served_first() {
        check(12, &[(0, 1, 100), (5, 1, 10)], &[2, 10]);
        check(4, &[(0, 1, 100), (5, 1, 10)], &[0, 4]);
    }
}
