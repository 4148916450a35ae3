//! Agents that end while their commands run, and others that go on with them (G10): the spawner is a service of its own. All
//! that is killed here is a process.

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use common::{
    Boss, PROBE,
    door::{DAY, Door},
    is_alive, kill, pid_in, probe,
};
use fleetpool_proto::{
    Outcome,
    message::HeldState,
    pool::{PoolOptions, Retries, Runtime, Spec},
};
use nix::sys::signal::Signal;
use tempfile::TempDir;

/// How soon everything must be gone that is to go (G6).
const GONE: Duration = Duration::from_secs(2);

/// A folder with a spawner that is a service, and an agent that goes on there again and again.
struct Host {
    folder: TempDir,
    slots: u16,
    spawner: Process,
    agent: Process,
    door: Door,
    boss: Boss,
}

/// A process that ends with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

impl Process {
    fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).spawn().unwrap())
    }

    fn end(&mut self, signal: Signal) {
        kill(self.0.id().try_into().unwrap(), signal);
        self.0.wait().unwrap();
    }
}

fn spawner(folder: &Path, outlives: Duration) -> Process {
    let ms = outlives.as_millis().to_string();
    let mut command = Command::new(probe());
    command.arg("spawner").arg(folder).arg(ms);
    Process::start(&mut command)
}

impl Host {
    async fn new(slots: u16, pool: PoolOptions) -> Self {
        Self::with(slots, pool, DAY, Duration::from_secs(300)).await
    }

