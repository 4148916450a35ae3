//! G1 where the agent itself cannot act, because it is stopped, alone or with everything on its host: its keepers know
//! of the lease.

mod common;

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use common::{Boss, PROBE, SPEC, door::Door, is_alive, kill, parent, pid_in, probe};
use fleetpool_proto::{
    Outcome,
    message::HeldState,
    pool::{PoolOptions, Retries, Runtime, Spec},
};
use nix::{
    sys::signal::Signal::{self, SIGCONT, SIGSTOP},
    unistd::Pid,
};
use tempfile::TempDir;

const LEASE: Duration = Duration::from_secs(2);
/// A coordinator grants again a lease, a tenth of it and two seconds after the last renewal; that may have been this
/// long before the agent was stopped.
const RENEWED_BEFORE: Duration = LEASE.checked_div(3).unwrap();

fn regranted_after() -> Duration {
    LEASE + LEASE / 10 + Duration::from_secs(2) - RENEWED_BEFORE
}

/// An agent in a process of its own, and its coordinator.
struct Fleet {
    agent: Child,
    door: Door,
    boss: Boss,
    folder: TempDir,
}

impl Fleet {
    async fn new(pool: PoolOptions, spec: Spec) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let address = format!("unix:{}", folder.path().join("socket").display());
        let mut door = Door::open(&address, LEASE);
        let agent = Command::new(probe())
            .args(["dial", &address])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let boss = door.boss_of_another(2, pool, spec).await;
        Self {
            agent,
            door,
            boss,
            folder,
        }
    }

    async fn of_commands(pool: PoolOptions) -> Self {
        Self::new(pool, Spec::default()).await
    }

    /// Runs a task that has started one in a session of its own, waits for `go`, and ignores TERM; both processes.
    async fn task(&mut self) -> [i32; 2] {
        let files = ["main", "detached", "go"].map(|name| self.folder.path().join(name));
        let [main, detached, go] = files.each_ref().map(|file| file.display());
        let script = format!(
            "trap '' TERM; setsid sh -c 'echo $$ > {detached}; exec sleep 1000' &
             echo $$ > {main}; until [ -e {go} ]; do sleep 0.02; done; kill -9 %1"
        );
        self.boss.sh(0, &script).await;
        [
            begun(&mut self.boss, &files[0]).await,
            begun(&mut self.boss, &files[1]).await,
        ]
    }

    fn agent_gets(&self, signal: Signal) {
        kill(i32::try_from(self.agent.id()).unwrap(), signal);
    }

    /// What the agent says that it holds, once it is back.
    async fn held(&mut self) -> Vec<(u64, HeldState)> {
        self.boss.held = None;
        self.boss.rejoin(self.door.next().await);
        self.boss.holds().await
    }

    /// Whether the agent works as before; whatever else it has to report comes first.
    async fn works(&mut self) -> bool {
        self.boss.define(SPEC, Spec::default()).await;
        self.boss.allot(2).await;
        self.boss.run_sh(99, "true").await.outcome() == Outcome::Done
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.agent.kill().unwrap();
        self.agent.wait().unwrap();
    }
}

async fn begun(boss: &mut Boss, file: &Path) -> i32 {
    boss.until("its pid", |_| pid_in(file)).await
}

