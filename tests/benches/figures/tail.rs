//! Case h: tasks of very different lengths, and what a list schedule makes of them.
//!
//! A list schedule gives each task, in order, to the slot that is free first. Where slots differ, which one that is hangs
//! on microseconds, and with it whether the last long task runs twice as long: one such schedule of the same tasks may
//! take 1.3 times another. So several orders of the tasks are run, and compared with the mean of many schedules whose
//! lengths differ by a hair. What no chance blurs is how long slots stood idle while tasks waited.

use std::{
    iter::repeat_n,
    thread::sleep,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use fleetpool::Pool;

use crate::{
    as_f64,
    native::{micros, warm, with_pool},
};

/// Tasks of a run.
const TASKS: u64 = 200;
/// Runs of a turn, each with the tasks in another order.
const ORDERS: usize = 8;
/// Schedules that the ideal is the mean of.
const SCHEDULES: usize = 100;
/// By how much lengths differ between them: a hair, as two runs of a task differ.
const HAIR: f64 = 0.005;

/// When a task began, in microseconds since 1970, how long it ran, and how long it would have run on a fast slot.
type Ran = (u64, u64, u64);

/// Sleeps so long, and twice as long on the host whose name ends in `slow`.
#[fleetpool::task]
fn sleep_us_here(us: u64) -> Ran {
    let host = std::env::var("FLEETPOOL_HOST").unwrap_or_default();
    let times = if host.ends_with("slow") { 2 } else { 1 };
    let (began_us, start) = (wall_us(), Instant::now());
    sleep(Duration::from_micros(us * times));
    let ran_us = micros(start.elapsed());
    (began_us, ran_us, ran_us / times)
}

/// Makespans over those of ideal list schedules of the same tasks, and the percentage of the slots' time in which one
/// stood idle while a task waited.
pub(crate) fn makespan_and_idle(slow_slots: usize, fast_slots: usize) -> (f64, f64) {
    let slots = slow_slots + fast_slots;
    let mut dice = Dice::new();
    let mut lengths = heavy_tail(&mut dice);
    let (mut took_us, mut ideal_us, mut idle, mut there) = (0.0, 0.0, 0.0, 0.0);
    with_pool(u32::try_from(slots).expect("few"), |pool| {
        warm(pool);
        for _ in 0..ORDERS {
            dice.shuffle(&mut lengths);
            let run = Run::of(pool, &lengths);
            took_us += run.took_us;
            ideal_us += ideal(&run.lengths(), slow_slots, fast_slots, &mut dice);
            let waiting_us = run.last_began_us() * as_f64(slots as u64);
            idle += waiting_us - run.busy_while_tasks_waited_us();
            there += waiting_us;
        }
    });
    (took_us / ideal_us, 100.0 * idle / there)
}

struct Run {
    began_us: u64,
    took_us: f64,
    tasks: Vec<Ran>,
}

impl Run {
    fn of(pool: &Pool, lengths: &[u64]) -> Self {
        let (began_us, start) = (wall_us(), Instant::now());
        let tasks = pool.map(sleep_us_here, lengths.to_vec()).expect("slept");
        let took_us = start.elapsed().as_secs_f64() * 1e6;
        Self {
            began_us,
            took_us,
            tasks,
        }
    }

    fn lengths(&self) -> Vec<f64> {
        self.tasks.iter().map(|task| as_f64(task.2)).collect()
    }

    /// From the start of the run until no task waited any more.
    fn last_began_us(&self) -> f64 {
        let began = self
            .tasks
            .iter()
            .map(|task| task.0.saturating_sub(self.began_us));
        as_f64(began.max().unwrap_or(0))
    }

    fn busy_while_tasks_waited_us(&self) -> f64 {
        let end_us = self.last_began_us();
        let busy = self.tasks.iter().map(|&(began_us, ran_us, _)| {
            let began = as_f64(began_us.saturating_sub(self.began_us));
            as_f64(ran_us).min(end_us - began)
        });
        busy.sum()
    }
}

/// The mean makespan of list schedules of such tasks, in microseconds; a slow slot takes twice as long.
fn ideal(lengths: &[f64], slow_slots: usize, fast_slots: usize, dice: &mut Dice) -> f64 {
    let makespans = (0..SCHEDULES).map(|_| {
        let times = repeat_n(2.0, slow_slots).chain(repeat_n(1.0, fast_slots));
        let mut slots: Vec<(f64, f64)> = times.map(|times| (0.0, times)).collect();
        for length in lengths {
            let first = slots.iter_mut().min_by(|a, b| a.0.total_cmp(&b.0));
            let (free_at, times) = first.expect("slots");
            *free_at += length * *times * (1.0 + HAIR * (dice.roll() - 0.5));
        }
        slots.iter().map(|slot| slot.0).fold(0.0, f64::max)
    });
    makespans.sum::<f64>() / as_f64(SCHEDULES as u64)
}

/// Lengths of a Pareto distribution (shape 1.2, at least 4 ms, at most 400 ms), always the same ones.
fn heavy_tail(dice: &mut Dice) -> Vec<u64> {
    let length = |roll: f64| (4_000.0 * roll.powf(-1.0 / 1.2)).min(400_000.0);
    (0..TASKS)
        .map(|_| micros(Duration::from_secs_f64(length(dice.roll()) / 1e6)))
        .collect()
}

/// Throws the same numbers in every run.
struct Dice(u64);

impl Dice {
    fn new() -> Self {
        Self(0x2545_F491_4F6C_DD1D)
    }

    /// Above 0, at most 1.
    fn roll(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        as_f64((self.0 >> 12) + 1) / as_f64(1 << 52)
    }

    fn shuffle(&mut self, items: &mut [u64]) {
        for left in (1..items.len()).rev() {
            let chosen = self.0 % (left as u64 + 1);
            self.roll();
            items.swap(left, usize::try_from(chosen).expect("an index"));
        }
    }
}

fn wall_us() -> u64 {
    micros(
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default(),
    )
}
