//! Joblogs, resuming, and results.

use std::{fs, path::Path};

use crate::support::{Ran, json_lines, run_in};

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

fn read(dir: &Path, name: &str) -> String {
    fs::read_to_string(dir.join(name)).expect(name)
}

/// `Seq Exitval Signal Command` of each row.
fn rows(dir: &Path) -> Vec<String> {
    let text = read(dir, "log");
    let mut lines = text.lines();
    assert_eq!(
        lines.next(),
        Some("Seq\tHost\tStarttime\tJobRuntime\tSend\tReceive\tExitval\tSignal\tCommand")
    );
    let row = |line: &str| {
        let columns: Vec<_> = line.split('\t').collect();
        [columns[0], columns[6], columns[7], columns[8]].join(" ")
    };
    lines.map(row).collect()
}

fn map(dir: &Path, options: &[&str], inputs: &[&str]) -> Ran {
    let words = [
        &["map", "-j1", "--joblog", "log"],
        options,
        &["echo ran {}; exit {}", ":::"],
        inputs,
    ]
    .concat();
    run_in(dir, &words)
}

#[test]
fn each_finished_task_has_a_row_in_the_joblog() {
    let dir = folder();
    assert_eq!(map(dir.path(), &[], &["0", "3"]).code, Some(1));
    assert_eq!(
        rows(dir.path()),
        ["1 0 0 echo ran 0; exit 0", "2 3 0 echo ran 3; exit 3"]
    );
}

#[test]
fn resuming_runs_what_is_missing_and_failed_ones_where_asked() {
    let dir = folder();
    map(dir.path(), &[], &["0", "3"]);
    assert_eq!(
        map(dir.path(), &["--resume"], &["0", "3", "0"]).stdout,
        "ran 0\n"
    );
    assert_eq!(
        map(dir.path(), &["--resume-failed"], &["0", "3", "0"]).stdout,
        "ran 3\n"
    );
    assert_eq!(rows(dir.path()).len(), 4);
    assert_eq!(
        map(dir.path(), &["--resume"], &["0", "3", "0"]).code,
        Some(0)
    );
    map(dir.path(), &[], &["0"]);
    assert_eq!(rows(dir.path()).len(), 1);
}

#[test]
fn tasks_that_were_stopped_have_no_row_and_run_on_resume() {
    let dir = folder();
    let halted = map(dir.path(), &["--halt", "now,fail=1"], &["0", "3", "0"]);
    assert_eq!((halted.code, rows(dir.path()).len()), (Some(1), 2));
    assert_eq!(
        map(dir.path(), &["--resume"], &["0", "3", "0"]).stdout,
        "ran 0\n"
    );
}

#[test]
fn a_joblog_of_another_run_is_refused_before_anything_runs() {
    let dir = folder();
    map(dir.path(), &[], &["0"]);
    map(dir.path(), &["--resume"], &["3", "0"]).refuses(
        2,
        &["of another run", "exit 0`", "exit 3`", "without --resume"],
    );
    fs::write(dir.path().join("log"), "something else\n").expect("written");
    map(dir.path(), &["--resume"], &["0"]).refuses(2, &["is no joblog", "something else"]);
    assert_eq!(read(dir.path(), "log"), "something else\n");
}

#[test]
fn results_are_kept_as_a_tree() {
    let dir = folder();
    let ran = run_in(
        dir.path(),
        &[
            "map",
            "--results",
            "out",
            "echo out {}; echo err >&2",
            ":::",
            "a/b",
            "..",
            "c",
        ],
    );
    assert_eq!(ran.sorted(), ["out ..", "out a/b", "out c"]);
    assert_eq!(read(dir.path(), "out/1/a\\_b/stdout"), "out a/b\n");
    assert_eq!(read(dir.path(), "out/1/a\\_b/stderr"), "err\n");
    assert_eq!(read(dir.path(), "out/1/\\.\\./seq"), "2");
    run_in(
        dir.path(),
        &["map", "--results", "two", "true", ":::", "a", ":::", "b"],
    );
    assert_eq!(read(dir.path(), "two/1/a/2/b/stdout"), "");
}

#[test]
fn results_are_kept_as_records() {
    let dir = folder();
    for file in ["r.json", "r.csv"] {
        run_in(
            dir.path(),
            &[
                "map",
                "-j1",
                "--line-buffer",
                "--results",
                file,
                "echo out {}; exit {}",
                ":::",
                "0",
                "3",
            ],
        );
    }
    let records = json_lines(&read(dir.path(), "r.json"));
    assert_eq!(
        (&records[1]["stdout"], &records[1]["exit"]),
        (&"out 3\n".into(), &3.into())
    );
    let csv = read(dir.path(), "r.csv");
    assert!(
        csv.starts_with(
            "index,host,pid,attempt,start,runtime,exit,signal,outcome,stdout,stderr,cmd\n0,"
        ),
        "{csv}"
    );
}

#[test]
fn a_full_disk_stops_the_run_and_says_so() {
    let dir = folder();
    std::os::unix::fs::symlink("/dev/full", dir.path().join("full.json")).expect("a link");
    let ran = run_in(
        dir.path(),
        &[
            "map",
            "-j1",
            "--results",
            "full.json",
            "sleep {}",
            ":::",
            "0",
            "300",
            "300",
        ],
    );
    ran.refuses(125, &["full.json", "No space left", "make room"]);
    let ran = run_in(
        dir.path(),
        &["map", "--joblog", "/dev/full", "echo", ":::", "a"],
    );
    ran.refuses(125, &["/dev/full", "No space left"]);
}
