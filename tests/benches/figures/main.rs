//! The figures that fleetpool wants to reach, each beside a peer or a floor measured in the same minute.
//!
//! `make bench` runs all cases; `make bench CASES="a c"` runs some. Contestants that are programs of this house are
//! this same program again, started with `--contestant NAME`, so that the processor time of their whole tree is counted.

#![expect(clippy::print_stdout, reason = "a table is what it is for")]

mod commands;
mod core;
mod crowd;
mod far;
mod floor;
mod hosts;
mod ip_line;
mod measure;
mod native;
mod pools;
mod quic;
mod replay;
mod strangers;
mod table;
mod tail;
mod talk;
mod tls;

use std::{
    ffi::OsStr,
    process::{Command, ExitCode},
    str::FromStr,
};

use fleetpool_tests::cluster::built;
use table::{Line, render};

const CASES: &[(&str, &str)] = &[
    ("a", "commands, against bare spawn loops"),
    ("b", "native no-ops"),
    ("c", "one call after another"),
    ("d", "the coordinator's core alone"),
    ("e", "memory of a queued task"),
    ("f", "large arguments and results"),
    ("g", "agents far away"),
    ("h", "tasks of very different lengths"),
    ("i", "start"),
    ("replay", "a coordinator that is there again"),
    ("hosts", "many hosts over ssh"),
    ("crowd", "a thousand agents connect at once"),
    (
        "strangers",
        "what those who are in notice of a crowd at the door",
    ),
    ("line", "bulk over a long line that loses packets"),
    ("floor", "what the machine does without any of our code"),
];

fn main() -> ExitCode {
    // Workers of the native cases are this program too.
    fleetpool::init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(("--contestant", rest)) = arguments
        .split_first()
        .map(|(first, rest)| (first.as_str(), rest))
    {
        let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
        run_contestant(&rest);
        return ExitCode::SUCCESS;
    }
    nix::sys::prctl::set_child_subreaper(true).expect("a Linux that has subreapers");
    // Cargo adds --bench.
    let wanted: Vec<&String> = arguments
        .iter()
        .filter(|argument| !argument.starts_with("--"))
        .collect();
    let mut lines = Vec::new();
    for (case, about) in CASES {
        if wanted.is_empty() || wanted.iter().any(|name| name == case) {
            eprintln!("{case}: {about}");
            lines.extend(run_case(case));
        }
    }
    print!("{}", render(&lines));
    ExitCode::SUCCESS
}

fn run_case(case: &str) -> Vec<Line> {
    match case {
        "a" => commands::case(&built("fleetpool")),
        "b" => pools::throughput(),
        "c" => pools::latency(),
        "d" => core::throughput(),
        "e" => core::memory(),
        "f" => pools::bulk(),
        "g" => pools::far_away(),
        "h" => pools::heavy_tail(),
        "i" => pools::start(),
        "replay" => replay::case(),
        "hosts" => hosts::case(&built("fleetpool")),
        "crowd" => crowd::case(),
        "strangers" => strangers::case(),
        "line" => far::case(),
        "floor" => floor_lines(),
        _ => vec![Line::left_out(case, "no such case")],
    }
}

fn floor_lines() -> Vec<Line> {
    use measure::{Contestant, ROUNDS, figure_of, interleave};
    let mut floors = [
        ("us, socketpair ping-pong", "socketpair", 5000),
        ("us, QUIC 1 KiB ping-pong", "quic", 5000),
        ("MiB/s, QUIC one stream", "quic-bulk", 512),
        (
            "MiB/s, QUIC one stream, long datagrams",
            "quic-bulk-long",
            512,
        ),
    ]
    .map(|(name, floor, size)| {
        let arguments = [floor.to_owned(), size.to_string()];
        Contestant::new(name, move || figure_of(&mut contestant(&arguments)))
    });
    let turns = interleave(ROUNDS, &mut floors);
    let lines = floors.iter().zip(&turns);
    lines
        .map(|(floor, turns)| Line::alone("floor", floor.name, turns, table::Target::None))
        .collect()
}

/// The commands that contestants of this house understand.
fn run_contestant(arguments: &[&str]) {
    match arguments {
        ["echo"] => floor::echo(),
        ["socketpair", rounds] => tell(floor::socketpair_round_trip_us(number(rounds))),
        ["quic", rounds] => tell(quic::round_trip_us(number(rounds))),
        ["quic-bulk", mib] => tell(quic::bulk_mib_s(number(mib), quic::SHORT_BYTES)),
        ["quic-bulk-long", mib] => tell(quic::bulk_mib_s(number(mib), quic::LONG_BYTES)),
        ["tls-bulk", mib, from, to] => tell(tls::bulk_mib_s(number(mib), from, to)),
        ["agents", address, token, first, count] => {
            crowd::agents(address, token, number(first), number(count));
        }
        ["no-ops", tasks] => tell(native::no_ops_per_second(number(tasks))),
        ["no-ops-when-told", tasks] => native::no_ops_when_told(number(tasks)),
        ["apply", calls] => tell(native::apply_us(number(calls))),
        ["arguments", tasks, mib] => tell(native::arguments_mib_s(number(tasks), number(mib))),
        ["results", tasks, mib] => tell(native::results_mib_s(number(tasks), number(mib))),
        ["busy", slots, tasks, us] => tell(native::busy_percent(
            number(slots),
            number(tasks),
            number(us),
        )),
        ["makespan", slow, fast] => {
            let (makespan, idle) = tail::makespan_and_idle(number(slow), number(fast));
            println!("{makespan} {idle}");
        }
        ["core", hosts, tasks] => tell(core::events_per_second(number(hosts), number(tasks))),
        ["queued", tasks] => tell(core::bytes_per_queued_task(number(tasks))),
        // With the input as its argument, as `map` and xargs append it: `true` looks at an only argument (it may be
        // --help), for which it loads the locale, and that is a quarter of its time.
        ["spawn-true", tasks] => floor::spawn_loop(number(tasks), |index| {
            let mut command = Command::new("/bin/true");
            command.arg(index.to_string());
            command
        }),
        ["spawn-echo", tasks] => floor::spawn_loop(number(tasks), |index| {
            let mut command = Command::new("sh");
            command.args(["-c", &format!("echo {index}")]);
            command
        }),
        _ => panic!("no such contestant: {arguments:?}"),
    }
}

/// This program again, in another part.
fn contestant(arguments: &[impl AsRef<OsStr>]) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
    command.arg("--contestant").args(arguments);
    command
}

/// How a contestant tells its figure.
fn tell(figure: f64) {
    println!("{figure}");
}

/// How a contestant says a word.
fn say(word: &str) {
    println!("{word}");
}

fn number<T: FromStr>(text: &str) -> T {
    text.parse()
        .unwrap_or_else(|_| panic!("{text} is not a number"))
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
fn as_f64(count: u64) -> f64 {
    count as f64
}
