//! Workers that stay from task to task, as the probe plays them.

mod common;

use std::{collections::BTreeSet, time::Duration};

use bytes::Bytes;
use common::{Boss, PROBE, SPEC, is_alive, kill, options, probe};
use fleetpool_proto::{
    Outcome, Payloads, SpecId,
    message::ToAgent,
    pool::{ContentHash, Initializer, PoolOptions, Runtime, Spec},
};
use nix::sys::signal::Signal;

fn pool(program: ContentHash) -> PoolOptions {
    PoolOptions {
        runtime: Runtime::Native { program, size: 0 },
        kill_grace_ms: 100,
        ..PoolOptions::default()
    }
}

fn function(name: &str) -> Spec {
    Spec {
        function: name.to_owned(),
        ..Spec::default()
    }
}

/// An agent that has the probe as a local program, and a function as the first specification.
async fn boss(slots: u16, name: &str) -> Boss {
    with(slots, pool(PROBE), name).await
}

async fn with(slots: u16, pool: PoolOptions, name: &str) -> Boss {
    let mut options = options(slots);
    options.local_programs = vec![(PROBE, probe())];
    Boss::with(options, pool, function(name)).await
}

async fn ends(boss: &mut Boss, count: u64) {
    boss.until("all ends", |boss| {
        (boss.ends.len() as u64 == count).then_some(())
    })
    .await;
}

#[tokio::test]
async fn results_come_back_from_workers_that_stay() {
    let mut boss = boss(2, "pid").await;
    boss.grant_raw(SPEC, (0..200).map(|index| (index, Bytes::new())))
        .await;
    ends(&mut boss, 200).await;
    let pids: BTreeSet<&Bytes> = boss.ends.values().map(|end| &end.payload).collect();
    assert!(pids.len() <= 2, "{pids:?}");
    assert!(
        boss.ends
            .values()
            .all(|end| end.payload == end.row.pid.to_string())
    );
}

#[tokio::test]
async fn large_arguments_and_results_pass() {
    let mut boss = boss(1, "echo").await;
    let large: Bytes = (0..8 << 20)
        .map(|i: u32| i.to_le_bytes()[0])
        .collect::<Vec<u8>>()
        .into();
    boss.grant_raw(SPEC, (0..4).map(|index| (index, large.clone())))
        .await;
    ends(&mut boss, 4).await;
    assert!(
        boss.ends
            .values()
            .all(|end| end.outcome() == Outcome::Done && end.payload == large)
    );
}

#[tokio::test]
async fn prints_are_told_with_the_task_that_made_them() {
    let mut boss = boss(1, "print").await;
    boss.define(SpecId(2), function("half")).await;
    boss.define(SpecId(3), function("echo")).await;
    for round in 0..100 {
        let tasks = (0..9).map(|i| (round * 9 + i, Bytes::new()));
        boss.grant_raw(SpecId(1 + u32::try_from(round % 3).unwrap()), tasks)
            .await;
    }
    ends(&mut boss, 900).await;
    for index in 0..900 {
        let wanted = match index / 9 % 3 {
            0 => format!("task {index}\n"),
            1 => format!("task {index} "),
            _ => String::new(),
        };
        assert_eq!(boss.stdout(index), wanted, "task {index}");
    }
}

#[tokio::test]
async fn a_line_without_an_end_that_was_read_while_its_task_ran_is_told_before_the_tasks_end() {
    let mut boss = boss(1, "linger").await;
    let some_ms = Bytes::from_static(&[0; 8]);
    boss.grant_raw(SPEC, (0..60).map(|index| (index, some_ms.clone())))
        .await;
    ends(&mut boss, 60).await;
    for index in 0..60 {
        assert_eq!(boss.stdout(index), format!("task {index} "));
    }
}

