//! The life of pools and of their workers.

use std::{
    collections::BTreeSet,
    process,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use fleetpool::{Error, Pool, TaskError};

use crate::{meet, pool, runner::tests, sleep_ms, square};

tests! {
    workers_keep_their_pids
    workers_are_replaced_when_asked
    the_initializer_runs_in_every_worker
    a_panicking_initializer_is_told
    a_killed_worker_costs_one_task
    an_exiting_worker_costs_one_task
    a_dead_worker_says_what_it_knows
    every_worker_that_dies_is_replaced
    close_comes_before_join
    a_closed_pool_takes_no_calls
    join_waits_for_everything
    terminate_ends_what_waits
    a_dropped_pool_leaves_no_process
    leftovers_of_a_task_end_with_it
    a_pool_of_nothing_is_refused
    a_pool_in_a_task_is_refused
    no_more_than_n_run_at_once
    a_resized_pool_runs_more
    environment_and_folder_reach_the_workers
    a_cluster_that_is_not_there_is_an_error
    an_unknown_host_is_an_error
    an_unknown_group_is_an_error
}

static INITIALISED: AtomicU32 = AtomicU32::new(0);

#[fleetpool::task]
fn own_pid(_x: u32) -> u32 {
    process::id()
}

#[fleetpool::task]
fn initialise(value: u32) {
    INITIALISED.fetch_add(value, Ordering::Relaxed);
}

#[fleetpool::task]
fn initialised() -> u32 {
    INITIALISED.load(Ordering::Relaxed)
}

#[fleetpool::task]
fn refuse_to_start(why: String) {
    panic!("{why}");
}

/// Kills its worker when it is told to.
#[fleetpool::task]
fn die_on(x: u32, unlucky: u32) -> u32 {
    if x == unlucky {
        eprintln!("about to die");
        let _ = process::Command::new("kill")
            .args(["-9", &process::id().to_string()])
            .status();
        thread::sleep(Duration::from_secs(60));
    }
    x
}

#[fleetpool::task]
fn exit_on(x: u32, unlucky: u32) -> u32 {
    if x == unlucky {
        process::exit(7);
    }
    x
}

#[fleetpool::task]
#[expect(clippy::zombie_processes, reason = "it is left behind on purpose")]
fn leave_a_child() -> u32 {
    let child = process::Command::new("setsid")
        .args(["sleep", "1000"])
        .spawn()
        .unwrap();
    child.id()
}

#[fleetpool::task]
fn open_a_pool() -> String {
    match Pool::builder().build() {
        Ok(_) => "it opened".to_owned(),
        Err(error) => error.to_string(),
    }
}

#[fleetpool::task]
fn overlap(folder: String) -> usize {
    let mine = format!("{folder}/{}", fleetpool::current().unwrap().index);
    std::fs::write(&mine, "").unwrap();
    thread::sleep(Duration::from_millis(5));
    let running = std::fs::read_dir(&folder).unwrap().count();
    std::fs::remove_file(mine).unwrap();
    running
}

#[fleetpool::task]
fn surroundings() -> (Option<String>, String, bool) {
    let folder = std::env::current_dir().unwrap().display().to_string();
    let leaks = std::env::var_os("FLEETPOOL_WORKER_FD").is_some();
    (std::env::var("WORD").ok(), folder, leaks)
}

/// Whether a process is there and is no zombie.
fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat
        .rsplit(')')
        .next()
        .and_then(|rest| rest.split_whitespace().next());
    state.is_some_and(|state| state != "Z" && state != "X")
}

#[track_caller]
fn gone_within(pid: u32, limit: Duration) {
    let start = Instant::now();
    while is_alive(pid) {
        assert!(start.elapsed() < limit, "process {pid} is still there");
        thread::sleep(Duration::from_millis(5));
    }
}

fn workers_keep_their_pids() {
    let pids: BTreeSet<u32> = pool(2).map(own_pid, 0..1000).unwrap().into_iter().collect();
    assert!((1..=2).contains(&pids.len()), "{pids:?}");
    assert!(!pids.contains(&process::id()));
}

fn workers_are_replaced_when_asked() {
    let pool = Pool::builder()
        .cluster("local")
        .processes(1)
        .max_tasks_per_child(3)
        .build()
        .unwrap();
    let pids = pool.map(own_pid, 0..9).unwrap();
    let lives: BTreeSet<u32> = pids.iter().copied().collect();
    assert_eq!(lives.len(), 3, "{pids:?}");
    assert!(
        pids.chunks(3)
            .all(|life| life.iter().all(|pid| *pid == life[0])),
        "{pids:?}"
    );
}

