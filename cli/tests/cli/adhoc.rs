//! Hosts that are logged in to for one run. In ssh's place stands a script that starts what ssh would, on this machine and
//! in a home of the host's own.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

use crate::support::{Ran, fleetpool, json_lines, own_sleep, processes_with, signal, until};

/// Knows hosts by their names: `no…` cannot be reached, and all others can.
const SSH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/bin/local-ssh");

/// A place with hosts.
struct Site {
    dir: TempDir,
}

impl Site {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = fleetpool(words);
        command
            .env("FLEETPOOL_SSH", SSH)
            .env("LOCAL_SSH_DIR", self.dir.path());
        command
    }

    fn run(&self, words: &[&str]) -> Ran {
        self.command(words).output().expect("it starts").into()
    }

    fn spawn(&self, words: &[&str]) -> Child {
        self.command(words).spawn().expect("it starts")
    }

    /// The processes of agents that were brought here.
    fn agents(&self) -> Vec<i32> {
        let cache = self.path("cache").display().to_string();
        let agent = |entry: fs::DirEntry| {
            let line = fs::read(entry.path().join("cmdline")).ok()?;
            let line = String::from_utf8_lossy(&line).into_owned();
            let is_one = line.starts_with(&cache) && line.contains("__fleetpool-agent");
            is_one.then(|| entry.file_name().to_str()?.parse().ok())?
        };
        let entries = fs::read_dir("/proc").unwrap().flatten();
        entries.filter_map(agent).collect()
    }
}

