//! `map` over a range: eight calls over two processes, results in the order of the inputs.

#![expect(clippy::print_stdout, reason = "an example shows what happens")]

use std::{thread::sleep, time::Duration};

#[fleetpool::task]
fn m1(x: u64) -> u64 {
    sleep(Duration::from_millis(20));
    x * x
}

fn main() -> Result<(), fleetpool::Error> {
    fleetpool::init();
    let pool = fleetpool::Pool::builder().processes(2).build()?;
    let squares: Vec<u64> = pool.map(m1, 0..8)?;
    println!("{squares:?}");
    pool.close();
    pool.join()
}
