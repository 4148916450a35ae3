//! A real cluster on loopback under what people and machines do to it: a coordinator and three agents of two slots, joined
//! by token, over QUIC with certificates on both sides.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    path::Path,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use fleetpool_tests::{cluster::Cluster, line::Line, memory};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

/// What a decision may take until the last process that it is about is gone (G6).
const GONE_WITHIN: Duration = Duration::from_secs(2);
/// What a loaded machine may add before a test calls it a failure.
const GRACE: Duration = Duration::from_secs(1);
/// A lease that tests can wait for, and that a busy machine does not miss.
const LEASE: &str = "4s";
/// Exit status when fleetpool itself failed.
const REFUSED: i32 = 125;

/// The variable that marks the processes of one test's tasks, however they detach themselves.
const MARK: &str = "FLEETPOOL_TEST_MARK";

/// Processes that carry this mark and run (are no zombies), with what they were given in their environment.
fn marked(mark: &str) -> Vec<(Pid, String)> {
    let wanted = format!("{MARK}={mark}\0");
    let processes = fs::read_dir("/proc").expect("a proc file system").flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    // Who has ended meanwhile has nothing to read.
    let environments = pids.filter_map(|pid| Some((pid, environment(pid)?)));
    environments
        .filter(|(_, environment)| environment.contains(&wanted))
        .map(|(pid, environment)| (Pid::from_raw(pid), environment))
        .collect()
}

/// Empty for zombies.
fn environment(pid: i32) -> Option<String> {
    let bytes = fs::read(format!("/proc/{pid}/environ")).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn marked_on(mark: &str, host: &str) -> Vec<Pid> {
    let here = format!("FLEETPOOL_HOST={host}\0");
    let all = marked(mark).into_iter();
    all.filter(|(_, environment)| environment.contains(&here))
        .map(|(pid, _)| pid)
        .collect()
}

/// Waits until there are no such processes; tells how long that took.
fn await_gone(what: &str, processes: impl Fn() -> Vec<Pid>) -> Duration {
    let start = Instant::now();
    loop {
        let left = processes();
        if left.is_empty() {
            return start.elapsed();
        }
        assert!(
            start.elapsed() < GONE_WITHIN + GRACE,
            "{what}: {left:?} are still there after {:?}",
            start.elapsed()
        );
        sleep(Duration::from_millis(10));
    }
}

fn kill_hard(pid: u32) {
    signal(pid, Signal::SIGKILL);
}

fn signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).expect("a process id");
    kill(Pid::from_raw(pid), signal).expect("it runs");
}

/// The results in `--json` lines, by index; each may come once.
fn results(lines: impl IntoIterator<Item = String>) -> BTreeMap<u64, Value> {
    let mut results = BTreeMap::new();
    for line in lines {
        let result: Value = serde_json::from_str(&line).expect("an object a line");
        let index = result["index"].as_u64().expect("an index");
        let again = results.insert(index, result);
        assert_eq!(again, None, "task {index} has two results");
    }
    results
}

fn hosts(results: &BTreeMap<u64, Value>) -> BTreeSet<&str> {
    let hosts = results
        .values()
        .filter_map(|result| result["host"].as_str());
    hosts.collect()
}

fn inputs(count: u32) -> Vec<String> {
    (1..=count).map(|number| number.to_string()).collect()
}

/// A client that runs in the background; killed when the test fails.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself, which is as good.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn start(command: &mut Command) -> Running {
    let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    Running(command.spawn().expect("the client starts"))
}

/// Takes one of four lock files, or writes down that a fifth was needed.
const COUNTED: &str = r#"set -C
for lock in 1 2 3 4; do
    if true > "$FLEETPOOL_TEST_DIR/$lock"; then
        sleep 0.01
        rm "$FLEETPOOL_TEST_DIR/$lock"
        exit 0
    fi 2> /dev/null
done
echo "$1" > "$FLEETPOOL_TEST_DIR/over"
exit 1"#;

