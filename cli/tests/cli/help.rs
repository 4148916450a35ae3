//! What people read first.

use crate::support::run;

#[test]
fn help_is_worth_reading() {
    insta::assert_snapshot!("help", run(&["--help"]).stdout);
    insta::assert_snapshot!("help_map", run(&["help", "map"]).stdout);
    insta::assert_snapshot!("help_exec", run(&["help", "exec"]).stdout);
}

#[test]
fn every_verb_has_help() {
    let verbs = [
        "map",
        "exec",
        "run",
        "hosts",
        "jobs",
        "status",
        "cancel",
        "cordon",
        "uncordon",
        "init",
        "coordinator",
        "agent",
        "spawner",
        "token",
        "identity",
        "completions",
    ];
    for verb in verbs {
        let ran = run(&["help", verb]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        assert!(ran.stdout.contains("Usage: fleetpool"), "{ran:?}");
    }
}

#[test]
fn completions_are_made_for_shells() {
    for shell in ["bash", "zsh", "fish"] {
        assert!(
            run(&["completions", shell]).stdout.contains("fleetpool"),
            "{shell}"
        );
    }
}
