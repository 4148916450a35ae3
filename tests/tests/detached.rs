//! Jobs that go on without who started them, on a real cluster: seen again from the first line, also after the coordinator
//! was killed.

use std::{
    collections::BTreeSet,
    process::{Command, Output, Stdio},
};

use fleetpool_tests::{client::Client, cluster::Cluster};
use serde_json::Value;

fn output(command: &mut Command) -> Output {
    command.output().expect("it starts")
}

/// What a verb prints, when it succeeds.
fn said(command: &mut Command) -> String {
    let output = output(command);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {stderr}");
    String::from_utf8(output.stdout).expect("text")
}

/// Starts a job and leaves it: its number.
fn detach(cluster: &Cluster, words: &[&str]) -> String {
    let mut command = cluster.client();
    command.args(["map", "--detach", "--quiet"]).args(words);
    said(&mut command).trim().to_owned()
}

/// A client that has brought ten tasks, which have run, and may bring more; and its job's number.
fn bringing(cluster: &Cluster) -> (Client, String) {
    let mut command = cluster.client();
    command.args(["map", "--detach", "--quiet", "echo"]);
    let mut client = Client::fed(&mut command);
    client.feed(0..10);
    cluster.until("the first have run", |cluster| {
        jobs(cluster)[0]["ended"] == 10
    });
    let number = jobs(cluster)[0]["id"].to_string();
    (client, number)
}

fn jobs(cluster: &Cluster) -> Value {
    let jobs = said(cluster.client().args(["jobs", "--json"]));
    serde_json::from_str(&jobs).expect("an array")
}

fn job(cluster: &Cluster, number: &str) -> Option<Value> {
    let jobs = jobs(cluster);
    let jobs = jobs.as_array().expect("an array").clone();
    let number: Value = number.parse().expect("a number");
    jobs.into_iter().find(|job| job["id"] == number)
}

#[test]
fn g10_a_job_is_taken_whole_though_the_coordinator_is_killed_before_it_is_complete() {
    let mut cluster = Cluster::start(1, 2);
    let mut command = cluster.client();
    command.args(["map", "--detach", "--quiet", "echo"]);
    let mut client = Client::fed(&mut command);
    client.feed(0..10);
    let ended = |cluster: &Cluster, tasks: u64| {
        let jobs = said(cluster.client().args(["jobs", "--json"]));
        let jobs: Value = serde_json::from_str(&jobs).unwrap_or_default();
        jobs[0]["ended"] == tasks
    };
    cluster.until("the first have run", |cluster| ended(cluster, 10));
    cluster.kill_coordinator();
    cluster.start_again();
    client.feed(10..20);
    let number = client.last_line();
    cluster.until("it has ended", |cluster| {
        job(cluster, &number).is_some_and(|job| job["state"] == "ended")
    });
    assert!(ended(&cluster, 20));
}

#[test]
fn g6_a_job_whose_client_is_killed_before_it_is_complete_is_over_and_says_so() {
    let cluster = Cluster::start(1, 2);
    let (mut client, number) = bringing(&cluster);
    client.kill();
    cluster.until("it is over", |cluster| jobs(cluster)[0]["state"] == "ended");
    let seen = output(cluster.client().args(["attach", &number]));
    assert_eq!(String::from_utf8_lossy(&seen.stdout).lines().count(), 10);
    let stderr = String::from_utf8_lossy(&seen.stderr);
    assert!(stderr.contains("before it had brought all"), "{stderr}");
}

#[test]
fn g4_a_client_that_brings_a_job_while_the_fleet_changes_comes_to_its_end() {
    let cluster = Cluster::start(1, 2);
    let mut command = cluster.client();
    command.args(["map", "--detach", "echo"]);
    let mut client = Client::fed(&mut command);
    client.feed(0..1);
    // Each is news for it, which it has no use for.
    for _ in 0..10 {
        said(cluster.client().args(["cordon", "a1"]));
        said(cluster.client().args(["uncordon", "a1"]));
    }
    let number = client.last_line();
    cluster.until("it has ended", |cluster| {
        job(cluster, &number).is_some_and(|job| job["state"] == "ended")
    });
}

fn lines(text: &str) -> BTreeSet<&str> {
    text.lines().collect()
}

