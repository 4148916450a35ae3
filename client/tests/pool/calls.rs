//! Calls and their results.

use fleetpool::Pool;

use crate::runner::tests;

tests! {
    map_keeps_the_order_of_its_inputs
}

#[fleetpool::task]
fn square(x: u64) -> u64 {
    x * x
}

fn pool(processes: u32) -> Pool {
    Pool::builder()
        .cluster("local")
        .processes(processes)
        .build()
        .unwrap()
}

fn map_keeps_the_order_of_its_inputs() {
    let pool = pool(2);
    let squares = pool.map(square, 0..1000).unwrap();
    assert!(squares.into_iter().eq((0..1000).map(|x| x * x)));
}
