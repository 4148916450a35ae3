//! Agents that stay: installed, upgraded and removed over ssh.

use fleetpool_test_fleet::Host;
use fleetpool_tests::cluster::built;

use crate::{
    cluster::Cluster,
    support::{PATIENCE, Ran, plan, start, until, within},
};

/// Not even what ssh has left running.
fn nothing_runs_on(host: Host<'_>) -> bool {
    host.processes().is_empty()
}

/// Whether nobody is logged in there by ssh.
fn nobody_is_logged_in_to(host: Host<'_>) -> bool {
    let sshd = host.sh("ps -e -o args= | grep '^sshd: ' || true");
    sshd.lines().all(|line| line.contains("[listener]"))
}

/// Lists units of ours that systemd knows.
const UNITS: &str = "systemctl list-unit-files 'fleetpool*' --no-legend; systemctl list-units --all 'fleetpool*' --no-legend";

#[test]
fn hosts_are_deployed_once_and_undeployed_without_a_trace() {
    let cluster = Cluster::start(plan(8).systemd_on(&["h7", "h8"]));
    let hosts: Vec<String> = (1..=8).map(|number| format!("h{number}")).collect();
    let all = |holds: fn(Host<'_>) -> bool| {
        let mut hosts = hosts.iter();
        hosts.all(|host| holds(cluster.fleet.host(host)))
    };
    let before = cluster.fleet.listings();
    let said = cluster.done(&["deploy", "h[1-8]", "--dry-run"]);
    assert!(
        said.contains("h8: user fleetpool, program ")
            && said.contains("8 hosts: 8 would be changed"),
        "{said}"
    );
    cluster.is_as(&before);

    let said = cluster.done(&["deploy", "h[1-8]", "--label", "role=web"]);
    assert!(said.ends_with("8 hosts up, 8 of them changed\n"), "{said}");
    until("no ssh session is left", || all(nobody_is_logged_in_to));
    assert_eq!(cluster.hosts("up"), hosts);
    let said = cluster.done(&[
        "exec",
        "--on",
        "role=web",
        "--gather",
        "--",
        "id -un; echo $HOME; pwd",
    ]);
    assert!(
        said.contains("h[1-8] (8)") && said.contains("fleetpool\n/var/lib/fleetpool\n"),
        "{said}"
    );

    let deployed = cluster.fleet.listings();
    let said = cluster.done(&["deploy", "h[1-8]", "--label", "role=web"]);
    assert!(
        said.ends_with("8 hosts up, nothing was changed\n"),
        "{said}"
    );
    cluster.is_as(&deployed);
    let said = cluster.done(&["deploy", "h1", "--label", "role=db", "--slots", "5"]);
    assert!(
        said.starts_with("h1: configuration, agent started\n"),
        "{said}"
    );
    let said = cluster.done(&["hosts", "--on", "role=db"]);
    assert!(said.contains("h1    up     5 "), "{said}");
    let limits = ["--task-pids", "50", "--task-memory", "256M"];
    let _ = cluster.done(&[&["deploy", "h7"][..], &limits].concat());
    let agents = cluster.fleet.host("h7").processes();
    let is_limited = |agent: &String| agent.contains(" --task-pids 50 --task-memory 268435456");
    assert!(agents.iter().any(is_limited), "{agents:?}");

    let said = cluster.done(&["undeploy", "h[1-8]"]);
    assert!(said.ends_with("8 hosts out of the fleet\n"), "{said}");
    cluster.is_as(&before);
    until("nothing runs where there is no systemd", || {
        hosts[..6]
            .iter()
            .all(|host| nothing_runs_on(cluster.fleet.host(host)))
    });
    for host in ["h7", "h8"].map(|host| cluster.fleet.host(host)) {
        // systemd forgets units when it has time.
        until("no unit of ours is known", || host.sh(UNITS).is_empty());
        let ours = |line: &String| line.contains("fleetpool");
        until("nothing of ours runs", || {
            !host.processes().iter().any(ours)
        });
    }
    assert_eq!(
        cluster.hosts("up").len() + cluster.hosts("lost").len() + cluster.hosts("away").len(),
        0
    );
    let said = cluster.done(&["undeploy", "h[1-8]"]);
    assert!(said.ends_with("8 hosts: nothing was there\n"), "{said}");
    // And may come again.
    let said = cluster.done(&["deploy", "h[1-2]"]);
    assert!(said.ends_with("2 hosts up, 2 of them changed\n"), "{said}");
}

