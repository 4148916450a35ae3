//! The simulator: named scenarios, worlds of chance, one world of 10,000 hosts, and bugs that are planted to be
//! found. `SIM_SEED=n cargo test -p fleetpool-tests --test sim the_given_seed` runs one world again.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use fleetpool_tests::sim::{Failure, Lengths, World, host};

/// Worlds of chance that `make test` runs; `make sim` runs as many as it is told.
const SEEDS: u64 = 3000;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// The first failure among worlds of these seeds, on two threads.
fn first_failure(seeds: std::ops::Range<u64>, world: impl Fn(u64) -> World + Sync) -> Option<Box<Failure>> {
    let next = AtomicU64::new(seeds.start);
    let search = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return None;
            }
            if let Err(failure) = world(seed).try_run() {
                next.store(seeds.end, Ordering::Relaxed);
                return Some(failure);
            }
        }
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(search);
        let mine = search();
        mine.or(other.join().expect("a search does not panic"))
    })
}

#[test]
fn worlds_of_chance_keep_their_promises() {
    let seeds = number("FLEETPOOL_SIM_SEEDS").unwrap_or(SEEDS);
    if let Some(failure) = first_failure(0..seeds, World::of_chance) {
        panic!("{failure}");
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 0..20 {
        assert_eq!(World::of_chance(seed).try_run(), World::of_chance(seed).try_run());
    }
}

#[test]
fn the_given_seed() {
    if let Some(seed) = number("SIM_SEED") {
        World::of_chance(seed).run();
    }
}

#[test]
fn three_hosts_share_the_work() {
    let summary = World::new(1).hosts(3).slots(4).submit(100).quiet().run();
    assert_eq!((summary.delivered, summary.begun), (100, 100));
}

#[test]
fn a_host_is_lost_in_the_middle() {
    let summary = World::new(2)
        .hosts(3)
        .slots(4)
        .submit(400)
        .lasting(Lengths::Between(Duration::from_millis(100), Duration::from_millis(400)))
        .at(Duration::from_secs(1))
        .lose(host(1))
        .run();
    assert_eq!(summary.delivered, 400);
    assert!(summary.begun > 400, "what ran on it has run again");
}
