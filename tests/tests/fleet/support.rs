//! What the tests have in common.

use std::{
    process::{Output, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use fleetpool_test_fleet::{Command, Fleet, Host, Plan, Running};
use fleetpool_tests::cluster::built;

/// How long anything may take that is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// So many hosts, and a head that has the binary and nothing else.
pub(crate) fn plan(hosts: usize) -> Plan {
    Fleet::plan(hosts).program("fleetpool", built("fleetpool"))
}

/// What a command came to.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// `fleetpool` on a host, with nothing on stdin.
pub(crate) fn fleetpool(on: Host<'_>, words: &[&str]) -> Command {
    let mut command = on.command("fleetpool");
    command.args(words).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs it to its end.
pub(crate) fn run(on: Host<'_>, words: &[&str]) -> Ran {
    fleetpool(on, words).output().expect("it starts").into()
}

/// Starts it.
pub(crate) fn start(on: Host<'_>, words: &[&str]) -> Running {
    fleetpool(on, words).spawn().expect("it starts")
}

/// Waits for a condition.
#[track_caller]
pub(crate) fn until(what: &str, condition: impl Fn() -> bool) {
    within(PATIENCE, what, condition);
}

/// Waits so long for a condition.
#[track_caller]
pub(crate) fn within(patience: Duration, what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < patience, "waited in vain: {what}");
        sleep(Duration::from_millis(10));
    }
}
