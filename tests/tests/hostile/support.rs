//! What the tests have in common.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, ChildStdout, Stdio},
    time::{Duration, Instant},
};

use fleetpool_tests::cluster::Cluster;
use serde_json::Value;

/// A `map` that stays: what is written to it comes back from the hosts.
pub(crate) struct Echo {
    process: Child,
    inputs: ChildStdin,
    results: BufReader<ChildStdout>,
    next: u32,
}

impl Echo {
    /// One of a cluster's clients.
    pub(crate) fn of(cluster: &Cluster) -> Self {
        let mut process = cluster
            .client()
            .args(["map", "--no-tag", "echo"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the client starts");
        let mut echo = Self {
            inputs: process.stdin.take().expect("a pipe"),
            results: BufReader::new(process.stdout.take().expect("a pipe")),
            process,
            next: 0,
        };
        echo.round(1);
        echo
    }

    /// Sends so many inputs and waits until each has come back, once; tells how long that took.
    pub(crate) fn round(&mut self, count: u32) -> Duration {
        let start = Instant::now();
        let sent: Vec<u32> = (self.next..self.next + count).collect();
        self.next += count;
        let lines: String = sent.iter().map(|number| format!("{number}\n")).collect();
        self.inputs.write_all(lines.as_bytes()).expect("it reads");
        let mut came: Vec<u32> = Vec::new();
        for _ in &sent {
            let mut line = String::new();
            self.results.read_line(&mut line).expect("it prints");
            came.push(line.trim_end().parse().expect("a number"));
        }
        came.sort_unstable();
        assert_eq!(came, sent);
        start.elapsed()
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        // It may have ended by itself, which is as good.
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// The state of each host, by name.
pub(crate) fn states(cluster: &Cluster) -> Vec<(String, String)> {
    let output = cluster
        .client()
        .args(["hosts", "--json"])
        .output()
        .expect("the client starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let hosts: Vec<Value> = serde_json::from_slice(&output.stdout).expect("a list");
    let text = |host: &Value, field: &str| host[field].as_str().unwrap_or_default().to_owned();
    hosts
        .iter()
        .map(|host| (text(host, "name"), text(host, "state")))
        .collect()
}

/// What the coordinator's log has of panics.
pub(crate) fn assert_no_panic(cluster: &Cluster) {
    let log = std::fs::read_to_string(cluster.folder().join("coordinator.log"));
    let log = log.expect("a log");
    assert!(!log.contains("panicked"), "{log}");
}
