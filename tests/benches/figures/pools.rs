//! Cases b, c, f, g, h and i: whole pools, embedded and over QUIC.

use std::{
    cell::RefCell,
    process::{Command, Stdio},
    time::Duration,
};

use fleetpool_tests::{
    cluster::{Cluster, built},
    line,
    memory::Growth,
    way::Quality,
};

use crate::{
    contestant,
    measure::{Contestant, ROUNDS, Turns, figure_of, figures_of, interleave, seconds},
    table::{Line, Target},
};

/// Case b.
pub(crate) fn throughput() -> Vec<Line> {
    const TASKS: u64 = 1_000_000;
    let cluster = Cluster::start(2, 1);
    // Agents that write down what they do.
    let mut lasting = Cluster::bare();
    for name in ["a1", "a2"] {
        lasting.add_agent_with_spawner(name, 1);
    }
    lasting.await_hosts(2);
    let no_ops = ["no-ops".to_owned(), TASKS.to_string()];
    let mut rivals = [
        Contestant::new("embedded", || figure_of(&mut embedded(&no_ops))),
        Contestant::new("over QUIC", || {
            figure_of(cluster.point(&mut contestant(&no_ops)))
        }),
        Contestant::new("over QUIC, with spawners", || {
            figure_of(lasting.point(&mut contestant(&no_ops)))
        }),
    ];
    let turns = interleave(ROUNDS, &mut rivals);
    let targets = [(400_000.0, 5.0), (200_000.0, 10.0), (180_000.0, 11.0)];
    let lines = rivals.iter().zip(&turns).zip(targets);
    let lines = lines.flat_map(|((rival, turns), (tasks, cpu_us))| {
        let case = format!("b native no-ops, {}", rival.name);
        let cpu = turns.map(|turn| turn.cpu.as_secs_f64() * 1e6 / crate::as_f64(TASKS));
        [
            Line::alone(&case, "tasks/s", turns, Target::AtLeast(tasks)),
            Line::alone(&case, "us CPU a task", &cpu, Target::AtMost(cpu_us)),
        ]
    });
    lines.collect()
}

/// Case c.
pub(crate) fn latency() -> Vec<Line> {
    let cluster = Cluster::start(2, 1);
    let apply = ["apply", "3000"];
    let mut rivals = [
        Contestant::new("embedded", || figure_of(&mut embedded(&apply))),
        Contestant::new("over QUIC", || {
            figure_of(cluster.point(&mut contestant(&apply)))
        }),
        Contestant::new("socketpair", || {
            figure_of(&mut contestant(&["socketpair", "5000"]))
        }),
        Contestant::new("QUIC round trip", || {
            figure_of(&mut contestant(&["quic", "5000"]))
        }),
    ];
    let turns = interleave(ROUNDS, &mut rivals);
    let [embedded, remote, socketpair, quic] = &turns[..] else {
        return Vec::new();
    };
    let near = Target::AtMost(1.5 * socketpair.median() + 20.0);
    let far = Target::AtMost(2.0 * quic.median() + socketpair.median() + 50.0);
    vec![
        Line::against(
            "c apply p50, embedded",
            "us",
            embedded,
            "socketpair",
            socketpair,
            near,
        ),
        Line::against(
            "c apply p50, over QUIC",
            "us",
            remote,
            "QUIC round trip",
            quic,
            far,
        ),
    ]
}

/// Case f.
pub(crate) fn bulk() -> Vec<Line> {
    let cluster = Cluster::start(2, 1);
    let over_quic = |case: &'static str, tasks: &'static str| {
        figure_of(cluster.point(&mut contestant(&[case, tasks, "8"])))
    };
    // The coordinator keeps the workers' program for agents that come later. That is not what is measured here.
    over_quic("arguments", "1");
    let growth = Growth::of(cluster.coordinator_pid());
    let mut rivals = [
        Contestant::new("arguments", || over_quic("arguments", "64")),
        Contestant::new("results", || over_quic("results", "64")),
        Contestant::new("QUIC one stream", || {
            figure_of(&mut contestant(&["quic-bulk", "512"]))
        }),
        Contestant::new("the same, long datagrams", || {
            figure_of(&mut contestant(&["quic-bulk-long", "512"]))
        }),
    ];
    let names = rivals.each_ref().map(|rival| rival.name);
    let turns = interleave(ROUNDS, &mut rivals);
    let grown = Turns::of([crate::as_f64(growth.kib()) / 1024.0]);
    // A payload crosses two sessions, client to coordinator and coordinator to agent, on one machine.
    let against = |case, ours, peer: usize| {
        let target = Target::RatioAtLeast(0.7);
        Line::against(case, "MiB/s", ours, names[peer], &turns[peer], target)
    };
    vec![
        against("f 64 x 8 MiB arguments", &turns[0], 2),
        against("f 64 x 8 MiB arguments", &turns[0], 3),
        against("f 64 x 8 MiB results", &turns[1], 2),
        against("f 64 x 8 MiB results", &turns[1], 3),
        Line::alone(
            "f coordinator's memory grown by",
            "MiB",
            &grown,
            Target::AtMost(64.0),
        ),
    ]
}

