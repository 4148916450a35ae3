//! Every example runs, on this machine alone and on a cluster of three agents, and prints what it says.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use fleetpool_tests::cluster::{Cluster, built};

/// An example and what is to be said of its output.
struct Example {
    name: &'static str,
    check: fn(&[&str]),
}

const RUST: &[Example] = &[
    Example {
        name: "apply_async",
        check: four_messages_at_once,
    },
    Example {
        name: "apply",
        check: four_messages_one_by_one,
    },
    Example {
        name: "results",
        check: ten_results_in_order,
    },
    Example {
        name: "four_functions",
        check: four_functions,
    },
    Example {
        name: "map",
        check: squares_in_a_list,
    },
    Example {
        name: "map_object",
        check: log_lines,
    },
    Example {
        name: "worker_pids",
        check: as_many_processes_as_slots,
    },
    Example {
        name: "close_before_join",
        check: close_comes_first,
    },
    Example {
        name: "terminate",
        check: terminated,
    },
];

const SHELL: &[Example] = &[
    Example {
        name: "apply_async",
        check: four_messages_at_once,
    },
    Example {
        name: "results",
        check: ten_results_in_order,
    },
    Example {
        name: "four_functions",
        check: four_functions,
    },
    Example {
        name: "map",
        check: squares_in_lines,
    },
    Example {
        name: "many_directories",
        check: entries_of_directories,
    },
    Example {
        name: "terminate",
        check: ended_by_a_failure,
    },
];

#[test]
fn rust_examples_run_on_this_machine_alone() {
    for example in RUST {
        example.run(&mut rust(example.name));
    }
}

#[test]
fn shell_examples_run_on_this_machine_alone() {
    let folders = Folders::new();
    for example in SHELL {
        example.run(shell(example.name).args(folders.paths()));
    }
}

#[test]
fn rust_examples_run_on_three_agents() {
    let cluster = Cluster::start(3, 2);
    for example in RUST {
        example.run(cluster.point(&mut rust(example.name)));
    }
}

#[test]
fn shell_examples_run_on_three_agents() {
    let cluster = Cluster::start(3, 2);
    let folders = Folders::new();
    for example in SHELL {
        example.run(cluster.point(shell(example.name).args(folders.paths())));
    }
}

/// Agents that are the example itself, started by what stands in for ssh.
#[test]
fn rust_examples_run_on_hosts_that_are_logged_in_to() {
    let dir = tempfile::tempdir().unwrap();
    for example in RUST {
        let mut command = rust(example.name);
        command
            .env("FLEETPOOL_HOSTS", "web[1-2]")
            .env(
                "FLEETPOOL_SSH",
                concat!(env!("CARGO_MANIFEST_DIR"), "/bin/local-ssh"),
            )
            .env("LOCAL_SSH_DIR", dir.path());
        example.run(&mut command);
    }
    let logins = fs::read_to_string(dir.path().join("logins")).unwrap();
    // A short example may be over before the second host is there.
    let logins = logins.lines().count();
    assert!((RUST.len()..=2 * RUST.len()).contains(&logins), "{logins}");
}

#[test]
fn every_example_is_run() {
    let names = |examples: &[Example]| {
        examples
            .iter()
            .map(|example| example.name.to_owned())
            .collect::<BTreeSet<_>>()
    };
    assert_eq!(files("rust", "rs"), names(RUST));
    assert_eq!(files("shell", "sh"), names(SHELL));
}

impl Example {
    fn run(&self, command: &mut Command) {
        let output = command.output().expect("the example starts");
        let (out, err) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        eprintln!("--- {}: {}\n{out}{err}", self.name, output.status);
        assert!(output.status.success(), "{} failed", self.name);
        (self.check)(&out.lines().collect::<Vec<_>>());
    }
}

fn four_messages_at_once(lines: &[&str]) {
    let messages: BTreeSet<_> = lines
        .iter()
        .filter(|line| line.starts_with("message: "))
        .copied()
        .collect();
    assert_eq!(messages.len(), 4, "each once");
    assert_eq!(lines.iter().filter(|line| **line == "end").count(), 4);
    assert_eq!(lines.last(), Some(&"Sub-process(es) done."));
    let running = |prefix: &[&str]| {
        let begun = prefix.iter().filter(|line| line.starts_with("message: "));
        let ended = prefix.iter().filter(|line| **line == "end");
        begun.count() - ended.count()
    };
    let most = (0..lines.len()).map(|at| running(&lines[..at])).max();
    assert!(most <= Some(3), "never more than three at once");
}

