//! `map`: inputs, templates, output and exit statuses.

use crate::support::{json_lines, run, run_in, run_with};

#[track_caller]
fn prints(words: &[&str], expect: &str) {
    let ran = run(words);
    assert_eq!(
        (ran.stdout.as_str(), ran.code),
        (expect, Some(0)),
        "{ran:?}"
    );
    assert_eq!(ran.stderr, "");
}

#[test]
fn every_input_is_run_once_and_in_order_where_asked() {
    prints(
        &["map", "-k", "-j", "3", "echo", ":::", "a", "b", "c", "d"],
        "a\nb\nc\nd\n",
    );
    prints(
        &["map", "-k", "echo", "{#}", "{}", ":::", "a", "b"],
        "1 a\n2 b\n",
    );
    prints(
        &[
            "map", "-k", "echo", "{1}-{2}", ":::", "a", "b", ":::", "1", "2",
        ],
        "a-1\na-2\nb-1\nb-2\n",
    );
    prints(
        &["map", "-k", "echo", ":::", "a", "b", ":::+", "1", "2"],
        "a 1\nb 2\n",
    );
    prints(
        &[
            "map", "echo", "{.}", "{/}", "{//}", "{/.}", ":::", "d/a.jpg",
        ],
        "d/a a.jpg d a\n",
    );
    prints(&["map", "echo", ":::"], "");
}

#[test]
fn as_many_as_asked_for_run_at_once() {
    let ran = run(&[
        "map",
        "-j",
        "5",
        "sleep {}; echo end",
        ":::",
        "0.5",
        "0.5",
        "0.5",
        "0.5",
        "0.5",
    ]);
    assert_eq!(ran.sorted().len(), 5);
    let ran = run(&[
        "map",
        "-k",
        "-j",
        "2",
        "echo {%}; sleep 0.1",
        ":::",
        "a",
        "b",
        "c",
        "d",
    ]);
    assert!(
        ran.stdout.lines().all(|slot| ["1", "2"].contains(&slot)),
        "{ran:?}"
    );
}

#[test]
fn lines_of_files_and_of_stdin_are_inputs() {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::write(dir.path().join("in"), "a b\n\nc").expect("written");
    let expect = "[a b]\n[]\n[c]\n";
    for words in [
        &["map", "-k", "echo [{}]", "::::", "in"][..],
        &["map", "-k", "-a", "in", "echo [{}]"],
    ] {
        assert_eq!(run_in(dir.path(), words).stdout, expect);
    }
    assert_eq!(
        run_with(b"a b\n\nc", &["map", "-k", "echo", "[{}]"]).stdout,
        expect
    );
    assert_eq!(
        run_with(b"a\nb\0c\0", &["map", "-k", "-0", "echo", "[{}]"]).stdout,
        "[a\nb]\n[c]\n"
    );
    assert_eq!(
        run_with(b"echo a | tr a b\necho c\n", &["map", "-k"]).stdout,
        "b\nc\n"
    );
}

#[test]
fn words_reach_the_program_exactly_and_lines_reach_a_shell_quoted() {
    let nasty = "a  b'c\"d$HOME`id`\\;#*";
    prints(
        &["map", "printf", "[%s]", ":::", nasty],
        &format!("[{nasty}]"),
    );
    prints(
        &["map", "printf [%s] {}", ":::", nasty],
        &format!("[{nasty}]"),
    );
    prints(
        &["map", "printf '[%s]' '{}'", ":::", nasty],
        &format!("[{nasty}]"),
    );
    prints(
        &["map", "printf '[%s]' \"{}\"", ":::", nasty],
        &format!("[{nasty}]"),
    );
    prints(
        &["map", "printf '[%s]' \"$(printf %s {})\"", ":::", nasty],
        &format!("[{nasty}]"),
    );
    prints(
        &["map", "--shell", "echo", "{};", "echo", "x", ":::", "a"],
        "a\nx\n",
    );
    prints(
        &["map", "-I", "@", "echo", "{x}", "@", ":::", "a"],
        "{x} a\n",
    );
}

#[test]
fn the_host_and_the_task_are_known_to_the_command() {
    let ran = run(&["map", "--json", "echo {host} $FLEETPOOL_HOST", ":::", "a"]);
    let record = &json_lines(&ran.stdout)[0];
    let host = record["host"].as_str().expect("a host");
    assert_eq!(record["stdout"], format!("{host} {host}\n"));
}

#[test]
fn failed_tasks_are_counted_in_the_exit_status() {
    let check = |words: &[&str], code| {
        let ran = run(words);
        assert_eq!(ran.code, Some(code), "{ran:?}");
    };
    check(&["map", "exit {}", ":::", "0", "0"], 0);
    check(&["map", "exit {}", ":::", "0", "1", "7"], 2);
    let many: Vec<String> = (0..102).map(|_| "1".to_owned()).collect();
    let words: Vec<&str> = ["map", "-j", "8", "exit {}", ":::"]
        .into_iter()
        .chain(many.iter().map(String::as_str))
        .collect();
    check(&words, 101);
}

#[test]
fn a_failure_is_summed_up_unless_asked_to_be_quiet() {
    let ran = run(&["map", "-j1", "exit {}", ":::", "0", "3"]);
    assert!(
        ran.stderr.contains("1 of 2 tasks failed") && ran.stderr.contains("exit 3"),
        "{ran:?}"
    );
    assert_eq!(run(&["map", "-q", "exit {}", ":::", "3"]).stderr, "");
}

