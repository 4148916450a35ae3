//! Workers are reused, not recreated: 1,000 tasks run in as many processes as the pool has slots.

#![expect(clippy::print_stdout, reason = "an example shows what happens")]

use std::collections::BTreeSet;

#[fleetpool::task]
fn where_am_i(_task: u32) -> (String, u32) {
    let host = std::env::var("FLEETPOOL_HOST").unwrap_or_default();
    (host, std::process::id())
}

fn main() -> Result<(), fleetpool::Error> {
    fleetpool::init();
    let pool = fleetpool::Pool::builder().processes(2).build()?;
    let processes: BTreeSet<(String, u32)> = pool.map(where_am_i, 0..1000)?.into_iter().collect();
    println!("1000 tasks ran in {} processes", processes.len());
    for (host, pid) in processes {
        println!("{host} {pid}");
    }
    pool.close();
    pool.join()
}
