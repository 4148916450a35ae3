//! A real cluster whose coordinator is killed, with SIGKILL, again and again (G10): nothing is lost, nothing is done twice, and
//! nobody has to say anything again.

use std::{
    collections::BTreeMap,
    fs,
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};

use fleetpool::cluster::PoolEvent;
use fleetpool_net::identity::Identity;
use fleetpool_proto::{
    command::{CommandTask, Word},
    frame::encode_header,
    pool::{PoolOptions, Spec},
};
use fleetpool_tests::{client::Client, cluster::Cluster};
use serde_json::Value;

fn results(lines: &[String]) -> BTreeMap<u64, Value> {
    let mut results = BTreeMap::new();
    for line in lines {
        let result: Value = serde_json::from_str(line).expect("an object a line");
        let index = result["index"].as_u64().expect("an index");
        let again = results.insert(index, result);
        assert_eq!(again, None, "task {index} has two results");
    }
    results
}

#[test]
fn g10_twenty_kills_of_the_coordinator_lose_no_task_and_repeat_none() {
    const TASKS: u64 = 4000;
    let mut cluster = Cluster::start(2, 4);
    let ran = tempfile::tempdir().expect("a folder");
    // Each task leaves a line, in one write: what ran twice is there twice.
    let note = format!(
        "echo {{}} >> {}/$FLEETPOOL_HOST; sleep 0.02; echo out {{}}",
        ran.path().display()
    );
    let inputs = fs::File::create(ran.path().join("inputs")).expect("a file");
    let numbers: Vec<String> = (0..TASKS).map(|number| number.to_string()).collect();
    std::io::Write::write_all(&mut &inputs, (numbers.join("\n") + "\n").as_bytes())
        .expect("written");
    let mut command = cluster.client();
    command
        .args(["map", "--json", "--shell", &note, "::::"])
        .arg(ran.path().join("inputs"));
    let client = Client::start(&mut command);
    let mut seen = Vec::new();
    for kill in 0..20 {
        // Some work between two kills, so that each falls into the middle of it.
        let enough = (kill + 1) * 100;
        while seen.len() < enough {
            seen.push(client.lines.recv().expect("it goes on"));
        }
        cluster.kill_coordinator();
        cluster.start_again();
    }
    let (rest, status) = client.end();
    seen.extend(rest);
    assert_eq!(status, 0);
    let results = results(&seen);
    assert_eq!(results.len() as u64, TASKS);
    for (index, result) in &results {
        assert_eq!(result["outcome"], "done", "task {index}");
        assert_eq!(
            result["stdout"],
            format!("out {index}\n"),
            "its lines, once"
        );
    }
    let ran_on = |host: &str| fs::read_to_string(ran.path().join(host)).unwrap_or_default();
    let mut ran: Vec<u64> = [ran_on("a1"), ran_on("a2")]
        .concat()
        .lines()
        .map(|line| line.parse().expect("a number"))
        .collect();
    ran.sort_unstable();
    assert_eq!(ran, (0..TASKS).collect::<Vec<_>>(), "each ran once");
}