#[test]
fn output_is_grouped_and_kept_apart() {
    let ran = run(&[
        "map",
        "-j2",
        "echo {}; sleep 0.2; echo {}; echo err {} >&2",
        ":::",
        "a",
        "b",
    ]);
    assert!(
        ["a\na\nb\nb\n", "b\nb\na\na\n"].contains(&ran.stdout.as_str()),
        "{ran:?}"
    );
    assert!(
        ran.stderr.contains("err a\n") && ran.stderr.contains("err b\n"),
        "{ran:?}"
    );
}

#[test]
fn lines_are_tagged_and_come_at_once_where_asked() {
    prints(
        &["map", "-k", "--tag", "echo x; printf y", ":::", "a", "b"],
        "a\tx\na\tyb\tx\nb\ty",
    );
    let ran = run(&[
        "map",
        "-j2",
        "--line-buffer",
        "--tag",
        "echo 1; sleep {}; echo 2",
        ":::",
        "0.4",
        "0.4",
    ]);
    let lines: Vec<_> = ran
        .stdout
        .lines()
        .map(|line| line.split_once('\t').expect("a tag").1)
        .collect();
    assert_eq!(lines, ["1", "1", "2", "2"]);
}

#[test]
fn json_has_an_object_a_task() {
    let ran = run(&[
        "map",
        "-k",
        "--json",
        "echo out {}; echo err >&2; exit {}",
        ":::",
        "0",
        "3",
    ]);
    let records = json_lines(&ran.stdout);
    let keys: Vec<_> = records[0]
        .as_object()
        .expect("an object")
        .keys()
        .cloned()
        .collect();
    let mut expect = [
        "index", "host", "pid", "attempt", "start", "runtime", "exit", "signal", "outcome",
        "stdout", "stderr", "cmd",
    ];
    expect.sort_unstable();
    assert_eq!(keys, expect);
    let [first, second] = &records[..] else {
        panic!("{records:?}")
    };
    assert_eq!(
        (&first["index"], &first["exit"], &first["outcome"]),
        (&0.into(), &0.into(), &"done".into())
    );
    assert_eq!(
        (&second["index"], &second["exit"], &second["outcome"]),
        (&1.into(), &3.into(), &"failed".into())
    );
    assert_eq!(
        (&second["stdout"], &second["stderr"]),
        (&"out 3\n".into(), &"err\n".into())
    );
    assert_eq!(second["cmd"], "echo out 3; echo err >&2; exit 3");
    assert!(
        first["start"].as_f64().expect("a time") > 1.6e9
            && first["pid"].as_u64().expect("a pid") > 1
    );
}

#[test]
fn a_signal_is_told_apart_from_an_exit() {
    let ran = run(&["map", "--json", "true {}; kill -KILL $$", ":::", "0"]);
    let record = &json_lines(&ran.stdout)[0];
    assert_eq!(
        (&record["exit"], &record["signal"]),
        (&serde_json::Value::Null, &9.into())
    );
    assert_eq!(ran.code, Some(1));
}

#[test]
fn a_failed_task_is_run_again_as_often_as_asked() {
    let dir = tempfile::tempdir().expect("a folder");
    let words = [
        "map",
        "--json",
        "--retries",
        "2",
        "echo x >> {}; test $(wc -l < {}) = 3",
        ":::",
        "tries",
    ];
    let ran = run_in(dir.path(), &words);
    assert_eq!(
        (ran.code, json_lines(&ran.stdout)[0]["attempt"].as_u64()),
        (Some(0), Some(3)),
        "{ran:?}"
    );
}

#[test]
fn variables_and_the_folder_are_as_told() {
    prints(
        &[
            "map",
            "--env",
            "A=1 2",
            "--cwd",
            "/usr",
            "echo \"$A $PWD {}\"",
            ":::",
            "x",
        ],
        "1 2 /usr x\n",
    );
}

#[test]
fn a_dry_run_prints_what_a_shell_would_take() {
    prints(
        &[
            "map",
            "--dry-run",
            "echo",
            "{.}",
            "{host}",
            ":::",
            "a b.c",
            "d",
        ],
        "echo 'a b' '{host}'\necho d '{host}'\n",
    );
    prints(
        &["map", "--dry-run", "echo {} | wc", ":::", "a b"],
        "echo 'a b' | wc\n",
    );
}

#[test]
fn much_output_out_of_order_is_written_in_order() {
    let ran = run(&["map", "-k", "-j2", "seq {}", ":::", "200000", "3", "100000"]);
    let expect: Vec<String> = [200_000, 3, 100_000]
        .into_iter()
        .flat_map(|end| (1..=end).map(|n| n.to_string()))
        .collect();
    assert!(
        ran.stdout.lines().eq(expect),
        "{} lines",
        ran.stdout.lines().count()
    );
}

#[test]
fn what_a_task_leaves_running_is_ended_and_said() {
    let ran = run(&["map", "sleep {} & echo started", ":::", "300"]);
    assert_eq!((ran.stdout.as_str(), ran.code), ("started\n", Some(0)));
    assert!(ran.stderr.contains("left a process running"), "{ran:?}");
}
