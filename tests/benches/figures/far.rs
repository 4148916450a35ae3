//! Case `line`: large arguments and results over a long line that loses packets, against TLS over TCP on the same line; and
//! short tasks over a line that loses some packets, against one that loses none.

use std::{process::Command, time::Duration};

use fleetpool_tests::{cluster::Cluster, line, way::Quality};

use crate::{
    contestant,
    ip_line::{self, ENDS, Network},
    measure::{Contestant, ROUNDS, figure_of, interleave},
    table::{Line, Target},
};

/// 50 ms there and back, 100 Mbit/s, and one packet of a hundred is lost.
const ONE_WAY: Duration = Duration::from_millis(25);
const BYTES_PER_S: u64 = 100_000_000 / 8;
const LOST: u32 = 10;
/// Of each turn; the line takes 5.4 s for it.
const TASKS: &str = "8";
const TASK_MIB: &str = "8";
const MIB: &str = "64";
const NO_OPS: &str = "300000";

/// The coordinator and its client on one side, the agent on the other.
pub(crate) fn case() -> Vec<Line> {
    let quality = Quality {
        one_way: ONE_WAY,
        bytes_per_s: Some(BYTES_PER_S),
        lost: LOST,
        ..Quality::default()
    };
    let mut lines = match ip_line::lay(quality) {
        Ok([near, far]) => near.with(|| measure(&near, &far)),
        Err(error) => vec![Line::left_out("line", &format!("{error} (it needs root)"))],
    };
    lines.push(control());
    lines
}

/// A cluster with two agents over a UDP line of that quality, and what it does of no-ops.
fn control() -> Line {
    let cluster = |lost: u32| {
        let mut cluster = Cluster::bare();
        let quality = Quality {
            lost,
            ..Quality::of_length(Duration::ZERO)
        };
        let line = line::Line::of(quality, cluster.address());
        cluster.add_agent_by(line.address(), "a1", 1);
        cluster.add_agent_by(line.address(), "a2", 1);
        cluster.await_hosts(2);
        (cluster, line)
    };
    let (lossy, whole) = (cluster(LOST), cluster(0));
    let no_ops = |cluster: &Cluster| figure_of(cluster.point(&mut contestant(&["no-ops", NO_OPS])));
    let turns = interleave(
        ROUNDS,
        &mut [
            Contestant::new("lossy", || no_ops(&lossy.0)),
            Contestant::new("whole", || no_ops(&whole.0)),
        ],
    );
    Line::against(
        "line: no-ops, 1 % lost",
        "tasks/s",
        &turns[0],
        "none lost",
        &turns[1],
        Target::RatioAtLeast(0.5),
    )
}

fn measure(near: &Network, far: &Network) -> Vec<Line> {
    let mut cluster = Cluster::bare_at(&format!("{}:0", ENDS[0]));
    let address = cluster.address();
    far.with(|| cluster.add_agent_by(address, "far", 2));
    cluster.await_hosts(1);
    let ours = |case: &'static str, tasks: &'static str| {
        figure_of(cluster.point(&mut contestant(&[case, tasks, TASK_MIB])))
    };
    // The workers' program is there before anything is measured.
    ours("arguments", "1");
    let mut rivals = [
        Contestant::new("arguments", || ours("arguments", TASKS)),
        Contestant::new("results", || ours("results", TASKS)),
        Contestant::new("TLS over TCP", || figure_of(&mut tls(near, far))),
    ];
    let names = rivals.each_ref().map(|rival| rival.name);
    let turns = interleave(ROUNDS, &mut rivals);
    let line = |at: usize| {
        Line::against(
            &format!("line: {TASKS} x {TASK_MIB} MiB {}", names[at]),
            "MiB/s",
            &turns[at],
            names[2],
            &turns[2],
            Target::RatioAtLeast(0.8),
        )
    };
    vec![line(0), line(1)]
}

fn tls(near: &Network, far: &Network) -> Command {
    let mut command = contestant(&["tls-bulk", MIB]);
    command.arg(near.path()).arg(far.path());
    command
}
