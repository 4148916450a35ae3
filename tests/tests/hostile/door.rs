//! Crowds at the door. How much of their throughput those keep who are in is a figure of the bench (case `strangers`): this
//! machine is too noisy for a bound on it in a test. Here nothing stops, nobody honest is kept out, and each stranger costs
//! little.

use std::time::Duration;

use fleetpool_proto::limits::STRANGERS_MAX;
use fleetpool_tests::{
    cluster::Cluster,
    memory::Growth,
    strangers::{Flood, Idle, initials},
};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::support::{Echo, assert_no_panic};

/// Strangers that say nothing; as many as there are descriptors for where that is less.
const IDLE: usize = 10_000;
/// Descriptors of a test that are not strangers.
const OTHER_FILES: u64 = 500;
/// First packets a second: what a test can send beside all else that runs.
const PER_S: u32 = 20_000;
/// Memory that a stranger may cost.
const STRANGER_KIB: u64 = 64;
/// What those who are in need at most for a hundred short tasks; it takes them a tenth of a second.
const ROUND_MAX: Duration = Duration::from_secs(20);

/// Those who are in go on, and somebody else can come.
fn life_goes_on(cluster: &Cluster, echo: &mut Echo) {
    let took = echo.round(100);
    assert!(took < ROUND_MAX, "{took:?}");
    cluster.until("a newcomer gets in", |cluster| {
        let status = cluster.client().arg("status").output();
        status.is_ok_and(|output| output.status.success())
    });
    assert_no_panic(cluster);
}

#[test]
fn ten_thousand_who_say_nothing_cost_little_and_keep_nobody_out() {
    let (_, files) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, files, files).expect("up to the hard one");
    let idle = IDLE.min(usize::try_from(files.saturating_sub(OTHER_FILES)).unwrap_or(IDLE));
    let cluster = Cluster::start(2, 1);
    let mut echo = Echo::of(&cluster);
    let growth = Growth::of(cluster.coordinator_pid());
    let strangers = Idle::start(cluster.address(), idle);
    let enough = STRANGERS_MAX.min(idle);
    cluster.until("they stand there", |_| strangers.connected() >= enough);
    life_goes_on(&cluster, &mut echo);
    let grown = growth.kib();
    let each = grown / enough as u64;
    assert!(each <= STRANGER_KIB, "{each} KiB each, {grown} in all");
}

#[test]
fn first_packets_from_addresses_that_nobody_has_cost_little_and_keep_nobody_out() {
    let initials = initials();
    let cluster = Cluster::start(2, 1);
    let mut echo = Echo::of(&cluster);
    let growth = Growth::of(cluster.coordinator_pid());
    let flood = Flood::start(cluster.address(), PER_S, &initials);
    cluster.until("there are many", |_| flood.sent() > u64::from(PER_S));
    life_goes_on(&cluster, &mut echo);
    let grown = growth.kib();
    let bound = STRANGER_KIB * STRANGERS_MAX as u64;
    assert!(grown <= bound, "{grown} KiB");
}
