//! A task that forks without end (G6). By itself in this file, since nothing that is timed runs well beside it.

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use common::{Boss, options};
use fleetpool_proto::{
    Outcome,
    pool::{PoolOptions, Spec},
};
use nix::{sys::signal::Signal, unistd::Pid};

/// A cgroup that lets its processes be so many, so that a test's bomb is one to its task alone.
struct Few(PathBuf);

impl Few {
    /// `None` where this process may not make one.
    fn new(most: u32) -> Option<Self> {
        let folder = Path::new("/sys/fs/cgroup/pids");
        let few = Self(folder.join(format!("fleetpool-test-{}", std::process::id())));
        fs::create_dir(&few.0).ok()?;
        fs::write(few.0.join("pids.max"), most.to_string()).ok()?;
        Some(few)
    }

    fn count(&self) -> usize {
        let processes = fs::read_to_string(self.0.join("cgroup.procs")).unwrap();
        processes.lines().count()
    }
}

impl Drop for Few {
    fn drop(&mut self) {
        let began = Instant::now();
        while fs::remove_dir(&self.0).is_err() && began.elapsed() < common::PATIENCE {
            // The test has failed, and somebody is still in it.
            let processes = fs::read_to_string(self.0.join("cgroup.procs")).unwrap_or_default();
            for pid in processes.lines().filter_map(|pid| pid.parse().ok()) {
                nix::sys::signal::kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
            }
        }
    }
}

/// Every process of it forks as fast as it can, for ever: it never waits for its children, and fills what room killed
/// ones leave.
#[tokio::test]
async fn g6_a_fork_bomb_is_ended_and_its_agent_goes_on() {
    const MOST: u32 = 300;
    const ENDED: Duration = Duration::from_secs(10);
    let Some(few) = Few::new(MOST) else {
        eprintln!("not tested: no cgroup can be made here to hold a fork bomb");
        return;
    };
    let pool = PoolOptions {
        kill_grace_ms: 100,
        ..PoolOptions::default()
    };
    let mut boss = Boss::with(options(2), pool, Spec::default()).await;
    let script = format!(
        "echo $$ > {}/cgroup.procs && exec perl -e '$SIG{{TERM}} = \"IGNORE\"; while (1) {{ defined fork or select(undef, undef, undef, 0.01) }}'",
        few.0.display()
    );
    boss.sh(0, &script).await;
    boss.until_true("a full house", || few.count() > MOST as usize * 3 / 4)
        .await;
    // The other slot does not mind.
    assert_eq!(boss.run_sh(1, "true").await.outcome(), Outcome::Done);
    let asked = Instant::now();
    boss.cancel(0).await;
    assert_eq!(boss.end(0).await.outcome(), Outcome::Cancelled);
    assert!(asked.elapsed() < ENDED, "{:?}", asked.elapsed());
    assert_eq!(few.count(), 0, "the report came before the end of the tree");
    assert_eq!(boss.run_sh(2, "true").await.outcome(), Outcome::Done);
}
