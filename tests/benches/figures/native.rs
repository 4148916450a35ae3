//! Cases b, c, f and g: the Rust API. The functions here are what the workers run; each contestant is this program
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

/// No-ops a second, again for each line on stdin, by one client that stays.
pub(crate) fn no_ops_when_told(tasks: u64) {
    with_pool(SLOTS, |pool| {
        warm(pool);
        crate::say("ready");
        for _ in std::io::stdin().lines() {
            let start = Instant::now();
            for result in pool.imap_unordered(nothing, 0..tasks) {
                result.expect("a no-op");
            }
            crate::tell(crate::as_f64(tasks) / start.elapsed().as_secs_f64());
        }
    });
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

/// What `work` finds on a pool of so many slots.
pub(crate) fn with_pool<T>(slots: u32, work: impl FnOnce(&Pool) -> T) -> T {
    let pool = Pool::builder().processes(slots).build().expect("a pool");
    let found = work(&pool);
    pool.close();
    pool.join().expect("joined");
    found
}

/// Workers are started before the clock is.
pub(crate) fn warm(pool: &Pool) {
    pool.map(nothing, 0..1000).expect("no-ops");
}

pub(crate) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