    async fn with(slots: u16, pool: PoolOptions, lease: Duration, outlives: Duration) -> Self {
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

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Ends the agent, and nobody is there.
    fn end_agent(&mut self, signal: Signal) {
        self.boss.lose_session();
        self.agent.end(signal);
    }

    /// Another agent comes.
    async fn next_agent(&mut self) {
        self.agent = agent(self.folder.path(), self.slots);
        self.boss.rejoin(self.door.next().await);
    }

    async fn begun(&mut self, file: &Path) -> i32 {
        self.boss.until("its pid", |_| pid_in(file)).await
    }
}

fn agent(folder: &Path, slots: u16) -> Process {
    let address = format!("unix:{}", folder.join("door").display());
    let mut command = Command::new(probe());
    command.arg("go-on").arg(folder).arg(address);
    command.arg(slots.to_string());
    Process::start(&mut command)
}

fn numbered(count: usize) -> String {
    (1..=count).map(|line| format!("line {line}\n")).collect()
}

fn all_gone(pids: &[i32], since: Instant) {
    while pids.iter().any(|&pid| is_alive(pid)) {
        assert!(since.elapsed() < GONE, "{pids:?} are still there");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[tokio::test]
async fn g10_commands_go_on_under_an_agent_that_is_killed_again_and_again() {
    const SLOTS: u64 = 16;
    const LINES: usize = 300;
    let mut host = Host::new(16, PoolOptions::default()).await;
    let begun = host.file("begun");
    let script = format!(
        "echo $$ >> {}; i=0; while [ $i -lt {LINES} ]; do i=$((i+1)); echo line $i; sleep 0.01; done; echo over >&2",
        begun.display()
    );
    for index in 0..SLOTS {
        host.boss.sh(index, &script).await;
    }
    let running: Vec<_> = (0..SLOTS)
        .map(|index| (index, HeldState::Running))
        .collect();
    for part in 1..=4 {
        // It has come, and nobody says so before the agent is killed.
        host.boss.acknowledges = part % 2 == 0;
        let lines = |boss: &Boss, index| boss.stdout(index).lines().count();
        let all = |boss: &Boss| (0..SLOTS).all(|index| lines(boss, index) > part * LINES / 8);
        host.boss
            .until("some lines more", |boss| all(boss).then_some(()))
            .await;
        host.end_agent(Signal::SIGKILL);
        host.next_agent().await;
        let mut held = host.boss.holds().await;
        held.sort_by_key(|(index, _)| *index);
        assert_eq!(held, running);
    }
    host.boss.acknowledges = true;
    for index in 0..SLOTS {
        let end = host.boss.end(index).await;
        assert_eq!(end.outcome(), Outcome::Done);
        assert_eq!(host.boss.stdout(index), numbered(LINES), "of {index}");
        assert_eq!(host.boss.stderr(index), "over\n");
    }
    let begun = fs::read_to_string(&begun).unwrap();
    assert_eq!(begun.lines().count(), 16, "each ran once");
    assert!(host.boss.heard_again > 0, "nothing was said again");
    // And what comes next runs as ever.
    assert_eq!(
        host.boss.run_sh(100, "echo next").await.outcome(),
        Outcome::Done
    );
    assert_eq!(host.boss.stdout(100), "next\n");
}

#[tokio::test]
async fn g10_what_ends_while_no_agent_is_there_is_told_to_the_next() {
    let mut host = Host::new(2, PoolOptions::default()).await;
    let [go, pid] = ["go", "pid"].map(|name| host.file(name));
    let script = format!(
        "echo $$ > {}; echo first; until [ -e {} ]; do sleep 0.01; done; printf 'last, no line'; exit 3",
        pid.display(),
        go.display()
    );
    host.boss.sh(0, &script).await;
    let earlier = host.boss.run_sh(1, "echo earlier").await;
    let pid = host.begun(&pid).await;
    // By what systemd would send.
    host.end_agent(Signal::SIGTERM);
    fs::write(&go, "").unwrap();
    host.boss.until_gone(pid).await;
    host.next_agent().await;
    // It was not acknowledged, and is said again.
    assert_eq!(host.boss.end(1).await.row, earlier.row);
    let end = host.boss.end(0).await;
    assert_eq!(
        (end.outcome(), end.command().exit),
        (Outcome::Failed, Some(3))
    );
    assert_eq!(host.boss.stdout(0), "first\nlast, no line");
}

#[tokio::test]
async fn g3_what_was_sent_ahead_runs_once_or_is_granted_again() {
    const TASKS: u64 = 20;
    let mut host = Host::new(2, PoolOptions::default()).await;
    let ran = host.file("ran");
    let script = format!("echo $1 >> {}", ran.display());
    let mut ended = Vec::new();
    for round in 0..8 {
        // The shortest commands: several are in a keeper's hands.
        for index in round * TASKS..(round + 1) * TASKS {
            let words = ["sh", "-c", &script, "-", &index.to_string()];
            host.boss.grant(index, &words).await;
        }
        let some = usize::try_from(round).unwrap();
        host.boss
            .until("some ends", |boss| (boss.ends.len() > some).then_some(()))
            .await;
        ended.extend(host.boss.ends.keys().copied());
        host.boss.acknowledge_ends(&ended).await;
        host.end_agent(Signal::SIGKILL);
        host.next_agent().await;
        let held = host.boss.holds().await;
        // What is not held was in nobody's hands.
        for (index, _) in held {
            host.boss
                .until("its end, or that it comes back", |boss| {
                    let back = boss.retracted.contains(&index) || boss.ends.contains_key(&index);
                    back.then_some(())
                })
                .await;
        }
        ended.extend(host.boss.ends.keys().copied());
    }
    let ran = fs::read_to_string(&ran).unwrap();
    let mut once: Vec<&str> = ran.lines().collect();
    let count = once.len();
    once.sort_unstable();
    once.dedup();
    assert_eq!(once.len(), count, "one ran twice");
    let told = |index: &&str| ended.contains(&index.parse().unwrap());
    assert!(once.iter().all(told), "each that ran is told");
}

#[tokio::test]
async fn g6_nothing_is_left_when_no_agent_comes_back() {
    let bound = Duration::from_millis(700);
    let mut host = Host::with(2, PoolOptions::default(), DAY, bound).await;
    let [main, detached] = ["main", "detached"].map(|name| host.file(name));
    let script = format!(
        "setsid sh -c 'echo $$ > {}; exec sleep 1000' & echo $$ > {}; wait",
        detached.display(),
        main.display()
    );
    host.boss.sh(0, &script).await;
    let pids = [host.begun(&main).await, host.begun(&detached).await];
    host.end_agent(Signal::SIGKILL);
    let ended = Instant::now();
    assert!(pids.iter().all(|&pid| is_alive(pid)));
    all_gone(&pids, ended + bound);
    // The next one begins a new life, and holds nothing.
    host.next_agent().await;
    assert_eq!(host.boss.holds().await, []);
}

#[tokio::test]
async fn g6_nothing_outlives_the_spawner() {
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        let mut host = Host::new(1, PoolOptions::default()).await;
        let main = host.file("main");
        host.boss
            .sh(0, &format!("echo $$ > {}; exec sleep 1000", main.display()))
            .await;
        let pid = host.begun(&main).await;
        host.end_agent(Signal::SIGKILL);
        host.spawner.end(signal);
        let killed = Instant::now();
        all_gone(&[pid], killed);
        host.spawner = spawner(host.folder.path(), Duration::from_secs(300));
        host.next_agent().await;
        assert_eq!(host.boss.holds().await, []);
    }
}

#[tokio::test]
async fn an_agent_whose_spawner_is_killed_ends_and_begins_anew() {
    let mut host = Host::new(1, PoolOptions::default()).await;
    let main = host.file("main");
    host.boss
        .sh(0, &format!("echo $$ > {}; exec sleep 1000", main.display()))
        .await;
    let pid = host.begun(&main).await;
    host.spawner.end(Signal::SIGKILL);
    let killed = Instant::now();
    all_gone(&[pid], killed);
    assert!(!host.agent.0.wait().unwrap().success());
    host.boss.lose_session();
    host.spawner = spawner(host.folder.path(), Duration::from_secs(300));
    host.next_agent().await;
    assert_eq!(host.boss.holds().await, []);
}

/// G1: what may run again elsewhere ends with the lease, whether an agent is there or not.
#[tokio::test]
async fn g1_commands_without_an_agent_end_with_its_lease() {
    let lease = Duration::from_millis(800);
    for (host_lost, survives) in [(3, false), (0, true)] {
        let pool = PoolOptions {
            retries: Retries {
                host_lost,
                ..Retries::default()
            },
            ..PoolOptions::default()
        };
        let mut host = Host::with(1, pool, lease, Duration::from_secs(300)).await;
        let main = host.file("main");
        host.boss
            .sh(0, &format!("echo $$ > {}; exec sleep 1000", main.display()))
            .await;
        let pid = host.begun(&main).await;
        host.end_agent(Signal::SIGKILL);
        let ended = Instant::now();
        while is_alive(pid) && ended.elapsed() < lease + GONE {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(is_alive(pid), survives);
        host.next_agent().await;
        let held: &[_] = if survives {
            &[(0, HeldState::Running)]
        } else {
            &[]
        };
        assert_eq!(host.boss.holds().await, held);
    }
}

/// A worker that stays ends with the agent that it talks to. What it ran is told as what it is.
#[tokio::test]
async fn tasks_of_workers_that_stay_are_lost_with_their_agent() {
    let runtime = Runtime::Native {
        program: PROBE,
        size: 0,
    };
    let pool = PoolOptions {
        runtime,
        ..PoolOptions::default()
    };
    let spec = fleetpool_proto::SpecId(2);
    let mut host = Host::new(1, pool).await;
    let body = Spec {
        function: "sleep".into(),
        ..Spec::default()
    };
    host.boss.define(spec, body).await;
    host.boss
        .grant_raw(spec, [(0, vec![b'x'; 60_000].into())])
        .await;
    host.boss
        .until("it runs", |boss| boss.started.get(&0).cloned())
        .await;
    let pid = host.boss.started[&0].pid.try_into().unwrap();
    host.end_agent(Signal::SIGKILL);
    host.next_agent().await;
    assert!(!is_alive(pid), "it is gone before it is told");
    let end = host.boss.end(0).await;
    assert_eq!(end.outcome(), Outcome::HostLost);
    assert!(end.loss().message.contains("agent"), "{:?}", end.loss());
}
