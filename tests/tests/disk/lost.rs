//! A disk that does not keep what it is given. After that nothing is promised; a successor goes on from what is there.

use fleetpool_tests::{client::Client, cluster::Cluster};
use serde_json::Value;

use super::support::{Disk, Notes, cluster_on};

/// Exit status when fleetpool itself failed.
const FAILED: i32 = 125;
/// What is written of so many is more than what is left of a block of the disk.
const TASKS: u64 = 300;

fn job(cluster: &Cluster, number: &str) -> Option<Value> {
    let jobs = cluster.client().args(["jobs", "--json"]).output();
    let jobs = jobs.expect("it starts").stdout;
    let jobs: Value = serde_json::from_slice(&jobs).unwrap_or_default();
    let jobs = jobs.as_array().cloned().unwrap_or_default();
    let number: Value = number.parse().expect("a number");
    jobs.into_iter().find(|job| job["id"] == number)
}

/// A job has begun when the disk fails, and brings the rest of its tasks then. It prints its number when they are safe.
#[test]
fn g10_nothing_is_promised_after_the_disk_has_refused_to_write() {
    let disk = Disk::that_can_be_cut_off();
    let mut cluster = cluster_on(&disk);
    let notes = Notes::new();
    let mut command = cluster.client();
    command.args(["map", "--detach", "--quiet", "--shell", &notes.command()]);
    let mut client = Client::fed(&mut command);
    client.feed(0..2);
    cluster.until("its first tasks run", |_| notes.begun().len() == 2);
    disk.cut_off();
    client.feed(2..TASKS);
    client.close();
    assert_eq!(cluster.coordinator_end(), Some(FAILED));
    let log = cluster.coordinator_log();
    assert!(log.contains("the journal cannot be written"), "{log}");
    assert!(log.contains("look at the disk"), "{log}");
    assert_eq!(client.lines.try_recv().ok(), None, "it was promised");
    disk.replace();
    cluster.start_again();
    let number = client.last_line();
    notes.open();
    cluster.until("the job has ended", |cluster| {
        job(cluster, &number).is_some_and(|job| job["state"] == "ended")
    });
    let job = job(&cluster, &number).expect("it is kept");
    assert_eq!((&job["ended"], &job["failed"]), (&TASKS.into(), &0.into()));
    let mut begun = notes.begun();
    begun.dedup();
    assert_eq!(begun, (0..TASKS).collect::<Vec<_>>(), "none is lost");
    assert_eq!(notes.overlaps(), "", "nothing ran twice at a time");
}

#[test]
fn g10_nobody_is_told_that_a_host_is_cordoned_when_the_disk_has_refused_to_know() {
    let disk = Disk::that_can_be_cut_off();
    let mut cluster = cluster_on(&disk);
    disk.cut_off();
    let cordon = cluster.client().args(["cordon", "a1"]).output();
    assert!(!cordon.expect("it starts").status.success());
    assert_eq!(cluster.coordinator_end(), Some(FAILED));
}
