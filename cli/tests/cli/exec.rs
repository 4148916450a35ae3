//! `exec` on this machine; on several hosts it is tested with a fleet.

use std::process::Stdio;

use crate::support::{Ran, fleetpool, json_lines, run, run_with};

/// The name of this host.
fn host() -> String {
    let hosts: serde_json::Value =
        serde_json::from_str(&run(&["hosts", "--json"]).stdout).expect("JSON");
    hosts[0]["name"].as_str().expect("a name").to_owned()
}

#[test]
fn lines_are_prefixed_by_host() {
    let host = host();
    assert_eq!(
        run(&["exec", "--on", "*", "--", "printf", "a\\nb"]).stdout,
        format!("{host}: a\n{host}: b\n")
    );
    assert_eq!(
        run(&[
            "exec",
            "--on",
            &host,
            "--no-tag",
            "--",
            "echo {host}; echo x"
        ])
        .stdout,
        format!("{host}\nx\n")
    );
    assert_eq!(
        run(&["exec", "--on", "*", "--no-tag", "--", "echo", "{} {x} {.}"]).stdout,
        "{} {x} {.}\n"
    );
}

#[test]
fn a_host_that_fails_is_named() {
    let host = host();
    let ran = run(&["exec", "--on", "*", "--", "exit 3"]);
    assert_eq!(
        (ran.code, ran.stderr),
        (Some(1), format!("fleetpool: {host}: exit 3\n"))
    );
    let ran = run(&["exec", "--on", "*", "-b", "--", "echo a; exit 3"]);
    assert!(
        ran.stdout.contains(&format!("{host} (1): exit 3\n")) && ran.stdout.ends_with("\na\n"),
        "{ran:?}"
    );
    let records = json_lines(&run(&["exec", "--on", "*", "--json", "--", "echo a; exit 3"]).stdout);
    assert_eq!(
        (&records[0]["host"], &records[0]["exit"]),
        (&host.into(), &3.into())
    );
}

#[test]
fn stdin_is_sent_where_it_has_an_end() {
    assert_eq!(
        run_with(b"a\nb\n", &["exec", "--on", "*", "--no-tag", "--", "cat"]).stdout,
        "a\nb\n"
    );
    assert_eq!(
        run_with(b"", &["exec", "--on", "*", "--no-tag", "--", "wc", "-c"]).stdout,
        "0\n"
    );
    assert_eq!(
        run(&["exec", "--on", "*", "--no-tag", "--", "cat"]).stdout,
        ""
    );
}

#[test]
fn stdin_is_left_alone_where_asked() {
    // A pipe that never ends, as a loop's or a daemon's.
    let mut child = fleetpool(["exec", "-n", "--on", "*", "--no-tag", "--", "wc", "-c"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("it starts");
    let endless = child.stdin.take();
    let ran = Ran::from(child.wait_with_output().expect("it ends"));
    assert_eq!((ran.stdout.as_str(), ran.code), ("0\n", Some(0)));
    drop(endless);
}

#[test]
fn a_dry_run_shows_each_hosts_command() {
    let host = host();
    assert_eq!(
        run(&["exec", "--dry-run", "--on", "*", "--", "echo", "{host} x"]).stdout,
        format!("{host}: echo '{host} x'\n")
    );
}
