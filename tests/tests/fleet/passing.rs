//! Content that agents pass on to each other: sent once, and there in spite of hosts that die and networks that forbid it.

use std::collections::BTreeSet;

use fleetpool_test_fleet::{Fleet, Host};

use crate::{
    cluster::Cluster,
    support::{Ran, plan, run, start, until},
};

/// Of a put in these tests.
const MIB: u64 = 32;
const CONTENT: &str = "/root/content";

/// A fresh content, that nobody has.
fn make_content(head: Host<'_>) -> String {
    let _ = head.sh(&format!("head -c {} /dev/urandom >{CONTENT}", MIB << 20));
    hash_on(head, CONTENT).expect("it is there")
}

fn hash_on(host: Host<'_>, path: &str) -> Option<String> {
    let output = host.try_sh(&format!("sha256sum <{path}"));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    output.status.success().then_some(said)
}

/// Bytes that the head has sent since it is up.
fn sent(head: Host<'_>) -> u64 {
    let said = head.sh("cat /sys/class/net/eth0/statistics/tx_bytes");
    said.trim().parse().expect("a number")
}

/// How often the content was sent, in tenths.
fn tenths(bytes: u64) -> u64 {
    10 * bytes / (MIB << 20)
}

#[track_caller]
fn all_have(fleet: &Fleet, hosts: impl IntoIterator<Item = usize>, hash: &str) {
    for host in hosts {
        let name = format!("h{host}");
        let there = hash_on(fleet.host(&name), "/tmp/content");
        assert_eq!(there.as_deref(), Some(hash), "{name}");
    }
}

/// Whether agents have come to an agent there: a port that listens and is not sshd's, with somebody at it.
fn is_passing_on(host: Host<'_>) -> bool {
    let sockets = host.sh("cat /proc/net/tcp /proc/net/tcp6");
    let sockets = sockets.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let port = words.get(1)?.rsplit(':').next()?.to_owned();
        Some((port, (*words.get(3)?).to_owned()))
    });
    let with = |state: &str, sockets: &[(String, String)]| -> BTreeSet<String> {
        let there = sockets
            .iter()
            .filter(|(port, is)| is == state && port != "0016");
        there.map(|(port, _)| port.clone()).collect()
    };
    let sockets: Vec<_> = sockets.collect();
    with("0A", &sockets)
        .intersection(&with("01", &sockets))
        .next()
        .is_some()
}

#[test]
fn put_to_eight_hosts_is_sent_once() {
    let cluster = Cluster::start(plan(8));
    let head = cluster.fleet.head();
    let _ = cluster.done(&["deploy", "-q", "h[1-8]"]);
    for _ in 0..2 {
        let hash = make_content(head);
        let before = sent(head);
        let _ = cluster.done(&["put", "-q", "--on", "h[1-8]", CONTENT, "/tmp/"]);
        let times = tenths(sent(head) - before);
        all_have(&cluster.fleet, 1..=8, &hash);
        assert!(times <= 15, "sent {times} tenths of its size");
    }
    until("no agent listens any more", || {
        (1..=8).all(|host| !is_passing_on(cluster.fleet.host(&format!("h{host}"))))
    });
}

#[test]
fn hosts_for_one_run_pass_it_on_too() {
    let fleet = plan(4).start().unwrap();
    let head = fleet.head();
    // So that the program is there already.
    let ran = run(head, &["exec", "--hosts", "h[1-4]", "--", "true"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let hash = make_content(head);
    let before = sent(head);
    let ran = run(head, &["put", "-q", "--hosts", "h[1-4]", CONTENT, "/tmp/"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let times = tenths(sent(head) - before);
    all_have(&fleet, 1..=4, &hash);
    assert!(times <= 15, "sent {times} tenths of its size");
}

#[test]
fn when_a_host_dies_that_passes_it_on_all_others_get_it() {
    let cluster = Cluster::start(plan(8));
    let fleet = &cluster.fleet;
    let _ = cluster.done(&["deploy", "-q", "h[1-8]"]);
    let hash = make_content(fleet.head());
    // Lines on which it takes a while: what hosts send beyond that is lost.
    for host in 1..=8 {
        let _ = fleet.host(&format!("h{host}")).sh(
            "nft 'add table inet slow; add chain inet slow out { type filter hook output priority 0; }; add rule inet slow out tcp sport != 22 limit rate over 2 mbytes/second burst 64 kbytes drop'",
        );
    }
    let put = start(
        fleet.head(),
        &["put", "-q", "--on", "h[1-8]", CONTENT, "/tmp/"],
    );
    let parent = || (1..=8).find(|host| is_passing_on(fleet.host(&format!("h{host}"))));
    until("a host passes it on", || parent().is_some());
    let dead = parent().expect("it still does");
    let done =
        (1..=8).filter(|host| hash_on(fleet.host(&format!("h{host}")), "/tmp/content").is_some());
    assert!(done.count() < 8, "it is too late");
    fleet.host(&format!("h{dead}")).power_off();
    for host in (1..=8).filter(|host| *host != dead) {
        let _ = fleet
            .host(&format!("h{host}"))
            .sh("nft delete table inet slow");
    }
    let ran = Ran::from(put.wait_with_output().unwrap());
    assert_ne!(ran.code, Some(0), "{ran:?}");
    all_have(fleet, (1..=8).filter(|host| *host != dead), &hash);
}

#[test]
fn where_agents_do_not_reach_each_other_the_coordinator_sends_it() {
    let cluster = Cluster::start(plan(4));
    let fleet = &cluster.fleet;
    let _ = cluster.done(&["deploy", "-q", "h[1-4]"]);
    let hash = make_content(fleet.head());
    for (host, verdict) in [
        (1, "drop"),
        (2, "drop"),
        (3, "reject with tcp reset"),
        (4, "drop"),
    ] {
        let line = format!(
            "nft 'add table inet wall; add chain inet wall in {{ type filter hook input priority 0; }}; add rule inet wall in tcp flags syn / syn,ack tcp dport != 22 {verdict}'"
        );
        let _ = fleet.host(&format!("h{host}")).sh(&line);
    }
    let before = sent(fleet.head());
    let _ = cluster.done(&["put", "-q", "--on", "h[1-4]", CONTENT, "/tmp/"]);
    all_have(fleet, 1..=4, &hash);
    let times = tenths(sent(fleet.head()) - before);
    assert!((40..50).contains(&times), "sent {times} tenths of its size");
}
