//! Agents that end while their commands run, and others that go on with them (G10).

mod common;
mod host;

use std::{
    fs,
    time::{Duration, Instant},
};

use common::{Boss, door::DAY, is_alive};
use fleetpool_proto::{
    Outcome,
    message::HeldState,
    pool::{PoolOptions, Retries},
};
use host::{Host, all_gone, outlives, spawner};
use nix::sys::signal::Signal;

fn numbered(count: usize) -> String {
    (1..=count).map(|line| format!("line {line}\n")).collect()
}

#[tokio::test]
async fn g10_commands_go_on_under_an_agent_that_is_killed_again_and_again() {
    const SLOTS: u64 = 16;
    const LINES: usize = 300;
    let mut host = Host::new(16, PoolOptions::default()).await;
    let [begun, go] = ["begun", "go"].map(|name| host.file(name));
    let script = format!(
        "echo $$ >> {}; i=0; while [ $i -lt {LINES} ]; do i=$((i+1)); echo line $i; sleep 0.01; done; \
         until [ -e {} ]; do sleep 0.02; done; echo over >&2",
        begun.display(),
        go.display()
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
    fs::write(&go, "").unwrap();
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
        assert_eq!(outlives(pid, lease), survives);
        host.next_agent().await;
        let held: &[_] = if survives {
            &[(0, HeldState::Running)]
        } else {
            &[]
        };
        assert_eq!(host.boss.holds().await, held);
    }
}
