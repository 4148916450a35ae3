//! Tasks and clients that ask for more than there is: floods of output, pools by the hundred, fork bombs, memory hogs. What is
//! held stays bounded (G7), everybody else goes on, and nothing is left (G6).
//!
//! What could hurt the machine is held by the agent's own cgroups, or by one of the test's, which needs root.

use std::{
    fs,
    io::{Read as _, Write as _},
    path::Path,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread::{self, sleep},
    time::{Duration, Instant},
};

use fleetpool::cluster::PoolEvent;
use fleetpool_net::identity::Identity;
use fleetpool_proto::{
    command::{CommandTask, Word},
    frame::encode_header,
    pool::{PoolOptions, Spec},
};
use fleetpool_tests::{
    cgroup::{self, Group},
    client::Client,
    cluster::Cluster,
};
use serde_json::Value;

/// What a process may grow by, whatever it is asked to do.
const GROWTH_MIB_MAX: u64 = 64;

/// The most that a process has had in memory.
fn peak_mib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next());
    kib.and_then(|kib| kib.parse::<u64>().ok()).expect("a size") / 1024
}

/// What a verb prints, when it succeeds.
fn said(command: &mut Command) -> String {
    let output = command.output().expect("it starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {stderr}");
    String::from_utf8(output.stdout).expect("text")
}

/// Results of a `map --json`, which may have failed.
fn results(command: &mut Command) -> Vec<Value> {
    let output = command.output().expect("it starts");
    let text = String::from_utf8(output.stdout).expect("text");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!text.is_empty(), "{command:?}: {stderr}");
    let object = |line: &str| serde_json::from_str(line).expect("an object a line");
    text.lines().map(object).collect()
}

/// Until it is told to end: how long the host's last round trip took, again and again.
fn round_trips(cluster: &Cluster, host: &str, end: &AtomicBool) -> Vec<Duration> {
    let mut trips = Vec::new();
    while !end.load(Ordering::Relaxed) {
        let hosts = said(cluster.client().args(["hosts", "--json"]));
        let hosts: Value = serde_json::from_str(&hosts).expect("an array");
        let hosts = hosts.as_array().expect("an array");
        let found = hosts.iter().find(|found| found["name"] == host);
        let found = found.expect("it is there");
        assert_eq!(found["state"], "up");
        let rtt = found["rtt_us"].as_u64().expect("a time");
        trips.push(Duration::from_micros(rtt));
        sleep(Duration::from_millis(50));
    }
    trips
}

#[test]
fn g8_a_flood_for_a_slow_reader_grows_no_process_and_holds_up_no_neighbour() {
    let cluster = Cluster::start(1, 2);
    let mut flood = cluster.client();
    flood.args([
        "map",
        "--line-buffer",
        "--no-tag",
        "--shell",
        "yes flood {}",
        ":::",
        "1",
    ]);
    flood.stdout(std::process::Stdio::piped());
    let mut flood = flood.spawn().expect("it starts");
    let mut stdout = flood.stdout.take().expect("piped");
    let mut some = vec![0; 64 << 10];
    stdout.read_exact(&mut some).expect("it has begun");
    let pids = [cluster.coordinator_pid(), cluster.agent_pid(0), flood.id()];
    let before = pids.map(peak_mib);
    let start = Instant::now();
    // It is read, slowly; a neighbour runs on the other slot.
    let neighbour = cluster
        .client()
        .args(["map", "-q", "-j", "1", "echo", ":::"])
        .args((0..200).map(|n| n.to_string()))
        .output()
        .expect("it starts");
    let took = start.elapsed();
    for _ in 0..32 {
        stdout.read_exact(&mut some).expect("it goes on");
        sleep(Duration::from_millis(20));
    }
    let after = pids.map(peak_mib);
    flood.kill().expect("it runs");
    flood.wait().expect("it is our child");
    assert!(neighbour.status.success());
    assert_eq!(neighbour.stdout.split(|&byte| byte == b'\n').count(), 201);
    eprintln!("flood: MiB {before:?} before, {after:?} after; 200 tasks beside it took {took:?}");
    for (before, after) in before.iter().zip(after) {
        assert!(
            after - before <= GROWTH_MIB_MAX,
            "{after} MiB, {before} before"
        );
    }
}

/// A percentile of some times.
fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort();
    times[(times.len() * percent / 100).min(times.len() - 1)]
}

/// Until it is told to end: how long a task on a host took from the command line and back, again and again.
fn tasks_beside(cluster: &Cluster, host: &str, end: &AtomicBool) -> Vec<Duration> {
    let mut trips = Vec::new();
    while !end.load(Ordering::Relaxed) {
        let start = Instant::now();
        let mut task = cluster.client();
        said(task.args(["map", "-q", "-j", "1", "--on", host, "true", ":::", "1"]));
        trips.push(start.elapsed());
    }
    trips
}

