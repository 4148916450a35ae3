//! `join` waits for a pool to end, which an open pool never does: `close` comes first. Forgetting it is an error that says so,
//! and a closed pool takes no more tasks.

#![expect(clippy::print_stdout, reason = "an example shows what happens")]

#[fleetpool::task]
fn double(x: i32) -> i32 {
    x * 2
}

fn main() -> Result<(), fleetpool::Error> {
    fleetpool::init();
    let pool = fleetpool::Pool::builder().processes(2).build()?;
    let answer = pool.apply_async(double, 21)?;
    if let Err(error) = pool.join() {
        println!("join before close: {error}");
    }
    pool.close();
    if let Err(error) = pool.apply(double, 1) {
        println!("apply after close: {error}");
    }
    pool.join()?;
    println!("the answer: {}", answer.get()?);
    Ok(())
}
