//! Tasks and clients that ask for more than there is: floods of output, pools by the hundred, fork bombs, memory hogs. What is
//! held stays bounded (G7), everybody else goes on, and nothing is left (G6).
//!
//! What could hurt the machine is in a cgroup of the test's own, which needs root.

use std::{
    fs,
    io::Read as _,
    path::PathBuf,
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
use fleetpool_tests::{client::Client, cluster::Cluster};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
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

/// A cgroup of the first version, which holds some processes to a limit. What is in it is killed at its end.
struct Group(PathBuf);

impl Group {
    fn new(controller: &str, name: &str, limits: &[(&str, u64)]) -> Self {
        let name = format!("fleetpool-test-{name}-{}", std::process::id());
        let folder = PathBuf::from("/sys/fs/cgroup").join(controller).join(name);
        fs::create_dir(&folder).expect("a cgroup of the first version: these tests run as root");
        let group = Self(folder);
        for (file, limit) in limits {
            fs::write(group.0.join(file), limit.to_string()).expect("a limit");
        }
        group
    }

    /// Takes in a process and all that is below it.
    fn take(&self, pid: u32) {
        fs::write(self.0.join("cgroup.procs"), pid.to_string()).expect("it runs");
        let below = Command::new("pgrep")
            .args(["-P", &pid.to_string()])
            .output();
        let below = String::from_utf8(below.expect("it starts").stdout).expect("text");
        below
            .lines()
            .for_each(|pid| self.take(pid.parse().expect("a pid")));
    }

    fn processes(&self) -> Vec<i32> {
        let text = fs::read_to_string(self.0.join("cgroup.procs")).unwrap_or_default();
        text.lines()
            .map(|pid| pid.parse().expect("a pid"))
            .collect()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let until = Instant::now() + Duration::from_secs(10);
        while fs::remove_dir(&self.0).is_err() && Instant::now() < until {
            for pid in self.processes() {
                // It may have ended.
                kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
            }
            sleep(Duration::from_millis(20));
        }
    }
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

#[test]
fn g6_a_fork_bomb_ends_with_its_task_and_its_host_goes_on() {
    const BOMB: &str = "f() { f | f & }; f; sleep 1000";
    let mut cluster = Cluster::start(1, 2);
    cluster.add_agent("a2", 1);
    cluster.await_hosts(2);
    let group = Group::new("pids", "bomb", &[("pids.max", 300)]);
    group.take(cluster.agent_pid(0));
    let quiet = group.processes().len();
    let end = AtomicBool::new(false);
    let mut trips = thread::scope(|scope| {
        let trips = scope.spawn(|| round_trips(&cluster, "a1", &end));
        let mut bomb = cluster.client();
        bomb.args([
            "map",
            "--json",
            "--on",
            "a1",
            "--timeout",
            "2s",
            "--shell",
            BOMB,
            ":::",
            "1",
        ]);
        let bomb = results(&mut bomb);
        end.store(true, Ordering::Relaxed);
        assert_eq!(bomb[0]["outcome"], "timed_out", "{bomb:?}");
        trips.join().expect("the host is up")
    });
    trips.sort();
    // What is left is as it was before, and a keeper or two that wait for more.
    let start = Instant::now();
    cluster.until("its processes are gone", |_| {
        group.processes().len() <= quiet + 2
    });
    let gone = start.elapsed();
    assert_eq!(
        said(
            cluster
                .client()
                .args(["exec", "--on", "a1", "--", "echo", "well"])
        ),
        "a1: well\n"
    );
    let worst = trips.last().expect("some");
    eprintln!(
        "fork bomb: round trip {worst:?} at most of {}, gone {gone:?} after its task's end",
        trips.len()
    );
    assert!(*worst < Duration::from_secs(1), "{worst:?}");
}

#[test]
fn g5_a_memory_hog_is_killed_and_neither_its_agent_nor_its_neighbour_is() {
    const LIMIT: u64 = 256 << 20;
    const HOG: &str = "b'x' * 2_000_000_000";
    let cluster = Cluster::start(1, 2);
    let group = Group::new("memory", "hog", &[("memory.limit_in_bytes", LIMIT)]);
    let agent = cluster.agent_pid(0);
    group.take(agent);
    let mut neighbour = cluster.client();
    let folder = tempfile::tempdir().expect("a folder");
    let go = folder.path().join("go");
    let wait = format!(
        "until [ -e {} ]; do sleep 0.05; done; echo well",
        go.display()
    );
    neighbour.args(["map", "-j", "1", "--shell", &wait, ":::", "1"]);
    let neighbour = Client::start(&mut neighbour);
    let mut hog = cluster.client();
    hog.args(["map", "-j", "1", "--json", "python3", "-c", HOG, ":::", "1"]);
    let hog = results(&mut hog);
    assert_eq!(hog[0]["outcome"], "out_of_memory", "{hog:?}");
    fs::write(&go, "").expect("writable");
    assert_eq!(neighbour.end(), (vec!["well 1".to_owned()], 0));
    assert!(
        group
            .processes()
            .contains(&i32::try_from(agent).expect("a pid"))
    );
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
