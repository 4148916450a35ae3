//! Four different functions in one pool of four: each slot runs whatever comes next.

#![expect(clippy::print_stdout, reason = "an example shows what happens")]

use std::{process, thread::sleep, time::Duration};

#[fleetpool::task]
fn lee() -> u64 {
    run("Lee", 40)
}

#[fleetpool::task]
fn marlon() -> u64 {
    run("Marlon", 30)
}

#[fleetpool::task]
fn allen() -> u64 {
    run("Allen", 20)
}

#[fleetpool::task]
fn frank() -> u64 {
    run("Frank", 10)
}

fn run(name: &str, ms: u64) -> u64 {
    println!("Run task {name}-{}", process::id());
    sleep(Duration::from_millis(ms));
    println!("Task {name} runs {ms} ms.");
    ms
}

fn main() -> Result<(), fleetpool::Error> {
    fleetpool::init();
    println!("parent process {}", process::id());
    let pool = fleetpool::Pool::builder().processes(4).build()?;
    let handles = [
        pool.apply_async(lee, ())?,
        pool.apply_async(marlon, ())?,
        pool.apply_async(allen, ())?,
        pool.apply_async(frank, ())?,
    ];
    println!("Waiting for all subprocesses done...");
    pool.close();
    let mut ran_ms = 0;
    for handle in handles {
        ran_ms += handle.get()?;
    }
    pool.join()?;
    println!("All subprocesses done: {ran_ms} ms.");
    Ok(())
}