fn four_messages_one_by_one(lines: &[&str]) {
    let told = (0..4).flat_map(|n| [format!("message: hello {n}"), "end".to_owned()]);
    let then = [
        "Mark~ Mark~ Mark~".to_owned(),
        "Sub-process(es) done.".to_owned(),
    ];
    assert_eq!(lines, told.chain(then).collect::<Vec<_>>());
}

fn ten_results_in_order(lines: &[&str]) {
    let told = (0..10).map(|n| format!("::: done hello {n}"));
    assert_eq!(
        lines,
        told.chain(["Sub-process(es) done.".to_owned()])
            .collect::<Vec<_>>()
    );
}

fn four_functions(lines: &[&str]) {
    for (name, ms) in [("Lee", 40), ("Marlon", 30), ("Allen", 20), ("Frank", 10)] {
        let begun = format!("Run task {name}-");
        assert_eq!(
            lines.iter().filter(|line| line.starts_with(&begun)).count(),
            1,
            "{name} begins"
        );
        let ended = format!("Task {name} runs {ms} ms.");
        assert!(lines.contains(&ended.as_str()), "{name} ends");
    }
    assert!(
        lines
            .last()
            .is_some_and(|line| line.starts_with("All subprocesses done"))
    );
}

fn squares_in_a_list(lines: &[&str]) {
    assert_eq!(lines, ["[0, 1, 4, 9, 16, 25, 36, 49]"]);
}

fn squares_in_lines(lines: &[&str]) {
    assert_eq!(lines, ["0", "1", "4", "9", "16", "25", "36", "49"]);
}

fn log_lines(lines: &[&str]) {
    assert_eq!(
        lines,
        ["INFO fleet: one", "INFO fleet: two", "INFO fleet: three"]
    );
}

fn as_many_processes_as_slots(lines: &[&str]) {
    let processes = lines.len() - 1;
    assert_eq!(lines[0], format!("1000 tasks ran in {processes} processes"));
    assert!((1..=2).contains(&processes), "two slots, two processes");
}

fn close_comes_first(lines: &[&str]) {
    let expected = [
        "join before close: the pool is not closed: call close() or terminate() before join()",
        "apply after close: the pool is closed: make all calls before close()",
        "the answer: 42",
    ];
    assert_eq!(lines, expected);
}

fn terminated(lines: &[&str]) {
    assert_eq!(
        lines,
        [
            "terminated in less than a minute: true",
            "its result: the pool was terminated"
        ]
    );
}

fn ended_by_a_failure(lines: &[&str]) {
    assert_eq!(lines, ["ended with status 1"]);
}

fn entries_of_directories(lines: &[&str]) {
    let counts: Vec<_> = lines
        .iter()
        .filter_map(|line| line.split('\t').nth(1))
        .collect();
    assert_eq!(counts, ["3", "1"], "in the order of the arguments, tagged");
}

/// Two folders with three entries and one.
struct Folders(tempfile::TempDir);

impl Folders {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for entry in ["three/a", "three/b", "three/c", "one/a"] {
            std::fs::create_dir_all(folder.path().join(entry)).expect("writable");
        }
        Self(folder)
    }

    fn paths(&self) -> [PathBuf; 2] {
        ["three", "one"].map(|name| self.0.path().join(name))
    }
}

fn rust(name: &str) -> Command {
    alone(Command::new(built(&format!("examples/{name}"))))
}

fn shell(name: &str) -> Command {
    let mut command = Command::new(examples().join("shell").join(format!("{name}.sh")));
    let folder = built("fleetpool").parent().expect("a folder").to_owned();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(folder).chain(std::env::split_paths(&path));
    command.env("PATH", std::env::join_paths(folders).expect("no colons"));
    alone(command)
}

/// No cluster but the one that a test names.
fn alone(mut command: Command) -> Command {
    command
        .env_remove("FLEETPOOL_CLUSTER")
        .env("XDG_CONFIG_HOME", "/nonexistent");
    command
}

fn files(folder: &str, extension: &str) -> BTreeSet<String> {
    let entries = std::fs::read_dir(examples().join(folder)).expect("a folder of examples");
    let paths = entries.map(|entry| entry.expect("readable").path());
    let ours = paths.filter(|path| path.extension().is_some_and(|found| found == extension));
    ours.filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .collect()
}

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("examples")
}