/// Case g: two agents of two slots, 50 ms of round trip away.
pub(crate) fn far_away() -> Vec<Line> {
    let mut cluster = Cluster::bare();
    let quality = Quality::of_length(Duration::from_millis(25));
    let far = line::Line::of(quality, cluster.address());
    cluster.add_agent_by(far.address(), "far1", 2);
    cluster.add_agent_by(far.address(), "far2", 2);
    cluster.await_hosts(2);
    let busy = |tasks: &'static str, us: &'static str| {
        figure_of(cluster.point(&mut contestant(&["busy", "4", tasks, us])))
    };
    let mut rivals = [
        Contestant::new("10 ms tasks", || busy("2000", "10000")),
        Contestant::new("1 ms tasks", || busy("8000", "1000")),
    ];
    let turns = interleave(ROUNDS, &mut rivals);
    vec![
        Line::alone(
            "g slots busy, 10 ms tasks, 50 ms away",
            "%",
            &turns[0],
            Target::AtLeast(95.0),
        ),
        Line::alone(
            "g slots busy, 1 ms tasks, 50 ms away",
            "%",
            &turns[1],
            Target::AtLeast(80.0),
        ),
    ]
}

/// Case h: two agents of two slots, one of which takes twice as long.
pub(crate) fn heavy_tail() -> Vec<Line> {
    let mut cluster = Cluster::bare();
    cluster.add_agent("fast", 2);
    cluster.add_agent("slow", 2);
    cluster.await_hosts(2);
    let idle = [const { RefCell::new(Vec::new()) }; 2];
    let note = |at: usize, [makespan, percent]: [f64; 2]| {
        idle[at].borrow_mut().push(percent);
        makespan
    };
    let mut rivals = [
        Contestant::new("embedded", || {
            note(0, figures_of(&mut embedded(&["makespan", "0", "2"])))
        }),
        Contestant::new("one agent slow", || {
            let run = figures_of(cluster.point(&mut contestant(&["makespan", "2", "2"])));
            note(1, run)
        }),
    ];
    let turns = interleave(ROUNDS, &mut rivals);
    let lines = rivals.iter().zip(&turns).zip(&idle);
    let lines = lines.flat_map(|((rival, turns), idle)| {
        let makespan = format!("h heavy tail, {}", rival.name);
        let waited = format!("h slots idle while tasks wait, {}", rival.name);
        let idle = Turns::of(idle.borrow().iter().copied());
        [
            Line::alone(&makespan, "x ideal makespan", turns, Target::AtMost(1.05)),
            Line::alone(&waited, "%", &idle, Target::AtMost(5.0)),
        ]
    });
    lines.collect()
}

/// Case i.
pub(crate) fn start() -> Vec<Line> {
    let run = |mut command: Command| {
        1e3 * seconds(|| {
            let status = command.stdin(Stdio::null()).status();
            assert!(status.is_ok_and(|status| status.success()), "{command:?}");
        })
    };
    let mut rivals = [
        Contestant::new("fleetpool map true", || {
            let mut command = Command::new(built("fleetpool"));
            command
                .args(["map", "true", ":::", "1"])
                .env_remove("FLEETPOOL_CLUSTER");
            run(command)
        }),
        Contestant::new("bare true", || run(Command::new("true"))),
    ];
    let turns = interleave(4 * ROUNDS, &mut rivals);
    vec![Line::against(
        "i start to exit, embedded",
        "ms",
        &turns[0],
        rivals[1].name,
        &turns[1],
        Target::AtMost(30.0),
    )]
}

/// A contestant without a cluster.
fn embedded(arguments: &[impl AsRef<std::ffi::OsStr>]) -> Command {
    let mut command = contestant(arguments);
    command
        .env_remove("FLEETPOOL_CLUSTER")
        .env("XDG_CONFIG_HOME", "/nonexistent");
    command
}
