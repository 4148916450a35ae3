//! As much of a test harness as is needed: names, a filter, and threads that must not hang.

use std::{
    panic::{self, AssertUnwindSafe},
    process::exit,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use crate::deaths;

/// A test and its name.
pub(crate) type Test = (&'static str, fn());

/// A test that takes longer hangs (G4), beside what it was asked to take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Lists functions as tests under their own names.
macro_rules! tests {
    ($($name:ident)*) => {
        pub(crate) const TESTS: &[$crate::runner::Test] = &[$((stringify!($name), $name)),*];
    };
}
pub(crate) use tests;

/// Runs what the command line asks for, one after another, and exits.
pub(crate) fn run(groups: &[&[Test]]) {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let tests = groups.iter().copied().flatten();
    if arguments.iter().any(|argument| argument == "--list") {
        if !arguments.iter().any(|argument| argument == "--ignored") {
            tests.for_each(|(name, _)| println!("{name}: test"));
        }
        return;
    }
    let exact = arguments.iter().any(|argument| argument == "--exact");
    let filters: Vec<_> = arguments
        .iter()
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    let wanted = |name: &str| {
        let fits = |filter: &&String| {
            if exact {
                name == *filter
            } else {
                name.contains(*filter)
            }
        };
        filters.is_empty() || filters.iter().any(fits)
    };
    let failed = tests
        .filter(|(name, _)| wanted(name))
        .filter(|test| !passes(test))
        .count();
    println!("\n{failed} failed");
    exit(i32::from(failed > 0));
}

fn passes((name, test): &Test) -> bool {
    let (done, ended) = mpsc::channel();
    let start = Instant::now();
    let test = AssertUnwindSafe(*test);
    thread::spawn(move || done.send(panic::catch_unwind(|| (*test)()).is_ok()));
    let patience = PATIENCE + Duration::from_secs(2 * deaths::seconds());
    let verdict = match ended.recv_timeout(patience) {
        Ok(true) => "ok",
        Ok(false) => "FAILED",
        Err(_) => "HANGS",
    };
    println!("test {name} ... {verdict} ({:.0?})", start.elapsed());
    verdict == "ok"
}