#[test]
fn a_map_runs_on_hosts_that_need_nothing_but_ssh_and_leaves_only_the_program() {
    let site = Site::new();
    let ran = site.run(&[
        "map",
        "--hosts",
        "web[1-3]",
        "--json",
        "echo {} {host}",
        ":::",
        "1",
        "2",
        "3",
        "4",
        "5",
        "6",
    ]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let records = json_lines(&ran.stdout);
    let mut said: Vec<_> = records
        .iter()
        .map(|record| record["stdout"].as_str().unwrap().to_owned())
        .collect();
    said.sort_unstable();
    for (number, said) in (1..).zip(&said) {
        let [index, host] = said.split_whitespace().collect::<Vec<_>>()[..] else {
            panic!("{said}")
        };
        assert_eq!(index, number.to_string());
        assert!(host.starts_with("web"), "{said}");
    }
    assert_eq!(said.len(), 6, "{ran:?}");
    until("the agents are gone", || site.agents().is_empty());
    until("nothing is left but the program", || {
        fs::read_dir(site.path("cache/fleetpool/bin"))
            .unwrap()
            .count()
            == 1
    });
    let logins = fs::read_to_string(site.path("logins")).unwrap();
    let mut logins: Vec<_> = logins.lines().collect();
    logins.sort_unstable();
    assert_eq!(logins, ["web1", "web2", "web3"]);
}

#[test]
fn a_host_that_cannot_be_had_is_told_of_and_the_others_run() {
    let site = Site::new();
    let ran = site.run(&[
        "map",
        "--hosts",
        "web1,no1",
        "-k",
        "echo {host}",
        ":::",
        "1",
        "2",
    ]);
    assert_eq!(
        (ran.stdout.as_str(), ran.code),
        ("web1\nweb1\n", Some(0)),
        "{ran:?}"
    );
    assert!(
        ran.stderr
            .contains("no1: ssh: connect to host no1 port 22: No route to host"),
        "{ran:?}"
    );
    // For exec it is a task that failed, and shown as one.
    let ran = site.run(&[
        "exec",
        "--hosts",
        "ada@web[1-2],no1",
        "-k",
        "--",
        "echo",
        "{host}",
    ]);
    assert_eq!(
        (ran.stdout.as_str(), ran.code),
        ("web1: web1\nweb2: web2\n", Some(1)),
        "{ran:?}"
    );
    assert!(
        ran.stderr.contains("no1: not started: ssh: connect"),
        "{ran:?}"
    );
    let listed = site.run(&["hosts", "--hosts", "web1,no1", "--json"]);
    assert_eq!(listed.code, Some(1), "{listed:?}");
    let hosts: serde_json::Value = serde_json::from_str(&listed.stdout).unwrap();
    assert_eq!(hosts.as_array().unwrap().len(), 1);
    assert_eq!(
        (&hosts[0]["name"], &hosts[0]["carrier"]),
        (&"web1".into(), &"ssh".into())
    );
}

#[test]
fn where_no_host_can_be_had_nothing_waits_for_ever() {
    let site = Site::new();
    let ran = site.run(&["map", "--hosts", "no[1-5]", "echo", ":::", "1"]);
    ran.refuses(
        125,
        &["no host can be had", "No route to host", "and 2 more"],
    );
    let ran = site.run(&["exec", "--hosts", "no[1-5]", "--", "true"]);
    ran.refuses(5, &["no5: not started: ssh: connect to host no5"]);
}

#[test]
fn exec_gathers_selects_and_goes_in_waves_as_on_a_fleet() {
    let site = Site::new();
    let ran = site.run(&[
        "exec",
        "--hosts",
        "web[1-4]",
        "--on",
        "!web3",
        "--gather",
        "--batch",
        "1",
        "--",
        "echo same",
    ]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.stdout.contains("web[1-2,4] (3)"), "{ran:?}");
    let ran = site.run(&[
        "exec",
        "--hosts",
        "web[1-4]",
        "--dry-run",
        "--",
        "echo",
        "{host}",
    ]);
    assert!(ran.stdout.starts_with("web1: echo web1\nweb2: "), "{ran:?}");
    site.run(&["exec", "--hosts", "web[1-4]", "--on", "db1", "--", "true"])
        .refuses(126, &["`db1`"]);
    site.run(&["exec", "--", "true"])
        .refuses(2, &["--on SEL", "--hosts NODESET"]);
    site.run(&["exec", "--hosts", "web*", "--", "true"])
        .refuses(2, &["web*"]);
    site.run(&["exec", "--hosts", "a@web1,b@web1", "--", "true"])
        .refuses(2, &["web1 twice"]);
    site.run(&["status", "--hosts", "web1"])
        .refuses(2, &["--cluster"]);
    site.run(&["exec", "--hosts", "web1", "--cluster", "c:1", "--", "true"])
        .refuses(2, &["cannot be used with"]);
}

#[test]
fn the_kill_of_a_client_ends_everything_on_its_hosts() {
    let site = Site::new();
    let sleep = own_sleep();
    let mut client = site.spawn(&[
        "map",
        "--hosts",
        "web[1-2]",
        "-j2",
        "setsid sleep {} & wait",
        ":::",
        &sleep,
        &sleep,
    ]);
    until("both tasks run", || processes_with(&sleep).len() >= 2);
    signal(&client, Signal::SIGKILL);
    client.wait().unwrap();
    until("nothing is left", || {
        processes_with(&sleep).is_empty() && site.agents().is_empty()
    });
}

#[test]
fn the_first_interrupt_ends_what_runs_on_the_hosts() {
    let site = Site::new();
    let sleep = own_sleep();
    let mut client = site.spawn(&["map", "--hosts", "web1", "sleep", ":::", &sleep]);
    until("it runs", || !processes_with(&sleep).is_empty());
    signal(&client, Signal::SIGINT);
    assert_eq!(client.wait().unwrap().code(), Some(130));
    until("nothing is left", || {
        processes_with(&sleep).is_empty() && site.agents().is_empty()
    });
}

/// G3, G5: the agent is gone, and with it all that it ran; the host is logged in to again.
#[test]
fn a_host_whose_connection_breaks_is_looked_for_again_and_its_task_begun_anew() {
    let site = Site::new();
    let (started, go) = (site.path("started"), site.path("go"));
    let line = format!(
        "echo >>{}; until test -e {}; do sleep 0.02; done; echo {{}}",
        started.display(),
        go.display()
    );
    let client = site.spawn(&["map", "--hosts", "web1", "--shell", &line, ":::", "done"]);
    let starts = || fs::read(&started).map_or(0, |starts| starts.len());
    until("it runs", || starts() == 1);
    let agents = site.agents();
    assert_eq!(agents.len(), 1);
    kill(Pid::from_raw(agents[0]), Signal::SIGKILL).unwrap();
    until("it runs again", || starts() == 2);
    fs::write(&go, "").unwrap();
    let ran = Ran::from(client.wait_with_output().unwrap());
    assert_eq!(
        (ran.stdout.as_str(), ran.code),
        ("done\n", Some(0)),
        "{ran:?}"
    );
    assert!(ran.stderr.contains("web1 is away: "), "{ran:?}");
}

#[test]
fn files_and_folders_go_to_hosts_and_come_back() {
    let site = Site::new();
    let here = site.path("here");
    fs::create_dir_all(here.join("conf/sub")).unwrap();
    // Bytes that no line of text has, and no newline at the end.
    let bytes: Vec<u8> = (0..300_000_u32)
        .map(|number| (number % 251) as u8)
        .collect();
    fs::write(here.join("conf/data"), &bytes).unwrap();
    fs::write(here.join("conf/sub/text"), "a\nb").unwrap();
    let conf = here.join("conf").display().to_string();
    let ran = site.run(&["put", &conf, "--hosts", "web[1-2]", "conf-{host}"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(ran.stderr, "fleetpool: copied to 2 hosts\n");
    assert_eq!(fs::read(site.path("web2/conf-web2/data")).unwrap(), bytes);
    assert_eq!(
        fs::read(site.path("web1/conf-web1/sub/text")).unwrap(),
        b"a\nb"
    );

    let back = site.path("back").display().to_string();
    let ran = site.run(&["get", "--hosts", "web[1-2],no1", "conf-{host}", &back]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stderr.contains("no1: not started: ssh: "), "{ran:?}");
    assert_eq!(
        fs::read(site.path("back/web2/conf-web2/data")).unwrap(),
        bytes
    );
    let names = |folder: &str| fs::read_dir(site.path(folder)).unwrap().count();
    assert_eq!((names("back"), names("back/web1")), (2, 1));

    let ran = site.run(&["get", "--hosts", "web1", "no-such", &back]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stderr.contains("no-such: No such file"), "{ran:?}");
    let ran = site.run(&["put", &conf, "--hosts", "web1", "no/such/place"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stderr.contains("there is no folder "), "{ran:?}");
    site.run(&["put", "/no/such", "--hosts", "web1", "x"])
        .refuses(2, &["/no/such: No such file"]);
}

#[test]
fn a_large_stdin_goes_to_every_host() {
    let site = Site::new();
    let bytes: Vec<u8> = b"0123456789abcdef".repeat(1 << 19);
    let file = site.path("stdin");
    fs::write(&file, &bytes).unwrap();
    let mut command = site.command(&["exec", "--hosts", "web[1-2]", "-k", "--", "cksum"]);
    command.stdin(fs::File::open(&file).unwrap());
    let ran = Ran::from(command.output().unwrap());
    let sum = std::process::Command::new("cksum")
        .stdin(fs::File::open(&file).unwrap())
        .output()
        .unwrap();
    let sum = String::from_utf8(sum.stdout).unwrap();
    assert_eq!(ran.stdout, format!("web1: {sum}web2: {sum}"), "{ran:?}");
}
