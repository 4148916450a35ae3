//! `apply` waits for each call: the same four messages, one after another, whatever the number of processes.

#![expect(clippy::print_stdout, reason = "an example shows what happens")]

use std::{thread::sleep, time::Duration};

#[fleetpool::task]
fn func(message: String) {
    println!("message: {message}");
    sleep(Duration::from_millis(100));
    println!("end");
}

fn main() -> Result<(), fleetpool::Error> {
    fleetpool::init();
    let pool = fleetpool::Pool::builder().processes(3).build()?;
    for number in 0..4 {
        pool.apply(func, format!("hello {number}"))?;
    }
    println!("Mark~ Mark~ Mark~");
    pool.close();
    pool.join()?;
    println!("Sub-process(es) done.");
    Ok(())
}
