//! `apply_async` gives a handle at once; `get()` waits for its result.

#![expect(clippy::print_stdout, reason = "an example shows what happens")]

use std::{thread::sleep, time::Duration};

#[fleetpool::task]
fn func(message: String) -> String {
    sleep(Duration::from_millis(100));
    format!("done {message}")
}

fn main() -> Result<(), fleetpool::Error> {
    fleetpool::init();
    let pool = fleetpool::Pool::builder().processes(4).build()?;
    let handles = (0..10)
        .map(|number| pool.apply_async(func, format!("hello {number}")))
        .collect::<Result<Vec<_>, _>>()?;
    pool.close();
    for handle in handles {
        println!("::: {}", handle.get()?);
    }
    pool.join()?;
    println!("Sub-process(es) done.");
    Ok(())
}
