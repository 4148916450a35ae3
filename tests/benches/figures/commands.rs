//! Case a: commands, one process a task, against loops that do nothing else.

use std::{
    io::{Read as _, Write as _},
    path::Path,
    process::{Command, Stdio},
    thread,
};

use crate::{
    contestant,
    measure::{Contestant, ROUNDS, interleave, seconds},
    table::{Line, Target},
};

const TRUE: u64 = 2000;
const ECHO: u64 = 500;

/// Both halves of case a.
pub(crate) fn case(fleetpool: &Path) -> Vec<Line> {
    let mut lines = no_op(fleetpool);
    lines.extend(echo(fleetpool));
    lines
}

fn no_op(fleetpool: &Path) -> Vec<Line> {
    let mut rivals = vec![
        rival("fleetpool", TRUE, || {
            words(fleetpool, &["map", "-j", "2", "/bin/true"])
        }),
        rival("posix_spawn x2", TRUE, || {
            contestant(&["spawn-true", &TRUE.to_string()])
        }),
        rival("xargs -P2", TRUE, || {
            words("xargs", &["-P2", "-n1", "/bin/true"])
        }),
    ];
    if has_parallel() {
        rivals.push(rival("GNU parallel", TRUE, || {
            words("parallel", &["-j2", "/bin/true"])
        }));
    }
    compare("a map -j 2 /bin/true", &mut rivals)
}

fn echo(fleetpool: &Path) -> Vec<Line> {
    let mut rivals = vec![
        rival("fleetpool", ECHO, || {
            words(fleetpool, &["map", "-j", "2", "sh", "-c", "echo {}"])
        }),
        rival("posix_spawn x2", ECHO, || {
            contestant(&["spawn-echo", &ECHO.to_string()])
        }),
        rival("xargs -P2", ECHO, || {
            words("xargs", &["-P2", "-I{}", "sh", "-c", "echo {}"])
        }),
    ];
    if has_parallel() {
        rivals.push(rival("GNU parallel", ECHO, || {
            words("parallel", &["-j2", "echo {}"])
        }));
    }
    compare("a map -j 2 sh -c 'echo {}'", &mut rivals)
}

/// Ours is the first.
fn compare(case: &str, rivals: &mut [Contestant<'_>]) -> Vec<Line> {
    let turns = interleave(ROUNDS, rivals);
    let targets = [
        Target::RatioAtLeast(0.9),
        Target::RatioAtLeast(1.4),
        Target::RatioAtLeast(8.0),
    ];
    let peers = rivals.iter().zip(&turns).skip(1).zip(targets);
    let mut lines: Vec<Line> = peers
        .map(|((rival, peer), target)| {
            Line::against(case, "jobs/s", &turns[0], rival.name, peer, target)
        })
        .collect();
    lines.push(Line::cpu(
        case,
        &turns[0],
        rivals[1].name,
        &turns[1],
        Target::RatioAtMost(1.3),
    ));
    lines
}

/// Somebody who runs a command for each line of its input, and whose output is counted.
fn rival<'a>(name: &'static str, tasks: u64, command: impl Fn() -> Command + 'a) -> Contestant<'a> {
    Contestant::new(name, move || {
        let took = seconds(|| feed(command(), tasks));
        crate::as_f64(tasks) / took
    })
}

/// Hands the numbers 1 to `tasks` in on stdin and takes the output; a command that prints must print each of them.
fn feed(mut command: Command, tasks: u64) {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let mut stdin = child.stdin.take().expect("piped");
    let input: String = (1..=tasks).map(|number| format!("{number}\n")).collect();
    // A contestant that takes its inputs from elsewhere leaves the pipe unread.
    let writer = thread::spawn(move || stdin.write_all(input.as_bytes()).is_ok());
    let mut output = String::new();
    child
        .stdout
        .take()
        .expect("piped")
        .read_to_string(&mut output)
        .expect("output is text");
    assert!(child.wait().expect("ends").success(), "{command:?} failed");
    writer.join().expect("writer ends");
    let lines = output.lines().count();
    assert!(
        lines == 0 || usize::try_from(tasks) == Ok(lines),
        "{command:?} printed {lines} lines"
    );
}

fn words(program: impl AsRef<Path>, arguments: &[&str]) -> Command {
    let mut command = Command::new(program.as_ref());
    command.args(arguments).env_remove("FLEETPOOL_CLUSTER");
    command
}

fn has_parallel() -> bool {
    Command::new("parallel").arg("--version").output().is_ok()
}