#[test]
fn four_of_six_slots_run_a_thousand_tasks_and_never_a_fifth() {
    let cluster = Cluster::start(3, 2);
    let locks = tempfile::tempdir().expect("a folder");
    let joblog = locks.path().join("joblog");
    let output = cluster
        .client()
        .args(["map", "-j", "4", "--json", "--joblog"])
        .arg(&joblog)
        .arg("--env")
        .arg(format!("FLEETPOOL_TEST_DIR={}", locks.path().display()))
        .args(["sh", "-c", COUNTED, "counted", ":::"])
        .args(inputs(1000))
        .output()
        .expect("the client starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(!locks.path().join("over").exists(), "five ran at once");
    let printed = String::from_utf8(output.stdout).expect("text");
    let results = results(printed.lines().map(str::to_owned));
    assert_eq!(results.len(), 1000);
    assert_eq!(hosts(&results), BTreeSet::from(["a1", "a2", "a3"]));
    assert!(most_at_once(&joblog) <= 4, "by the joblog");
}

/// Most tasks at once by a joblog's times, which are rounded to microseconds.
fn most_at_once(joblog: &Path) -> i32 {
    let rounding = Duration::from_micros(2);
    let mut changes = Vec::new();
    let text = fs::read_to_string(joblog).expect("a joblog");
    for row in text.lines().skip(1) {
        let columns: Vec<&str> = row.split('\t').collect();
        let time = |column: usize| {
            let seconds = columns[column].trim().parse().expect("a number of seconds");
            Duration::from_secs_f64(seconds)
        };
        let (begin, end) = (time(2) + rounding, time(2) + time(3));
        changes.push((begin, 1));
        changes.push((end.max(begin), -1));
    }
    assert_eq!(changes.len(), 2000, "a row a task");
    changes.sort_unstable();
    let counts = changes.iter().scan(0, |running, (_, change)| {
        *running += change;
        Some(*running)
    });
    counts.max().unwrap_or_default()
}

#[test]
fn an_agent_that_is_killed_costs_no_result_and_leaves_no_process() {
    let cluster = Cluster::start_with_lease(3, 2, LEASE);
    let mark = "agent";
    // Each leaves a process behind that has detached itself from everything.
    let task = "setsid sleep 1000 & sleep 0.02; echo {}";
    let mut client = start(
        cluster
            .client()
            .args(["map", "-j", "6", "--json", "--env"])
            .arg(format!("{MARK}={mark}"))
            .args([task, ":::"])
            .args(inputs(1000)),
    );
    let stdout = client.0.stdout.take().expect("a pipe");
    let mut lines = BufReader::new(stdout)
        .lines()
        .map(|line| line.expect("text"));
    let mut early: Vec<String> = lines.by_ref().take(100).collect();

    cluster.until("the agent runs tasks", |_| {
        !marked_on(mark, "a1").is_empty()
    });
    kill_hard(cluster.agent_pid(0));
    await_gone("tasks of the killed agent", || marked_on(mark, "a1"));

    early.extend(lines);
    let status = client.0.wait().expect("it ends");
    assert!(status.success(), "{status}");
    let results = results(early);
    assert_eq!(results.len(), 1000);
    for result in results.values() {
        assert_eq!(result["outcome"], "done", "{result}");
    }
    await_gone("what tasks left behind", || {
        marked(mark).into_iter().map(|(pid, _)| pid).collect()
    });
}

/// Killed in the middle of everything, and another goes on: nobody notices but its coordinator.
#[test]
fn g10_commands_go_on_under_an_agent_that_is_killed() {
    const TASKS: usize = 16;
    const LINES: usize = 200;
    let mut cluster = Cluster::bare();
    cluster.add_agent_with_spawner("a1", 16);
    cluster.await_hosts(1);
    let mark = "goes-on";
    let folder = tempfile::tempdir().expect("a folder");
    let begun = folder.path().join("begun");
    let task = format!(
        "cd {}; echo {{}} >> begun; for i in $(seq {LINES}); do echo {{}} $i; sleep 0.03; done; \
         until [ -e go ]; do sleep 0.02; done",
        folder.path().display()
    );
    let mut client = start(
        cluster
            .client()
            .args(["map", "-j", "16", "--json", "--env"])
            .arg(format!("{MARK}={mark}"))
            .args([&task, ":::"])
            .args(inputs(16)),
    );
    cluster.until("all run", |_| lines(&begun).len() == TASKS);
    for _ in 0..4 {
        cluster.replace_agent(0, "a1", 16);
        let is_there = |cluster: &Cluster| {
            let log = fs::read_to_string(cluster.folder().join("a1.log"));
            log.is_ok_and(|log| log.contains("there is a session"))
        };
        cluster.until("the next one is there", is_there);
        assert!(!marked_on(mark, "a1").is_empty(), "they run");
    }
    fs::write(folder.path().join("go"), "").expect("writable");
    let stdout = client.0.stdout.take().expect("a pipe");
    let printed = BufReader::new(stdout).lines();
    let results = results(printed.map(|line| line.expect("text")));
    assert!(client.0.wait().expect("it ends").success());
    assert_eq!(results.len(), TASKS);
    assert_eq!(lines(&begun).len(), TASKS, "each ran once");
    for (index, result) in &results {
        assert_eq!(result["outcome"], "done", "{result}");
        assert_eq!(result["attempt"], 1, "{result}");
        let expected: String = (1..=LINES)
            .map(|line| format!("{} {line}\n", index + 1))
            .collect();
        assert_eq!(
            result["stdout"],
            expected.as_str(),
            "each line once, in order"
        );
    }
}

/// Holds a lock for as long as anything of it lives, and writes down where it runs, or that somebody held the lock.
const ALONE: &str = r#"cd "$FLEETPOOL_TEST_DIR"
exec 9> "lock$1"
flock -n 9 || echo "$FLEETPOOL_HOST $1" >> over
setsid sleep 1000 &
echo "$FLEETPOOL_HOST $1" >> begun
until [ -e go ]; do sleep 0.02; done"#;

fn lines(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// The agent cannot act, and nobody but its own keepers can in its stead.
#[test]
fn g1_what_a_stopped_agent_ran_is_gone_before_it_runs_elsewhere() {
    let cluster = Cluster::start_with_lease(2, 2, LEASE);
    let mark = "stopped";
    let folder = tempfile::tempdir().expect("a folder");
    let [begun, over, go] = ["begun", "over", "go"].map(|name| folder.path().join(name));
    let mut client = start(
        cluster
            .client()
            .args(["map", "-j", "2", "--json", "--env"])
            .arg(format!("{MARK}={mark}"))
            .arg("--env")
            .arg(format!("FLEETPOOL_TEST_DIR={}", folder.path().display()))
            .args(["sh", "-c", ALONE, "alone", ":::", "1", "2"]),
    );
    cluster.until("a task on each host", |_| lines(&begun).len() == 2);
    signal(cluster.agent_pid(0), Signal::SIGSTOP);
    cluster.until("its task runs elsewhere", |_| lines(&begun).len() == 3);
    assert!(marked_on(mark, "a1").is_empty(), "it runs twice");
    assert_eq!(lines(&over), [""; 0], "it ran twice");
    signal(cluster.agent_pid(0), Signal::SIGCONT);
    cluster.await_hosts(2);
    fs::write(&go, "").expect("writable");
    let stdout = client.0.stdout.take().expect("a pipe");
    let printed = BufReader::new(stdout).lines();
    let results = results(printed.map(|line| line.expect("text")));
    assert!(client.0.wait().expect("it ends").success());
    assert_eq!(hosts(&results), BTreeSet::from(["a2"]));
    assert_eq!(results.len(), 2);
    for result in results.values() {
        assert_eq!(result["outcome"], "done", "{result}");
    }
    // The agent that was stopped takes part again.
    let output = cluster
        .client()
        .args(["exec", "--json", "--on", "a1", "--", "true"])
        .output()
        .expect("the client starts");
    assert!(output.status.success(), "{output:?}");
}

/// The session breaks by silence, with lines in it that each side believes to be with the other.
#[test]
fn g8_lines_come_once_and_in_order_though_the_session_breaks_between_them() {
    const LINES: usize = 3000;
    let mut cluster = Cluster::bare();
    let line = Line::to(cluster.address());
    cluster.add_agent_by(line.address(), "a1", 1);
    cluster.await_hosts(1);
    let task = format!("for i in $(seq {LINES}); do echo $1 $i; sleep 0.005; done");
    let mut client = start(cluster.client().args([
        "map",
        "--line-buffer",
        "--no-tag",
        "sh",
        "-c",
        &task,
        "lines",
        ":::",
        "line",
    ]));
    let stdout = client.0.stdout.take().expect("a pipe");
    let mut lines = BufReader::new(stdout)
        .lines()
        .map(|line| line.expect("text"));
    let mut printed: Vec<String> = lines.by_ref().take(LINES / 10).collect();
    line.cut(true);
    cluster.await_hosts(0);
    line.cut(false);
    printed.extend(lines);
    assert!(client.0.wait().expect("it ends").success());
    let expected: Vec<String> = (1..=LINES).map(|number| format!("line {number}")).collect();
    assert_eq!(printed, expected);
}

#[test]
fn g7_a_client_that_stops_reading_grows_no_process() {
    const BYTES: usize = 200 << 20;
    let cluster = Cluster::start(1, 1);
    let script = format!("echo begun; yes | head -c {}", BYTES - "begun\n".len());
    let mut client = start(cluster.client().args([
        "map",
        "--line-buffer",
        "--no-tag",
        "sh",
        "-c",
        &script,
        "flood",
        ":::",
        "x",
    ]));
    let mut stdout = client.0.stdout.take().expect("a pipe");
    let mut begun = [0; 6];
    stdout.read_exact(&mut begun).expect("the first line");
    let pids = [
        cluster.coordinator_pid(),
        cluster.agent_pid(0),
        client.0.id(),
    ];
    let peaks = || pids.map(memory::peak_mib);
    let before = peaks();
    // Until nothing has changed for a second: all that may wait does.
    let (mut last, mut since) = (before, Instant::now());
    while since.elapsed() < Duration::from_secs(1) {
        let now = peaks();
        if now != last {
            (last, since) = (now, Instant::now());
        }
        memory::assert_bounded(&before, &now);
        sleep(Duration::from_millis(10));
    }
    let rest = std::io::copy(&mut stdout, &mut std::io::sink()).expect("readable");
    assert_eq!(usize::try_from(rest), Ok(BYTES - begun.len()));
    assert!(client.0.wait().expect("it ends").success());
}

#[test]
fn a_client_that_is_killed_takes_its_tasks_with_it() {
    let cluster = Cluster::start(3, 2);
    let mark = "client";
    let client = start(
        cluster
            .client()
            .args(["map", "-j", "6", "--env"])
            .arg(format!("{MARK}={mark}"))
            .args(["setsid sleep 1000 & sleep 1000; echo {}", ":::"])
            .args(inputs(6)),
    );
    // A shell and two sleeps on each slot.
    let busy = ["a1", "a2", "a3"].map(|host| (host, 6));
    cluster.until("every slot has its task", |_| {
        busy.iter()
            .all(|(host, count)| marked_on(mark, host).len() >= *count)
    });
    kill_hard(client.0.id());
    let gone = await_gone("tasks of the killed client", || {
        marked(mark).into_iter().map(|(pid, _)| pid).collect()
    });
    writeln!(
        std::io::stderr(),
        "a killed client: nothing of its tasks is left after {gone:?}"
    )
    .ok();
}

#[test]
fn a_killed_task_fails_alone() {
    let cluster = Cluster::start(3, 2);
    let task = "if [ {} = 7 ]; then kill -9 $$; fi; echo {}";
    let output = cluster
        .client()
        .args(["map", "--json", task, ":::"])
        .args(inputs(50))
        .output()
        .expect("the client starts");
    assert_eq!(output.status.code(), Some(1), "one task failed");
    let printed = String::from_utf8(output.stdout).expect("text");
    let results = results(printed.lines().map(str::to_owned));
    assert_eq!(results.len(), 50);
    let failed: Vec<&Value> = results
        .values()
        .filter(|result| result["outcome"] != "done")
        .collect();
    assert_eq!(failed.len(), 1, "{failed:?}");
    assert_eq!(failed[0]["signal"], 9, "{failed:?}");
}

/// What a client with the identity of that folder is told.
fn status_as(cluster: &Cluster, identity: &Path) -> (Option<i32>, String) {
    let output = cluster
        .client()
        .arg("status")
        .env("FLEETPOOL_IDENTITY", identity)
        .output()
        .expect("the client starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), said)
}

#[track_caller]
fn assert_refused(cluster: &Cluster, identity: &Path, why: &str) {
    let (code, said) = status_as(cluster, identity);
    assert_eq!(code, Some(REFUSED), "{said}");
    assert!(said.contains(why), "{said}");
}

fn issue(cluster: &Cluster, name: &str, ttl: &str, out: &Path) {
    let output = cluster
        .client()
        .args(["identity", "issue", name, "--ttl", ttl, "--out"])
        .arg(out)
        .output()
        .expect("the client starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

#[test]
fn who_is_not_invited_is_refused() {
    let cluster = Cluster::start(1, 1);
    let other = Cluster::bare();
    let folder = tempfile::tempdir().expect("a folder");

    // Of another CA, with the same cluster's name.
    assert_refused(
        &cluster,
        &other.folder().join("identity"),
        "not to be trusted",
    );
    // An agent's.
    assert_refused(
        &cluster,
        &cluster.folder().join("a1"),
        "use an identity of that role",
    );
    // One that has expired.
    let brief = folder.path().join("brief");
    issue(&cluster, "brief", "1s", &brief);
    cluster.until("the certificate has expired", |cluster| {
        status_as(cluster, &brief).0 == Some(REFUSED)
    });
    assert_refused(&cluster, &brief, "expired");
    // One that was revoked.
    let alice = folder.path().join("alice");
    issue(&cluster, "alice", "1h", &alice);
    let (code, said) = status_as(&cluster, &alice);
    assert_eq!(code, Some(0), "{said}");
    revoke(&cluster, "alice");
    assert_refused(&cluster, &alice, "not in this cluster's registry");
}

fn revoke(cluster: &Cluster, id: &str) {
    let revoked = cluster.client().args(["identity", "revoke", id]).status();
    assert!(revoked.expect("the client starts").success());
}

#[test]
fn a_revoked_users_run_ends_at_once_and_its_tasks_with_it() {
    let cluster = Cluster::start(2, 1);
    let folder = tempfile::tempdir().expect("a folder");
    let alice = folder.path().join("alice");
    issue(&cluster, "alice", "1h", &alice);
    let mark = "revoked";
    let mut client = start(
        cluster
            .client()
            .env("FLEETPOOL_IDENTITY", &alice)
            .args(["map", "--env"])
            .arg(format!("{MARK}={mark}"))
            .args(["sleep 1000; echo {}", ":::", "1", "2"]),
    );
    cluster.until("both run", |_| {
        !marked_on(mark, "a1").is_empty() && !marked_on(mark, "a2").is_empty()
    });
    revoke(&cluster, "alice");
    await_gone("tasks of the revoked user", || {
        marked(mark).into_iter().map(|(pid, _)| pid).collect()
    });
    let status = client.0.wait().expect("it ends");
    assert_eq!(status.code(), Some(REFUSED));
}
