//! No cgroup outlives what it was made for (G6): not the keeper of a slot, not the agent, however it ends. Needs root, and the
//! kernel's first interface.

use std::{fs, path::PathBuf, process::Command};

use fleetpool_tests::{
    cgroup::{cgroup_of, leaves, spawner_of, tasks_of},
    cluster::Cluster,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

fn send(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).expect("a pid"));
    kill(pid, signal).expect("it runs");
}

/// All tasks' cgroups of a spawner, one a hierarchy.
fn groups(spawner: u32) -> [PathBuf; 2] {
    ["memory", "pids"].map(|controller| tasks_of(spawner, controller))
}

fn is_gone(groups: &[PathBuf]) -> bool {
    groups.iter().all(|group| !group.exists())
}

fn succeeds(command: &mut Command) {
    let output = command.output().expect("it starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {stderr}");
}

/// As many tasks as there are slots and more, each in a leaf of its slot.
fn run_some(cluster: &Cluster) {
    let mut some = cluster.client();
    some.args(["map", "-q", "--shell", "sleep 0.01; true {}", ":::"]);
    succeeds(some.args((0..20).map(|number| number.to_string())));
}

#[test]
fn g6_keepers_have_a_cgroup_each_and_none_is_left_when_their_pools_are_over() {
    let cluster = Cluster::start(1, 3);
    let spawner = spawner_of(cluster.agent_pid(0));
    let hosts = cluster.client().args(["hosts", "--json"]).output();
    let hosts: Value = serde_json::from_slice(&hosts.expect("it starts").stdout).expect("an array");
    assert_eq!(hosts[0]["containment"], "cgroup v1");
    let limits = hosts[0]["limits"].as_str().expect("text");
    assert!(limits.contains(" processes a task, "), "{limits}");
    assert!(limits.ends_with(" GiB for all tasks"), "{limits}");

    let mut three = cluster.client();
    // Each waits until all have begun.
    let folder = tempfile::tempdir().expect("a folder");
    let own = format!(
        "cd {}; touch {{}}; until [ $(ls | wc -l) = 3 ]; do sleep 0.02; done; grep -E ':(pids|memory):' /proc/self/cgroup",
        folder.path().display()
    );
    three.args([
        "map", "-q", "-j", "3", "--no-tag", "--shell", &own, ":::", "1", "2", "3",
    ]);
    let output = three.output().expect("it starts");
    let text = String::from_utf8(output.stdout).expect("text");
    let mut own: Vec<&str> = text.lines().collect();
    assert_eq!(own.len(), 6, "{text}");
    own.sort_unstable();
    own.dedup();
    assert_eq!(own.len(), 6, "three slots, two hierarchies: {text}");
    assert!(
        own.iter().all(|line| line.contains("/fleetpool-")),
        "{text}"
    );
    // The spawner's own stays.
    cluster.until("its leaves are gone", |_| {
        groups(spawner).iter().all(|group| leaves(group).len() == 1)
    });
}

#[test]
fn g6_no_cgroup_is_left_when_an_agent_ends_in_whatever_way() {
    let cluster = Cluster::start(2, 2);
    run_some(&cluster);
    for (number, signal) in [(0, Signal::SIGTERM), (1, Signal::SIGKILL)] {
        let agent = cluster.agent_pid(number);
        let groups = groups(spawner_of(agent));
        assert!(!is_gone(&groups));
        send(agent, signal);
        cluster.until("its cgroups are gone", |_| is_gone(&groups));
    }
}

