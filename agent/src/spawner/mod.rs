//! The spawner: a small single-threaded process, exec'ed from the agent's own binary, that forks keepers.
//!
//! An agent never forks: it may be large, and it has threads. It asks its spawner for a keeper a worker, over a
//! socket of their own, and talks to the keeper directly from then on. The spawner is a subreaper, so that
//! whatever a keeper leaves comes to it, and dies.

mod process;
mod start;
pub(crate) mod sys;

pub(crate) use process::{child_signals, is_ready, wait_for};
pub(crate) use start::Spawner;

/// The hidden first argument that makes a process a spawner.
const VERB: &str = "__fleetpool-spawner";
/// The one that makes it the keeper of a worker that a template has forked: the worker's process and the numbers of
/// descriptors follow.
const KEEPER_VERB: &str = "__fleetpool-keeper";

/// What a spawner is asked for.
mod request {
    /// A keeper, with these descriptors.
    pub(super) const KEEPER: u8 = 1;
    /// To bury what keepers that are not its own children have left; it is done when it closes the descriptor.
    pub(super) const SWEEP: u8 = 2;
    /// A keeper that is to become a template.
    pub(super) const TEMPLATE: u8 = 3;
}

/// Is the spawner, or a keeper, and never returns, when this process was started as one.
pub(crate) fn run_if_asked() {
    let mut args = std::env::args_os()
        .skip(1)
        .map(|arg| arg.into_string().unwrap_or_default());
    match args.next().as_deref() {
        Some(VERB) => process::run(),
        Some(KEEPER_VERB) => process::run_keeper(args),
        _ => {}
    }
}