#[test]
fn systemd_keeps_agents_also_after_a_boot_and_a_user_needs_no_root() {
    let cluster = Cluster::start(plan(2).systemd());
    let before = cluster.fleet.listings();
    let said = cluster.done(&["deploy", "h1,ada@h2"]);
    assert!(
        said.contains("h1: user fleetpool") && said.contains("unit fleetpool-agent.service"),
        "{said}"
    );
    let verified = cluster.fleet.host("h1").sh("systemd-analyze verify fleetpool-agent.service fleetpool-spawner.service 2>&1; systemctl show -p NRestarts --value fleetpool-agent");
    assert_eq!(verified, "0\n");
    let said = cluster.done(&["exec", "--on", "*", "-k", "--", "id -un"]);
    assert_eq!(said, "h1: fleetpool\nh2: ada\n");
    assert!(
        cluster
            .done(&["deploy", "h1,ada@h2"])
            .ends_with("2 hosts up, nothing was changed\n")
    );

    let h1 = cluster.fleet.host("h1");
    let _ = h1.sh("kill -KILL $(systemctl show -p MainPID --value fleetpool-agent)");
    until("systemd starts it again", || {
        h1.sh("systemctl show -p NRestarts --value fleetpool-agent") == "1\n"
    });
    for host in ["h1", "h2"] {
        cluster.fleet.host(host).power_off();
    }
    for host in ["h1", "h2"] {
        cluster.fleet.host(host).boot();
    }
    until("both are back", || {
        cluster.run(&["exec", "--on", "h[1-2]", "--", "true"]).code == Some(0)
    });

    let said = cluster.done(&["undeploy", "h1,ada@h2"]);
    assert!(said.ends_with("2 hosts out of the fleet\n"), "{said}");
    cluster.is_as(&before);
    assert_eq!(h1.sh(UNITS), "");
}

/// G11, G12.
#[test]
fn hosts_that_are_unfit_are_told_of_and_the_others_are_deployed() {
    let cluster = Cluster::start(plan(7));
    let fleet = &cluster.fleet;
    fleet.host("h1").fill_disk();
    fleet.host("h2").pretend_machine("aarch64");
    fleet.host("h3").new_host_key();
    fleet.host("h4").configure_sshd("MaxStartups 2");
    fleet.host("h5").take_away("python3");
    fleet.host("h6").power_off();
    let ran = cluster.run(&["deploy", "h[1-7]"]);
    assert_eq!(ran.code, Some(4), "{ran:?}");
    for says in [
        "h1: cannot write the program to /usr/local/lib/fleetpool: 0 free on ",
        "h2: this host is Linux aarch64 and the program is made for Linux x86_64",
        "h3: REMOTE HOST IDENTIFICATION HAS CHANGED",
        "h6: ssh: connect to host h6 port 22: ",
    ] {
        assert!(ran.stderr.contains(says), "no `{says}` in {}", ran.stderr);
    }
    assert!(
        ran.stdout.ends_with("3 hosts up, 3 of them changed\n"),
        "{ran:?}"
    );
    assert_eq!(cluster.hosts("up"), ["h4", "h5", "h7"]);
    // What needs python3 is told of the one that has none, and runs on the others.
    let ran = cluster.run(&[
        "exec",
        "--on",
        "*",
        "-k",
        "--",
        "python3",
        "-c",
        "print(6 * 7)",
    ]);
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (Some(1), "h4: 42\nh7: 42\n"),
        "{ran:?}"
    );
    let says = "h5: not started: no such command `python3` on host h5: install it there";
    assert!(ran.stderr.contains(says), "{ran:?}");
}

