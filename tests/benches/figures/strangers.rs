//! Case `strangers`: what those who are in notice of a crowd at the door, and what each of it costs the coordinator.

use std::{
    cell::RefCell,
    net::{SocketAddr, UdpSocket},
    thread::sleep,
    time::Duration,
};

use fleetpool_proto::limits::STRANGERS_MAX;
use fleetpool_tests::{
    cluster::Cluster,
    memory::Growth,
    strangers::{Flood, Idle, initials},
};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::{
    contestant,
    measure::{Contestant, ROUNDS, Turns, interleave},
    table::{Line, Target},
    talk::Talk,
};

const TASKS: &str = "500000";
const PER_S: u32 = 50_000;
const IDLE: usize = 10_000;
/// Descriptors that are not strangers.
const OTHER_FILES: u64 = 1000;
/// How long they are there before anything is measured.
const LEAD: Duration = Duration::from_secs(2);

/// Both kinds of crowds, before a client and two agents that are in.
pub(crate) fn case() -> Vec<Line> {
    let (_, files) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, files, files).expect("up to the hard one");
    let idle = IDLE.min(usize::try_from(files.saturating_sub(OTHER_FILES)).unwrap_or(IDLE));
    let cluster = Cluster::start(2, 1);
    let mut client = Talk::with(cluster.point(&mut contestant(&["no-ops-when-told", TASKS])));
    assert_eq!(client.hear(), "ready");
    let client = RefCell::new(client);
    let no_ops = || -> f64 {
        let mut client = client.borrow_mut();
        client.say("go");
        client.hear().parse().expect("a figure")
    };
    let initials = initials();
    // Nobody reads there: what the flood itself takes of this machine.
    let deaf = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let deaf = deaf.local_addr().expect("bound");
    let flooded = |to: SocketAddr| {
        let flood = Flood::start(to, PER_S, &initials);
        sleep(LEAD);
        let (before, figure) = (flood.sent(), no_ops());
        assert_ne!(flood.sent(), before, "it goes on");
        figure
    };
    no_ops();
    let grown = RefCell::new([Vec::new(), Vec::new()]);
    let memory = |of: usize, work: &dyn Fn() -> f64| {
        let growth = Growth::of(cluster.coordinator_pid());
        let figure = work();
        grown.borrow_mut()[of]
            .push(crate::as_f64(growth.kib()) / crate::as_f64(STRANGERS_MAX as u64));
        figure
    };
    let turns = interleave(
        ROUNDS,
        &mut [
            Contestant::new("nobody", no_ops),
            Contestant::new("idle", || {
                memory(0, &|| {
                    let strangers = Idle::start(cluster.address(), idle);
                    sleep(LEAD);
                    let figure = no_ops();
                    assert!(strangers.connected() >= STRANGERS_MAX, "they come");
                    figure
                })
            }),
            Contestant::new("flood elsewhere", || flooded(deaf)),
            Contestant::new("flood", || memory(1, &|| flooded(cluster.address()))),
        ],
    );
    let kept = |case: &str, ours: usize, name: &str, peer: usize| {
        let target = Target::RatioAtLeast(0.8);
        Line::against(case, "tasks/s", &turns[ours], name, &turns[peer], target)
    };
    let grown = grown.borrow();
    let each = |case: &str, of: usize| {
        // The most: what was taken once is used again by those who come later.
        let most = grown[of].iter().copied().fold(0.0, f64::max);
        Line::alone(case, "KiB a peer", &Turns::of([most]), Target::AtMost(64.0))
    };
    let beside = format!("strangers: no-ops beside {idle} idle handshakes");
    vec![
        kept(&beside, 1, "beside nobody", 0),
        each("strangers: memory for idle handshakes", 0),
        kept(
            "strangers: no-ops in 50,000 first packets/s",
            3,
            "as many elsewhere",
            2,
        ),
        each("strangers: memory for first packets", 1),
    ]
}