#[test]
fn g10_a_detached_job_ends_without_its_client_and_is_seen_from_the_first_line() {
    let cluster = Cluster::start(2, 2);
    let number = detach(
        &cluster,
        &[
            "--shell",
            "echo out {}; echo err {} >&2",
            ":::",
            "1",
            "2",
            "3",
            "4",
        ],
    );
    cluster.until("it has ended", |cluster| {
        job(cluster, &number).is_some_and(|job| job["state"] == "ended")
    });
    let kept = job(&cluster, &number).expect("it is kept");
    assert_eq!((&kept["ended"], &kept["failed"]), (&4.into(), &0.into()));
    // As often as one likes.
    for verb in ["logs", "attach", "logs"] {
        let output = output(cluster.client().args([verb, &number]));
        assert!(
            output.status.success(),
            "{verb}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let (stdout, stderr) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        assert_eq!(
            lines(&stdout),
            ["out 1", "out 2", "out 3", "out 4"].into(),
            "{verb}"
        );
        assert_eq!(
            lines(&stderr),
            ["err 1", "err 2", "err 3", "err 4"].into(),
            "{verb}"
        );
    }
    said(cluster.client().args(["cancel", &number]));
    assert_eq!(
        job(&cluster, &number),
        None,
        "what is kept of it goes with cancel"
    );
    let gone = output(cluster.client().args(["logs", &number]));
    assert_eq!(gone.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&gone.stderr).contains("there is no job"));
}

#[test]
fn g10_an_attached_client_sees_each_line_once_through_a_kill_of_the_coordinator() {
    let mut cluster = Cluster::start(2, 2);
    let inputs: Vec<String> = (1..=40).map(|number| number.to_string()).collect();
    let mut words = vec!["--shell", "sleep 0.2; echo {}; test {} != 7", ":::"];
    words.extend(inputs.iter().map(String::as_str));
    let number = detach(&cluster, &words);
    let mut attached = cluster.client();
    attached
        .args(["attach", &number, "--json"])
        .stdout(Stdio::piped());
    let attached = attached.spawn().expect("it starts");
    for enough in [5, 15] {
        cluster.until("some have ended", |cluster| {
            job(cluster, &number).is_some_and(|job| job["ended"].as_u64() >= Some(enough))
        });
        cluster.kill_coordinator();
        cluster.start_again();
    }
    let output = attached.wait_with_output().expect("it is our child");
    assert_eq!(output.status.code(), Some(1), "one task failed");
    let text = String::from_utf8(output.stdout).expect("text");
    let tasks: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("an object"))
        .collect();
    let printed: BTreeSet<String> = tasks
        .iter()
        .map(|task| task["stdout"].to_string())
        .collect();
    let expected = inputs
        .iter()
        .map(|input| Value::from(format!("{input}\n")).to_string());
    assert_eq!(tasks.len(), 40, "each once");
    assert_eq!(printed, expected.collect());
}

#[test]
fn g6_a_detached_job_that_is_cancelled_is_over_and_explain_says_what_waits() {
    let cluster = Cluster::start(1, 1);
    let number = detach(&cluster, &["sleep", ":::", "1000", "1001"]);
    cluster.until("one runs", |cluster| {
        job(cluster, &number).is_some_and(|job| job["granted"] == 1 && job["queued"] == 1)
    });
    let why = said(cluster.client().args(["explain", &number]));
    assert!(
        why.contains("1 waiting") && why.contains("every slot there is for it: 1"),
        "{why}"
    );
    let screen = said(cluster.client().args(["top", "-n", "1"]));
    assert!(
        screen.contains("a1") && screen.contains(&number),
        "{screen}"
    );
    said(cluster.client().args(["cancel", &number]));
    cluster.until("nothing runs", |cluster| {
        let hosts = said(cluster.client().args(["hosts", "--json"]));
        let hosts: Value = serde_json::from_str(&hosts).expect("an array");
        hosts[0]["running"] == 0 && hosts[0]["allotted"] == 0
    });
}

#[test]
fn g4_a_client_that_brings_a_job_is_told_that_it_was_cancelled() {
    let cluster = Cluster::start(1, 2);
    let (client, number) = bringing(&cluster);
    said(cluster.client().args(["cancel", &number]));
    // It does not wait for its next line.
    let notes: Vec<String> = client.notes.iter().collect();
    assert!(notes.concat().contains("cancelled by"), "{notes:?}");
    assert!(notes.concat().contains("ended this job"), "{notes:?}");
    assert_eq!(client.end(), (Vec::new(), 125));
}

#[test]
fn g11_a_job_cannot_be_left_with_a_cluster_that_goes_with_its_client() {
    let mut command = Command::new(fleetpool_tests::cluster::built("fleetpool"));
    command
        .env_remove("FLEETPOOL_CLUSTER")
        .env("XDG_CONFIG_HOME", "/nonexistent");
    let refused = output(command.args(["map", "--detach", "true", ":::", "1"]));
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("needs a cluster"));
}
