//! Wall clocks that jump. Those of the coordinator and of an agent are moved, by a library that stands before the C
//! library's (`clock.c`); the machine's own clock is not touched.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread::sleep,
    time::Duration,
};

use fleetpool_tests::cluster::Cluster;
use tempfile::TempDir;

use crate::support::{Echo, states};

/// Short, so that a test lives longer than leases.
const LEASE: &str = "2s";
/// Longer than a lease, its tenth and its margin.
const LONGER_THAN_A_LEASE: Duration = Duration::from_secs(5);
const HOUR_S: i64 = 3600;
const YEAR_S: i64 = 365 * 24 * HOUR_S;

/// The library, and the file that says by how much the clock is moved.
struct Clock {
    folder: TempDir,
    library: PathBuf,
}

impl Clock {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let library = folder.path().join("clock.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hostile/clock.c");
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .args([&library, &source])
            .status();
        assert!(built.is_ok_and(|status| status.success()), "a C compiler");
        let clock = Self { folder, library };
        clock.move_by(0);
        clock
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("seconds")
    }

    fn move_by(&self, seconds: i64) {
        let new = self.folder.path().join("new");
        fs::write(&new, seconds.to_string()).expect("writable");
        fs::rename(new, self.file()).expect("the same folder");
    }

    /// The variables that give a process this clock.
    fn variables(&self) -> [(&str, PathBuf); 2] {
        [
            ("LD_PRELOAD", self.library.clone()),
            ("TEST_CLOCK", self.file()),
        ]
    }
}

/// The lease is counted in a clock that goes on in sleep and never jumps: who moves the other one loses no host and no task.
#[test]
fn leases_do_not_care_when_the_wall_clock_jumps() {
    let (head, host) = (Clock::new(), Clock::new());
    let mut cluster = Cluster::bare_with(&["--lease", LEASE], &head.variables());
    cluster.add_agent_with("a1", 2, &host.variables());
    cluster.await_hosts(1);
    let mut echo = Echo::of(&cluster);
    for seconds in [HOUR_S, -HOUR_S, 3 * YEAR_S, -3 * YEAR_S, 0] {
        for clock in [&head, &host] {
            clock.move_by(seconds);
            echo.round(20);
        }
    }
    head.move_by(2 * HOUR_S);
    host.move_by(-2 * HOUR_S);
    sleep(LONGER_THAN_A_LEASE);
    echo.round(20);
    // A client's clock is the machine's, so it can still ask.
    head.move_by(0);
    assert_eq!(states(&cluster), [("a1".to_owned(), "up".to_owned())]);
    let log = fs::read_to_string(cluster.folder().join("coordinator.log")).expect("a log");
    assert_eq!(log.matches("session begins peer=agent").count(), 1, "{log}");
}

/// Who is refused for its certificate's time is told what both clocks say.
#[test]
fn a_host_whose_clock_is_wrong_is_told_so() {
    let host = Clock::new();
    let mut cluster = Cluster::bare();
    cluster.add_agent_with("a1", 1, &host.variables());
    cluster.await_hosts(1);
    let identity = cluster.folder().join("a1");
    for (seconds, expect) in [(-2 * YEAR_S, "not valid"), (20 * YEAR_S, "expired")] {
        host.move_by(seconds);
        let output = cluster
            .client()
            .arg("status")
            .env("FLEETPOOL_IDENTITY", &identity)
            .envs(host.variables())
            .output()
            .expect("the client starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{said}");
        assert!(said.contains(expect), "{said}");
        assert!(said.contains("clock says"), "{said}");
    }
}