/// Until it is told to end: the most processes that were in a leaf, and whether any was held back.
fn most_processes(all: &Path, end: &AtomicBool) -> (u64, bool) {
    let (mut most, mut held) = (0, false);
    while !end.load(Ordering::Relaxed) {
        for leaf in cgroup::leaves(all) {
            let read = |file| fs::read_to_string(leaf.join(file)).unwrap_or_default();
            most = most.max(read("pids.current").trim().parse().unwrap_or(0));
            let times = read("pids.events");
            held |= times
                .strip_prefix("max ")
                .is_some_and(|times| times.trim() != "0");
        }
        sleep(Duration::from_millis(20));
    }
    (most, held)
}

#[test]
fn g6_a_fork_bomb_is_held_ends_with_its_task_and_its_host_goes_on() {
    const BOMB: &str = "f() { f | f & }; f; sleep 1000";
    const MOST: u64 = 300;
    let mut cluster = Cluster::bare();
    cluster.add_agent_as(&[], "a1", 2, &["--task-pids", &MOST.to_string()]);
    cluster.await_hosts(1);
    let spawner = cgroup::spawner_of(cluster.agent_pid(0));
    let all = cgroup::tasks_of(spawner, "pids");
    let end = AtomicBool::new(false);
    let (mut trips, mut beside, (most, held)) = thread::scope(|scope| {
        let trips = scope.spawn(|| round_trips(&cluster, "a1", &end));
        let beside = scope.spawn(|| tasks_beside(&cluster, "a1", &end));
        let most = scope.spawn(|| most_processes(&all, &end));
        let mut bomb = cluster.client();
        bomb.args(["map", "--json", "-j", "1", "--timeout", "2s", "--shell"]);
        let bomb = results(bomb.args([BOMB, ":::", "1"]));
        end.store(true, Ordering::Relaxed);
        assert_eq!(bomb[0]["outcome"], "timed_out", "{bomb:?}");
        let beside = beside.join().expect("tasks beside it succeed");
        let trips = trips.join().expect("the host is up");
        (trips, beside, most.join().expect("no panic"))
    });
    assert!(
        held && most <= MOST + 1,
        "{most} processes, held back: {held}"
    );
    // What is left is the spawner, and keepers that end with their pools.
    let start = Instant::now();
    let left = || {
        cgroup::leaves(&all)
            .iter()
            .map(|leaf| cgroup::processes(leaf).len())
            .sum::<usize>()
    };
    cluster.until("its processes are gone", |_| left() <= 3);
    let gone = start.elapsed();
    let mut after = cluster.client();
    after.args(["exec", "--on", "a1", "--", "echo", "well"]);
    assert_eq!(said(&mut after), "a1: well\n");
    let (median, worst) = (percentile(&mut beside, 50), percentile(&mut beside, 99));
    let p99 = percentile(&mut trips, 99);
    writeln!(
        std::io::stderr(),
        "fork bomb: {most} processes at most; round trips to its host p99 {p99:?} of {}; {} tasks beside it, from command to exit: median {median:?}, p99 {worst:?}; gone {gone:?} after its task's end",
        trips.len(),
        beside.len()
    )
    .expect("stderr");
    assert!(p99 < Duration::from_secs(1), "{p99:?}");
}

/// Two slots: a task that takes too much memory, and a neighbour that is killed by somebody else at about that time.
fn hog_and_neighbour(cluster: &Cluster) -> (Vec<Value>, Vec<Value>) {
    const HOG: &str = "python3 -c 'b\"x\" * 2_000_000_000'";
    let folder = tempfile::tempdir().expect("a folder");
    let go = folder.path().join("go");
    let wait = format!(
        "until [ -e {} ]; do sleep 0.05; done; kill -KILL $$; : {{}}",
        go.display()
    );
    let mut neighbour = cluster.client();
    neighbour.args(["map", "-j", "1", "--json", "--shell", &wait, ":::", "1"]);
    let neighbour = Client::start(&mut neighbour);
    cluster.until("the neighbour runs", |cluster| {
        let hosts = said(cluster.client().args(["hosts", "--json"]));
        let hosts: Value = serde_json::from_str(&hosts).expect("an array");
        hosts[0]["running"] == 1
    });
    // One by itself, one as a shell's child; before and behind it somebody who knows the keeper.
    let script = format!("case {{}} in b) exec {HOG};; c) {HOG}; exit $?;; *) echo $PPID;; esac");
    let mut hog = cluster.client();
    hog.args(["map", "-j", "1", "--json", "--shell", &script, ":::"]);
    let hog = results(hog.args(["a", "b", "c", "d"]));
    fs::write(&go, "").expect("writable");
    let (lines, _) = neighbour.end();
    let object = |line: &String| serde_json::from_str(line).expect("an object a line");
    (hog, lines.iter().map(object).collect())
}

fn outcome(results: &[Value], index: u64) -> &Value {
    let found = results.iter().find(|result| result["index"] == index);
    &found.expect("a result")["outcome"]
}

