//! What commands print: whole lines, in order, none lost, at the pace of whoever takes it.

mod common;

use std::time::{Duration, Instant};

use common::Boss;
use fleetpool_proto::{
    Outcome,
    limits::{OUTPUT_HELD_BYTES_MAX, OUTPUT_LINE_BYTES_MAX},
    message::Stream,
};

#[tokio::test]
async fn lines_are_never_cut_but_at_the_end() {
    let mut boss = Boss::new(1).await;
    let script = "for i in 1 2 3 4 5 6 7 8; do printf 'half '; sleep 0.01; echo \"line $i\"; done; printf end";
    boss.run_sh(0, script).await;
    let wanted: String = (1..=8).map(|i| format!("half line {i}\n")).collect();
    assert_eq!(boss.stdout(0), wanted + "end");
    let (last, lines) = boss.pieces.split_last().unwrap();
    assert!(
        lines.iter().all(|(_, _, bytes)| bytes.ends_with(b"\n")),
        "{lines:?}"
    );
    assert!(last.2.ends_with(b"end"));
}

#[tokio::test]
async fn output_comes_while_the_task_runs() {
    let mut boss = Boss::new(1).await;
    boss.sh(0, "echo early; sleep 60").await;
    boss.until("the early line", |boss| {
        (boss.stdout(0) == "early\n").then_some(())
    })
    .await;
    assert!(boss.ends.is_empty());
    boss.cancel(0).await;
    boss.end(0).await;
}

#[tokio::test]
async fn any_bytes_pass() {
    let mut boss = Boss::new(1).await;
    boss.run_sh(0, r"printf 'a\0b\377\376\n\n\0'").await;
    assert_eq!(boss.printed[&0][0], b"a\0b\xff\xfe\n\n\0");
}

#[tokio::test]
async fn an_overlong_line_comes_in_pieces() {
    let mut boss = Boss::new(1).await;
    boss.run_sh(0, "head -c 300000 /dev/zero | tr '\\0' x")
        .await;
    assert_eq!(boss.printed[&0][0], vec![b'x'; 300_000]);
    assert!(
        boss.pieces
            .iter()
            .all(|(_, _, bytes)| bytes.len() <= OUTPUT_LINE_BYTES_MAX)
    );
}

#[tokio::test]
async fn a_crash_loses_no_output() {
    let mut boss = Boss::new(1).await;
    let end = boss
        .run_sh(0, "seq 1 20000; echo dying >&2; printf last; kill -SEGV $$")
        .await;
    assert_eq!(end.command().signal, Some(11));
    let wanted: String = (1..=20_000).map(|i| format!("{i}\n")).collect();
    assert!(boss.stdout(0) == wanted + "last");
    assert_eq!(boss.stderr(0), "dying\n");
}

#[tokio::test]
async fn a_flood_comes_whole() {
    let mut boss = Boss::new(2).await;
    boss.sh(
        0,
        "yes 'all work and no play makes jack a dull boy' | head -c 50000000",
    )
    .await;
    boss.sh(1, "for i in 1 2 3 4 5; do echo $i; sleep 0.02; done")
        .await;
    assert_eq!(boss.end(1).await.outcome(), Outcome::Done);
    boss.end(0).await;
    assert_eq!(boss.printed[&0][0].len(), 50_000_000);
    assert_eq!(boss.stdout(1), "1\n2\n3\n4\n5\n");
}

/// Nobody takes the output: the task waits in its `write`, and what is held stays small.
#[tokio::test]
async fn a_flood_that_nobody_takes_slows_its_task_down() {
    let folder = tempfile::tempdir().unwrap();
    let count = folder.path().join("count");
    let mut boss = Boss::new(1).await;
    // Each round writes a MiB, and says how many have left.
    let script = format!(
        "i=0; while [ $i -lt 100 ]; do head -c 1048576 /dev/zero | tr '\\0' '\\n'; i=$((i+1)); echo $i > {}; done",
        count.display()
    );
    boss.sh(0, &script).await;
    let rounds = || {
        std::fs::read_to_string(&count)
            .ok()
            .and_then(|text| text.trim().parse::<u64>().ok())
            .unwrap_or(0)
    };
    let mut last = (rounds(), Instant::now());
    // Without a word from here, until it has not moved for a while.
    while last.1.elapsed() < Duration::from_millis(500) {
        tokio::time::sleep(Duration::from_millis(10)).await;
        if rounds() != last.0 {
            last = (rounds(), Instant::now());
        }
    }
    assert!(last.0 < 40, "{} MiB have left the task", last.0);
    assert_eq!(boss.end(0).await.outcome(), Outcome::Done);
    assert_eq!(boss.printed[&0][0].len(), 100 << 20);
}

#[tokio::test]
async fn streams_are_told_apart_and_keep_their_order() {
    let mut boss = Boss::new(1).await;
    boss.run_sh(0, "for i in $(seq 500); do echo o$i; echo e$i >&2; done")
        .await;
    let wanted = |prefix: &str| {
        (1..=500)
            .map(|i| format!("{prefix}{i}\n"))
            .collect::<String>()
    };
    assert_eq!(boss.stdout(0), wanted("o"));
    assert_eq!(boss.stderr(0), wanted("e"));
    assert!(boss.pieces.iter().all(|(_, stream, bytes)| {
        bytes.starts_with(if *stream == Stream::Stdout {
            b"o"
        } else {
            b"e"
        })
    }));
}

#[tokio::test]
async fn g8_what_is_not_acknowledged_is_kept_and_holds_its_task_back() {
    let mut boss = Boss::new(2).await;
    boss.acknowledges = false;
    let bytes = 4 * OUTPUT_HELD_BYTES_MAX;
    boss.sh(0, &format!("yes | head -c {bytes}")).await;
    let printed = |boss: &Boss| boss.printed.get(&0).map_or(0, |streams| streams[0].len());
    boss.until("a good part of it", |boss| {
        (printed(boss) > OUTPUT_HELD_BYTES_MAX / 2).then_some(())
    })
    .await;
    // Another task is not held back, and comes behind all that there is.
    assert_eq!(boss.run_sh(1, "true").await.outcome(), Outcome::Done);
    assert!(printed(&boss) <= OUTPUT_HELD_BYTES_MAX);
    assert!(!boss.ends.contains_key(&0));
    boss.acknowledges = true;
    boss.acknowledge().await;
    assert_eq!(boss.end(0).await.outcome(), Outcome::Done);
    assert_eq!(printed(&boss), bytes);
}