fn the_initializer_runs_in_every_worker() {
    let pool = Pool::builder()
        .cluster("local")
        .processes(2)
        .max_tasks_per_child(1)
        .initializer(initialise, 5)
        .build()
        .unwrap();
    for _ in 0..4 {
        assert_eq!(pool.apply(initialised, ()).unwrap(), 5);
    }
}

fn a_panicking_initializer_is_told() {
    let pool = Pool::builder()
        .cluster("local")
        .processes(2)
        .initializer(refuse_to_start, "no licence".to_owned())
        .build()
        .unwrap();
    let error = pool.map(square, 0..10).unwrap_err();
    assert!(error.to_string().contains("no licence"), "{error}");
    assert!(
        pool.apply(square, 1)
            .unwrap_err()
            .to_string()
            .contains("no licence")
    );
    pool.terminate();
    assert!(pool.join().unwrap_err().to_string().contains("no licence"));
}

fn a_killed_worker_costs_one_task() {
    let pool = pool(2);
    let results: Vec<_> = pool.imap(die_on, (0..100).map(|x| (x, 50))).collect();
    for (x, result) in (0..100).zip(results) {
        match result {
            Ok(same) => assert_eq!(same, x),
            Err(Error::Task(TaskError::WorkerLost { index, signal, .. })) => {
                assert_eq!((x, index, signal), (50, 50, Some(9)));
            }
            Err(error) => panic!("task {x}: {error}"),
        }
    }
    assert_eq!(pool.map(square, 0..3).unwrap(), [0, 1, 4]);
}

fn an_exiting_worker_costs_one_task() {
    let pool = pool(2);
    let results: Vec<_> = pool.imap(exit_on, (0..100).map(|x| (x, 50))).collect();
    let failed: Vec<_> = results
        .iter()
        .filter_map(|result| result.as_ref().err())
        .collect();
    let [
        Error::Task(TaskError::WorkerLost {
            index: 50,
            exit: Some(7),
            ..
        }),
    ] = &failed[..]
    else {
        panic!("{failed:?}");
    };
}

fn a_dead_worker_says_what_it_knows() {
    let error = pool(1).apply(die_on, (1, 1)).unwrap_err();
    let Error::Task(TaskError::WorkerLost {
        host,
        pid,
        stderr_tail,
        ..
    }) = error
    else {
        panic!("not lost but {error}");
    };
    assert!(!host.is_empty() && pid != 0);
    assert!(stderr_tail.contains("about to die"), "{stderr_tail:?}");
}

fn every_worker_that_dies_is_replaced() {
    let pool = pool(2);
    for round in 0..20 {
        pool.apply(exit_on, (round, round)).unwrap_err();
    }
    // The pool is back at 2.
    all_at_once(&pool, 2);
}

fn close_comes_before_join() {
    let pool = pool(1);
    assert!(matches!(pool.join(), Err(Error::NotClosed)));
    pool.close();
    pool.join().unwrap();
    pool.join().unwrap();
}

fn a_closed_pool_takes_no_calls() {
    let pool = pool(1);
    pool.close();
    assert!(matches!(pool.map(square, 0..2), Err(Error::Closed)));
    assert!(matches!(pool.apply(square, 2), Err(Error::Closed)));
    assert!(matches!(pool.map_async(square, 0..2), Err(Error::Closed)));
    let mut items = pool.imap(square, 0..2);
    assert!(matches!(items.next(), Some(Err(Error::Closed))));
    assert!(items.next().is_none());
}

fn join_waits_for_everything() {
    let pool = pool(2);
    let handles: Vec<_> = (0..6)
        .map(|_| pool.apply_async(sleep_ms, 30).unwrap())
        .collect();
    let pids = pool.map(own_pid, 0..10).unwrap();
    pool.close();
    pool.join().unwrap();
    assert!(
        handles
            .iter()
            .all(|handle| handle.successful() == Some(true))
    );
    for pid in pids {
        gone_within(pid, Duration::from_secs(2));
    }
}

fn terminate_ends_what_waits() {
    let pool = pool(1);
    let running = pool.apply_async(sleep_ms, 60_000).unwrap();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| pool.map(sleep_ms, [60_000; 3]));
        assert!(!running.wait(Duration::from_millis(100)));
        let start = Instant::now();
        pool.terminate();
        let error = waiting.join().unwrap().unwrap_err();
        assert!(matches!(error, Error::Terminated { .. }), "{error}");
        assert!(matches!(running.get(), Err(Error::Terminated { .. })));
        assert!(pool.apply(square, 1).is_err());
        pool.join().unwrap();
        assert!(start.elapsed() < Duration::from_secs(3));
    });
}

