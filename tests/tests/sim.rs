//! The simulator: named scenarios, worlds of chance, one world of 10,000 hosts, and bugs that are planted to be
//! found. `SIM_SEED=n cargo test -p fleetpool-tests --test sim the_given_seed` runs one world again.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use fleetpool_agent_core as agent;
use fleetpool_coordinator_core as coordinator;
use fleetpool_tests::sim::{Bug, Ending, Failure, Lengths, World, host};

/// A world is messages of all sizes that are made by one and dropped by another: a quarter of its time is spent on that with the
/// system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Worlds of chance that `make test` runs; `make sim` runs as many as it is told.
const SEEDS: u64 = 10_000;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// The first failure among worlds of these seeds, on two threads.
fn first_failure(
    seeds: std::ops::Range<u64>,
    world: impl Fn(u64) -> World + Sync,
) -> Option<Box<Failure>> {
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
        assert_eq!(
            World::of_chance(seed).try_run(),
            World::of_chance(seed).try_run()
        );
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

/// Three hosts with some seconds of work, which in every other world may not run twice.
fn busy(seed: u64) -> World {
    let lengths = Lengths::Between(Duration::from_millis(5), Duration::from_millis(400));
    let world = World::new(seed).hosts(3).slots(4).submit(300);
    let world = world.lasting(lengths);
    match seed % 2 {
        0 => world.once(),
        _ => world,
    }
}

#[test]
fn g10_a_killed_coordinator_loses_nothing_and_repeats_nothing() {
    for seed in 0..200 {
        let mut world = busy(seed);
        for time in [800, 3000, 6000] {
            world = world.at(Duration::from_millis(time)).kill_coordinator();
        }
        let summary = world.run();
        assert_eq!(
            (summary.delivered, summary.begun),
            (300, 300),
            "seed {seed}"
        );
    }
}

#[test]
fn g10_a_coordinator_whose_machine_loses_its_power_keeps_what_it_acknowledged() {
    for seed in 0..200 {
        let time = Duration::from_millis(900 + 7 * seed);
        let summary = busy(seed).at(time).cut_coordinators_power().run();
        assert_eq!(summary.delivered, 300, "seed {seed}");
    }
}

/// One host is cut off with what it has just been given; the machine that gave it loses its power before it is on disk.
#[test]
fn g5_a_successor_that_is_killed_while_it_waits_for_fences_has_one_that_waits_too() {
    for seed in 0..200 {
        let reset = Duration::from_micros(500 * seed);
        let lengths = Lengths::Between(Duration::from_secs(4), Duration::from_secs(8));
        let world = World::new(seed).hosts(3).slots(16).submit(100);
        let world = world.lasting(lengths).at(reset);
        let world = world.partition(host(0), Duration::from_secs(12));
        let world = world.reset_coordinators_machine();
        let killed = reset + Duration::from_millis(1500);
        let summary = world.at(killed).kill_coordinator().run();
        assert_eq!(summary.delivered, 100, "seed {seed}");
    }
}

/// The coordinator's machine is worked on for longer than leases, with tasks that are as long.
#[test]
fn g10_a_coordinator_that_is_stopped_on_purpose_costs_no_task() {
    for seed in 0..100 {
        let s = Duration::from_secs;
        let world = World::new(seed).hosts(3).slots(4).submit(40);
        let world = world.lasting(Lengths::Between(s(50), s(200)));
        let summary = world.at(s(60)).stop_coordinator(s(300)).run();
        assert_eq!((summary.delivered, summary.begun), (40, 40), "seed {seed}");
    }
}

#[test]
fn g1_what_a_host_runs_that_was_cut_off_while_the_coordinator_was_stopped_is_waited_for() {
    for seed in 0..100 {
        let s = Duration::from_secs;
        let world = World::new(seed).hosts(3).slots(4).submit(40);
        let world = world.lasting(Lengths::Between(s(50), s(900)));
        let world = world.at(s(20)).stop_coordinator(s(30)).at(s(30));
        let world = world.partition(host(0), s(1000)).at(s(60));
        let summary = world.kill_coordinator().run();
        assert_eq!(summary.delivered, 40, "seed {seed}");
    }
}

#[test]
fn g1_leases_are_short_again_when_the_coordinator_is_back() {
    for seed in 0..100 {
        let s = Duration::from_secs;
        let world = World::new(seed).hosts(3).slots(4).submit(40);
        let world = world.lasting(Lengths::Between(s(50), s(900)));
        let world = world.at(s(20)).stop_coordinator(s(30));
        let summary = world.at(s(70)).partition(host(0), s(500)).run();
        assert_eq!(summary.delivered, 40, "seed {seed}");
    }
}

#[test]
fn g4_a_client_that_was_away_hears_that_its_job_was_cancelled() {
    for seed in 0..100 {
        let ms = Duration::from_millis;
        let world = busy(seed).at(ms(500)).lose_client(ms(4000 + 100 * seed));
        let mut world = world.at(ms(800)).cancel_job();
        if seed % 4 < 2 {
            world = world.at(ms(3000)).kill_coordinator();
        }
        let delivered = world.run().delivered;
        assert!(delivered < 300, "seed {seed}: {delivered} of 300");
    }
}

#[test]
fn g4_a_successor_does_not_give_up_a_pool_before_the_hosts_that_can_serve_it_are_back() {
    for seed in 0..100 {
        let ms = Duration::from_millis;
        let world = busy(seed).opening(ms(100)).unfit(host(0)).at(ms(900));
        let world = [1, 2].into_iter().fold(world, |world, number| {
            world.partition(host(number), ms(3500))
        });
        let summary = world.at(ms(1000)).kill_coordinator().run();
        assert_eq!(summary.delivered, 300, "seed {seed}");
    }
}

#[test]
fn a_host_is_lost_in_the_middle() {
    let summary = World::new(2)
        .hosts(3)
        .slots(4)
        .submit(400)
        .lasting(Lengths::Between(
            Duration::from_millis(100),
            Duration::from_millis(400),
        ))
        .at(Duration::from_secs(1))
        .lose(host(1))
        .run();
    assert_eq!(summary.delivered, 400);
    assert!(summary.begun > 400, "what ran on it has run again");
}

#[test]
fn an_agent_is_cut_off_for_longer_than_its_lease() {
    let summary = World::new(3)
        .hosts(2)
        .slots(2)
        .submit(60)
        .lasting(Lengths::Between(
            Duration::from_secs(1),
            Duration::from_secs(5),
        ))
        .at(Duration::from_secs(4))
        .partition(host(0), Duration::from_secs(60))
        .run();
    assert_eq!(summary.delivered, 60);
    assert!(summary.begun > 60, "what it ran has run elsewhere");
}

#[test]
fn a_short_partition_costs_nothing() {
    let summary = World::new(4)
        .hosts(2)
        .slots(2)
        .submit(60)
        .lasting(Lengths::Between(
            Duration::from_secs(1),
            Duration::from_secs(3),
        ))
        .at(Duration::from_secs(4))
        .partition(host(0), Duration::from_secs(15))
        .run();
    assert_eq!((summary.delivered, summary.begun), (60, 60));
}

#[test]
fn an_agent_that_is_not_heard_keeps_to_its_lease() {
    let summary = World::new(5)
        .hosts(2)
        .slots(2)
        .submit(40)
        .processes(3)
        .lasting(Lengths::Between(
            Duration::from_secs(5),
            Duration::from_secs(50),
        ))
        .at(Duration::from_secs(7))
        .mute(host(1), Duration::from_secs(80))
        .run();
    assert_eq!(summary.delivered, 40);
}

#[test]
fn what_may_not_run_twice_survives_a_partition_or_is_unknown() {
    let summary = World::new(6)
        .hosts(2)
        .slots(2)
        .submit(30)
        .once()
        .lasting(Lengths::Between(
            Duration::from_secs(10),
            Duration::from_secs(40),
        ))
        .at(Duration::from_secs(12))
        .partition(host(0), Duration::from_secs(50))
        .at(Duration::from_secs(90))
        .lose(host(1))
        .run();
    assert_eq!(summary.delivered, 30);
    assert!(summary.begun <= 30, "no task has begun twice");
}

#[test]
fn one_long_task_delays_nobody_behind_it() {
    World::new(7)
        .hosts(3)
        .slots(2)
        .submit(3000)
        .native()
        .lasting(Lengths::HeavyTailed(Duration::from_micros(100)))
        .quiet()
        .run();
}

#[test]
fn an_agent_that_was_stopped_starts_nothing_from_its_mail() {
    let summary = World::new(8)
        .hosts(2)
        .slots(2)
        .submit(400)
        .lasting(Lengths::Between(
            Duration::from_millis(100),
            Duration::from_millis(500),
        ))
        .at(Duration::from_secs(2))
        .pause(host(0), Duration::from_secs(50))
        .run();
    assert_eq!(summary.delivered, 400);
}

/// Tasks that run on while their agent is stopped, until long after its lease.
fn stopped_past_its_lease() -> World {
    World::new(14)
        .hosts(2)
        .slots(2)
        .submit(20)
        .lasting(Lengths::Between(
            Duration::from_secs(30),
            Duration::from_secs(60),
        ))
        .at(Duration::from_secs(5))
        .pause(host(0), Duration::from_secs(120))
}

#[test]
fn g1_what_a_stopped_agent_runs_is_ended_before_it_runs_elsewhere() {
    for world in [stopped_past_its_lease(), stopped_past_its_lease().native()] {
        let summary = world.run();
        assert_eq!(summary.delivered, 20);
        assert!(summary.begun > 20, "what it ran has run elsewhere");
    }
}

#[test]
fn sessions_that_break_lose_nothing() {
    let mut world = World::new(9)
        .hosts(3)
        .slots(2)
        .submit(500)
        .native()
        .lasting(Lengths::Between(
            Duration::from_millis(10),
            Duration::from_millis(90),
        ));
    for second in 1..12 {
        world = world
            .at(Duration::from_secs(second))
            .break_session(host(0))
            .break_session(host(2));
    }
    let summary = world.run();
    assert_eq!(
        (summary.delivered, summary.begun),
        (500, 500),
        "and nothing runs twice"
    );
}

#[test]
fn a_killed_agent_comes_back_as_another() {
    let summary = World::new(10)
        .hosts(2)
        .slots(3)
        .submit(200)
        .lasting(Lengths::Between(
            Duration::from_millis(200),
            Duration::from_secs(1),
        ))
        .at(Duration::from_secs(3))
        .kill_agent(host(0))
        .run();
    assert_eq!(summary.delivered, 200);
}

#[test]
fn a_client_that_vanishes_leaves_nothing_behind() {
    World::new(11)
        .hosts(2)
        .slots(2)
        .submit(100)
        .lasting(Lengths::Between(
            Duration::from_secs(5),
            Duration::from_secs(20),
        ))
        .ending(Ending::Vanish(Duration::from_secs(8)))
        .submit(20)
        .now()
        .run();
}

#[test]
fn a_task_for_each_host_while_others_want_the_slots() {
    let summary = World::new(12)
        .hosts(5)
        .slots(2)
        .submit(300)
        .lasting(Lengths::Between(
            Duration::from_millis(50),
            Duration::from_millis(500),
        ))
        .at(Duration::from_secs(1))
        .submit(5)
        .pinned()
        .now()
        .run();
    assert_eq!(summary.delivered, 305);
}

#[test]
fn ten_thousand_hosts() {
    let summary = World::new(13)
        .hosts(10_000)
        .slots(4)
        .submit(100_000)
        .lasting(Lengths::Between(
            Duration::from_millis(500),
            Duration::from_secs(2),
        ))
        .at(Duration::from_secs(1))
        .lose(host(77))
        .partition(host(78), Duration::from_secs(60))
        .break_session(host(79))
        .run();
    assert_eq!(summary.delivered, 100_000);
}

/// A large fleet at work on many short tasks, that loses a host in twenty.
#[test]
#[ignore = "takes minutes: make sim-scale"]
fn ten_million_tasks_on_ten_thousand_hosts_of_which_five_hundred_are_lost() {
    let ms = Duration::from_millis;
    let tasks = 10_000_000;
    let mut world = World::new(15).hosts(10_000).slots(16).submit(tasks);
    world = world.native().lasting(Lengths::Between(ms(10), ms(18)));
    world = world.window(500_000);
    // As shells that have so much to do.
    world = world.turns(ms(5));
    for lost in 0..500 {
        let time = ms(300 + u64::from(lost));
        world = world.at(time).lose(host(20 * lost));
    }
    let start = std::time::Instant::now();
    let summary = world.run();
    eprintln!("{:?}: {summary:?}", start.elapsed());
    assert_eq!(summary.delivered, tasks);
    assert!(
        summary.begun > tasks,
        "what ran on lost hosts has run again"
    );
}

/// Looks for a world that shows the bug, and says which: the simulator is worth what it finds.
fn finds(bug: Bug, promise: &str) {
    let found = first_failure(0..4000, |seed| World::of_chance(seed).planted(bug));
    let failure = found.unwrap_or_else(|| panic!("{bug:?} is planted and not found"));
    eprintln!(
        "{bug:?}: seed {} at {:?}: {}",
        failure.seed, failure.at, failure.what
    );
    assert!(
        failure.what.starts_with(promise),
        "{bug:?} breaks {promise}, not: {}",
        failure.what
    );
    let honest = World::of_chance(failure.seed).try_run();
    assert!(
        honest.is_ok(),
        "without the bug the same world keeps its promises"
    );
}

#[test]
fn a_dropped_attempt_check_is_found() {
    finds(
        Bug::Coordinator(coordinator::PlantedBug::AttemptUnchecked),
        "G3",
    );
}

#[test]
fn a_dropped_lease_margin_is_found() {
    finds(
        Bug::Coordinator(coordinator::PlantedBug::NoLeaseMargin),
        "G",
    );
}

#[test]
fn a_coordinator_that_never_retracts_is_found() {
    finds(Bug::Coordinator(coordinator::PlantedBug::NoRetract), "G2");
}

#[test]
fn slots_given_away_before_they_are_confirmed_free_are_found() {
    finds(
        Bug::Coordinator(coordinator::PlantedBug::AllotUnconfirmed),
        "G1",
    );
}

#[test]
fn an_agent_that_ignores_its_lease_is_found() {
    finds(Bug::Agent(agent::PlantedBug::LeaseIgnored), "G");
}

#[test]
fn keepers_that_do_not_know_of_the_lease_are_found() {
    let bug = Bug::Agent(agent::PlantedBug::FenceUntold);
    let failure = stopped_past_its_lease().planted(bug).try_run().unwrap_err();
    assert!(failure.what.starts_with("G5"), "{failure}");
}

#[test]
fn an_agent_that_runs_what_it_gave_back_is_found() {
    finds(Bug::Agent(agent::PlantedBug::RetractIgnored), "G");
}

#[test]
fn an_agent_that_forgets_an_early_cancel_is_found() {
    finds(Bug::Agent(agent::PlantedBug::TombstoneDropped), "G");
}
