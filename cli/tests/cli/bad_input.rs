//! What makes no sense is told in one paragraph, with the way out and the right exit status.

use crate::support::{fleetpool, run, run_in};

#[test]
fn a_command_that_does_not_exist() {
    let ran = run(&["map", "no-such-command", ":::", "a", "b"]);
    ran.refuses(
        2,
        &[
            "no-such-command",
            "not started",
            "install it",
            "2 of 2 tasks failed",
        ],
    );
}

#[test]
fn a_placeholder_typo() {
    run(&["map", "echo", "{x}", ":::", "a"]).refuses(2, &["`{x}`", "{host}", "-I @"]);
    run(&["map", "echo {..}", ":::", "a"]).refuses(2, &["`{..}`", "{.}"]);
    run(&["map", "echo", "{2}", ":::", "a"]).refuses(2, &["`{2}`", "there is 1"]);
    run(&["map", "echo `cat {}`", ":::", "a"]).refuses(2, &["backticks", "$(…)"]);
}

#[test]
fn an_input_file_that_is_missing() {
    run(&["map", "echo", "::::", "/no/such/file"]).refuses(2, &["/no/such/file", "stdin"]);
}

#[test]
fn sudo_is_a_command_and_not_an_option() {
    let way_out = ["--sudo", "`sudo -n`", "--user root", "--run-as root"];
    run(&["exec", "--sudo", "--on", "*", "--", "true"]).refuses(2, &way_out);
    run(&["map", "--sudo", "true", ":::", "a"]).refuses(2, &way_out);
}

#[test]
fn no_tasks_at_once() {
    run(&["map", "-j", "0", "echo", ":::", "a"]).refuses(2, &["1 or more", "every slot"]);
    run(&["map", "-j", "-3", "echo", ":::", "a"]).refuses(2, &["-3"]);
}

#[test]
fn a_selector_that_matches_nothing_or_makes_no_sense() {
    run(&["exec", "--on", "nowhere", "--", "true"]).refuses(126, &["`nowhere`", "fleetpool hosts"]);
    run(&["map", "--on", "nowhere", "true", ":::", "a"]).refuses(126, &["nowhere"]);
    run(&["hosts", "--on", "nowhere"]).refuses(126, &["nowhere"]);
    run(&["exec", "--on", "web[", "--", "true"]).refuses(2, &["web["]);
    run(&["map", "--on", "web[", "true", ":::", "a"]).refuses(2, &["web["]);
}

#[test]
fn addresses_and_identities() {
    run(&["--cluster", "no address", "hosts"]).refuses(2, &["no address", "host:port"]);
    run(&[
        "--cluster",
        "localhost:9",
        "--identity",
        "/no/such/folder",
        "hosts",
    ])
    .refuses(125, &["/no/such/folder", "fleetpool init"]);
    run(&["--cluster", "unix:/no/such/socket", "hosts"])
        .refuses(125, &["/no/such/socket", "is the coordinator running"]);
    run(&["token", "list"]).refuses(2, &["needs a cluster", "--cluster"]);
}

#[test]
fn options_that_say_nothing() {
    run(&["map", "--halt", "now", "echo", ":::", "a"]).refuses(2, &["now,fail=1"]);
    run(&["map", "--timeout", "soon", "echo", ":::", "a"]).refuses(2, &["2m30s"]);
    run(&["map", "--resume", "echo", ":::", "a"]).refuses(2, &["--joblog"]);
    run(&["map", "--env", "NOT_SET_HERE", "echo", ":::", "a"])
        .refuses(2, &["NOT_SET_HERE", "=VALUE"]);
    run(&["map", "echo", ":::+", "a"]).refuses(2, &[":::+", "none"]);
}

#[test]
fn a_folder_that_is_not_there() {
    run(&["map", "--cwd", "/no/such/folder", "echo", ":::", "a"]).refuses(1, &["/no/such/folder"]);
    run(&["run", "/no/such/program"]).refuses(125, &["/no/such/program"]);
    run(&["run", "/no/such/script.py"])
        .code
        .expect("python ran");
}

#[test]
fn a_configuration_with_a_slip() {
    let dir = tempfile::tempdir().expect("a folder");
    let config = dir.path().join(".config/fleetpool");
    std::fs::create_dir_all(&config).expect("made");
    std::fs::write(config.join("config.toml"), "clutser = \"head\"\n").expect("written");
    let output = fleetpool(["hosts"])
        .env("HOME", dir.path())
        .output()
        .expect("it starts");
    crate::support::Ran::from(output).refuses(2, &["clutser", "config.toml"]);
}

#[test]
fn no_coordinator_where_there_is_no_cluster() {
    let dir = tempfile::tempdir().expect("a folder");
    run_in(dir.path(), &["--identity", "id", "coordinator"])
        .refuses(125, &["no cluster in", "fleetpool init"]);
    run_in(
        dir.path(),
        &["--identity", "id", "agent", "--coordinator", "localhost:9"],
    )
    .refuses(2, &["--token-file", "token create"]);
}
