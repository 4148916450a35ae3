//! Three ways to a coordinator.

use std::{io::Write as _, time::Instant};

use crate::{
    cluster::Cluster,
    support::{Ran, plan, start, until},
};

/// G3. UDP does not pass to `h3` from the start, and to `h4` from the middle of a run on; `h5` is behind a jump host, and reaches nobody.
#[test]
fn what_lets_ssh_through_will_do_and_every_result_comes_once() {
    let cluster = Cluster::start(plan(8).behind_jump("h5"));
    cluster.fleet.host("h3").drop_udp();
    let said = cluster.done(&["deploy", "h[1-8]"]);
    assert!(said.ends_with("8 hosts up, 8 of them changed\n"), "{said}");
    let by = |host: &str| cluster.carriers()[host].clone();
    assert_eq!(
        (by("h1"), by("h3"), by("h5")),
        ("up quic".into(), "up tcp".into(), "up ssh".into())
    );
    assert!(
        cluster
            .done(&["deploy", "h5"])
            .ends_with("1 host up, nothing was changed\n")
    );

    let inputs: Vec<String> = (1..=1000).map(|input| input.to_string()).collect();
    let mut words = vec!["map", "sleep 0.1; echo {} {host}", ":::"];
    words.extend(inputs.iter().map(String::as_str));
    let map = start(cluster.fleet.head(), &words);
    let h4 = cluster.fleet.host("h4");
    until("tasks run on h4", || {
        h4.processes()
            .iter()
            .any(|line| line.ends_with(" sleep 0.1"))
    });
    h4.drop_udp();
    let blocked = Instant::now();
    until("h4 is back by TCP", || by("h4") == "up tcp");
    let moved = blocked.elapsed();
    writeln!(std::io::stderr(), "UDP is blocked: moved in {moved:?}").ok();
    let ran = Ran::from(map.wait_with_output().unwrap());
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let mut printed: Vec<u32> = ran
        .stdout
        .lines()
        .map(|line| line.split(' ').next().unwrap().parse().unwrap())
        .collect();
    printed.sort_unstable();
    assert_eq!(printed, (1..=1000).collect::<Vec<_>>());
    for host in 1..=8 {
        assert!(
            ran.stdout.contains(&format!(" h{host}\n")),
            "nothing ran on h{host}"
        );
    }

    // The tunnel breaks; the agent stays, and so does its task.
    let long = start(
        cluster.fleet.head(),
        &["exec", "--on", "h5", "--", "sleep 4; echo whole"],
    );
    let h5 = cluster.fleet.host("h5");
    until("it runs", || {
        h5.processes().iter().any(|line| line.ends_with(" sleep 4"))
    });
    let _ = h5.sh("kill $(pgrep -f '[s]shd: root@notty')");
    let ran = Ran::from(long.wait_with_output().unwrap());
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (Some(0), "h5: whole\n"),
        "{ran:?}"
    );
    let said = cluster.done(&["undeploy", "h5"]);
    assert!(said.ends_with("1 host out of the fleet\n"), "{said}");
}
