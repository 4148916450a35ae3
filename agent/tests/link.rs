//! The link to the coordinator, over real sockets: dialled, lost, dialled again; and the lease (G1).

mod common;

use std::{path::Path, time::Duration};

use common::{
    Boss,
    door::{DAY, Door},
    is_alive, options, pid_in,
};
use fleetpool_agent::{Error, Link, run};
use fleetpool_net::{Address, ConnectError};
use fleetpool_proto::{
    Outcome, PeerPin, SpecId,
    message::{HeldState, ToAgent},
    pool::{ContentHash, PoolOptions, Retries, Spec},
};

async fn begun(boss: &mut Boss, file: &Path) -> i32 {
    boss.until("its pid", |_| pid_in(file)).await
}

#[tokio::test]
async fn a_lost_session_loses_no_task_and_no_report() {
    let folder = tempfile::tempdir().unwrap();
    let [pid, go] = ["pid", "go"].map(|name| folder.path().join(name));
    let mut door = Door::open("127.0.0.1:0", DAY);
    let mut boss = door.boss(2, PoolOptions::default()).await;
    let end = boss.run_sh(0, "echo first").await;
    let script = format!(
        "echo $$ > {}; until [ -e {} ]; do sleep 0.01; done; echo second",
        pid.display(),
        go.display()
    );
    boss.sh(1, &script).await;
    begun(&mut boss, &pid).await;
    boss.lose_session();
    boss.rejoin(door.next().await);
    assert_eq!(
        boss.holds().await,
        [(0, HeldState::Ended), (1, HeldState::Running)]
    );
    assert_eq!(boss.end(0).await.row, end.row);
    std::fs::write(&go, "").unwrap();
    // Nobody listens while it ends and prints.
    boss.lose_session();
    let ended = pid_in(&pid).unwrap();
    boss.until_gone(ended).await;
    boss.rejoin(door.next().await);
    assert_eq!(boss.end(1).await.outcome(), Outcome::Done);
    assert_eq!(boss.stdout(1), "second\n");
}

#[tokio::test]
async fn g8_output_on_its_way_when_sessions_break_comes_once_and_in_order() {
    const LINES: usize = 6000;
    let mut door = Door::open("127.0.0.1:0", DAY);
    let mut boss = door.boss(1, PoolOptions::default()).await;
    let script = format!(
        "i=0; while [ $i -lt {LINES} ]; do i=$((i+1)); echo line $i; [ $((i % 100)) = 0 ] && sleep 0.01; done; exit 0"
    );
    boss.sh(0, &script).await;
    for part in 1..=5 {
        // It has come, and its coordinator is gone before it can say so.
        boss.acknowledges = part % 2 == 0;
        let lines = |boss: &Boss| boss.stdout(0).lines().count();
        let some = |boss: &Boss| (lines(boss) > part * LINES / 8).then_some(());
        boss.until("some lines more", some).await;
        boss.lose_session();
        boss.rejoin(door.next().await);
    }
    boss.acknowledges = true;
    assert_eq!(boss.end(0).await.outcome(), Outcome::Done);
    let expected: String = (1..=LINES).map(|line| format!("line {line}\n")).collect();
    assert_eq!(boss.stdout(0), expected);
    assert!(boss.heard_again > 0, "nothing was said again");
}

#[tokio::test]
async fn g4_content_that_a_lost_session_was_to_bring_is_asked_for_again_though_others_wait_for_it_here()
 {
    let mut door = Door::open("127.0.0.1:0", DAY);
    let mut boss = door.boss(1, PoolOptions::default()).await;
    let hash = ContentHash([1; 32]);
    let spec = Spec {
        content: Some(hash),
        ..Spec::default()
    };
    boss.define(SpecId(2), spec).await;
    let asked = |boss: &Boss| (boss.wanted == [hash]).then_some(());
    boss.until("it asks", asked).await;
    boss.say(ToAgent::PassOn {
        hash,
        bytes: 1 << 20,
        peers: vec![PeerPin([2; 32])],
    })
    .await;
    let port = boss.until("a port", |boss| boss.passed_on.get(&hash).copied());
    assert_ne!(port.await, 0);
    boss.lose_session();
    boss.wanted.clear();
    boss.rejoin(door.next().await);
    boss.until("it asks again", asked).await;
}

