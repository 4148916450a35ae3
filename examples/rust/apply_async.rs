//! Four messages, three processes: `apply_async` does not wait. The fourth begins when one of the first three has ended.
//!
//! ```console
//! $ cargo run -p fleetpool --example apply_async                                 # this machine
//! $ FLEETPOOL_CLUSTER=head:7700 cargo run -p fleetpool --example apply_async     # a fleet
//! ```

#![expect(clippy::print_stdout, reason = "an example shows what happens")]

use std::{thread::sleep, time::Duration};

#[fleetpool::task]
fn func(message: String) {
    println!("message: {message}");
    sleep(Duration::from_millis(300));
    println!("end");
}

fn main() -> Result<(), fleetpool::Error> {
    fleetpool::init();
    let pool = fleetpool::Pool::builder().processes(3).build()?;
    for number in 0..4 {
        pool.apply_async(func, format!("hello {number}"))?;
    }
    println!("Mark~ Mark~ Mark~");
    pool.close();
    pool.join()?;
    println!("Sub-process(es) done.");
    Ok(())
}
