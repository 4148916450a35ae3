//! The spawner: a small single-threaded process, exec'ed from the agent's own binary, that forks keepers.
//!
//! An agent never forks: it may be large, and it has threads. It asks its spawner for a keeper a worker, over a
//! socket of their own, and talks to the keeper directly from then on. The spawner is a subreaper, so that
//! whatever a keeper leaves comes to it, and dies.

use std::{io, os::unix::process::CommandExt as _, path::Path, time::Duration};

mod brood;
mod cgroup;
mod process;
mod request;
mod service;
mod start;
pub(crate) mod sys;

pub(crate) use cgroup::{Contained, Leaf};
pub(crate) use process::{child_signals, is_ready, wait_for};
pub(crate) use request::{Control, Greeting, Name, VERSION, hear};
pub(crate) use service::lock_in;
pub(crate) use start::Spawner;

/// The hidden first argument that makes a process a spawner.
const VERB: &str = "__fleetpool-spawner";
/// The one that makes it a spawner that is a service of its own: its folder, and the milliseconds that it outlives an agent,
/// follow.
const SERVICE_VERB: &str = "__fleetpool-spawner-service";
/// The one that makes it the keeper of a worker that a template has forked: the worker's process and the numbers of
/// descriptors follow.
const KEEPER_VERB: &str = "__fleetpool-keeper";

/// A spawner that is a service of its own, as it is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spawned {
    /// An agent of this build can go on with what runs below it.
    pub is_known: bool,
    /// Something runs below it that ends with its agent all the same: workers that stay, of an agent or a spawner without relays.
    pub has_bound: bool,
}

/// Looks at the spawner of a folder, and leaves everything as it is.
///
/// # Errors
/// When there is none.
pub fn look_at_spawner(folder: &Path) -> io::Result<Spawned> {
    let (_, greeting, _) = Spawner::visit(folder)?;
    Ok(Spawned {
        is_known: greeting.version == VERSION,
        has_bound: greeting.has_bound,
    })
}

/// Becomes the spawner of a folder, which outlives its agents for so long. `program` is this very program.
///
/// # Errors
/// When it cannot: else it does not return.
pub fn serve_spawner(program: &Path, folder: &Path, outlives: Duration) -> io::Error {
    let mut command = std::process::Command::new(program);
    let ms = outlives.as_millis().to_string();
    command.arg(SERVICE_VERB).arg(folder).arg(ms).exec()
}

/// Is the spawner, or a keeper, and never returns, when this process was started as one.
pub(crate) fn run_if_asked() {
    let mut args = std::env::args_os().skip(1);
    let verb = args.next().and_then(|verb| verb.into_string().ok());
    match verb.as_deref() {
        Some(VERB) => process::run(),
        Some(SERVICE_VERB) => service::run(args),
        Some(KEEPER_VERB) => {
            process::run_keeper(args.map(|arg| arg.into_string().unwrap_or_default()))
        }
        _ => {}
    }
}