/// How long it takes until these are gone, if they are before a coordinator would grant their task again.
fn gone_before_it_is_granted_again(pids: &[i32]) -> bool {
    let since = Instant::now();
    while since.elapsed() < regranted_after() {
        if !pids.iter().any(|&pid| is_alive(pid)) {
            return true;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    false
}

#[tokio::test]
async fn g1_the_tasks_of_a_stopped_agent_end_with_its_lease() {
    let mut fleet = Fleet::of_commands(PoolOptions::default()).await;
    let pids = fleet.task().await;
    fleet.agent_gets(SIGSTOP);
    assert!(gone_before_it_is_granted_again(&pids));
    fleet.agent_gets(SIGCONT);
    assert_eq!(fleet.held().await, [], "the attempt is forgotten");
    assert!(fleet.works().await);
    assert_eq!(Vec::from_iter(fleet.boss.ends.keys()), [&99]);
}

#[tokio::test]
async fn g1_a_native_worker_of_a_stopped_agent_ends_with_its_lease() {
    let runtime = Runtime::Native {
        program: PROBE,
        size: 0,
    };
    let pool = PoolOptions {
        runtime,
        ..PoolOptions::default()
    };
    let spec = Spec {
        function: "sleep".to_owned(),
        ..Spec::default()
    };
    let mut fleet = Fleet::new(pool, spec).await;
    let milliseconds = vec![0; 600_000].into();
    fleet.boss.grant_raw(SPEC, [(0, milliseconds)]).await;
    let begun = |boss: &Boss| boss.started.get(&0).map(|row| row.pid.cast_signed());
    let pid = fleet.boss.until("its pid", begun).await;
    fleet.agent_gets(SIGSTOP);
    assert!(gone_before_it_is_granted_again(&[pid]));
    fleet.agent_gets(SIGCONT);
    assert_eq!(fleet.held().await, [], "the attempt is forgotten");
    assert!(fleet.boss.ends.is_empty());
}

#[tokio::test]
async fn g1_what_may_not_run_twice_survives_a_stopped_agent() {
    let retries = Retries {
        host_lost: 0,
        ..Retries::default()
    };
    let pool = PoolOptions {
        retries,
        ..PoolOptions::default()
    };
    let mut fleet = Fleet::of_commands(pool).await;
    let pids = fleet.task().await;
    fleet.agent_gets(SIGSTOP);
    assert!(!gone_before_it_is_granted_again(&pids));
    fleet.agent_gets(SIGCONT);
    assert_eq!(fleet.held().await, [(0, HeldState::Running)]);
    std::fs::write(fleet.folder.path().join("go"), "").unwrap();
    assert_eq!(fleet.boss.end(0).await.outcome(), Outcome::Done);
}

#[tokio::test]
async fn a_short_stop_costs_no_task() {
    let mut fleet = Fleet::of_commands(PoolOptions::default()).await;
    fleet.task().await;
    for _ in 0..2 {
        fleet.agent_gets(SIGSTOP);
        // Shorter than what is left of the lease, however long ago it was renewed.
        std::thread::sleep(LEASE / 3);
        fleet.agent_gets(SIGCONT);
        let renewed = Instant::now();
        let while_hearing = || renewed.elapsed() > LEASE / 2;
        fleet.boss.until_true("some renewals", while_hearing).await;
    }
    std::fs::write(fleet.folder.path().join("go"), "").unwrap();
    assert_eq!(fleet.boss.end(0).await.outcome(), Outcome::Done);
}

/// A host that is suspended, or a container that is frozen: nobody can act before it wakes up, and then nothing may
/// come before the fence. `agent_first`: whether processes go on from the top or from the bottom.
async fn wakes_up_after_its_lease(agent_first: bool) {
    let mut fleet = Fleet::of_commands(PoolOptions::default()).await;
    let [main, detached] = fleet.task().await;
    let keeper = parent(main);
    let agent = i32::try_from(fleet.agent.id()).unwrap();
    let mut all = [agent, parent(keeper), keeper, main, detached];
    all.iter().for_each(|&pid| kill(pid, SIGSTOP));
    assert!(!gone_before_it_is_granted_again(&[main]));
    // It would end as done now, and be reported as that.
    std::fs::write(fleet.folder.path().join("go"), "").unwrap();
    if !agent_first {
        all.reverse();
    }
    let woken = Instant::now();
    for pid in all {
        // It may be dead by now.
        nix::sys::signal::kill(Pid::from_raw(pid), SIGCONT).ok();
    }
    fleet.boss.until_gone(main).await;
    fleet.boss.until_gone(detached).await;
    let took = woken.elapsed();
    assert!(
        took < Duration::from_millis(500),
        "no grace is left: {took:?}"
    );
    assert_eq!(fleet.held().await, []);
    assert!(fleet.works().await);
    assert_eq!(Vec::from_iter(fleet.boss.ends.keys()), [&99]);
}

#[tokio::test]
async fn g1_a_host_that_wakes_up_after_its_lease_ends_its_tasks_at_once() {
    wakes_up_after_its_lease(true).await;
}

#[tokio::test]
async fn g1_a_host_that_wakes_up_after_its_lease_reports_nothing() {
    wakes_up_after_its_lease(false).await;
}
