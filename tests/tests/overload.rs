//! Tasks and clients that ask for more than there is: floods of output and of results, endless inputs, pools by the hundred, fork
//! bombs, daemons, memory hogs. What is held stays bounded (G7), everybody else goes on, and nothing is left (G6).
//!
//! What could hurt the machine is held by the agent's own cgroups, or by one of the test's, which needs root.
//! `FLEETPOOL_RESULTS_MIB=10240` and `FLEETPOOL_INPUT_MIB=8192` ask for as much as the figures in docs/faults.md are of.

use std::{
    env, fs,
    io::{self, Read as _, Write as _},
    path::Path,
    process::{Child, Command, Stdio},
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
    memory::{self, GROWTH_MIB_MAX, forget_peak, peak_mib, peak_mib_while_it_runs},
};
use nix::{
    fcntl::{FcntlArg, fcntl},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

/// A size that a variable of the environment asks for.
fn mib(variable: &str, otherwise: u64) -> u64 {
    let asked = env::var(variable).ok();
    asked.map_or(otherwise, |asked| asked.parse().expect("MiB"))
}

/// Tells figures to whoever keeps them.
fn tell(figures: &str) {
    writeln!(std::io::stderr(), "{figures}").ok();
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
    objects(text.lines())
}

fn objects<'a>(lines: impl IntoIterator<Item = &'a str>) -> Vec<Value> {
    let object = |line| serde_json::from_str(line).expect("an object a line");
    lines.into_iter().map(object).collect()
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
    memory::assert_bounded(&before, &after);
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
    assert!(p99 < Duration::from_secs(5), "{p99:?}");
}

/// Takes 2 GB.
const HOG: &str = "python3 -c 'b\"x\" * 2_000_000_000'";

