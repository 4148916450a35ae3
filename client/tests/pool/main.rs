//! The pool as programs use it: a real embedded cluster, real workers. Workers are this very program, so it has a
//! `main` of its own.

#![forbid(unsafe_code)] // What tasks become must not need it.
#![expect(clippy::print_stdout, reason = "a test harness and its tasks print")]

mod calls;
mod deaths;
mod life;
mod runner;

use std::{thread, time::Duration};

use fleetpool::Pool;

#[fleetpool::task]
fn square(x: u64) -> u64 {
    x * x
}

#[fleetpool::task]
fn sleep_ms(ms: u64) -> u64 {
    thread::sleep(Duration::from_millis(ms));
    ms
}

/// Waits until so many are in the folder.
#[fleetpool::task]
fn meet(place: (String, usize)) {
    let (folder, all) = place;
    std::fs::write(format!("{folder}/{}", std::process::id()), "").unwrap();
    while std::fs::read_dir(&folder).unwrap().count() < all {
        thread::sleep(Duration::from_millis(5));
    }
}

fn pool(processes: u32) -> Pool {
    Pool::builder()
        .cluster("local")
        .processes(processes)
        .build()
        .unwrap()
}

fn main() {
    fleetpool::init();
    runner::run(&[calls::TESTS, life::TESTS, deaths::TESTS]);
}