#[test]
fn g6_an_agent_removes_what_another_has_left_that_was_killed_with_its_spawner() {
    let mut cluster = Cluster::start(1, 2);
    run_some(&cluster);
    let agent = cluster.agent_pid(0);
    let spawner = spawner_of(agent);
    let before = groups(spawner);
    // It is not to start another spawner.
    send(agent, Signal::SIGSTOP);
    send(spawner, Signal::SIGKILL);
    send(agent, Signal::SIGKILL);
    cluster.start_agent_again(0, "a1", 2);
    cluster.until("another is there", |cluster| {
        cluster.log_of("a1").contains("tasks are held")
    });
    run_some(&cluster);
    cluster.until("what was left is gone", |_| is_gone(&before));
    let after = groups(spawner_of(cluster.agent_pid(0)));
    assert!(!is_gone(&after));
}

#[test]
fn g6_a_spawner_that_is_killed_leaves_nothing_to_the_next_one() {
    let cluster = Cluster::start(1, 2);
    let agent = cluster.agent_pid(0);
    let spawner = spawner_of(agent);
    let before = groups(spawner);
    send(spawner, Signal::SIGKILL);
    run_some(&cluster);
    let next = spawner_of(agent);
    assert_ne!(next, spawner);
    cluster.until("what was left is gone", |_| is_gone(&before));
    assert!(!is_gone(&groups(next)), "tasks are held as before");
}

#[test]
fn g10_commands_stay_where_they_are_when_their_agent_is_replaced() {
    let mut cluster = Cluster::bare();
    cluster.add_agent_with_spawner("a1", 2);
    cluster.await_hosts(1);
    let spawner = cluster.spawner_pid(0);
    let groups = groups(spawner);
    let folder = tempfile::tempdir().expect("a folder");
    let [pid, go] = ["pid", "go"].map(|name| folder.path().join(name));
    let wait = format!(
        "echo $$ >{}; until [ -e {} ]; do sleep 0.05; done; grep :pids: /proc/self/cgroup; : {{}}",
        pid.display(),
        go.display()
    );
    let mut long = cluster.client();
    long.args([
        "map", "-q", "-j", "1", "--no-tag", "--shell", &wait, ":::", "1",
    ]);
    let long = fleetpool_tests::client::Client::start(&mut long);
    let number = || fs::read_to_string(&pid).ok()?.trim().parse::<u32>().ok();
    cluster.until("it runs", |_| number().is_some());
    let before = cgroup_of(number().expect("a pid"), "pids");
    assert_eq!(before.parent(), Some(groups[1].as_path()));
    cluster.replace_agent(0, "a1", 2);
    run_some(&cluster);
    assert_eq!(cgroup_of(number().expect("a pid"), "pids"), before);
    fs::write(&go, "").expect("writable");
    let (lines, status) = long.end();
    assert_eq!(status, 0);
    let path = before.display().to_string();
    let path = path
        .strip_prefix("/sys/fs/cgroup/pids")
        .expect("mounted there");
    assert!(lines[0].ends_with(path), "{lines:?}, {path}");
    send(spawner, Signal::SIGTERM);
    cluster.until("its cgroups are gone", |_| is_gone(&groups));
}

#[test]
fn g6_what_a_task_may_leave_behind_keeps_its_cgroup_as_long_as_it_lives() {
    let cluster = Cluster::start(1, 1);
    let agent = cluster.agent_pid(0);
    let groups = groups(spawner_of(agent));
    let mut leave = cluster.client();
    let script = "setsid sleep 1000 >/dev/null 2>&1 & echo $!; : {}";
    leave.args([
        "map",
        "-q",
        "--no-tag",
        "--leave-children",
        "--shell",
        script,
        ":::",
        "1",
    ]);
    let output = leave.output().expect("it starts");
    let left: u32 = String::from_utf8(output.stdout)
        .expect("text")
        .trim()
        .parse()
        .expect("a pid");
    let leaf = cgroup_of(left, "pids");
    assert_eq!(leaf.parent(), Some(groups[1].as_path()));
    run_some(&cluster);
    assert_eq!(cgroup_of(left, "pids"), leaf);
    send(left, Signal::SIGKILL);
    cluster.until("its leaf is gone", |_| !leaf.exists());
    assert!(!is_gone(&groups));
}