#[test]
fn g5_a_memory_hog_is_killed_and_neither_its_agent_nor_its_neighbour_is() {
    let mut cluster = Cluster::bare();
    cluster.add_agent_as(&[], "a1", 2, &["--task-memory", "128M"]);
    cluster.await_hosts(1);
    let agent = cluster.agent_pid(0);
    let spawner = cgroup::spawner_of(agent);
    let (hog, neighbour) = hog_and_neighbour(&cluster);
    assert_eq!(outcome(&hog, 1), "out_of_memory", "{hog:?}");
    assert_eq!(
        outcome(&hog, 2),
        "out_of_memory",
        "a shell's child: {hog:?}"
    );
    assert_eq!(outcome(&hog, 3), "done", "{hog:?}");
    let keeper = |index| {
        hog.iter()
            .find(|result| result["index"] == index)
            .expect("it ended")["stdout"]
            .clone()
    };
    assert_eq!(keeper(0), keeper(3), "its keeper lives on");
    // The kernel has killed two since it began, and it was killed by neither.
    assert_eq!(outcome(&neighbour, 0), "failed", "{neighbour:?}");
    assert_eq!(cluster.agent_pid(0), agent);
    assert_eq!(cgroup::spawner_of(agent), spawner);
    // Whoever starts an agent as one that is to be spared does not mean its tasks.
    let score = said(
        cluster
            .client()
            .args(["map", "cat", ":::", "/proc/self/oom_score_adj"]),
    );
    let theirs = |pid| fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).expect("it runs");
    let number = |text: &str| text.trim().parse::<i32>().expect("a number");
    assert!(number(&score) > number(&theirs(agent)), "{score}");
}

/// As in a container: the cgroups are there, and nobody may write to them.
const READ_ONLY: &[&str] = &[
    "unshare",
    "--mount",
    "sh",
    "-c",
    "mount -o remount,bind,ro /sys/fs/cgroup/memory && mount -o remount,bind,ro /sys/fs/cgroup/pids && exec \"$@\"",
    "sh",
];

#[test]
fn g5_a_memory_hog_is_killed_before_its_agent_where_there_are_no_cgroups_too() {
    const LIMIT: u64 = 256 << 20;
    let mut cluster = Cluster::bare();
    cluster.add_agent_as(READ_ONLY, "a1", 2, &["--task-memory", "128M"]);
    cluster.await_hosts(1);
    let hosts = said(cluster.client().args(["hosts", "--json"]));
    let hosts: Value = serde_json::from_str(&hosts).expect("an array");
    assert_eq!(hosts[0]["containment"], "subreaper");
    let why = hosts[0]["limits"].as_str().expect("text");
    assert!(why.contains("Read-only file system"), "{why}");
    let log = cluster.log_of("a1");
    assert!(
        log.contains("--task-memory is not held on this host: "),
        "{log}"
    );
    let agent = cluster.agent_pid(0);
    // The host's memory, as it were.
    let group = Group::new("memory", "hog", &[("memory.limit_in_bytes", LIMIT)]);
    group.take(agent);
    let (hog, _) = hog_and_neighbour(&cluster);
    assert_eq!(outcome(&hog, 1), "out_of_memory", "{hog:?}");
    assert_eq!(outcome(&hog, 3), "done", "{hog:?}");
    assert!(group.processes().contains(&agent));
}

#[test]
fn g7_hundreds_of_pools_of_one_client_are_served_and_grow_no_process() {
    const POOLS: usize = 500;
    let cluster = Cluster::start(1, 2);
    let before = peak_mib(cluster.coordinator_pid());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let start = Instant::now();
    runtime.expect("a runtime").block_on(async {
        let client = connect(&cluster).await;
        let mut pools = tokio::task::JoinSet::new();
        for _ in 0..POOLS {
            pools.spawn(one_task(client.clone()));
        }
        let ended = pools.join_all().await;
        assert_eq!(ended.into_iter().sum::<usize>(), POOLS, "one result each");
    });
    let after = peak_mib(cluster.coordinator_pid());
    eprintln!(
        "{POOLS} pools at once: {:?}, coordinator {before} MiB before, {after} after",
        start.elapsed()
    );
    assert!(
        after - before <= GROWTH_MIB_MAX,
        "{after} MiB, {before} before"
    );
}

async fn connect(cluster: &Cluster) -> fleetpool::cluster::Cluster {
    let identity = Identity::load(&cluster.folder().join("identity")).expect("the admin's");
    let address = cluster.address().to_string().parse().expect("an address");
    let connected = fleetpool::cluster::Cluster::connect(&address, Some(&identity)).await;
    connected.expect("it is there")
}

/// Opens a pool and runs a task in it; how many results it had.
async fn one_task(client: fleetpool::cluster::Cluster) -> usize {
    let options = PoolOptions {
        slots: Some(1),
        ..PoolOptions::default()
    };
    let (submitter, mut events) = client.open(options).expect("there is a session");
    let spec = submitter.define(Spec::default());
    let task = CommandTask {
        argv: vec![Word::literal("true")],
    };
    let submitted = submitter.submit(spec, None, encode_header(&task)).await;
    submitted.expect("it is taken");
    submitter.close();
    let mut ended = 0;
    while let Some(event) = events.next().await {
        ended += usize::from(matches!(event, PoolEvent::Ended { .. }));
    }
    ended
}