#[test]
fn g10_twenty_kills_of_the_coordinator_among_very_many_functions() {
    /// More than can run until the last kill has been survived, on whatever machine.
    const TASKS_MAX: u64 = 50_000_000;
    // At least so many run; FLEETPOOL_RECOVERY_TASKS=1000000 takes ten seconds more.
    let asked = std::env::var("FLEETPOOL_RECOVERY_TASKS").ok();
    let tasks: u64 = asked.map_or(100_000, |tasks| tasks.parse().expect("a number"));
    let mut cluster = Cluster::start(2, 2);
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = Command::new(env!("CARGO_BIN_EXE_chaos"));
    command.arg("tally").arg(folder.path());
    command
        .arg(TASKS_MAX.to_string())
        .arg(cluster.address().to_string())
        .arg(cluster.folder().join("identity"));
    let client = Client::start(&mut command);
    let mut come: u64 = 0;
    let mut away = Vec::new();
    for kill in 1..=20 {
        while come < kill * tasks / 20 {
            let newest = client.lines.try_iter().last();
            let line = newest.unwrap_or_else(|| client.line());
            come = line.parse().expect("a number");
        }
        cluster.kill_coordinator();
        let start = Instant::now();
        cluster.start_again();
        // What was on its way has come, and then the first of what was not.
        let before = client.lines.try_iter().count();
        let _ = client.line();
        away.push((before, start.elapsed()));
        let log = cluster.coordinator_log();
        let read = log
            .lines()
            .rfind(|line| line.contains("the journal is read"));
        eprintln!("{}", read.expect("it says so"));
    }
    eprintln!("until results came again: {away:?}");
    fs::write(folder.path().join("enough"), "").expect("the folder is writable");
    let (last, status) = client.end();
    assert_eq!(status, 0, "each result came once");
    let come: u64 = last.last().expect("the sum").parse().expect("a number");
    assert!((tasks..TASKS_MAX).contains(&come), "{come}");
    let ran = fs::metadata(folder.path().join("ran")).expect("they ran");
    assert_eq!(ran.len(), come, "each ran once");
}

#[test]
fn g10_tasks_run_on_while_the_coordinator_is_away_and_exec_runs_nothing_twice() {
    let mut cluster = Cluster::start(2, 1);
    let ran = tempfile::tempdir().expect("a folder");
    let note = format!(
        "cd {}; echo began >> $FLEETPOOL_HOST; until [ -e go ]; do sleep 0.02; done; \
         echo done on $FLEETPOOL_HOST; touch $FLEETPOOL_HOST.done",
        ran.path().display()
    );
    let mut command = cluster.client();
    command.args(["exec", "--on", "a[1-2]", "--", "sh", "-c", &note]);
    let client = Client::start(&mut command);
    cluster.until("both have begun", |_| {
        ["a1", "a2"]
            .iter()
            .all(|host| ran.path().join(host).exists())
    });
    cluster.kill_coordinator();
    // They end while nobody is there to hear of it.
    fs::write(ran.path().join("go"), "").expect("written");
    cluster.until("both have ended", |_| {
        let done = |host: &&str| ran.path().join(format!("{host}.done")).exists();
        ["a1", "a2"].iter().all(done)
    });
    cluster.start_again();
    let (mut lines, status) = client.end();
    lines.sort();
    assert_eq!(status, 0);
    assert_eq!(lines, ["a1: done on a1", "a2: done on a2"]);
    for host in ["a1", "a2"] {
        let began = fs::read_to_string(ran.path().join(host)).expect("it ran");
        assert_eq!(began, "began\n");
    }
}

/// Longer than the lease, and than clients wait for a coordinator that was killed.
#[test]
fn g10_a_coordinator_that_is_stopped_on_purpose_costs_no_task_however_long_that_takes() {
    let mut cluster = Cluster::start_with_lease(1, 2, "2s");
    let ran = tempfile::tempdir().expect("a folder");
    let note = format!(
        "cd {}; echo began >> {{}}; until [ -e go ]; do sleep 0.02; done; echo done {{}}",
        ran.path().display()
    );
    let mut command = cluster.client();
    command.args(["map", "-k", "--shell", &note, ":::", "1", "2"]);
    let client = Client::start(&mut command);
    let began = |task: &str| fs::read_to_string(ran.path().join(task)).unwrap_or_default();
    cluster.until("both have begun", |_| {
        ["1", "2"].iter().all(|task| !began(task).is_empty())
    });
    cluster.stop_coordinator();
    sleep(Duration::from_secs(5));
    cluster.start_again();
    cluster.await_hosts(1);
    fs::write(ran.path().join("go"), "").expect("written");
    let (lines, status) = client.end();
    assert_eq!((lines.join(" ").as_str(), status), ("done 1 done 2", 0));
    assert_eq!(
        (began("1"), began("2")),
        ("began\n".into(), "began\n".into())
    );
}