/// What a lost lease does to a task of a pool that may lose its host this often.
async fn after_the_lease(host_lost: u32) -> (bool, Vec<(u64, HeldState)>) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pid");
    let pool = PoolOptions {
        retries: Retries {
            host_lost,
            ..Retries::default()
        },
        ..PoolOptions::default()
    };
    let lease = Duration::from_millis(500);
    let mut door = Door::open("127.0.0.1:0", lease);
    let mut boss = door.boss(1, pool).await;
    boss.sh(0, &format!("echo $$ > {}; exec sleep 1000", file.display()))
        .await;
    let pid = begun(&mut boss, &file).await;
    boss.lose_session();
    let lost = std::time::Instant::now();
    // Twice the lease and the time to kill: the coordinator would have granted the task elsewhere by then.
    while is_alive(pid) && lost.elapsed() < 2 * lease + Duration::from_secs(2) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let survived = is_alive(pid);
    boss.rejoin(door.next().await);
    (survived, boss.holds().await)
}

#[tokio::test]
async fn a_lease_that_runs_out_ends_what_may_run_again() {
    assert_eq!(after_the_lease(3).await, (false, vec![]));
}

#[tokio::test]
async fn what_may_not_run_twice_runs_on_without_a_lease() {
    assert_eq!(
        after_the_lease(0).await,
        (true, vec![(0, HeldState::Running)])
    );
}

/// The room for output is taken by what nobody listened to; the end of the lease must not wait for it, since the
/// next session does.
#[tokio::test]
async fn a_flood_does_not_keep_a_fenced_agent_away() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pid");
    let mut door = Door::open("127.0.0.1:0", Duration::from_millis(500));
    let mut boss = door.boss(1, PoolOptions::default()).await;
    boss.sh(0, &format!("echo $$ > {}; exec yes", file.display()))
        .await;
    let pid = begun(&mut boss, &file).await;
    boss.lose_session();
    boss.until_gone(pid).await;
    boss.rejoin(door.next().await);
    assert_eq!(boss.holds().await, []);
}

#[tokio::test]
async fn an_agent_that_is_early_waits_for_its_coordinator() {
    let folder = tempfile::tempdir().unwrap();
    let address = format!("unix:{}", folder.path().join("socket").display());
    let link = Link::Dial {
        address: address.parse().unwrap(),
        identity: None,
    };
    let agent = tokio::spawn(run(options(1), link));
    tokio::task::yield_now().await;
    let mut door = Door::open(&address, DAY);
    let mut boss = Boss::over(door.next().await, agent);
    assert_eq!(boss.holds().await, []);
}

#[tokio::test]
async fn an_identity_that_cannot_do_is_said_at_once() {
    let address: Address = "127.0.0.1:1".parse().unwrap();
    let link = Link::Dial {
        address,
        identity: None,
    };
    let error = run(options(1), link).await.unwrap_err();
    assert!(
        matches!(&error, Error::Connect(error) if matches!(**error, ConnectError::NoIdentity { .. })),
        "{error}"
    );
}

#[tokio::test]
async fn a_spawner_that_is_not_there_is_said_at_once() {
    let mut options = options(1);
    options.spawner = "/surely/no/such/program".into();
    let address: Address = "127.0.0.1:1".parse().unwrap();
    let error = run(
        options,
        Link::Dial {
            address,
            identity: None,
        },
    )
    .await
    .unwrap_err();
    assert!(
        error.to_string().contains("/surely/no/such/program"),
        "{error}"
    );
}