/// G3, G10: an upgrade ends no command, and waits for none.
#[test]
fn g10_an_upgrade_goes_on_under_long_commands() {
    let cluster = Cluster::start(plan(2));
    let head = cluster.fleet.head();
    let _ = cluster.done(&["deploy", "h[1-2]", "--slots", "16"]);
    // Another version, as far as its content says.
    let _ = head.sh("cp /usr/bin/fleetpool /root/newer && echo newer >>/root/newer");
    let mut words = vec![
        "map",
        "-j16",
        "--on",
        "h1",
        "-k",
        "echo >>/tmp/started; until test -e /tmp/go; do sleep 0.1; done; echo {}",
        ":::",
    ];
    let inputs: Vec<String> = (1..=16).map(|input| input.to_string()).collect();
    words.extend(inputs.iter().map(String::as_str));
    let map = start(head, &words);
    let h1 = cluster.fleet.host("h1");
    until("all run", || {
        h1.sh("cat /tmp/started 2>/dev/null | wc -l") == "16\n"
    });
    let version = "readlink /proc/$(cut -d' ' -f2 /var/lib/fleetpool/agent.pid)/exe; readlink /usr/local/bin/fleetpool";
    let before = h1.sh(version);
    // They all run, and will until it is over.
    let said = cluster.done(&["upgrade", "h[1-2]", "--program", "/root/newer"]);
    assert!(said.ends_with("2 hosts: 2 upgraded\n"), "{said}");
    assert_eq!(cluster.hosts("up"), ["h1", "h2"]);
    let after = h1.sh(version);
    let names: Vec<&str> = after.lines().collect();
    assert!(
        after != before && names.len() == 2 && names[0] == names[1],
        "{before} {after}"
    );
    let _ = h1.sh("touch /tmp/go");
    let ran = Ran::from(map.wait_with_output().unwrap());
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(ran.stdout.lines().collect::<Vec<_>>(), inputs);
    assert_eq!(h1.sh("cat /tmp/started | wc -l"), "16\n");
    let said = cluster.done(&["upgrade", "h[1-2]", "--program", "/root/newer"]);
    assert!(said.ends_with("2 hosts: 0 upgraded\n"), "{said}");
}

/// G3, G10: an upgrade ends no function, waits for none, and nothing runs again.
#[test]
fn g10_an_upgrade_goes_on_under_a_pool_of_functions() {
    let cluster = Cluster::start(plan(2).program("chaos", built("chaos")));
    let head = cluster.fleet.head();
    let hosts = ["h1", "h2"].map(|host| cluster.fleet.host(host));
    let _ = cluster.done(&["deploy", "h[1-2]", "--slots", "1"]);
    let _ = head.sh("cp /usr/bin/fleetpool /root/newer && echo newer >>/root/newer");
    // The first of very many does not end.
    let _ = hosts.map(|host| host.sh("touch /tmp/hold"));
    let tally = "exec chaos tally /tmp 20000000 head:7700 .config/fleetpool/identity >/tmp/told";
    let tally = head.command("sh").args(["-c", tally]).spawn().unwrap();
    let told = || {
        let told = head.sh("tail -n1 /tmp/told");
        told.trim().parse::<u64>().unwrap_or_default()
    };
    let workers = || hosts.map(|host| host.sh("pgrep -f '[/]programs/' || true"));
    let all_work = || workers().iter().all(|pids| !pids.is_empty());
    until("both work", || told() > 0 && all_work());
    let before = workers();
    let said = cluster.done(&["upgrade", "h[1-2]", "--program", "/root/newer"]);
    assert!(said.ends_with("2 hosts: 2 upgraded\n"), "{said}");
    // More than what the old agents had brought.
    let far = told() + 100_000;
    until("results come from the new ones", || told() > far);
    let after = workers();
    let goes_on = before.iter().zip(&after).any(|(then, now)| then == now);
    assert!(goes_on, "the worker of the first: {before:?} {after:?}");
    let _ = hosts.map(|host| host.sh("rm /tmp/hold"));
    let _ = head.sh("touch /tmp/enough");
    let ended = Ran::from(tally.wait_with_output().unwrap());
    assert_eq!(ended.code, Some(0), "each result came once: {ended:?}");
    let ran = hosts.map(|host| host.sh("stat -c %s /tmp/ran"));
    let ran = ran.map(|bytes| bytes.trim().parse::<u64>().unwrap());
    eprintln!("calls on each host: {ran:?}");
    assert_eq!(ran.iter().sum::<u64>(), told(), "each ran once");
}

