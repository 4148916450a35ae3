//! Whole trees of processes: ended with their task, on request, and when the agent, its spawner or a keeper dies
//! (G6). Each pid is one that the task itself has written down.

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use common::{Boss, is_alive, kill, options, parent, pid_in, probe};
use fleetpool_proto::{
    Outcome,
    pool::{PoolOptions, Spec},
};
use nix::sys::signal::Signal;

/// How soon everything must be gone: two seconds (G6), and one that a loaded machine may add.
const GONE: Duration = Duration::from_secs(3);

/// A script that starts everything that likes to escape, writes down the pids, and goes on as `end` says.
fn escape_artists(folder: &Path, end: &str) -> (String, [PathBuf; 5]) {
    let files = ["main", "background", "setsid", "nohup", "stopped"].map(|name| folder.join(name));
    let [main, background, setsid, nohup, stopped] = files.each_ref().map(|file| file.display());
    let script = format!(
        "echo $$ > {main}
         sleep 1000 & echo $! > {background}
         setsid sh -c 'echo $$ > {setsid}; exec sleep 1000' &
         (nohup sh -c 'echo $$ > {nohup}; trap \"\" TERM HUP; while true; do sleep 1000; done' >/dev/null 2>&1 &)
         sh -c 'echo $$ > {stopped}; kill -STOP $$; sleep 1000' &
         while [ ! -s {setsid} ] || [ ! -s {nohup} ] || [ ! -s {stopped} ]; do sleep 0.01; done
         {end}"
    );
    (script, files)
}

async fn pids(boss: &mut Boss, files: &[PathBuf]) -> Vec<i32> {
    let all = |_: &Boss| {
        files
            .iter()
            .map(|file| pid_in(file))
            .collect::<Option<Vec<_>>>()
    };
    boss.until("the tree", all).await
}

