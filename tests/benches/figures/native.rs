//! Cases b, c, f, g and h: the Rust API. The functions here are what the workers run; each contestant is this program
//! again, as the client of a pool, and this program once more, as its workers.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use fleetpool::Pool;
use serde_bytes::ByteBuf;

use crate::measure::middle;

/// Slots of every pool here.
const SLOTS: u32 = 2;

#[fleetpool::task]
fn nothing(_task: u64) {}

/// Sleeps so long, and tells in microseconds how long that really was.
#[fleetpool::task]
fn sleep_us(us: u64) -> u64 {
    let start = Instant::now();
    sleep(Duration::from_micros(us));
    micros(start.elapsed())
}

/// As [`sleep_us`], and twice as long on the host whose name ends in `slow`.
#[fleetpool::task]
fn sleep_us_here(us: u64) -> u64 {
    let host = std::env::var("FLEETPOOL_HOST").unwrap_or_default();
    let times = if host.ends_with("slow") { 2 } else { 1 };
    let start = Instant::now();
    sleep(Duration::from_micros(us * times));
    micros(start.elapsed())
}

#[fleetpool::task]
fn take(bytes: ByteBuf) -> u64 {
    bytes.len() as u64
}

#[fleetpool::task]
fn give(bytes: u64) -> ByteBuf {
    ByteBuf::from(vec![7; usize::try_from(bytes).unwrap_or(0)])
}

/// No-ops a second, one call each.
pub(crate) fn no_ops_per_second(tasks: u64) -> f64 {
    with_pool(SLOTS, |pool| {
        warm(pool);
        let start = Instant::now();
        for result in pool.imap_unordered(nothing, 0..tasks) {
            result.expect("a no-op");
        }
        crate::as_f64(tasks) / start.elapsed().as_secs_f64()
    })
}

/// Microseconds of the call in the middle, one after another.
pub(crate) fn apply_us(calls: u64) -> f64 {
    with_pool(1, |pool| {
        warm(pool);
        let times = (0..calls).map(|call| {
            let start = Instant::now();
            pool.apply(nothing, call).expect("a no-op");
            start.elapsed().as_secs_f64() * 1e6
        });
        middle(times)
    })
}

/// MiB a second of arguments.
pub(crate) fn arguments_mib_s(tasks: u64, mib: u64) -> f64 {
    with_pool(SLOTS, |pool| {
        warm(pool);
        let argument = ByteBuf::from(vec![7; usize::try_from(mib << 20).expect("fits memory")]);
        let start = Instant::now();
        let taken: u64 = pool
            .imap_unordered(take, (0..tasks).map(|_| argument.clone()))
            .map(|result| result.expect("taken"))
            .sum();
        assert_eq!(taken, (tasks * mib) << 20);
        crate::as_f64(tasks * mib) / start.elapsed().as_secs_f64()
    })
}

/// MiB a second of results.
pub(crate) fn results_mib_s(tasks: u64, mib: u64) -> f64 {
    with_pool(SLOTS, |pool| {
        warm(pool);
        let start = Instant::now();
        let given: usize = pool
            .imap_unordered(give, (0..tasks).map(|_| mib << 20))
            .map(|result| result.expect("given").len())
            .sum();
        assert_eq!(given as u64, (tasks * mib) << 20);
        crate::as_f64(tasks * mib) / start.elapsed().as_secs_f64()
    })
}

/// The part of the slots' time in which tasks of that length ran, in percent.
pub(crate) fn busy_percent(slots: u32, tasks: u64, us: u64) -> f64 {
    with_pool(slots, |pool| {
        warm(pool);
        // The pool has seen such tasks before: how far to send ahead is learned, not guessed.
        pool.map(sleep_us, (0..tasks / 4).map(|_| us))
            .expect("slept");
        let start = Instant::now();
        let slept = pool.map(sleep_us, (0..tasks).map(|_| us)).expect("slept");
        let busy_us: u64 = slept.iter().sum();
        let there_us = start.elapsed().as_secs_f64() * 1e6 * f64::from(slots);
        100.0 * crate::as_f64(busy_us) / there_us
    })
}

/// Makespan of tasks of very different lengths, divided by that of an ideal list schedule of the same.
pub(crate) fn makespan_over_ideal(slow_slots: usize, fast_slots: usize) -> f64 {
    let lengths = heavy_tail(200);
    let slots = u32::try_from(slow_slots + fast_slots).expect("few");
    with_pool(slots, |pool| {
        warm(pool);
        let start = Instant::now();
        pool.map(sleep_us_here, lengths.clone()).expect("slept");
        let took = start.elapsed().as_secs_f64();
        took / (ideal_us(&lengths, slow_slots, fast_slots) / 1e6)
    })
}

/// Lengths of a Pareto distribution (shape 1.2, at least 4 ms, at most 400 ms), always the same ones.
fn heavy_tail(tasks: u64) -> Vec<u64> {
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    let mut uniform = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        crate::as_f64((state >> 12) + 1) / crate::as_f64(1 << 52)
    };
    let length = |uniform: f64| (4_000.0 * uniform.powf(-1.0 / 1.2)).min(400_000.0);
    (0..tasks)
        .map(|_| micros(Duration::from_secs_f64(length(uniform()) / 1e6)))
        .collect()
}

/// Each task, in order, goes to the slot that is free first; a slow slot takes twice as long.
fn ideal_us(lengths: &[u64], slow_slots: usize, fast_slots: usize) -> f64 {
    let times = std::iter::repeat_n(2, slow_slots).chain(std::iter::repeat_n(1, fast_slots));
    let mut slots: Vec<(u64, u64)> = times.map(|times| (0, times)).collect();
    for &length in lengths {
        let first = slots
            .iter_mut()
            .min_by_key(|(free_at, times)| (*free_at, *times))
            .expect("slots");
        first.0 += length * first.1;
    }
    crate::as_f64(slots.iter().map(|slot| slot.0).max().unwrap_or(0))
}

fn with_pool(slots: u32, work: impl FnOnce(&Pool) -> f64) -> f64 {
    let pool = Pool::builder().processes(slots).build().expect("a pool");
    let figure = work(&pool);
    pool.close();
    pool.join().expect("joined");
    figure
}

/// Workers are started before the clock is.
fn warm(pool: &Pool) {
    pool.map(nothing, 0..1000).expect("no-ops");
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