/// G10: what another boot of the host has left is not taken for what runs.
#[test]
fn g10_a_host_that_boots_again_begins_anew() {
    let cluster = Cluster::start(plan(1).systemd());
    let _ = cluster.done(&["deploy", "h1", "--slots", "4"]);
    let task = "echo >>/var/tmp/started; until test -e /var/tmp/go; do sleep 0.1; done; echo {}";
    let words = ["map", "-j2", "--on", "h1", "-k", task, ":::", "1", "2"];
    let map = start(cluster.fleet.head(), &words);
    let h1 = cluster.fleet.host("h1");
    let begun = |times: &str| h1.sh("cat /var/tmp/started 2>/dev/null | wc -l") == times;
    until("both run", || begun("2\n"));
    // An agent that is killed is nothing to them.
    let _ = h1.sh("kill -KILL $(systemctl show -p MainPID --value fleetpool-agent)");
    until("systemd starts it again", || {
        h1.sh("systemctl show -p NRestarts --value fleetpool-agent") == "1\n"
    });
    until("it is there", || cluster.hosts("up") == ["h1"]);
    h1.power_off();
    h1.boot();
    within(4 * PATIENCE, "both run again", || begun("4\n"));
    let _ = h1.sh("touch /var/tmp/go");
    let ran = Ran::from(map.wait_with_output().unwrap());
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (Some(0), "1\n2\n"),
        "{ran:?}"
    );
    assert!(begun("4\n"));
}

#[test]
fn an_upgrade_that_does_not_come_up_goes_back_and_stops() {
    let cluster = Cluster::start(plan(2));
    let _ = cluster.done(&["deploy", "h[1-2]"]);
    // It can say its version, and no more.
    let _ = cluster.fleet.head().sh(
        "printf '#!/bin/sh\\ntest \"$1\" = --version\\n' >/root/broken; chmod 755 /root/broken",
    );
    let ran = cluster.run(&["upgrade", "h[1-2]", "--program", "/root/broken"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(
        ran.stderr.contains("h1: ") && ran.stderr.contains("is back"),
        "{ran:?}"
    );
    assert!(
        ran.stderr.contains("stopped: 1 host left as they are, h2"),
        "{ran:?}"
    );
    assert_eq!(
        cluster.done(&["exec", "--on", "*", "-k", "--", "hostname"]),
        "h1: h1\nh2: h2\n"
    );
}

/// G6: what another user has started is ended, too.
#[test]
fn roots_agents_run_tasks_as_other_users() {
    let cluster = Cluster::start(plan(2));
    let _ = cluster.done(&["deploy", "h1", "--run-as", "root"]);
    let _ = cluster.done(&["deploy", "h2"]);
    let said = cluster.done(&[
        "exec",
        "--on",
        "h1",
        "--user",
        "ada",
        "--",
        "id -un; echo $HOME; id -Gn; pwd",
    ]);
    assert_eq!(said, "h1: ada\nh1: /home/ada\nh1: ada\nh1: /home/ada\n");
    let ran = cluster.run(&[
        "exec",
        "--on",
        "h1",
        "--user",
        "ada",
        "--timeout",
        "1s",
        "--",
        "setsid sleep 6546 & sleep 6546",
    ]);
    assert_eq!(ran.code, Some(124), "{ran:?}");
    let h1 = cluster.fleet.host("h1");
    until("nothing of it runs", || {
        h1.processes()
            .iter()
            .all(|line| !line.contains("sleep 6546"))
    });
    let ran = cluster.run(&[
        "exec",
        "--on",
        "*",
        "-k",
        "--user",
        "nobody-such",
        "--",
        "true",
    ]);
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(
        ran.stderr
            .contains("there is no user nobody-such on this host"),
        "{ran:?}"
    );
    let ran = cluster.run(&["exec", "--on", "h2", "--user", "ada", "--", "true"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(
        ran.stderr
            .contains("deploy it with --run-as root, or say `sudo -n -u ada` in front of"),
        "{ran:?}"
    );
}
