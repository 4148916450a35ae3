//! A full disk: with the journal's reserve to go on from, and without.

use std::process::Command;

use fleetpool_tests::{client::Client, cluster::Cluster};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use super::support::{Disk, Notes, cluster_on};

const FULL: &str = "the coordinator's disk is full";
/// What is written of so many is more than what is left of a page.
const TASKS: u64 = 300;
/// Exit status when fleetpool itself failed.
const REFUSED: i32 = 125;

/// What a verb says, with how it ended.
fn said(command: &mut Command) -> (String, Option<i32>) {
    let output = command.output().expect("it starts");
    let text = [output.stdout, output.stderr].concat();
    (
        String::from_utf8_lossy(&text).into_owned(),
        output.status.code(),
    )
}

fn is_full(cluster: &Cluster) -> bool {
    let (text, _) = said(cluster.client().args(["status", "--json"]));
    let status: Value = serde_json::from_str(&text).unwrap_or_default();
    status["disk_full"] == true
}

fn map(cluster: &Cluster, notes: &Notes) -> Client {
    let mut command = cluster.client();
    command.args(["map", "--json", "--shell", &notes.command()]);
    Client::fed(&mut command)
}

/// Each of so many tasks has run once and has one result.
fn assert_whole(notes: &Notes, lines: &[String], tasks: u64) {
    let mut ended = Vec::new();
    for line in lines {
        let result: Value = serde_json::from_str(line).expect("an object a line");
        assert_eq!(result["outcome"], "done", "{line}");
        ended.push(result["index"].as_u64().expect("an index"));
    }
    ended.sort_unstable();
    assert_eq!(ended, (0..tasks).collect::<Vec<_>>(), "one result each");
    assert_eq!(notes.begun(), ended, "each ran once");
}

#[test]
fn g10_a_full_disk_puts_new_tasks_off_and_keeps_results_coming() {
    let disk = Disk::of(40);
    let cluster = cluster_on(&disk);
    let notes = Notes::new();
    let mut client = map(&cluster, &notes);
    client.feed(0..4);
    cluster.until("all slots are in use", |_| notes.begun().len() == 4);
    disk.fill();
    // A pool that is more than what is left of the last page: it is written where the reserve was, and its task waits.
    let mut other = cluster.client();
    let large = format!("LARGE={}", "x".repeat(16 << 10));
    other.args(["map", "--env", &large, "true", ":::", "1"]);
    let other = Client::start(&mut other);
    cluster.until("it is seen", is_full);
    client.feed(4..20);
    cluster.until("the client is told", |_| {
        client.said().iter().any(|note| note.contains(FULL))
    });
    let (refusal, status) = said(cluster.client().args(["map", "true", ":::", "1"]));
    assert!(refusal.contains(FULL), "{refusal}");
    assert!(refusal.contains("make room"), "{refusal}");
    assert_eq!(status, Some(REFUSED));
    notes.open();
    let mut lines: Vec<String> = (0..4).map(|_| client.line()).collect();
    assert!(is_full(&cluster));
    assert_eq!(notes.begun(), [0, 1, 2, 3], "nothing else was taken");
    disk.make_room();
    client.close();
    let (rest, status) = client.end();
    lines.extend(rest);
    assert_eq!((status, other.end().1), (0, 0));
    assert_whole(&notes, &lines, 20);
    cluster.until("it is seen", |cluster| !is_full(cluster));
}

/// Some tasks run and many wait; then the disk is full, and what is left for results as well.
fn stands_still(disk: &Disk, cluster: &Cluster, notes: &Notes) -> Client {
    let mut client = map(cluster, notes);
    client.feed(0..TASKS);
    client.close();
    cluster.until("all slots are in use", |_| notes.begun().len() == 4);
    disk.fill();
    notes.open();
    cluster.until("it stands still", |cluster| {
        // Somebody takes the reserve as soon as it is given up.
        disk.fill();
        cluster
            .coordinator_log()
            .contains("everything waits until there is room")
    });
    client
}

#[test]
fn g10_a_disk_full_to_the_last_byte_stops_everything_and_loses_nothing() {
    let disk = Disk::of(40);
    let cluster = cluster_on(&disk);
    let notes = Notes::new();
    let client = stands_still(&disk, &cluster, &notes);
    let (refusal, status) = said(cluster.client().arg("hosts"));
    assert!(refusal.contains(FULL), "{refusal}");
    assert_eq!(status, Some(REFUSED));
    disk.make_room();
    let (lines, status) = client.end();
    assert_eq!(status, 0);
    assert_whole(&notes, &lines, TASKS);
}

#[test]
fn g10_a_coordinator_that_stands_still_ends_when_it_is_told_and_another_goes_on() {
    let disk = Disk::of(40);
    let mut cluster = cluster_on(&disk);
    let notes = Notes::new();
    let client = stands_still(&disk, &cluster, &notes);
    let pid = i32::try_from(cluster.coordinator_pid()).expect("a pid");
    kill(Pid::from_raw(pid), Signal::SIGTERM).expect("it runs");
    assert_eq!(cluster.coordinator_end(), Some(0));
    // There is no room for another one's beginning.
    let mut again = cluster.coordinator_again();
    let (refusal, status) = said(&mut again);
    assert_eq!(status, Some(REFUSED), "{refusal}");
    assert!(refusal.contains("No space left on device"), "{refusal}");
    disk.make_room();
    cluster.start_again();
    let (lines, status) = client.end();
    assert_eq!(status, 0);
    assert_whole(&notes, &lines, TASKS);
}
