//! Lines that lose packets, double them and let some overtake others.

use std::{
    env,
    time::{Duration, Instant},
};

use fleetpool_tests::{cluster::Cluster, line::Line, way::Quality};

use crate::support::{Echo, states};

/// How long the worst line is watched; `FLEETPOOL_LINE_SECONDS=60` watches it longer than two leases.
const WATCHED: Duration = Duration::from_secs(8);

/// A cluster of two agents behind one line.
fn behind(lost: u32, twice: u32, overtaken: u32) -> (Cluster, Line) {
    let mut cluster = Cluster::bare();
    let quality = Quality {
        lost,
        twice,
        overtaken,
        ..Quality::of_length(Duration::from_millis(2))
    };
    let line = Line::of(quality, cluster.address());
    cluster.add_agent_by(line.address(), "a1", 2);
    cluster.add_agent_by(line.address(), "a2", 2);
    cluster.await_hosts(2);
    (cluster, line)
}

/// G3. Each input comes back once, whatever the line does; [`Echo::round`] sees to it.
#[test]
fn g3_each_result_comes_once_over_lines_that_lose_and_double_and_reorder() {
    for (lost, twice, overtaken) in [(10, 0, 0), (50, 50, 50), (0, 200, 200)] {
        let (cluster, line) = behind(lost, twice, overtaken);
        let mut echo = Echo::of(&cluster);
        echo.round(500);
        drop((echo, cluster, line));
    }
}

/// One packet of five, each way.
#[test]
fn no_host_is_lost_where_every_fifth_packet_is() {
    let seconds = env::var("FLEETPOOL_LINE_SECONDS").ok();
    let watched = seconds.and_then(|seconds| seconds.parse().ok());
    let watched = watched.map_or(WATCHED, Duration::from_secs);
    let (cluster, _line) = behind(200, 20, 50);
    let mut echo = Echo::of(&cluster);
    let start = Instant::now();
    while start.elapsed() < watched {
        echo.round(20);
        for (name, state) in states(&cluster) {
            assert!(
                state == "up" || state == "away",
                "{name} is {state} after {:?}",
                start.elapsed()
            );
        }
    }
    cluster.await_hosts(2);
}
