//! `terminate` ends what runs, now: an hour of sleep is over in a moment, and nothing of it is left.

#![expect(clippy::print_stdout, reason = "an example shows what happens")]

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

#[fleetpool::task]
fn sleep_for_an_hour() {
    sleep(Duration::from_secs(3600));
}

fn main() -> Result<(), fleetpool::Error> {
    fleetpool::init();
    let pool = fleetpool::Pool::builder().processes(2).build()?;
    let handle = pool.apply_async(sleep_for_an_hour, ())?;
    let start = Instant::now();
    pool.terminate();
    pool.join()?;
    println!(
        "terminated in less than a minute: {}",
        start.elapsed() < Duration::from_secs(60)
    );
    if let Err(error) = handle.get() {
        println!("its result: {error}");
    }
    Ok(())
}
