//! A process pool over as many machines as you have: `multiprocessing.Pool` for a fleet, in Rust.
//!
//! A [`Pool`] has N slots and runs at most N tasks at once, in processes of their own: on this machine without any
//! setup, or on the hosts of a cluster when its address is given. A *task* is a function marked with
//! [`#[fleetpool::task]`](macro@task); its arguments and its result are any [`serde`] types.
//!
//! ```standalone_crate
//! #[fleetpool::task]
//! fn square(x: u64) -> u64 {
//!     x * x
//! }
//!
//! fn main() -> Result<(), fleetpool::Error> {
//!     fleetpool::init(); // a worker process never returns from here
//!     let pool = fleetpool::Pool::builder().processes(2).build()?;
//!
//!     // All results at once, in the order of the inputs.
//!     let squares: Vec<u64> = pool.map(square, 0..8)?;
//!     assert_eq!(squares, [0, 1, 4, 9, 16, 25, 36, 49]);
//!
//!     // One call in the background.
//!     let handle = pool.apply_async(square, 12)?;
//!     assert_eq!(handle.get()?, 144);
//!
//!     // Results as they come, of an input that is read as they are taken.
//!     let mut sum = 0;
//!     for result in pool.imap_unordered(square, 0..1_000) {
//!         sum += result?;
//!     }
//!     assert_eq!(sum, 332_833_500);
//!
//!     pool.close();
//!     pool.join()
//! }
//! ```
//!
//! # How it works
//!
//! Workers are this very program, started again: [`init`] must be the first thing in `main`, and is where they stay. A
//! worker is kept from task to task. Without a cluster, one is embedded in this process, with no ports and no files.
//! With one ([`Builder::cluster`], `$FLEETPOOL_CLUSTER`, or the configuration file), the program is sent to the hosts
//! that lack it, once, by the hash of its content. So statics, environment and files are those of each worker, not of
//! the caller: what a task needs comes as its argument, or from an [initializer](Builder::initializer).
//!
//! # What can be relied on
//!
//! - Every call ends. A task ends with its result or with one typed [`TaskError`]: a panic, a killed or exited worker, a
//!   lost host, a timeout. Only the task that was running is affected, and the pool goes back to N workers.
//! - Nothing is left behind: cancelled and timed-out tasks, terminated and dropped pools take every process with
//!   them that they started, within two seconds, also when this program is killed.
//! - Memory is bounded: an endless input is read as its results are taken, and calls side by side are fed side by side.
//! - What tasks print arrives, line by line, before their results ([`Builder::output`] redirects it).
//!
//! # More
//!
//! [`Pool::stream`] is for executors, [`Pool::command`] runs programs, [`current`] tells a task who it is, and
//! [`cluster`] is the level below, for tools.
//!
//! [`serde`]: https://serde.rs
#![deny(unsafe_code)]

// The task of `Pool::command` is written with the attribute, which names the crate as its users do.
extern crate self as fleetpool;

mod builder;
mod call;
pub mod cluster;
mod codec;
mod command;
#[doc(hidden)]
pub mod config;
mod error;
pub mod groups;
mod handle;
mod iter;
mod output;
mod park;
mod pool;
mod program;
pub mod raw;
mod task;
mod worker;

pub use builder::{Builder, Retries};
pub use command::{CommandBuilder, CommandOutput};
pub use error::{Error, TaskError};
/// Makes a function one that pools can run in other processes.
///
/// The function keeps its name, its documentation and its visibility, and can still be called as it is. Its name is
/// also a value, of a unit struct of that name, that stands for it when it is given to a pool. (A variable in the
/// same scope can therefore not have that name.)
///
/// A worker finds the function by its path in the program, and its arguments and result travel as
/// [`serde`](https://serde.rs) data. Hence the function must be free, not generic and not `async`; its arguments and its result
/// must be owned values that implement `Serialize` and `Deserialize`. A function of several arguments takes a tuple
/// from the pool, one without any takes `()`.
///
/// ```
/// /// How long the hypotenuse is.
/// #[fleetpool::task]
/// fn hypotenuse(a: f64, b: f64) -> f64 {
///     a.hypot(b)
/// }
///
/// assert_eq!(hypotenuse(3.0, 4.0), 5.0);
/// # fn in_a_pool(pool: &fleetpool::Pool) -> Result<(), fleetpool::Error> {
/// let long = pool.apply(hypotenuse, (3e6, 4e6))?;
/// # Ok(()) }
/// ```
///
/// What cannot travel is refused when the program is compiled, with what to do instead:
///
/// ```compile_fail
/// #[fleetpool::task]
/// fn length(text: &str) -> usize { // take a `String`
///     text.len()
/// }
/// ```
/// ```compile_fail
/// #[fleetpool::task]
/// fn first<T>(of: Vec<T>) -> Option<T> { // write one with a concrete type
///     of.into_iter().next()
/// }
/// ```
/// ```compile_fail
/// #[fleetpool::task]
/// async fn wait() {} // block inside the function
/// ```
/// ```compile_fail,E0277
/// # fn in_a_pool(pool: &fleetpool::Pool) {
/// let factor = 3;
/// pool.map(|x: u64| factor * x, 0..8); // closures do not travel
/// # }
/// ```
/// ```compile_fail,E0277
/// #[fleetpool::task]
/// fn send(channel: std::sync::mpsc::Sender<u8>) {} // not `Serialize`
/// ```
pub use fleetpool_macros::task;
pub use handle::TaskHandle;
pub use iter::{Results, Stream};
pub use output::{Printed, Stream as OutputStream};
pub use pool::{HostView, Pool};
pub use task::Task;
pub use worker::{TaskContext, current, init};

/// For the code that [`task`](macro@task) writes.
#[doc(hidden)]
pub mod __private {
    pub use inventory;

    pub use crate::task::Entry;
}
