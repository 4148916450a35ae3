//! Runs that end early: halts, timeouts, signals, readers that go away. Nothing is left behind.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Read as _},
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;

use crate::support::{Ran, fleetpool, own_sleep, processes_with, run, signal, until};

/// A run of two tasks that sleep for long, both begun.
fn sleeping(sleep: &str, task: &str) -> Child {
    let line = format!("{task}; exec sleep {{}}");
    let child = fleetpool(["map", "-j2", &line, ":::", sleep, sleep, sleep])
        .spawn()
        .expect("it starts");
    until("the tasks run", || processes_with(sleep).len() >= 2);
    child
}

fn end(child: Child) -> Ran {
    child.wait_with_output().expect("it ends").into()
}

#[track_caller]
fn nothing_left(sleep: &str) {
    let start = Instant::now();
    until("its processes are gone", || {
        processes_with(sleep).is_empty()
    });
    // Two seconds (G6), and one that a loaded machine may add.
    assert!(
        start.elapsed() < Duration::from_secs(3),
        "too slow: {:?}",
        start.elapsed()
    );
}

#[test]
fn a_halt_stops_now() {
    let sleep = own_sleep();
    let ran = run(&[
        "map",
        "-j2",
        "--halt",
        "now,fail=1",
        "test {} = x || sleep {}; exit 1",
        ":::",
        "x",
        &sleep,
        &sleep,
    ]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stderr.contains("halted after 1 of 3 tasks"), "{ran:?}");
    nothing_left(&sleep);
}

#[test]
fn a_halt_stops_soon_and_lets_run_what_runs() {
    let ran = run(&[
        "map",
        "-j2",
        "--halt",
        "soon,fail=1",
        "sleep {}; echo {}; exit 1",
        ":::",
        "0.1",
        "0.5",
        "0",
        "0",
    ]);
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert_eq!(ran.stdout, "0.1\n0.5\n");
}

#[test]
fn a_halt_that_waits_for_success_succeeds() {
    let ran = run(&[
        "map",
        "-j1",
        "--halt",
        "now,success=1",
        "echo {}; exit {}",
        ":::",
        "1",
        "0",
        "2",
    ]);
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (Some(0), "1\n0\n"),
        "{ran:?}"
    );
    let ran = run(&[
        "map",
        "-j1",
        "--halt",
        "soon,done=50%",
        "echo",
        ":::",
        "1",
        "2",
        "3",
        "4",
        "5",
        "6",
    ]);
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (Some(0), "1\n2\n3\n"),
        "{ran:?}"
    );
}

#[test]
fn a_timeout_kills_the_whole_tree() {
    let sleep = own_sleep();
    let ran = run(&[
        "map",
        "--timeout",
        "0.5",
        "setsid sleep {} & sleep {}",
        ":::",
        &sleep,
    ]);
    assert_eq!(ran.code, Some(124), "{ran:?}");
    assert!(ran.stderr.contains("timed out"), "{ran:?}");
    nothing_left(&sleep);
    let ran = run(&["map", "--timeout", "500ms", "sleep", ":::", "0", &sleep]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
}

#[test]
fn a_deadline_stops_the_run() {
    let sleep = own_sleep();
    let ran = run(&[
        "map",
        "--deadline",
        "0.5",
        "sleep",
        ":::",
        &sleep,
        &sleep,
        &sleep,
    ]);
    assert_eq!(ran.code, Some(124), "{ran:?}");
    nothing_left(&sleep);
}

#[test]
fn the_first_interrupt_stops_cleanly_and_says_so() {
    let sleep = own_sleep();
    let child = sleeping(&sleep, "echo begun");
    signal(&child, Signal::SIGINT);
    let ran = end(child);
    assert_eq!(ran.code, Some(130), "{ran:?}");
    assert!(
        ran.stderr.contains("interrupted") && ran.stderr.contains("once more"),
        "{ran:?}"
    );
    assert_eq!(ran.stdout, "begun\nbegun\n");
    nothing_left(&sleep);
}

#[test]
fn the_second_interrupt_kills_at_once() {
    let sleep = own_sleep();
    // These do not mind TERM, so that the first interrupt takes its time.
    let mut child = sleeping(&sleep, "trap '' TERM");
    signal(&child, Signal::SIGINT);
    let mut said = String::new();
    let mut stderr = BufReader::new(child.stderr.take().expect("piped"));
    stderr.read_line(&mut said).expect("it says something");
    assert!(said.contains("interrupted"), "{said}");
    signal(&child, Signal::SIGINT);
    let start = Instant::now();
    assert_eq!(child.wait().expect("it ends").code(), Some(130));
    assert!(
        start.elapsed() < Duration::from_millis(900),
        "{:?}",
        start.elapsed()
    );
    nothing_left(&sleep);
}

#[test]
fn a_terminated_run_says_by_what() {
    let sleep = own_sleep();
    let child = sleeping(&sleep, ":");
    signal(&child, Signal::SIGTERM);
    assert_eq!(end(child).code, Some(143));
    nothing_left(&sleep);
}

#[test]
fn a_killed_run_leaves_nothing() {
    let sleep = own_sleep();
    let mut child = sleeping(&sleep, "setsid sleep {} & :");
    child.kill().expect("it lives");
    child.wait().expect("it ends");
    nothing_left(&sleep);
}

#[test]
fn a_reader_that_goes_away_ends_the_run_quietly() {
    let sleep = own_sleep();
    let mut child = fleetpool(
        ["map", "-j2", "echo {}; sleep 0.05", ":::"]
            .into_iter()
            .map(str::to_owned)
            .chain((0..2000).map(|n| n.to_string()))
            .chain([sleep.clone()]),
    )
    .spawn()
    .expect("it starts");
    let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
    stdout.read_line(&mut String::new()).expect("a line");
    drop(stdout);
    let ran = end(child);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(141), ""));
}

#[test]
fn an_interrupt_is_heard_while_nobody_reads() {
    let sleep = own_sleep();
    let child = fleetpool([
        "map",
        "-j2",
        "--line-buffer",
        "seq 1000000; sleep {}",
        ":::",
        &sleep,
        &sleep,
    ])
    .spawn()
    .expect("it starts");
    until("the tasks run", || !processes_with("1000000").is_empty());
    // Nobody reads stdout, so that it is full by now or soon.
    signal(&child, Signal::SIGINT);
    let ran = end(child);
    assert_eq!(ran.code, Some(130));
    nothing_left(&sleep);
}

#[test]
fn an_endless_input_is_read_only_as_far_as_needed() {
    let mut yes = std::process::Command::new("yes")
        .stdout(Stdio::piped())
        .spawn()
        .expect("yes");
    let input = yes.stdout.take().expect("piped");
    let mut child = fleetpool(["map", "-j2", "echo"])
        .stdin(input)
        .stderr(File::create("/dev/null").expect("null"))
        .spawn()
        .expect("it starts");
    let mut stdout = child.stdout.take().expect("piped");
    let mut some = [0; 20];
    stdout.read_exact(&mut some).expect("some lines");
    assert_eq!(&some, b"y\ny\ny\ny\ny\ny\ny\ny\ny\ny\n");
    drop(stdout);
    assert_eq!(child.wait().expect("it ends").code(), Some(141));
    yes.wait().expect("yes ends");
}
