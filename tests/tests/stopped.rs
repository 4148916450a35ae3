//! Processes that are stopped (SIGSTOP) for a while, each kind of them, for shorter and for longer than the lease, in a real
//! cluster with real clocks: no task runs twice at a time, none is lost, and everything goes on (G1, G3).
//!
//! Tasks watch over each other: each holds a lock of its own as long as it runs, and tells when it finds that held.
//! `FLEETPOOL_STOP_SECONDS=60` stops longer.

use std::{
    fs,
    io::Write as _,
    path::PathBuf,
    thread::sleep,
    time::{Duration, Instant},
};

use fleetpool_tests::{client::Client, cluster::Cluster};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tempfile::TempDir;

const LEASE: Duration = Duration::from_secs(2);
/// Longer than it is from one renewal to the next, and together with that well within a lease.
const SHORT: Duration = Duration::from_millis(700);
/// Longer than a coordinator waits until it gives a silent host's tasks to others.
fn long() -> Duration {
    let asked = std::env::var("FLEETPOOL_STOP_SECONDS").ok();
    let asked = asked.map(|text| Duration::from_secs(text.parse().expect("seconds")));
    asked.unwrap_or(LEASE + LEASE / 10 + Duration::from_secs(2) + SHORT)
}

/// Of a coordinator that is stopped for so long: shorter than that, and more than half of it, since clients wait for two leases.
fn lease_of_long_stops() -> Duration {
    let is_asked = std::env::var_os("FLEETPOOL_STOP_SECONDS").is_some();
    if is_asked { long() * 3 / 5 } else { LEASE }
}

/// Enough of them that two slots are busy for longer than that.
fn tasks() -> u64 {
    40 * (long().as_secs() + 1)
}

/// A cluster, and a run of many short tasks on it.
struct Run {
    cluster: Cluster,
    client: Client,
    notes: TempDir,
}

/// The task that runs as long as there is a file `held`.
const HELD: u64 = 5;
/// Notes who begins where and who has ended; one that is alone with its lock says nothing of it.
const TASK: &str = r#"exec 9>>"lock.$1"
flock -n 9 || echo "$1" >>overlaps
echo "$1 $FLEETPOOL_HOST $$" >>begun
sleep 0.1
while [ "$1" = 5 ] && [ -e held ]; do sleep 0.02; done
echo "$1" >>over"#;

impl Run {
    fn start() -> Self {
        Self::with_lease(LEASE)
    }

    fn with_lease(lease: Duration) -> Self {
        let lease = format!("{}s", lease.as_secs());
        let cluster = Cluster::start_with_lease(2, 2, &lease);
        let notes = tempfile::tempdir().expect("a folder");
        fs::write(notes.path().join("held"), "").expect("writable");
        let mut command = cluster.client();
        command.args(["map", "--json", "--cwd"]).arg(notes.path());
        command.args(["sh", "-c", TASK, "task", "{}"]);
        let mut client = Client::fed(&mut command);
        client.feed(0..tasks());
        client.close();
        let run = Self {
            cluster,
            client,
            notes,
        };
        run.cluster.until("tasks run on both hosts", |_| {
            let held_runs = run.pid_of(HELD).is_some();
            held_runs && ["a1", "a2"].iter().all(|host| run.begun_on(host) > 4)
        });
        run
    }

    /// The process of a task that has begun.
    fn pid_of(&self, index: u64) -> Option<u32> {
        let begun = self.lines("begun");
        let own = format!("{index} ");
        let line = begun.iter().find(|line| line.starts_with(&own))?;
        line.rsplit(' ').next()?.parse().ok()
    }

    /// Lets the one task end that is held.
    fn release(&self) {
        // A second time there is nothing to do.
        fs::remove_file(self.path("held")).ok();
    }

    fn over(&self, index: u64) -> bool {
        let index = index.to_string();
        self.lines("over").contains(&index)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.notes.path().join(name)
    }

