//! What a pool is asked to be, and what its tasks have in common.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::limits::{HOST_LOST_RETRIES, KILL_GRACE};

/// BLAKE3 of content that travels once a host.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ContentHash(#[serde(with = "serde_bytes")] pub [u8; 32]);

impl std::fmt::Display for ContentHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ContentHash({self})")
    }
}

/// What a worker is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Runtime {
    /// One process a task, exec'ed from the task's own words.
    #[default]
    Command,
    /// The user's own binary in worker mode, kept from task to task.
    Native {
        /// The binary's content. Agents that lack it ask for it.
        program: ContentHash,
        /// Its size in bytes.
        size: u64,
    },
    /// Python processes, forked from one that has made itself ready, and kept from task to task.
    Python {
        /// The interpreter: a path, or a name that the host looks for on its own `PATH`.
        interpreter: String,
        /// What every worker of the pool begins with (its `__main__`, where modules are found, its initializer). Agents
        /// that lack it ask for it.
        context: ContentHash,
    },
}

impl Runtime {
    /// The word used for it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Native { .. } => "native",
            Self::Python { .. } => "python",
        }
    }
}

/// How often a task may be run again, by what ended it (G5). What never started is always moved, free of charge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Retries {
    /// After its host was lost, once the host is fenced. 0: the task may not run twice, so that a partitioned
    /// agent lets it run on, and its outcome can be `Unknown`.
    pub host_lost: u32,
    /// After its worker died, or the kernel took its memory.
    pub worker_lost: u32,
    /// After it failed by itself or timed out.
    pub failed: u32,
}

impl Default for Retries {
    fn default() -> Self {
        Self {
            host_lost: HOST_LOST_RETRIES,
            worker_lost: 0,
            failed: 0,
        }
    }
}

/// A pool as its client asks for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PoolOptions {
    /// For people.
    pub name: String,
    /// Most tasks at once, fleet-wide; `None`: every slot there is, growing and shrinking with the fleet.
    pub slots: Option<u32>,
    /// Which hosts may be used: a selector expression; empty: all.
    pub on: String,
    /// What its workers are.
    pub runtime: Runtime,
    /// How often its tasks may run again.
    pub retries: Retries,
    /// Pools of a higher priority are served first.
    pub priority: i32,
    /// Share among pools of one priority.
    pub weight: u32,
    /// A worker is replaced after this many tasks; 0: never.
    pub tasks_per_worker_max: u32,
    /// Run in every new worker before its first task: a function's name and its argument.
    pub initializer: Option<Initializer>,
    /// Variables set (or, with `None`, removed) in the workers' environment.
    pub env: Vec<(String, Option<String>)>,
    /// The workers' folder; the agent's own when `None`.
    pub cwd: Option<String>,
    /// Milliseconds between TERM and KILL.
    pub kill_grace_ms: u32,
    /// Whether tasks that may not run twice are waited for on a host that is lost, in case it comes back with them. Else they end
    /// as `unknown` when its lease has run out.
    pub waits_for_lost: bool,
    /// It goes on without its client, and the coordinator keeps what its tasks return and print for whoever attaches.
    pub detached: bool,
}

impl Default for PoolOptions {
    fn default() -> Self {
        Self {
            name: String::new(),
            slots: None,
            on: String::new(),
            runtime: Runtime::default(),
            retries: Retries::default(),
            priority: 0,
            weight: 1,
            tasks_per_worker_max: 0,
            initializer: None,
            env: Vec::new(),
            cwd: None,
            kill_grace_ms: u32::try_from(KILL_GRACE.as_millis()).unwrap_or(u32::MAX),
            waits_for_lost: true,
            detached: false,
        }
    }
}

/// What a new worker runs before its first task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Initializer {
    /// Name of a registered function.
    pub function: String,
    /// Its encoded argument.
    pub argument: Bytes,
}

/// What many tasks of a pool have in common; sent once to each agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Spec {
    /// Native: name of the registered function. Others: for people.
    pub function: String,
    /// Python: the pickled function, where it is small.
    pub code: Bytes,
    /// Python: the pickled function, where it is large. Commands: their standard input, where it is large. Agents that lack it ask for
    /// it.
    pub content: Option<ContentHash>,
    /// Python: the one version (major, minor) that can read the function, where it was pickled by value.
    pub python: Option<(u8, u8)>,
    /// Python: modules that the function needs. A host imports them once, before its workers are forked.
    pub modules: Vec<String>,
    /// A task that runs longer is killed with its whole tree; 0: no limit.
    pub timeout_ms: u64,
    /// Processes that a task leaves behind are let live instead of killed.
    pub leave_children: bool,
    /// Commands: the folder to run in, in place of the pool's.
    pub cwd: Option<String>,
    /// Commands: variables set or removed on top of the pool's.
    pub env: Vec<(String, Option<String>)>,
    /// Commands: bytes for every task's standard input.
    pub stdin: Bytes,
}
