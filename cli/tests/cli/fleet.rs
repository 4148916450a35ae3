//! A fleet of this binary: a coordinator and agents on loopback, joined by token.

use std::{
    fs,
    net::{TcpListener, UdpSocket},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use crate::support::{Ran, fleetpool, json_lines, own_sleep, processes_with, until};

/// A coordinator and its agents, ended when dropped.
struct Fleet {
    folder: tempfile::TempDir,
    address: String,
    children: Vec<Child>,
}

impl Fleet {
    fn start(agents: usize) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut fleet = Self {
            folder,
            address: free_address(),
            children: Vec::new(),
        };
        let init = fleet.run(&["init", "--name", "test"]);
        assert_eq!(init.code, Some(0), "{init:?}");
        fleet.spawn(
            &["coordinator", "--listen", &fleet.address.clone()],
            "identity",
        );
        until("the coordinator answers", || {
            fleet.run(&["status"]).code == Some(0)
        });
        for number in 1..=agents {
            fleet.join(number);
        }
        until("the agents are up", || fleet.hosts("up") == agents);
        fleet
    }

    fn join(&mut self, number: usize) {
        let token = self.run(&["token", "create"]);
        let file = self.path(&format!("token{number}"));
        fs::write(&file, &token.stdout).expect("written");
        let (name, label) = (format!("a{number}"), format!("odd={}", number % 2));
        let address = self.address.clone();
        let file = file.to_str().expect("UTF-8");
        let words = [
            "agent",
            "--coordinator",
            &address,
            "--name",
            &name,
            "--slots",
            "2",
            "--label",
            &label,
            "--token-file",
            file,
        ];
        self.spawn(&words, &name);
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn spawn(&mut self, words: &[&str], identity: &str) {
        let mut command = fleetpool(words);
        let log = fs::File::create(self.path(&format!("{identity}.log"))).expect("a log");
        command
            .env("FLEETPOOL_IDENTITY", self.path(identity))
            .stdout(Stdio::null())
            .stderr(log);
        self.children.push(command.spawn().expect("it starts"));
    }

    fn client(&self, words: &[&str]) -> Command {
        let mut command = fleetpool(words);
        command
            .env("FLEETPOOL_IDENTITY", self.path("identity"))
            .env("FLEETPOOL_CLUSTER", &self.address);
        command
    }

    fn run(&self, words: &[&str]) -> Ran {
        self.client(words).output().expect("it starts").into()
    }

    fn json(&self, words: &[&str]) -> Vec<serde_json::Value> {
        let ran = self.run(words);
        serde_json::from_str::<Vec<_>>(&ran.stdout).unwrap_or_else(|_| json_lines(&ran.stdout))
    }

    /// Hosts in this state.
    fn hosts(&self, state: &str) -> usize {
        let hosts = self.run(&["hosts", "--json"]).stdout;
        let hosts: Vec<serde_json::Value> = serde_json::from_str(&hosts).unwrap_or_default();
        hosts.iter().filter(|host| host["state"] == state).count()
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A port that is free for both udp and tcp.
fn free_address() -> String {
    loop {
        let udp = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let address = udp.local_addr().expect("bound");
        if TcpListener::bind(address).is_ok() {
            return address.to_string();
        }
    }
}

#[test]
fn tasks_run_on_every_host_and_hosts_are_named() {
    let fleet = Fleet::start(3);
    let ran = fleet.run(&[
        "map", "-k", "-j4", "echo {}", ":::", "1", "2", "3", "4", "5",
    ]);
    assert_eq!(
        (ran.stdout.as_str(), ran.code),
        ("1\n2\n3\n4\n5\n", Some(0)),
        "{ran:?}"
    );
    let records = fleet.json(&["exec", "--on", "*", "-k", "--json", "--", "echo", "{host}"]);
    let hosts: Vec<_> = records
        .iter()
        .map(|record| record["stdout"].as_str().expect("text").trim())
        .collect();
    assert_eq!(hosts, ["a1", "a2", "a3"]);
    let gathered = fleet.run(&["exec", "--on", "a[1-3]", "--gather", "--", "echo same"]);
    assert!(gathered.stdout.contains("\na[1-3] (3)\n"), "{gathered:?}");
    let diff = fleet.run(&[
        "exec",
        "--on",
        "*",
        "--diff",
        "--",
        "test {host} = a2 && echo b || echo a",
    ]);
    assert!(
        diff.stdout.contains("\na[1,3] (2)\n") && diff.stdout.contains("-a\n+b\n"),
        "{diff:?}"
    );
    let labelled = fleet.run(&[
        "exec",
        "--on",
        "odd=1",
        "-k",
        "--no-tag",
        "--",
        "echo {host}",
    ]);
    assert_eq!(labelled.stdout, "a1\na3\n");
    let more = fleet.run(&["map", "-j", "50", "true", ":::", "1"]);
    assert!(
        more.stderr
            .contains("asked for 50 slots, there are 6 on 3 hosts"),
        "{more:?}"
    );
}

#[test]
fn groups_of_the_configuration_are_hosts() {
    let fleet = Fleet::start(3);
    let home = fleet.path("home");
    let configure = |text: &str| {
        fs::create_dir_all(home.join(".config/fleetpool")).expect("a folder");
        fs::write(home.join(".config/fleetpool/config.toml"), text).expect("written");
    };
    let run = |words: &[&str]| {
        let output = fleet.client(words).env("HOME", &home).output();
        Ran::from(output.expect("it starts"))
    };
    let names = |words: &[&str]| {
        let ran = run(&[words, &["-k", "--no-tag", "--", "echo {host}"]].concat());
        assert_eq!(ran.code, Some(0), "{ran:?}");
        ran.stdout
    };
    configure(
        "groups_command = 'test $GROUP = last && echo a3'\n[groups]\nweb = \"a[1-2]\"\nall = \"@web,@last\"\n",
    );
    assert_eq!(names(&["exec", "--on", "@web"]), "a1\na2\n");
    assert_eq!(names(&["exec", "--on", "@all!a2"]), "a1\na3\n");
    assert_eq!(names(&["exec", "--on", "!(a1,@last)"]), "a2\n");
    let ran = run(&["map", "--on", "@last", "echo {host}", ":::", "1"]);
    assert_eq!(
        (ran.stdout.as_str(), ran.code),
        ("a3\n", Some(0)),
        "{ran:?}"
    );
    assert_eq!(run(&["cordon", "@web"]).code, Some(0));
    assert_eq!((fleet.hosts("cordoned"), fleet.hosts("up")), (2, 1));
    assert_eq!(run(&["cordon", "@last"]).code, Some(0));
    assert_eq!(fleet.hosts("cordoned"), 3);
    assert_eq!(run(&["uncordon", "a1", "a[2-3]"]).code, Some(0));
    assert_eq!(fleet.hosts("up"), 3);
    run(&["cordon", "nowhere"]).refuses(125, &["there is no host nowhere"]);

    let config = home.join(".config/fleetpool/config.toml");
    let says = [
        "selector `a1,@nobody`, at `@nobody` (character 4): there is no group `nobody`",
        "(it has all, web)",
        "write `nobody = ",
        config.to_str().expect("UTF-8"),
    ];
    for verb in [&["exec"][..], &["hosts"], &["map"]] {
        let words = [verb, &["--on", "a1,@nobody"]].concat();
        let words = if verb == ["hosts"] {
            words
        } else {
            [&words[..], &["true"]].concat()
        };
        run(&words).refuses(2, &says);
    }
    configure("[groups]\nweb = \"b[1-2]\"\n");
    run(&["hosts", "--on", "@web"]).refuses(126, &["`@web`, which is `(b[1-2])`"]);
}

#[test]
fn groups_of_clustershell_are_hosts() {
    let fleet = Fleet::start(3);
    let configured = fleet.path("clustershell");
    fs::create_dir_all(configured.join("groups.d")).expect("a folder");
    let conf = "[Main]\ndefault: local\nautodir: $CFGDIR/groups.d\n\n[asked]\nmap: test $GROUP = odd && echo a1 a3\n";
    fs::write(configured.join("groups.conf"), conf).expect("written");
    let groups = "local:\n  web: 'a[1-2]'\n  all: '@web,a3'\n";
    fs::write(configured.join("groups.d/local.yaml"), groups).expect("written");
    let hosts = |on: &str| {
        let output = fleet
            .client(&["exec", "--on", on, "-k", "--no-tag", "--", "echo {host}"])
            .env("XDG_CONFIG_HOME", fleet.folder.path())
            .output();
        Ran::from(output.expect("it starts"))
    };
    assert_eq!(hosts("@web").stdout, "a1\na2\n");
    assert_eq!(hosts("@all!@web").stdout, "a3\n");
    assert_eq!(hosts("@asked:odd").stdout, "a1\na3\n");
    hosts("@nobody").refuses(2, &["ClusterShell's configuration (it has no such group)"]);
    hosts("@asked:even").refuses(2, &["there is no group `asked:even`", "non-zero exit code"]);
    hosts("@none:web").refuses(2, &["Unknown group source: 'none'"]);
    // Its commands are text that the name becomes part of.
    let file = fleet.path("made");
    let name = format!("@asked:x;touch${{IFS}}{}", file.display());
    hosts(&name).refuses(2, &["it was not asked"]);
    assert!(!file.exists());
    fs::write(configured.join("groups.conf"), "[Main]\nodd: 1\n").expect("written");
    hosts("@web").refuses(2, &["ClusterShell's configuration cannot be read", "odd"]);
    assert_eq!(hosts("a1").stdout, "a1\n");
}

#[test]
fn a_canary_that_fails_is_the_last() {
    let fleet = Fleet::start(3);
    let ran = fleet.run(&[
        "exec",
        "--on",
        "*",
        "--canary",
        "1",
        "--",
        "echo ran; false",
    ]);
    assert_eq!(
        (ran.code, ran.stdout.lines().count()),
        (Some(1), 1),
        "{ran:?}"
    );
    let ran = fleet.run(&[
        "exec",
        "--on",
        "*",
        "--batch",
        "1",
        "--max-fail",
        "1",
        "--",
        "echo ran; false",
    ]);
    assert_eq!(
        (ran.code, ran.stdout.lines().count()),
        (Some(2), 2),
        "{ran:?}"
    );
    let ran = fleet.run(&["exec", "--on", "*", "--batch", "50%", "--", "echo ran"]);
    assert_eq!(
        (ran.code, ran.stdout.lines().count()),
        (Some(0), 3),
        "{ran:?}"
    );
}

#[test]
fn a_host_that_is_down_or_cordoned_counts_as_failed() {
    let mut fleet = Fleet::start(2);
    assert_eq!(fleet.run(&["cordon", "a1"]).code, Some(0));
    let ran = fleet.run(&["exec", "--on", "*", "--", "echo ran"]);
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (Some(1), "a2: ran\n"),
        "{ran:?}"
    );
    assert!(
        ran.stderr.contains("a1: not started: the host is cordoned"),
        "{ran:?}"
    );
    assert_eq!(fleet.run(&["uncordon", "a1"]).code, Some(0));
    let agent = &mut fleet.children[2];
    agent.kill().expect("it lives");
    agent.wait().expect("it ends");
    until("the coordinator notices", || fleet.hosts("up") == 1);
    let ran = fleet.run(&["exec", "--on", "*", "--", "echo ran"]);
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (Some(1), "a1: ran\n"),
        "{ran:?}"
    );
    assert!(
        ran.stderr.contains("a2: not started: the host is down"),
        "{ran:?}"
    );
}

#[test]
fn a_job_is_listed_and_cancelled_by_its_number() {
    let fleet = Fleet::start(1);
    let sleep = own_sleep();
    let job = fleet
        .client(&["map", "sleep", ":::", &sleep])
        .spawn()
        .expect("it starts");
    until("the job runs", || !processes_with(&sleep).is_empty());
    let jobs = fleet.json(&["jobs", "--json"]);
    let id = jobs[0]["id"].as_u64().expect("a number").to_string();
    assert_eq!(jobs[0]["name"], "sleep");
    assert_eq!(fleet.run(&["cancel", &id]).code, Some(0));
    let ran = Ran::from(job.wait_with_output().expect("it ends"));
    assert_eq!(ran.code, Some(125), "{ran:?}");
    assert!(ran.stderr.contains("ended this job"), "{ran:?}");
    until("its task is gone", || processes_with(&sleep).is_empty());
    fleet.run(&["cancel", "999999"]).refuses(125, &["999999"]);
}

#[test]
fn tokens_and_identities_come_and_go() {
    let fleet = Fleet::start(0);
    let token: serde_json::Value = serde_json::from_str(
        &fleet
            .run(&["token", "create", "--json", "--uses", "3"])
            .stdout,
    )
    .expect("JSON");
    let id = token["id"].as_str().expect("an id");
    assert!(
        token["token"]
            .as_str()
            .expect("a token")
            .starts_with("fp1.")
    );
    assert_eq!(fleet.json(&["token", "list", "--json"])[0]["uses_left"], 3);
    assert_eq!(fleet.run(&["token", "revoke", id]).code, Some(0));
    assert!(fleet.json(&["token", "list", "--json"]).is_empty());

    let out = fleet.path("alice");
    let issued = fleet.run(&[
        "identity",
        "issue",
        "alice",
        "--out",
        out.to_str().expect("UTF-8"),
    ]);
    assert_eq!(issued.code, Some(0), "{issued:?}");
    let as_alice = |words: &[&str]| {
        Ran::from(
            fleet
                .client(words)
                .env("FLEETPOOL_IDENTITY", &out)
                .output()
                .expect("it starts"),
        )
    };
    assert_eq!(as_alice(&["status"]).code, Some(0));
    assert_eq!(as_alice(&["token", "create"]).code, Some(125));
    assert_eq!(fleet.run(&["identity", "revoke", "alice"]).code, Some(0));
    as_alice(&["status"]).refuses(125, &["alice"]);
}

#[test]
fn a_cluster_is_made_once_and_run_once() {
    let fleet = Fleet::start(0);
    fleet
        .run(&["init"])
        .refuses(125, &["already", "--identity"]);
    fleet
        .run(&["coordinator", "--listen", "127.0.0.1:0"])
        .refuses(125, &["another coordinator"]);
    let other = fleet.path("other");
    let with_other = |words: &[&str]| {
        Ran::from(
            fleet
                .client(words)
                .env("FLEETPOOL_IDENTITY", &other)
                .output()
                .expect("it starts"),
        )
    };
    assert_eq!(with_other(&["init"]).code, Some(0));
    with_other(&["coordinator", "--listen", &fleet.address]).refuses(125, &[&fleet.address]);
    with_other(&["status"]).refuses(125, &["not to be trusted"]);
    assert!(
        is_private(&other.join("key.pem")) && is_private(&other.join("coordinator/ca/ca-key.pem"))
    );
}

fn is_private(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    fs::metadata(path).expect("a file").mode() & 0o077 == 0
}

#[test]
fn nobody_listens() {
    let mut fleet = Fleet::start(0);
    for child in &mut fleet.children {
        child.kill().expect("it lives");
        child.wait().expect("it ends");
    }
    fleet
        .run(&["hosts"])
        .refuses(125, &[&fleet.address, "nobody listens"]);
}

#[test]
fn a_program_is_started_with_the_cluster_in_its_environment() {
    let fleet = Fleet::start(0);
    let ran = fleet.run(&[
        "run",
        "sh",
        "-c",
        "echo $FLEETPOOL_CLUSTER; echo $1",
        "sh",
        "--flag",
    ]);
    assert_eq!(ran.stdout, format!("{}\n--flag\n", fleet.address));
}
