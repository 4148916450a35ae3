//! Worlds that nobody would think of.

use std::time::Duration;

use fleetpool_proto::pool::{ContentHash, PoolOptions, Retries, Runtime};

use super::{
    engine::host_id,
    plan::{Ending, Fault, HostPlan, Lengths, PoolPlan, World},
};
use crate::chance::Chance;

/// Faults come within this time.
const TROUBLED_MS: u64 = 90_000;

impl World {
    /// A small world of chance: hosts, pools, clients and what befalls them. One in four is quiet.
    #[must_use]
    pub fn of_chance(seed: u64) -> Self {
        let mut dice = Chance::of(&[seed, 0]);
        let mut world = Self::new(seed);
        world.quiet = dice.once_in(4);
        let least = dice.within(20..500);
        world.delay_us = (least, least + dice.within(0..3000));
        if dice.once_in(8) {
            world.delay_us = (20_000, 30_000);
        }
        let unfit = !world.quiet && dice.once_in(10);
        for _ in 0..dice.within(1..6) {
            world.hosts.push(HostPlan {
                slots: u16::try_from(dice.within(1..5)).unwrap_or(1),
                drift: i64::try_from(dice.within(0..81)).unwrap_or_default() - 40,
                unfit: unfit && dice.once_in(2),
            });
        }
        for _ in 0..dice.within(1..4) {
            let pool = pool_of_chance(&mut dice, world.quiet);
            world.pools.push(pool);
        }
        if !world.quiet {
            world.bulk_one_in = dice.pick(&[0, 2, 10]);
            world.window_tasks = dice.pick(&[16, 100, 65_536]);
            let faults = dice.pick(&[0, 2, 8, 20]);
            for _ in 0..faults {
                let at = Duration::from_millis(dice.within(0..TROUBLED_MS));
                let fault = fault_of_chance(&mut dice, world.hosts.len(), world.pools.len());
                world.faults.push((at, fault));
            }
        }
        world
    }
}

fn pool_of_chance(dice: &mut Chance, quiet: bool) -> PoolPlan {
    let native = Runtime::Native {
        program: ContentHash([7; 32]),
        size: 1,
    };
    let retries = dice.pick(&[(3, 0, 0), (0, 0, 0), (3, 2, 2), (0, 1, 1), (1, 0, 1)]);
    let options = PoolOptions {
        runtime: if dice.once_in(2) {
            native
        } else {
            Runtime::Command
        },
        slots: dice.pick(&[None, None, Some(1), Some(2), Some(3), Some(5)]),
        retries: Retries {
            host_lost: retries.0,
            worker_lost: retries.1,
            failed: retries.2,
        },
        priority: i32::from(dice.once_in(8)),
        weight: u32::try_from(dice.within(1..4)).unwrap_or(1),
        tasks_per_worker_max: dice.pick(&[0, 0, 0, 1, 7]),
        kill_grace_ms: dice.pick(&[1000, 1000, 100, 5000]),
        ..PoolOptions::default()
    };
    let ms = Duration::from_millis;
    let lengths = dice.pick(&[
        Lengths::Between(Duration::ZERO, Duration::from_micros(50)),
        Lengths::Between(Duration::from_micros(100), ms(3)),
        Lengths::Between(ms(5), ms(200)),
        Lengths::Between(ms(500), ms(15_000)),
        Lengths::HeavyTailed(Duration::from_micros(50)),
        Lengths::HeavyTailed(ms(5)),
    ]);
    let tasks = dice.pick(&[1, 5, 40, 120, 300]);
    let mut plan = PoolPlan {
        options,
        tasks,
        lengths,
        opened_at: ms(dice.pick(&[0, 0, 50, 2000])),
        consumes_within_us: dice.pick(&[500, 5000, 200_000]),
        ..PoolPlan::default()
    };
    if quiet {
        return plan;
    }
    plan.timeout_ms = dice.pick(&[0, 0, 0, 100, 5000]);
    plan.fails_one_in = dice.pick(&[0, 0, 5]);
    plan.crashes_one_in = dice.pick(&[0, 0, 0, 9]);
    plan.prints_one_in = dice.pick(&[0, 3]);
    plan.pinned = dice.once_in(8);
    let sometime = |dice: &mut Chance| ms(dice.within(0..40_000));
    plan.ending = match dice.within(0..8) {
        0 => Ending::Terminate(sometime(dice)),
        1 => Ending::Vanish(sometime(dice)),
        _ => Ending::Close,
    };
    if dice.once_in(3) {
        for _ in 0..3 {
            let first = dice.within(0..tasks);
            plan.cancels
                .push((ms(dice.within(0..5000)), first..first + 20));
        }
    }
    if dice.once_in(6) {
        plan.resize = Some((sometime(dice), dice.pick(&[Some(1), Some(4), None])));
    }
    plan
}

fn fault_of_chance(dice: &mut Chance, hosts: usize, clients: usize) -> Fault {
    let one_of = |dice: &mut Chance, all: usize| {
        usize::try_from(dice.within(0..all as u64)).unwrap_or_default()
    };
    let host = host_id(one_of(dice, hosts));
    let client = one_of(dice, clients);
    let ms = |dice: &mut Chance, most| Duration::from_millis(dice.within(1..most));
    match dice.within(0..17) {
        0..3 => Fault::Break(host),
        3..6 => Fault::Cut {
            host,
            up: dice.within(0..3) > 0,
            down: dice.within(0..3) > 0,
            lasts: ms(dice, 60_000),
        },
        6 => Fault::PowerCut {
            host,
            lasts: ms(dice, 60_000),
        },
        7 => Fault::KillAgent {
            host,
            lasts: Duration::from_secs(2) + ms(dice, 5000),
        },
        8 => Fault::Pause {
            host,
            lasts: ms(dice, 60_000),
        },
        9 => Fault::Cordon {
            host,
            lasts: ms(dice, 10_000),
        },
        10..13 => Fault::LoseClient {
            client,
            lasts: ms(dice, 25_000),
        },
        13 => Fault::CancelJob { client },
        14 => Fault::StopCoordinator {
            lasts: Duration::from_secs(1) + ms(dice, 60_000),
        },
        _ => Fault::KillCoordinator {
            power: dice.once_in(4),
            lasts: ms(dice, 20_000),
        },
    }
}
