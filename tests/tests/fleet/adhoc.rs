//! Hosts for one run, over ssh.

use std::time::Duration;

use fleetpool_test_fleet::Host;

use crate::support::{plan, run, start, until, within};

/// What a decision may take until the last process that it is about is gone (G6).
const GONE_WITHIN: Duration = Duration::from_secs(2);
/// What a loaded machine may add, and a look at five hosts.
const GRACE: Duration = Duration::from_secs(2);

/// G6. `h5` is behind the jump host.
#[test]
fn a_killed_client_leaves_nothing_on_hosts_that_had_nothing_but_ssh() {
    let fleet = plan(5).behind_jump("h5").start().unwrap();
    // Nothing but ssh here, too: no identity, no configuration, no daemon.
    let at_home = || fleet.head().sh("ls -A; ls -A .ssh");
    let (before, home) = (fleet.listings(), at_home());
    assert!(
        !home.contains("fleetpool") && !home.contains(".config"),
        "{home}"
    );
    // A host has a slot for each processor.
    let slots = std::thread::available_parallelism().unwrap().get();
    let tasks: Vec<String> = (1..=5 * slots).map(|task| task.to_string()).collect();
    let script = "setsid sleep 6543 & sleep 6544; : {}";
    let mut words = vec![
        "map",
        "--hosts",
        "h[1-3],ada@h4,h5",
        "-j",
        tasks.last().unwrap(),
    ];
    words.extend([script, ":::"]);
    words.extend(tasks.iter().map(String::as_str));
    let mut client = start(fleet.head(), &words);
    let hosts = ["h1", "h2", "h3", "h4", "h5"].map(|name| fleet.host(name));
    let sleeps = |host: &Host<'_>| {
        let processes = host.processes();
        let is_sleep =
            |line: &&String| line.ends_with(" sleep 6543") || line.ends_with(" sleep 6544");
        processes.iter().filter(is_sleep).count()
    };
    until("tasks run on all slots", || {
        hosts.iter().all(|host| sleeps(host) == 2 * slots)
    });
    client.kill().unwrap();
    client.wait().unwrap();
    within(GONE_WITHIN + GRACE, "no process is left", || {
        hosts.iter().all(|host| host.processes().is_empty())
    });
    let new = fleet.changes_since(&before);
    // The program in its folders.
    let is_program =
        |line: &&String| line.contains("/.cache/fleetpool/bin/") && line.contains(" f ");
    let is_folder = |line: &&String| line.contains("/.cache") && line.contains(" d ");
    let programs = new.iter().filter(is_program).count();
    let folders = new.iter().filter(is_folder).count();
    assert_eq!((programs, new.len() - folders), (5, 5), "{new:?}");
    assert_eq!(at_home(), home);
    // And none of it is brought again.
    let ran = run(
        fleet.head(),
        &[
            "map",
            "--hosts",
            "h[1-3],ada@h4,h5",
            "-k",
            "echo {}",
            ":::",
            "1",
            "2",
            "3",
        ],
    );
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (Some(0), "1\n2\n3\n"),
        "{ran:?}"
    );
}

/// G1, G6: nobody tells the hosts. Their leases do.
#[test]
fn a_power_cut_of_the_clients_machine_leaves_nothing_either() {
    let fleet = plan(2).start().unwrap();
    let mut client = start(
        fleet.head(),
        &["exec", "--hosts", "h[1-2]", "--", "sleep", "6545"],
    );
    let hosts = ["h1", "h2"].map(|name| fleet.host(name));
    until("it runs", || {
        hosts.iter().all(|host| {
            host.processes()
                .iter()
                .any(|line| line.ends_with(" sleep 6545"))
        })
    });
    fleet.head().power_off();
    client.wait().unwrap();
    until("nothing runs", || {
        hosts.iter().all(|host| host.processes().is_empty())
    });
}

/// G1, G3: each result once.
#[test]
fn a_host_that_loses_its_power_in_a_map_costs_nothing() {
    /// So many that the hosts which are there first leave some to the last.
    const INPUTS: u32 = 200;
    let fleet = plan(3).start().unwrap();
    let inputs: Vec<String> = (1..=INPUTS).map(|input| input.to_string()).collect();
    let mut words = vec![
        "map",
        "--hosts",
        "h[1-3]",
        "-j6",
        "sleep 0.3; echo {}",
        ":::",
    ];
    words.extend(inputs.iter().map(String::as_str));
    let client = start(fleet.head(), &words);
    until("tasks run there", || {
        let processes = fleet.host("h2").processes();
        processes.iter().any(|line| line.ends_with(" sleep 0.3"))
    });
    fleet.host("h2").power_off();
    let ran = crate::support::Ran::from(client.wait_with_output().unwrap());
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let mut printed: Vec<u32> = ran
        .stdout
        .lines()
        .map(|line| line.parse().unwrap())
        .collect();
    printed.sort_unstable();
    assert_eq!(printed, (1..=INPUTS).collect::<Vec<_>>(), "{}", ran.stderr);
    assert!(ran.stderr.contains("h2 is away: "), "{}", ran.stderr);
}

/// G11, G12.
#[test]
fn hosts_that_are_unfit_are_told_of_one_by_one_and_the_others_run() {
    let fleet = plan(6).start().unwrap();
    fleet.host("h1").fill_disk();
    fleet.host("h2").pretend_machine("aarch64");
    fleet.host("h3").new_host_key();
    fleet.host("h4").configure_sshd("MaxStartups 1");
    fleet.host("h5").power_off();
    let ran = run(
        fleet.head(),
        &["exec", "--hosts", "h[1-6]", "--", "hostname"],
    );
    assert_eq!(ran.code, Some(4), "{ran:?}");
    for says in [
        "h1: not started: cannot write the program to /root/.cache/fleetpool/bin: 0 free on /root",
        "h2: not started: this host is Linux aarch64 and the program is made for Linux x86_64",
        "h3: not started: REMOTE HOST IDENTIFICATION HAS CHANGED",
        "h5: not started: ssh: connect to host h5 port 22: ",
    ] {
        assert!(ran.stderr.contains(says), "no `{says}` in {}", ran.stderr);
    }
    let mut lines: Vec<_> = ran.stdout.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["h4: h4", "h6: h6"]);
}