/// Two slots: a task that takes too much memory, and a neighbour that is killed by somebody else at about that time.
fn hog_and_neighbour(cluster: &Cluster) -> (Vec<Value>, Vec<Value>) {
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
    (hog, objects(lines.iter().map(String::as_str)))
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

/// A host where no cgroup can be made; it has no more memory than the group.
fn without_cgroups() -> (Cluster, Group) {
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
    // The host's memory, as it were.
    let group = Group::new("memory", "hog", &[("memory.limit_in_bytes", LIMIT)]);
    group.take(cluster.agent_pid(0));
    (cluster, group)
}

#[test]
fn g5_a_memory_hog_is_killed_before_its_agent_where_there_are_no_cgroups_too() {
    let (cluster, group) = without_cgroups();
    let (hog, _) = hog_and_neighbour(&cluster);
    assert_eq!(outcome(&hog, 1), "out_of_memory", "{hog:?}");
    assert_eq!(outcome(&hog, 3), "done", "{hog:?}");
    assert!(group.processes().contains(&cluster.agent_pid(0)));
}

/// Where memory is short a keeper, too, may stand still until somebody has been killed.
#[test]
fn g5_a_memory_hog_is_known_for_one_that_its_keeper_has_not_looked_at_before_its_end() {
    let (cluster, _group) = without_cgroups();
    let folder = tempfile::tempdir().expect("a folder");
    let pids = folder.path().join("pids");
    let script = format!(
        "echo $$ $PPID > {}; kill -STOP $PPID; exec {HOG}; : {{}}",
        pids.display()
    );
    let mut hog = cluster.client();
    hog.args(["map", "--json", "--shell", &script, ":::", "1"]);
    let hog = Client::start(&mut hog);
    let keeper_of_the_killed = || {
        let pids = fs::read_to_string(&pids).ok()?;
        let (own, keeper) = pids.trim().split_once(' ')?;
        let stat = fs::read_to_string(format!("/proc/{own}/stat")).ok()?;
        stat.contains(") Z ")
            .then(|| keeper.parse().expect("a pid"))
    };
    cluster.until("it has been killed", |_| keeper_of_the_killed().is_some());
    let keeper = Pid::from_raw(keeper_of_the_killed().expect("it waits to be reaped"));
    kill(keeper, Signal::SIGCONT).expect("it is there");
    let (lines, _) = hog.end();
    let hog = objects(lines.iter().map(String::as_str));
    assert_eq!(outcome(&hog, 0), "out_of_memory", "{hog:?}");
}

#[test]
fn g7_thousands_of_pools_of_one_client_are_served_and_grow_no_process() {
    const POOLS: usize = 2000;
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
    memory::assert_bounded(&[before], &[after]);
}

#[test]
fn g7_a_log_that_nobody_reads_holds_up_nobody() {
    const PAGE: usize = 4096;
    let mut cluster = Cluster::start(1, 2);
    cluster.kill_coordinator();
    let (mut reader, mut log) = io::pipe().expect("a pipe");
    fcntl(&log, FcntlArg::F_SETPIPE_SZ(4096)).expect("it can be as small as a page");
    // Not a byte more finds room.
    log.write_all(&[b'.'; PAGE]).expect("it is empty");
    cluster.start_again_with_log(log);
    cluster.await_hosts(1);
    let mut map = cluster.client();
    map.args(["map", "echo", ":::"]);
    map.args((0..200).map(|task| task.to_string()));
    let ran = map.output().expect("it starts");
    let lines = String::from_utf8_lossy(&ran.stdout).lines().count();
    assert_eq!((ran.status.code(), lines), (Some(0), 200), "{ran:?}");
    cluster.stop_coordinator();
    let mut said = String::new();
    reader.read_to_string(&mut said).expect("it is text");
    assert_eq!(said, ".".repeat(PAGE), "nothing more was said");
}

/// The reader stops for a while after the first, and is slow then.
#[test]
fn g7_large_results_for_a_slow_reader_grow_no_process_and_hold_up_no_neighbour() {
    const RESULT_MIB: u64 = 8;
    let results = mib("FLEETPOOL_RESULTS_MIB", 256) / RESULT_MIB;
    let cluster = Cluster::start(1, 2);
    let mut command = Command::new(env!("CARGO_BIN_EXE_chaos"));
    command
        .arg("bulk")
        .args([results, RESULT_MIB << 20].map(|number| number.to_string()))
        .arg(cluster.address().to_string())
        .arg(cluster.folder().join("identity"));
    let mut client = Client::fed(&mut command);
    assert_eq!(client.line(), "ready");
    let pids = [
        cluster.coordinator_pid(),
        cluster.agent_pid(0),
        client.pid(),
    ];
    pids.into_iter().for_each(forget_peak);
    let before = pids.map(peak_mib);
    client.feed([1]);
    assert_eq!(client.line(), "begun");
    let start = Instant::now();
    let neighbour = said(
        cluster
            .client()
            .args(["map", "-q", "-j", "1", "echo", ":::"])
            .args((0..200).map(|n| n.to_string())),
    );
    assert_eq!(neighbour.lines().count(), 200);
    let beside = start.elapsed();
    // All that may wait does by now, or soon.
    let (mut last, mut since) = (pids.map(peak_mib), Instant::now());
    while since.elapsed() < Duration::from_secs(1) {
        let now = pids.map(peak_mib);
        if now != last {
            (last, since) = (now, Instant::now());
        }
        sleep(Duration::from_millis(10));
    }
    let start = Instant::now();
    client.feed([2]);
    let after = peaks_until_its_end(client, &pids);
    tell(&format!(
        "{results} results of {RESULT_MIB} MiB in {:?}: MiB {before:?} before, {after:?} at most; 200 tasks beside it took {beside:?}",
        start.elapsed()
    ));
    memory::assert_bounded(&before, &after);
}

/// Waits until a client, the last of these processes, has ended well; the most that each has had in memory.
fn peaks_until_its_end(client: Client, pids: &[u32; 3]) -> [u64; 3] {
    let own = client.pid();
    let ended = AtomicBool::new(false);
    let peak = thread::scope(|scope| {
        let peak = scope.spawn(|| {
            let mut peak = 0;
            while !ended.load(Ordering::Relaxed) {
                peak = peak_mib_while_it_runs(own).unwrap_or(peak);
                sleep(Duration::from_millis(1));
            }
            peak
        });
        let end = client.end();
        ended.store(true, Ordering::Relaxed);
        assert_eq!(end, (Vec::new(), 0));
        peak.join().expect("no panics")
    });
    [peak_mib(pids[0]), peak_mib(pids[1]), peak]
}

/// A line of zeros without an end, behind one that is as it should be.
#[test]
fn g7_an_input_without_an_end_is_refused_and_grows_no_process() {
    let mib = mib("FLEETPOOL_INPUT_MIB", 256);
    let cluster = Cluster::start(1, 2);
    let pids = [cluster.coordinator_pid(), cluster.agent_pid(0)];
    let before = pids.map(peak_mib);
    let mut source = Command::new("sh")
        .args(["-c", &format!("echo first; head -c {mib}M /dev/zero")])
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let zeros = source.stdout.take().expect("piped");
    let mut client = {
        // Goes with its end of the pipe, so that nobody has one when the client has ended.
        let mut client = cluster.client();
        client.args(["map", "echo"]).stdin(zeros);
        client.stdout(Stdio::piped()).stderr(Stdio::piped());
        client.spawn().expect("it starts")
    };
    let peak = peak_of(&mut client);
    let output = client.wait_with_output().expect("it is our child");
    source.wait().expect("it is our child");
    let after = pids.map(peak_mib);
    tell(&format!(
        "an input of {mib} MiB: MiB {before:?} before, {after:?} after; {peak} its client at most"
    ));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{stderr}");
    assert_eq!(output.stdout, b"first\n", "{stderr}");
    let says = [
        "input 2 of stdin",
        "longer than 131071 bytes",
        "into a file",
    ];
    assert!(says.iter().all(|said| stderr.contains(said)), "{stderr}");
    assert!(peak <= GROWTH_MIB_MAX, "{peak} MiB");
    memory::assert_bounded(&before, &after);
}

/// The most that a process has had in memory, at its end.
fn peak_of(child: &mut Child) -> u64 {
    let mut peak = 0;
    while child.try_wait().expect("it is our child").is_none() {
        peak = peak_mib_while_it_runs(child.id()).unwrap_or(peak);
        sleep(Duration::from_millis(1));
    }
    peak
}

/// Forks twice, leaves its session and its folder, closes every file and hears no signal that it need not. Then its task ends, if
/// it is not to stay.
const DAEMON: &str = r#"
import os, signal, sys, time
note, stays = sys.argv[1], sys.argv[2] == "stays"
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.chdir("/")
        os.closerange(0, 1024)
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        with open(note + ".new", "w") as file:
            file.write(str(os.getpid()))
        os.rename(note + ".new", note)
        while True:
            time.sleep(1000)
    os._exit(0)
while not os.path.exists(note) or stays:
    time.sleep(0.01)
"#;
/// How soon a daemon is to be gone.
const DAEMON_GONE_MAX: Duration = Duration::from_secs(10);

#[test]
fn g6_a_daemon_ends_with_its_task_and_with_its_client() {
    let cluster = Cluster::start(1, 2);
    let folder = tempfile::tempdir().expect("a folder");
    let daemon = |note: &Path, how: &str| {
        let mut client = cluster.client();
        client.args(["map", "python3", "-c", DAEMON, "{}", how, ":::"]);
        client.arg(note);
        client
    };
    let (ends, stays) = (folder.path().join("ends"), folder.path().join("stays"));
    assert_eq!(said(&mut daemon(&ends, "ends")), "");
    let with_task = gone(&ends);
    let mut client = Client::start(&mut daemon(&stays, "stays"));
    cluster.until("there is a daemon", |_| stays.exists());
    assert!(is_alive(&stays));
    client.kill();
    let with_client = gone(&stays);
    tell(&format!(
        "a daemon: gone {with_task:?} after its task's end, {with_client:?} after its client's"
    ));
}

/// Waits until a process is gone whose pid is in this file; how long that took.
fn gone(note: &Path) -> Duration {
    let start = Instant::now();
    while is_alive(note) {
        assert!(start.elapsed() < DAEMON_GONE_MAX, "it is still there");
        sleep(Duration::from_millis(5));
    }
    start.elapsed()
}

/// Whether it runs, and is no zombie.
fn is_alive(note: &Path) -> bool {
    let pid = fs::read_to_string(note).expect("a note");
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat
        .rsplit(')')
        .next()
        .and_then(|rest| rest.split_whitespace().next());
    state.is_some_and(|state| state != "Z" && state != "X")
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
