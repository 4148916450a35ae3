//! A worker: this program, started by an agent to run tasks one after another.
//!
//! The main thread runs the tasks and writes each result as soon as there is one: a result that were kept back would
//! be lost with the worker. It also reads the socket whenever it has nothing to run, so that a task that comes alone
//! wakes one thread. While a task keeps it from reading, a helper thread reads in its place, so that tasks not yet
//! begun can always be given back.
//!
//! A worker must never outlive its agent: the end of the socket ends it. It starts no pool of its own.

mod clock;
mod context;
mod done;
mod inbox;
mod inherit;
mod outlet;
mod panic;
mod run;

use std::sync::atomic::{AtomicBool, Ordering};

pub(crate) use context::is_worker;
pub use context::{TaskContext, current};

use crate::task;

static INITIALISED: AtomicBool = AtomicBool::new(false);

/// Lets this program be its own workers. Call it first in `main`, before threads are started and arguments are read.
///
/// In the program as you start it this does nothing but note that it was called. In a process that an agent starts
/// from the same binary, it runs the agent's helper or the tasks of a pool, and never returns.
///
/// ```no_run
/// fn main() -> Result<(), fleetpool::Error> {
///     fleetpool::init();
///     let pool = fleetpool::Pool::builder().build()?;
///     // …
///     Ok(())
/// }
/// ```
///
/// # Panics
/// When two tasks of the program have the same path, as functions inside of two functions can.
pub fn init() {
    if INITIALISED.swap(true, Ordering::Relaxed) {
        return;
    }
    fleetpool_agent::run_if_asked();
    if let Some(name) = task::ambiguous() {
        panic!(
            "two fleetpool tasks are both {name}: give one another name, so that workers call the right one"
        );
    }
    if let Some(socket) = inherit::socket() {
        run::run(socket);
    }
}

/// Whether [`init`] was called.
pub(crate) fn is_initialised() -> bool {
    INITIALISED.load(Ordering::Relaxed)
}