    fn lines(&self, name: &str) -> Vec<String> {
        let text = fs::read_to_string(self.path(name)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn begun_on(&self, host: &str) -> usize {
        let begun = self.lines("begun").into_iter();
        begun
            .filter(|line| line.contains(&format!(" {host} ")))
            .count()
    }

    /// Stops a process for that long; then waits until `progress` has grown, and tells how long that took.
    fn stop(&self, what: &str, pid: u32, time: Duration, progress: impl Fn(&Self) -> usize) {
        signal(pid, Signal::SIGSTOP);
        sleep(time);
        let before = progress(self);
        signal(pid, Signal::SIGCONT);
        let woken = Instant::now();
        self.cluster
            .until("it goes on", |_| progress(self) > before);
        // For whoever keeps the figures; a machine that is busy has others.
        let healed = woken.elapsed();
        writeln!(
            std::io::stderr(),
            "{what} stopped for {time:?}: works {healed:?} after it goes on"
        )
        .ok();
    }

    /// Every task has one result; none ran twice at a time, nor twice at all if `once`.
    fn end(self, once: bool) {
        self.release();
        let Self {
            cluster,
            client,
            notes,
        } = self;
        let (lines, status) = client.end();
        assert_eq!(status, 0);
        let mut ended = Vec::new();
        for line in &lines {
            let result: Value = serde_json::from_str(line).expect("an object a line");
            assert_eq!(result["outcome"], "done", "{line}");
            ended.push(result["index"].as_u64().expect("an index"));
        }
        ended.sort_unstable();
        assert_eq!(ended, (0..tasks()).collect::<Vec<_>>(), "one result each");
        let read = |name| fs::read_to_string(notes.path().join(name)).unwrap_or_default();
        assert_eq!(read("overlaps"), "", "these ran twice at a time");
        if once {
            assert_eq!(
                read("begun").lines().count() as u64,
                tasks(),
                "nothing ran twice"
            );
        }
        drop(cluster);
    }
}

#[test]
fn g1_an_agent_that_is_stopped_for_less_than_its_lease_goes_on() {
    let run = Run::start();
    run.stop("agent", run.cluster.agent_pid(0), SHORT, |run| {
        run.begun_on("a1")
    });
    run.end(true);
}

#[test]
fn g1_an_agent_that_is_stopped_for_longer_than_its_lease_overlaps_with_nobody() {
    let run = Run::start();
    run.stop("agent", run.cluster.agent_pid(0), long(), |run| {
        run.begun_on("a1")
    });
    run.end(false);
}

#[test]
fn g1_a_coordinator_that_is_stopped_for_less_than_the_lease_costs_nothing() {
    let run = Run::start();
    let begun = |run: &Run| run.lines("begun").len();
    run.stop("coordinator", run.cluster.coordinator_pid(), SHORT, begun);
    run.end(true);
}

#[test]
fn g1_a_coordinator_that_is_stopped_for_longer_than_the_lease_makes_nothing_overlap() {
    let run = Run::with_lease(lease_of_long_stops());
    let begun = |run: &Run| run.lines("begun").len();
    run.stop("coordinator", run.cluster.coordinator_pid(), long(), begun);
    run.end(false);
}

#[test]
fn g3_a_client_that_is_stopped_has_every_result_when_it_goes_on() {
    let run = Run::start();
    run.release();
    run.client.stop();
    // What it has submitted runs on.
    run.cluster
        .until("all is over", |_| run.lines("over").len() as u64 == tasks());
    run.client.go_on();
    run.end(true);
}

#[test]
fn g1_a_task_that_is_stopped_is_waited_for() {
    let run = Run::start();
    let pid = run.pid_of(HELD).expect("it has begun");
    run.stop("task", pid, long(), |run| {
        run.release();
        usize::from(run.over(HELD))
    });
    run.end(true);
}

fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).expect("a pid"));
    kill(pid, signal).expect("it is there");
}
