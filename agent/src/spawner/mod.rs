//! The spawner: a small single-threaded process, exec'ed from the agent's own binary, that forks keepers.
//!
//! An agent never forks: it may be large, and it has threads. It asks its spawner for a keeper a worker, over a
//! socket of their own, and talks to the keeper directly from then on. The spawner is a subreaper, so that
//! whatever a keeper leaves comes to it, and dies.

mod process;
mod start;
pub(crate) mod sys;

pub(crate) use process::{child_signals, is_ready, wait_for};
pub use start::Spawner;

/// The hidden first argument that makes a process a spawner.
const VERB: &str = "__fleetpool-spawner";

/// Is the spawner, and never returns, when this process was started as one. To be called first thing in `main`,
/// before any thread is started.
pub fn run_if_asked() {
    if std::env::args_os().nth(1).is_some_and(|verb| verb == VERB) {
        process::run();
    }
}
