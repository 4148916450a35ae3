//! Commands on hosts that are up, and on one that has lost its power.

use std::{
    io::{BufRead as _, BufReader},
    time::{Duration, Instant},
};

use crate::{
    cluster::{Cluster, LEASE},
    support::{Ran, plan, start},
};

#[test]
fn every_host_answers_and_hosts_that_say_the_same_are_one() {
    let cluster = Cluster::start(plan(8));
    let _ = cluster.done(&["deploy", "-q", "h[1-8]"]);
    let said = cluster.done(&["exec", "--on", "h[1-8]", "-k", "--", "hostname"]);
    let lines = (1..=8).map(|host| format!("h{host}: h{host}\n"));
    assert_eq!(said, lines.collect::<String>());
    let line = "echo same; test $(hostname) != h3 || echo other";
    let said = cluster.done(&["exec", "--on", "h[1-8]", "--gather", "--", line]);
    let rule = "-".repeat(15);
    let expect =
        format!("{rule}\nh[1-2,4-8] (7)\n{rule}\nsame\n{rule}\nh3 (1)\n{rule}\nsame\nother\n");
    assert_eq!(said, expect);
}

/// G4: what is told of a host without power, when and how.
#[test]
fn g4_a_host_without_power_is_told_of_when_its_lease_is_over_and_the_rest_answers_at_once() {
    let cluster = Cluster::start(plan(8));
    let _ = cluster.done(&["deploy", "-q", "h[1-8]"]);
    cluster.fleet.host("h5").power_off();
    let words = ["exec", "--on", "h[1-8]", "--", "hostname"];
    let began = Instant::now();
    let mut exec = start(cluster.fleet.head(), &words);
    let mut stdout = BufReader::new(exec.stdout.take().expect("a pipe")).lines();
    let lines = stdout.by_ref().map_while(Result::ok);
    let mut lines: Vec<String> = lines.take(7).collect();
    let answered = began.elapsed();
    let ran = Ran::from(exec.wait_with_output().unwrap());
    let told = began.elapsed();
    lines.sort_unstable();
    let alive = [1, 2, 3, 4, 6, 7, 8].map(|host| format!("h{host}: h{host}"));
    assert_eq!(lines, alive);
    assert!(answered < LEASE, "the rest answered after {answered:?}");
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stderr.contains("h5: "), "{ran:?}");
    let over = LEASE + LEASE / 10 + Duration::from_secs(2);
    assert!(told < over + LEASE, "it was told of after {told:?}");
    // From then on it is known.
    let began = Instant::now();
    let ran = cluster.run(&words);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(began.elapsed() < LEASE, "{ran:?}");
}