#[test]
fn g4_a_client_that_was_away_when_its_job_was_cancelled_is_told() {
    let mut cluster = Cluster::start(1, 1);
    let mut command = cluster.client();
    command.args(["map", "sleep", ":::", "1000", "1001"]);
    let client = Client::start(&mut command);
    let jobs = |cluster: &Cluster| -> Value {
        let jobs = cluster.client().args(["jobs", "--json"]).output();
        serde_json::from_slice(&jobs.expect("it starts").stdout).unwrap_or_default()
    };
    cluster.until("the first task runs", |cluster| {
        jobs(cluster)[0]["granted"] == 1 && jobs(cluster)[0]["queued"] == 1
    });
    client.stop();
    cluster.kill_coordinator();
    cluster.start_again();
    cluster.await_hosts(1);
    let number = jobs(&cluster)[0]["id"].to_string();
    let cancelled = cluster.client().args(["cancel", &number]).status();
    assert!(cancelled.expect("it starts").success());
    cluster.until("it is over", |cluster| {
        jobs(cluster) == Value::Array(vec![])
    });
    // The successor's successor knows it, too.
    cluster.kill_coordinator();
    cluster.start_again();
    client.go_on();
    let notes: Vec<String> = client.notes.iter().collect();
    assert!(notes.concat().contains("cancelled"), "{notes:?}");
    assert_eq!(client.end(), (Vec::new(), 125));
}

/// It has nothing that the next coordinator could know of, and is let in as who it was.
#[tokio::test]
async fn g10_a_client_without_a_pool_goes_on_with_the_next_coordinator() {
    let mut cluster = Cluster::start(1, 1);
    let identity = Identity::load(&cluster.folder().join("identity")).expect("the admin's");
    let address = cluster.address().to_string().parse().expect("an address");
    let client = fleetpool::cluster::Cluster::connect(&address, Some(&identity)).await;
    let client = client.expect("it is there");
    for _ in 0..2 {
        cluster.kill_coordinator();
        cluster.start_again();
        let (submitter, mut events) = client.open(PoolOptions::default()).expect("it goes on");
        let spec = submitter.define(Spec::default());
        let argv = vec![Word::literal("true")];
        let task = encode_header(&CommandTask { argv });
        submitter
            .submit(spec, None, task)
            .await
            .expect("it is taken");
        submitter.close();
        let mut ended = 0;
        while let Some(event) = events.next().await {
            ended += usize::from(matches!(event, PoolEvent::Ended { .. }));
        }
        assert_eq!(ended, 1);
    }
}

#[test]
fn g6_a_client_that_is_killed_while_the_coordinator_is_away_leaves_nothing_for_long() {
    // Clients are waited for two leases long.
    let mut cluster = Cluster::start_with_lease(1, 1, "4s");
    let mut command = cluster.client();
    command.args(["map", "sleep", ":::", "1000"]);
    let mut client = Client::start(&mut command);
    cluster.until("the task runs", |cluster| {
        let jobs = cluster
            .client()
            .args(["hosts", "--json"])
            .output()
            .expect("it starts");
        let hosts: Value = serde_json::from_slice(&jobs.stdout).unwrap_or_default();
        hosts[0]["running"] == 1
    });
    cluster.kill_coordinator();
    client.kill();
    cluster.start_again();
    cluster.await_hosts(1);
    // Nobody is asked for it; it ends with the grace that clients have to come back.
    let start = Instant::now();
    loop {
        let jobs = cluster
            .client()
            .args(["jobs", "--json"])
            .output()
            .expect("it starts");
        let jobs: Value = serde_json::from_slice(&jobs.stdout).unwrap_or_default();
        if jobs.as_array().is_some_and(Vec::is_empty) {
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "{jobs}");
        sleep(Duration::from_millis(200));
    }
}
