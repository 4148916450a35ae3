//! A host on which agents end and others go on: the spawner is a service of its own. All that is killed here is a process.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use fleetpool_proto::pool::{PoolOptions, Spec};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::common::{
    Boss,
    door::{DAY, Door},
    is_alive, kill, pid_in, probe,
};

/// How soon everything must be gone that is to go: two seconds (G6), and one that a loaded machine may add.
pub(crate) const GONE: Duration = Duration::from_secs(3);

/// A folder with a spawner that is a service, and an agent that goes on there again and again.
pub(crate) struct Host {
    pub(crate) folder: TempDir,
    pub(crate) slots: u16,
    pub(crate) spawner: Process,
    pub(crate) agent: Process,
    pub(crate) door: Door,
    pub(crate) boss: Boss,
}

/// A process that ends with the test.
pub(crate) struct Process(pub(crate) Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

impl Process {
    pub(crate) fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).spawn().unwrap())
    }

    pub(crate) fn end(&mut self, signal: Signal) {
        kill(self.0.id().try_into().unwrap(), signal);
        self.0.wait().unwrap();
    }
}

pub(crate) fn spawner(folder: &Path, outlives: Duration) -> Process {
    let ms = outlives.as_millis().to_string();
    let mut command = Command::new(probe());
    command.arg("spawner").arg(folder).arg(ms);
    Process::start(&mut command)
}

impl Host {
    pub(crate) async fn new(slots: u16, pool: PoolOptions) -> Self {
        Self::with(slots, pool, DAY, Duration::from_secs(300)).await
    }

    pub(crate) async fn with(
        slots: u16,
        pool: PoolOptions,
        lease: Duration,
        outlives: Duration,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let address = format!("unix:{}", folder.path().join("door").display());
        let mut door = Door::open(&address, lease);
        let spawner = spawner(folder.path(), outlives);
        let agent = agent(folder.path(), slots);
        let mut boss = door.boss_of_another(slots, pool, Spec::default()).await;
        let _ = boss.holds().await;
        Self {
            folder,
            slots,
            spawner,
            agent,
            door,
            boss,
        }
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Ends the agent, and nobody is there.
    pub(crate) fn end_agent(&mut self, signal: Signal) {
        self.boss.lose_session();
        self.agent.end(signal);
    }

    /// Another agent comes.
    pub(crate) async fn next_agent(&mut self) {
        self.agent = agent(self.folder.path(), self.slots);
        self.boss.rejoin(self.door.next().await);
    }

    pub(crate) async fn begun(&mut self, file: &Path) -> i32 {
        self.boss.until("its pid", |_| pid_in(file)).await
    }
}

pub(crate) fn agent(folder: &Path, slots: u16) -> Process {
    let address = format!("unix:{}", folder.join("door").display());
    let mut command = Command::new(probe());
    command.arg("go-on").arg(folder).arg(address);
    command.arg(slots.to_string());
    Process::start(&mut command)
}

pub(crate) fn all_gone(pids: &[i32], since: Instant) {
    while pids.iter().any(|&pid| is_alive(pid)) {
        assert!(since.elapsed() < GONE, "{pids:?} are still there");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether a process that nobody looks after is there when the lease and what follows it are over.
pub(crate) fn outlives(pid: i32, lease: Duration) -> bool {
    let begun = Instant::now();
    while is_alive(pid) && begun.elapsed() < lease + GONE {
        std::thread::sleep(Duration::from_millis(5));
    }
    is_alive(pid)
}