fn all_gone_in_time(pids: &[i32], since: Instant) {
    while pids.iter().any(|&pid| is_alive(pid)) {
        let alive: Vec<_> = pids.iter().filter(|&&pid| is_alive(pid)).collect();
        assert!(since.elapsed() < GONE, "still alive: {alive:?} of {pids:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn grace(ms: u32) -> PoolOptions {
    PoolOptions {
        kill_grace_ms: ms,
        ..PoolOptions::default()
    }
}

#[tokio::test]
async fn a_task_takes_what_it_left_running_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let (script, files) = escape_artists(folder.path(), "echo bye");
    let mut boss = Boss::new(1).await;
    let end = boss.run_sh(0, &script).await;
    let pids = pids(&mut boss, &files).await;
    assert!(
        !pids.iter().any(|&pid| is_alive(pid)),
        "the report came before the end of the tree"
    );
    assert_eq!(end.outcome(), Outcome::Done);
    // The four that were started, and the loop's own sleep.
    assert!(
        (4..=6).contains(&end.command().leaked),
        "{:?}",
        end.command()
    );
    assert_eq!(boss.run_sh(1, "true").await.command().leaked, 0);
}

#[tokio::test]
async fn a_cancelled_task_ends_with_its_whole_tree() {
    let folder = tempfile::tempdir().unwrap();
    let (script, files) = escape_artists(folder.path(), "wait");
    let mut boss = Boss::with(options(1), grace(200), Spec::default()).await;
    boss.sh(0, &script).await;
    let pids = pids(&mut boss, &files).await;
    let asked = Instant::now();
    boss.cancel(0).await;
    let end = boss.end(0).await;
    assert_eq!(end.outcome(), Outcome::Cancelled);
    all_gone_in_time(&pids, asked);
}

#[tokio::test]
async fn term_comes_first_and_kill_after_the_grace() {
    let folder = tempfile::tempdir().unwrap();
    let ready = folder.path().join("ready");
    let mut boss = Boss::with(options(1), grace(300), Spec::default()).await;
    let polite = format!(
        "trap 'echo got it; exit 3' TERM; echo $$ > {}; while true; do sleep 0.01; done",
        ready.display()
    );
    boss.sh(0, &polite).await;
    boss.until("the trap", |_| pid_in(&ready)).await;
    boss.cancel(0).await;
    let end = boss.end(0).await;
    assert_eq!(
        (end.loss().exit, boss.stdout(0).as_str()),
        (Some(3), "got it\n")
    );
    fs::remove_file(&ready).unwrap();
    let rude = format!(
        "trap '' TERM; echo $$ > {}; while true; do sleep 0.01; done",
        ready.display()
    );
    boss.sh(1, &rude).await;
    boss.until("the trap", |_| pid_in(&ready)).await;
    let asked = Instant::now();
    boss.cancel(1).await;
    let end = boss.end(1).await;
    assert!(
        asked.elapsed() >= Duration::from_millis(300),
        "{:?}",
        asked.elapsed()
    );
    assert_eq!(
        (end.outcome(), end.loss().signal),
        (Outcome::Cancelled, Some(9))
    );
}

#[tokio::test]
async fn a_task_that_runs_too_long_is_ended() {
    let folder = tempfile::tempdir().unwrap();
    let (script, files) = escape_artists(folder.path(), "wait");
    let spec = Spec {
        timeout_ms: 2000,
        ..Spec::default()
    };
    let mut boss = Boss::with(options(1), grace(100), spec).await;
    let end = boss.run_sh(0, &script).await;
    assert_eq!(end.outcome(), Outcome::TimedOut);
    assert!(end.loss().message.contains("2 s"), "{}", end.loss().message);
    let pids = pids(&mut boss, &files).await;
    all_gone_in_time(&pids, Instant::now());
}

#[tokio::test]
async fn a_daemon_that_keeps_the_pipe_does_not_hold_up_the_end() {
    let spec = Spec {
        leave_children: true,
        ..Spec::default()
    };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pid");
    let mut boss = Boss::of(spec).await;
    let began = Instant::now();
    let end = boss
        .run_sh(
            0,
            &format!("sleep 1000 & echo $! > {}; echo begun", file.display()),
        )
        .await;
    assert!(began.elapsed() < Duration::from_secs(10));
    assert_eq!((end.outcome(), end.command().leaked), (Outcome::Done, 0));
    assert_eq!(boss.stdout(0), "begun\n");
    let daemon = pid_in(&file).unwrap();
    assert!(is_alive(daemon), "it was to be left alone");
    assert_eq!(boss.run_sh(1, "true").await.outcome(), Outcome::Done);
    boss.leave().await.unwrap();
    // Its keeper ends now, and then the spawner: the daemon outlives both.
    let end = Instant::now();
    while parent(daemon) != 1 && end.elapsed() < Duration::from_millis(500) {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(is_alive(daemon), "it was to be left alone");
    kill(daemon, Signal::SIGKILL);
}

#[tokio::test]
async fn the_agents_end_is_the_end_of_its_tasks() {
    let folder = tempfile::tempdir().unwrap();
    let (script, files) = escape_artists(folder.path(), "wait");
    let mut boss = Boss::new(1).await;
    boss.sh(0, &script).await;
    let pids = pids(&mut boss, &files).await;
    let left = Instant::now();
    boss.leave().await.unwrap();
    tokio::task::yield_now().await;
    all_gone_in_time(&pids, left);
}

/// An agent in a process of its own, which can be killed.
fn agent(folder: &Path, script: &str) -> Child {
    let child = Command::new(probe())
        .arg("agent")
        .arg(folder)
        .arg(script)
        .stdin(Stdio::null())
        .spawn();
    child.unwrap()
}

#[tokio::test]
async fn nothing_survives_the_killing_of_an_agent() {
    let folder = tempfile::tempdir().unwrap();
    let (script, files) = escape_artists(folder.path(), "wait");
    let mut agent = agent(folder.path(), &script);
    let pids = wait_for_pids(&files);
    let keeper = parent(pids[0]);
    let spawner = parent(keeper);
    agent.kill().unwrap();
    let killed = Instant::now();
    agent.wait().unwrap();
    all_gone_in_time(&[pids.as_slice(), &[keeper, spawner]].concat(), killed);
}

#[tokio::test]
async fn nothing_survives_an_agent_and_its_spawner() {
    let folder = tempfile::tempdir().unwrap();
    let (script, files) = escape_artists(folder.path(), "wait");
    let mut agent = agent(folder.path(), &script);
    let pids = wait_for_pids(&files);
    let keeper = parent(pids[0]);
    kill(parent(keeper), Signal::SIGKILL);
    agent.kill().unwrap();
    let killed = Instant::now();
    agent.wait().unwrap();
    all_gone_in_time(&[pids.as_slice(), &[keeper]].concat(), killed);
}

#[tokio::test]
async fn a_stopped_keeper_is_no_shelter() {
    let folder = tempfile::tempdir().unwrap();
    let (script, files) = escape_artists(folder.path(), "wait");
    let mut agent = agent(folder.path(), &script);
    let pids = wait_for_pids(&files);
    let keeper = parent(pids[0]);
    kill(keeper, Signal::SIGSTOP);
    agent.kill().unwrap();
    let killed = Instant::now();
    agent.wait().unwrap();
    all_gone_in_time(&[pids.as_slice(), &[keeper]].concat(), killed);
}

/// Some programs ignore SIGCHLD, and what they start inherits that.
#[tokio::test]
async fn an_agent_of_a_parent_that_ignores_its_children() {
    let folder = tempfile::tempdir().unwrap();
    let mut agent = Command::new("env")
        .arg("--ignore-signal=CHLD")
        .args([
            probe().as_path(),
            Path::new("agent"),
            folder.path(),
            Path::new("exit 3"),
        ])
        .spawn()
        .unwrap();
    assert!(agent.wait().unwrap().success());
    let end = fs::read_to_string(folder.path().join("end")).unwrap();
    assert_eq!(end, "failed");
}

/// An agent that starts again finds nothing left of its earlier life.
#[tokio::test]
async fn a_second_life_waits_for_the_end_of_the_first() {
    let folder = tempfile::tempdir().unwrap();
    let (script, files) = escape_artists(folder.path(), "wait");
    let mut first = agent(folder.path(), &script);
    let pids = wait_for_pids(&files);
    let keeper = parent(pids[0]);
    // It sees the end of its agent only when it is killed by its spawner, half a second later.
    kill(keeper, Signal::SIGSTOP);
    first.kill().unwrap();
    first.wait().unwrap();
    let second_began = folder.path().join("second");
    let mut second = agent(
        folder.path(),
        &format!("echo $$ > {}", second_began.display()),
    );
    let began = Instant::now();
    while pid_in(&second_began).is_none() {
        assert!(
            began.elapsed() < common::PATIENCE,
            "the second life never began"
        );
        std::thread::sleep(Duration::from_millis(1));
    }
    let alive: Vec<_> = pids.iter().filter(|&&pid| is_alive(pid)).collect();
    second.kill().unwrap();
    second.wait().unwrap();
    assert!(
        alive.is_empty(),
        "{alive:?} lived together with the second life"
    );
}

#[tokio::test]
async fn a_keepers_death_is_its_workers_and_nobody_elses() {
    let folder = tempfile::tempdir().unwrap();
    let (script, files) = escape_artists(folder.path(), "wait");
    let mut boss = Boss::new(2).await;
    boss.sh(0, &script).await;
    boss.sh(1, "sleep 1; echo fine").await;
    let pids = pids(&mut boss, &files).await;
    kill(parent(pids[0]), Signal::SIGKILL);
    let killed = Instant::now();
    let end = boss.end(0).await;
    assert_eq!(end.outcome(), Outcome::WorkerLost, "{:?}", end.loss());
    assert!(
        !pids.iter().any(|&pid| is_alive(pid)),
        "the report came before the end of the tree"
    );
    all_gone_in_time(&pids, killed);
    assert_eq!(boss.end(1).await.outcome(), Outcome::Done);
    assert_eq!(boss.run_sh(2, "true").await.outcome(), Outcome::Done);
}

#[tokio::test]
async fn a_spawners_death_ends_its_tasks_and_another_takes_over() {
    let folder = tempfile::tempdir().unwrap();
    let (script, files) = escape_artists(folder.path(), "wait");
    let mut boss = Boss::new(1).await;
    boss.sh(0, &script).await;
    let pids = pids(&mut boss, &files).await;
    kill(parent(parent(pids[0])), Signal::SIGKILL);
    let killed = Instant::now();
    let end = boss.end(0).await;
    assert_eq!(end.outcome(), Outcome::WorkerLost, "{:?}", end.loss());
    all_gone_in_time(&pids, killed);
    assert_eq!(boss.run_sh(1, "true").await.outcome(), Outcome::Done);
}

#[tokio::test]
async fn a_pool_that_closes_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (script, files) = escape_artists(folder.path(), "wait");
    let mut boss = Boss::with(options(1), grace(100), Spec::default()).await;
    boss.sh(0, &script).await;
    let mut pids = pids(&mut boss, &files).await;
    pids.push(parent(pids[0]));
    boss.say(fleetpool_proto::message::ToAgent::ClosePool { pool: common::POOL })
        .await;
    let asked = Instant::now();
    boss.until_true("the tree's end", || !pids.iter().any(|&pid| is_alive(pid)))
        .await;
    assert!(asked.elapsed() < GONE);
    assert!(boss.ends.is_empty());
}

/// A loop that forks as fast as it can, in sessions of its own.
#[tokio::test]
async fn what_forks_on_and_on_is_ended_too() {
    let mut boss = Boss::with(options(1), grace(0), Spec::default()).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pid");
    let script = format!(
        "f() {{ i=0; while [ $i -lt 300 ]; do setsid sh -c 'sleep 30' & i=$((i+1)); done; }}; echo $$ > {}; f & f & wait",
        file.display()
    );
    boss.sh(0, &script).await;
    boss.until("its beginning", |_| pid_in(&file)).await;
    let asked = Instant::now();
    boss.cancel(0).await;
    let end = boss.end(0).await;
    assert_eq!(end.outcome(), Outcome::Cancelled);
    assert!(asked.elapsed() < 3 * GONE, "{:?}", asked.elapsed());
}

fn wait_for_pids(files: &[PathBuf]) -> Vec<i32> {
    let began = Instant::now();
    loop {
        if let Some(pids) = files
            .iter()
            .map(|file| pid_in(file))
            .collect::<Option<Vec<_>>>()
        {
            return pids;
        }
        assert!(
            began.elapsed() < common::PATIENCE,
            "the tree was not there in time"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}