fn a_dropped_pool_leaves_no_process() {
    let pool = pool(2);
    let pids: BTreeSet<u32> = pool.map(own_pid, 0..100).unwrap().into_iter().collect();
    let handle = pool.apply_async(sleep_ms, 60_000).unwrap();
    assert!(!handle.wait(Duration::from_millis(50)));
    assert!(pids.iter().all(|pid| is_alive(*pid)));
    let start = Instant::now();
    drop(pool);
    for pid in pids {
        gone_within(pid, Duration::from_secs(2));
    }
    assert!(start.elapsed() < Duration::from_secs(3));
    assert!(handle.get().is_err());
}

fn leftovers_of_a_task_end_with_it() {
    let pool = pool(1);
    let child = pool.apply(leave_a_child, ()).unwrap();
    drop(pool);
    gone_within(child, Duration::from_secs(2));
}

fn a_pool_of_nothing_is_refused() {
    let error = Pool::builder()
        .cluster("local")
        .processes(0)
        .build()
        .unwrap_err();
    assert!(error.to_string().contains("0 processes"), "{error}");
    assert!(pool(1).resize(0).is_err());
    let error = Pool::builder()
        .cluster("local")
        .max_tasks_per_child(0)
        .build()
        .unwrap_err();
    assert!(
        error.to_string().contains("max_tasks_per_child(0)"),
        "{error}"
    );
}

fn a_pool_in_a_task_is_refused() {
    let said = pool(1).apply(open_a_pool, ()).unwrap();
    assert!(said.contains("a task cannot open a pool"), "{said}");
}

/// So many tasks run at the same time, or this waits in vain.
fn all_at_once(pool: &Pool, count: usize) {
    let folder = tempfile::tempdir().unwrap();
    let place = (folder.path().display().to_string(), count);
    pool.map(meet, vec![place; count]).unwrap();
}

fn no_more_than_n_run_at_once() {
    let pool = pool(3);
    all_at_once(&pool, 3);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().display().to_string();
    let most = pool.map(overlap, vec![path; 100]).unwrap();
    assert!(most.iter().all(|&running| running <= 3), "{most:?}");
}

fn a_resized_pool_runs_more() {
    let pool = Pool::builder().cluster("local").build().unwrap();
    let hosts = pool.hosts().unwrap();
    let slots = hosts.iter().map(|host| usize::from(host.slots)).sum();
    pool.resize(1).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = || vec![folder.path().display().to_string(); 20];
    pool.map(overlap, path()).unwrap();
    assert_eq!(
        pool.map(overlap, path()).unwrap().into_iter().max(),
        Some(1)
    );
    pool.resize(None).unwrap();
    all_at_once(&pool, slots);
    let most = pool.map(overlap, [path(), path()].concat()).unwrap();
    assert!(most.iter().all(|&running| running <= slots), "{most:?}");
}

fn environment_and_folder_reach_the_workers() {
    let pool = Pool::builder()
        .cluster("local")
        .processes(1)
        .env("WORD", "careful")
        .cwd("/")
        .build()
        .unwrap();
    let expected = (Some("careful".to_owned()), "/".to_owned(), false);
    assert_eq!(pool.apply(surroundings, ()).unwrap(), expected);
}

fn a_cluster_that_is_not_there_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let address = format!("unix:{}/nobody", folder.path().display());
    let error = Pool::builder().cluster(address).build().unwrap_err();
    assert!(error.to_string().contains("nobody listens"), "{error}");
    let error = Pool::builder().cluster("head:http").build().unwrap_err();
    assert!(error.to_string().contains("is not an address"), "{error}");
}

fn an_unknown_host_is_an_error() {
    let pool = Pool::builder()
        .cluster("local")
        .processes(1)
        .on("no-such-host")
        .build()
        .unwrap();
    let error = pool.map(square, 0..3).unwrap_err();
    assert!(error.to_string().contains("no-such-host"), "{error}");
    let error = pool.apply(square, 3).unwrap_err();
    assert!(error.to_string().contains("no-such-host"), "{error}");
}

fn an_unknown_group_is_an_error() {
    let pool = Pool::builder().cluster("local").on("web1,@no-such-group");
    let error = pool.build().unwrap_err().to_string();
    assert!(
        error.contains("at `@no-such-group` (character 6): there is no group `no-such-group`"),
        "{error}"
    );
}