#[tokio::test]
async fn a_pipe_that_fills_up_blocks_nobody() {
    let mut boss = boss(1, "noise").await;
    boss.grant_raw(SPEC, (0..20).map(|index| (index, Bytes::new())))
        .await;
    ends(&mut boss, 20).await;
    for index in 0..20 {
        assert!(
            boss.stdout(index) == format!("{index:0>99}\n").repeat(10_000),
            "task {index}"
        );
    }
}

#[tokio::test]
async fn prints_come_while_a_task_runs() {
    let mut boss = boss(1, "sleep").await;
    boss.grant_raw(SPEC, [(0, vec![0; 60_000].into())]).await;
    boss.until("the print", |boss| {
        (boss.stdout(0) == "sleeping\n").then_some(())
    })
    .await;
    assert!(boss.ends.is_empty());
}

#[tokio::test]
async fn a_crash_fails_its_task_only_and_says_its_last_words() {
    let mut boss = boss(1, "echo").await;
    boss.define(SpecId(2), function("abort")).await;
    boss.grant_raw(SPEC, (0..20).map(|index| (index, Bytes::new())))
        .await;
    boss.grant_raw(SpecId(2), [(20, Bytes::new())]).await;
    boss.grant_raw(SPEC, (21..40).map(|index| (index, Bytes::new())))
        .await;
    ends(&mut boss, 40).await;
    let crashed = boss.ends.remove(&20).unwrap();
    assert_eq!(crashed.outcome(), Outcome::WorkerLost);
    let loss = crashed.loss();
    assert_eq!(loss.signal, Some(6), "{loss:?}");
    assert!(
        loss.stderr_tail.ends_with("last words of task 20\n"),
        "{loss:?}"
    );
    assert!(loss.memory_kib_peak > 0 && crashed.row.pid > 0);
    assert_eq!(boss.stderr(20), "early words\nlast words of task 20\n");
    assert!(boss.ends.values().all(|end| end.outcome() == Outcome::Done));
}

#[tokio::test]
async fn a_killed_worker_is_replaced() {
    let mut boss = boss(1, "sleep").await;
    boss.grant_raw(SPEC, [(0, vec![0; 60_000].into())]).await;
    let row = boss
        .until("its start", |boss| boss.started.get(&0).cloned())
        .await;
    kill(row.pid.try_into().unwrap(), Signal::SIGKILL);
    let end = boss.end(0).await;
    assert_eq!(
        (end.outcome(), end.loss().signal),
        (Outcome::WorkerLost, Some(9))
    );
    boss.grant_raw(SPEC, [(1, Bytes::new())]).await;
    assert_eq!(boss.end(1).await.outcome(), Outcome::Done);
}

#[tokio::test]
async fn a_cancelled_task_takes_its_worker_with_it() {
    let mut boss = boss(1, "sleep").await;
    boss.grant_raw(SPEC, [(0, vec![0; 60_000].into()), (1, Bytes::new())])
        .await;
    let row = boss
        .until("its start", |boss| boss.started.get(&0).cloned())
        .await;
    boss.cancel(0).await;
    assert_eq!(boss.end(0).await.outcome(), Outcome::Cancelled);
    assert!(!is_alive(row.pid.try_into().unwrap()));
    assert_eq!(boss.end(1).await.outcome(), Outcome::Done);
}

#[tokio::test]
async fn initializers_run_first_and_their_prints_are_the_first_tasks() {
    let initializer = |function: &str| {
        Some(Initializer {
            function: function.to_owned(),
            argument: Bytes::new(),
        })
    };
    let greeting = PoolOptions {
        initializer: initializer("greet"),
        ..pool(PROBE)
    };
    let mut boss = with(1, greeting, "print").await;
    boss.grant_raw(SPEC, [(0, Bytes::new())]).await;
    boss.end(0).await;
    assert_eq!(boss.stdout(0), "good morning\ntask 0\n");
    let refusing = PoolOptions {
        initializer: initializer("refuse"),
        ..pool(PROBE)
    };
    let mut boss = with(1, refusing, "print").await;
    boss.grant_raw(SPEC, [(0, Bytes::new())]).await;
    let reason = boss.until("the refusal", |boss| boss.unfit.clone()).await;
    assert!(reason.contains("its initializer failed"), "{reason}");
    assert!(
        reason.contains("the initializer is not in the mood"),
        "{reason}"
    );
}

