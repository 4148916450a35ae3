//! Real processes under real faults, for a short while (`make chaos` does it for longer): see `fleetpool_tests::chaos`.

use std::path::Path;
use std::process::Command;

/// What it printed, and whether nothing was wrong; what went wrong stays in a folder below `place`.
fn chaos(seed: u64, options: &[&str], place: &Path) -> (String, bool) {
    let output = Command::new(env!("CARGO_BIN_EXE_chaos"))
        .args(["run", "--minutes", "0.5", "--seed", &seed.to_string()])
        .args(options)
        .env("TMPDIR", place)
        .output()
        .expect("it starts");
    let [told, wrong] = [&output.stdout, &output.stderr].map(|it| String::from_utf8_lossy(it));
    (format!("{told}{wrong}"), output.status.success())
}

#[test]
fn g3_g5_g6_g10_kills_stops_and_cuts_lose_nothing_repeat_nothing_and_leave_nothing() {
    let (told, is_right) = chaos(1, &[], &std::env::temp_dir());
    assert!(is_right, "{told}");
    assert!(told.contains("results: done"), "{told}");
}

#[test]
fn g5_without_the_margin_of_the_lease_tasks_are_seen_to_overlap() {
    let place = tempfile::tempdir().expect("a folder");
    let overlaps = |seed| {
        let (told, is_right) = chaos(seed, &["--without-margin"], place.path());
        !is_right && told.contains("task that overlaps with itself")
    };
    assert!((2..8).any(overlaps), "the check finds nothing");
}
