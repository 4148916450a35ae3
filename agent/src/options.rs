//! What an agent has to be told, and how it fails.

use std::{io, path::PathBuf};

use fleetpool_proto::pool::ContentHash;
use serde::{Deserialize, Serialize};

/// What an agent is.
#[derive(Clone, Debug)]
pub struct Options {
    /// The host's name, unique in the fleet.
    pub name: String,
    /// Slots that it offers.
    pub slots: u16,
    /// Labels, sorted by key.
    pub labels: Vec<(String, String)>,
    /// The program that is started as the spawner; its `main` must begin with
    /// [`run_if_asked`](crate::run_if_asked).
    pub spawner: PathBuf,
    /// Where programs that pools bring are kept. `None`: only local ones can be run.
    pub cache_dir: Option<PathBuf>,
    /// Programs of this host that pools may name, vouched for by the caller.
    pub local_programs: Vec<(ContentHash, PathBuf)>,
    /// The coordinator's address is the near end of a tunnel over ssh: what people are to see of how it is connected.
    pub tunnelled: bool,
    /// Content is got from other agents and passed on to them, on a port of its own; otherwise this agent listens nowhere.
    pub passes_on: bool,
    /// Where the agent marks its life. Another agent of the same folder begins only when everything below this one
    /// is gone, however it ended.
    pub state_dir: Option<PathBuf>,
    /// The spawner is a service of its own, which listens in the state folder (see [`serve_spawner`](crate::serve_spawner)): what
    /// runs here outlives this agent, and the next one goes on with it.
    pub spawner_is_service: bool,
    /// Tasks are put into cgroups, where the host allows that, and held to these limits. `None`: there are no cgroups of ours, as is
    /// right for an agent that comes and goes with its client.
    pub limits: Option<TaskLimits>,
}

/// What a task may take of its host. What nobody has said is left to the agent: see `agent/src/spawner/cgroup/limits.rs`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TaskLimits {
    /// Processes and threads at once.
    pub pids: Option<u64>,
    /// Bytes of memory. `None`: all that tasks may have together.
    pub memory: Option<u64>,
}

impl Options {
    /// An agent that keeps nothing on disk.
    #[must_use]
    pub fn new(name: impl Into<String>, slots: u16, spawner: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            slots,
            labels: Vec::new(),
            spawner: spawner.into(),
            cache_dir: None,
            local_programs: Vec::new(),
            tunnelled: false,
            passes_on: true,
            state_dir: None,
            spawner_is_service: false,
            limits: None,
        }
    }
}

/// Why an agent cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The spawner cannot be started.
    #[error("cannot start {program} as the spawner: {source}; without it no task can be run")]
    Spawner {
        /// The program.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is no spawner that is a service of its own.
    #[error(
        "no spawner listens in {folder}: {source}; start `fleetpool spawner` with the same identity, or the agent without --with-spawner"
    )]
    NoSpawner {
        /// The folder.
        folder: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The spawner is of a build that this one does not know.
    #[error(
        "the spawner in {folder} is of another build, and cannot be taken over (it speaks version {theirs} of what an agent leaves, this agent {ours}): start it anew, which ends what runs here"
    )]
    SpawnerVersion {
        /// The folder.
        folder: PathBuf,
        /// What it speaks.
        theirs: u8,
        /// What this build speaks.
        ours: u8,
    },
    /// The spawner has ended, and all that ran with it.
    #[error(
        "the spawner is gone, and with it all that ran here: the agent begins anew when both are started again"
    )]
    SpawnerGone,
    /// The agent's journal cannot be written.
    #[error("cannot write the agent's journal in {folder}: {source}; make room there")]
    Journal {
        /// The folder.
        folder: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The state folder cannot be used.
    #[error(
        "cannot use the state folder {folder}: {source}; make it writable for the agent's user, or name another"
    )]
    State {
        /// The folder.
        folder: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Standard input and output are no session's.
    #[error(
        "cannot serve over standard input and output: {0}; ssh starts this with a pipe on either"
    )]
    Stdio(#[source] io::Error),
    /// The kernel gives no timer.
    #[error("cannot make a timer for the lease: {0}; allow the agent more open files")]
    Fence(#[source] io::Error),
    /// The coordinator does not let this agent in, and never did.
    #[error(transparent)]
    Connect(#[from] Box<fleetpool_net::ConnectError>),
    /// The only session there can be has ended.
    #[error("{0}")]
    Closed(#[from] fleetpool_net::Closed),
}