#[tokio::test]
async fn a_program_that_is_no_worker_makes_the_pool_unfit() {
    let mut options = options(1);
    options.local_programs = vec![(PROBE, "/bin/false".into())];
    let mut boss = Boss::with(options, pool(PROBE), function("echo")).await;
    boss.grant_raw(SPEC, [(0, Bytes::new())]).await;
    let reason = boss.until("the reason", |boss| boss.unfit.clone()).await;
    assert!(reason.contains("exited with status 1"), "{reason}");
}

#[tokio::test]
async fn a_worker_that_is_let_go_ends() {
    let mut boss = boss(1, "pid").await;
    boss.grant_raw(SPEC, [(0, Bytes::new())]).await;
    let pid = boss.end(0).await.row.pid.try_into().unwrap();
    boss.say(ToAgent::ClosePool { pool: common::POOL }).await;
    boss.until_true("its end", || !is_alive(pid)).await;
}

#[tokio::test]
async fn programs_travel_by_hash_and_only_as_what_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = Bytes::from(std::fs::read(probe()).unwrap());
    let hash = ContentHash(*blake3::hash(&bytes).as_bytes());
    let cached = || {
        let mut options = options(1);
        options.cache_dir = Some(folder.path().join("cache"));
        options
    };
    let content = |bytes: &Bytes| ToAgent::Content {
        hash,
        payloads: Payloads::from(vec![bytes.clone()]),
    };

    let mut boss = Boss::with(cached(), pool(hash), function("pid")).await;
    boss.grant_raw(SPEC, [(0, Bytes::new())]).await;
    boss.until("its wish", |boss| (boss.wanted == [hash]).then_some(()))
        .await;
    boss.say(content(&Bytes::from_static(
        b"#!/bin/sh\necho something else\n",
    )))
    .await;
    let reason = boss.until("the refusal", |boss| boss.unfit.clone()).await;
    assert!(reason.contains("is something else"), "{reason}");

    let mut boss = Boss::with(cached(), pool(hash), function("pid")).await;
    boss.grant_raw(SPEC, [(0, Bytes::new())]).await;
    boss.until("its wish", |boss| (boss.wanted == [hash]).then_some(()))
        .await;
    boss.say(content(&bytes)).await;
    assert_eq!(boss.end(0).await.outcome(), Outcome::Done);

    // Another life finds it; a file that was tampered with is fetched again.
    let mut boss = Boss::with(cached(), pool(hash), function("pid")).await;
    boss.grant_raw(SPEC, [(0, Bytes::new())]).await;
    assert_eq!(boss.end(0).await.outcome(), Outcome::Done);
    assert!(boss.wanted.is_empty());
    drop(boss);
    let file = folder.path().join("cache").join(hash.to_string());
    std::fs::remove_file(&file).unwrap();
    std::fs::write(&file, "#!/bin/sh\n").unwrap();
    let mut boss = Boss::with(cached(), pool(hash), function("pid")).await;
    boss.until("its wish", |boss| (boss.wanted == [hash]).then_some(()))
        .await;
}

#[tokio::test]
async fn many_short_tasks_with_now_and_then_a_long_one() {
    let mut boss = boss(2, "echo").await;
    boss.define(SpecId(2), function("sleep")).await;
    for round in 0..20 {
        let first = round * 101;
        boss.grant_raw(
            SPEC,
            (first..first + 100).map(|index| (index, Bytes::new())),
        )
        .await;
        boss.grant_raw(SpecId(2), [(first + 100, vec![0; 20].into())])
            .await;
    }
    let began = std::time::Instant::now();
    ends(&mut boss, 2020).await;
    assert!(began.elapsed() < Duration::from_secs(10));
    assert!(boss.ends.values().all(|end| end.outcome() == Outcome::Done));
}
