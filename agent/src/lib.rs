//! The fleetpool agent: link, spawner, keepers, workers and output around its core.
//!
//! ```text
//!            ┌────────────────────── agent (one process, tokio) ──────────────────────┐
//! coordinator ◀─session─▶ shell + core ◀─orders, events─▶ a task a worker             │
//!            └──────────────│──────────────────────────────────│──────────────────────┘
//!                        spawner ──fork──▶ keeper (one a worker) ◀─socket─┘
//!                                            └─▶ a process a command, or one worker
//! ```
//! The agent decides (in its core) and talks; the spawner forks; a keeper starts, watches and ends processes, and
//! nothing that a task starts escapes it. Agent gone: everything below is ended. Keeper gone: the spawner ends what
//! was below it. Spawner gone: the agent ends every keeper and starts another.
#![deny(unsafe_code)]

mod clock;
mod content;
mod facts;
mod fence;
mod journal;
mod keeper;
mod lines;
mod link;
mod options;
mod output;
mod passing;
mod python;
mod shell;
mod spawner;
mod state;
mod stdio;
mod tree;
mod wire;
mod workers;

pub use link::Link;
pub use options::{Error, Options, TaskLimits};
pub use shell::{run, run_until};
pub use spawner::{Spawned, look_at_spawner, serve_spawner};
pub use stdio::{AGENT_VERB, serve_stdio};

/// Is an agent's spawner, a keeper, or an agent for one run, and never returns, when this process was started as one. To
/// be called first thing in `main`, before any thread is started.
pub fn run_if_asked() {
    spawner::run_if_asked();
    stdio::run_if_asked();
}
