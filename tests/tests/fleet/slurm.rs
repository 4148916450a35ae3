//! Agents as a Slurm job: the script in `deploy/slurm`, on a Slurm of Debian's with its controller on the head.

use std::{path::Path, process::Stdio, time::Duration};

use fleetpool_test_fleet::Host;

use crate::{
    cluster::Cluster,
    support::{Ran, plan, start, until, within},
};

const SCRIPT: &str = include_str!("../../../deploy/slurm/fleetpool-agents.sbatch");
const NODES: [&str; 3] = ["h1", "h2", "h3"];
/// What it takes of the machine, and the Debian package that has it.
const NEEDED: [(&str, &str); 4] = [
    ("/usr/sbin/slurmctld", "slurmctld"),
    ("/usr/sbin/slurmd", "slurmd"),
    ("/usr/bin/sbatch", "slurm-client"),
    ("/usr/sbin/munged", "munge"),
];
/// Without cgroups, which hosts in namespaces do not have to themselves.
const CONFIGURATION: &str = "
ClusterName=lab
SlurmctldHost=head
SlurmUser=root
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SchedulerType=sched/builtin
StateSaveLocation=/var/spool/slurmctld
SlurmdSpoolDir=/var/spool/slurmd
SlurmctldLogFile=/var/log/slurmctld.log
SlurmdLogFile=/var/log/slurmd.log
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd.pid
NodeName=h[1-3] CPUs=2
PartitionName=all Nodes=ALL Default=YES
";

/// A cluster without an agent, and a Slurm on the same hosts, whose nodes are idle.
fn slurm() -> Cluster {
    let lacks = |(file, _): &&(&str, &str)| !Path::new(file).exists();
    let missing: Vec<&str> = NEEDED
        .iter()
        .filter(lacks)
        .map(|(_, package)| *package)
        .collect();
    assert!(
        missing.is_empty(),
        "Slurm needs {}: `make slurm-packages` installs what is missing",
        missing.join(", ")
    );
    let cluster = Cluster::start(plan(NODES.len()));
    let head = cluster.fleet.head();
    start_daemon(head, "slurmctld");
    for node in NODES {
        let _ = head.sh(&format!("scp -q /usr/bin/fleetpool {node}:/usr/local/bin/"));
        start_daemon(cluster.fleet.host(node), "slurmd");
    }
    until("all nodes are idle", || {
        head.sh("sinfo -h -N -o %t || true") == "idle\n".repeat(NODES.len())
    });
    cluster
}

fn start_daemon(on: Host<'_>, daemon: &str) {
    let _ = on.sh(&format!(
        "mkdir -p /run/munge /var/log/munge /var/spool/{daemon}
        chown munge:munge /run/munge /var/log/munge
        setpriv --reuid=munge --regid=munge --init-groups munged
        echo CgroupPlugin=cgroup/v1 >/etc/slurm/cgroup.conf
        cat >/etc/slurm/slurm.conf <<'END'{CONFIGURATION}END
        {daemon}"
    ));
}

/// What ada, who is nobody's admin, does on the head.
#[track_caller]
fn ada(cluster: &Cluster, words: &[&str]) -> String {
    let mut command = cluster.fleet.head().command(words[0]);
    command.user("ada");
    let output = command.args(&words[1..]).stdin(Stdio::null()).output();
    let ran = Ran::from(output.expect("it starts"));
    assert_eq!(ran.code, Some(0), "{words:?}: {ran:?}");
    ran.stdout.trim_end().to_owned()
}

/// What ada runs on a node.
fn processes(node: Host<'_>) -> Vec<String> {
    let mut all = node.processes();
    all.retain(|line| line.starts_with("ada "));
    all
}

/// G6.
#[test]
fn a_slurm_job_is_an_agent_a_node_and_leaves_nothing_when_it_is_cancelled() {
    let cluster = slurm();
    let nodes = NODES.map(|node| cluster.fleet.host(node));
    let token = cluster.done(&["token", "create", "--uses", "3"]);
    let _ = nodes[0].sh(&format!(
        "umask 077; echo {} >/home/ada/token; chown ada: /home/ada/token",
        token.trim()
    ));
    let script = "/home/ada/fleetpool-agents.sbatch";
    let head = cluster.fleet.head();
    let _ = head.sh(&format!("cat >{script} <<'SCRIPT'\n{SCRIPT}SCRIPT"));
    let before = cluster.fleet.listings();

    let job = ada(
        &cluster,
        &[
            "sbatch",
            "--parsable",
            "--nodes=3",
            script,
            "head:7700",
            "token",
        ],
    );
    until("an agent is up on every node", || {
        cluster.hosts("up") == NODES
    });
    let on = format!("slurm_job={job}");
    let map = [
        "map",
        "-k",
        "-j6",
        "--on",
        &on,
        "echo {} $(id -un); sleep 0.2",
        ":::",
    ];
    let printed = cluster.done(&[&map[..], &["1", "2", "3", "4", "5", "6"]].concat());
    assert_eq!(printed, "1 ada\n2 ada\n3 ada\n4 ada\n5 ada\n6 ada\n");

    let mut client = start(
        head,
        &[
            "exec",
            "--on",
            &on,
            "--",
            "setsid sleep 6543 & sleep 6544; :",
        ],
    );
    until("a task and its grandchild run on every node", || {
        let sleeps = |node: &Host<'_>| {
            let is_sleep = |line: &String| line.starts_with("ada sleep 654");
            processes(*node)
                .iter()
                .filter(|line| is_sleep(line))
                .count()
        };
        nodes.iter().all(|node| sleeps(node) == 2)
    });
    for node in nodes {
        let folder = node.sh(&format!(
            "cd /tmp/fleetpool-agent-{job}.* && stat -c '%U %a' . && ls *.pem"
        ));
        assert_eq!(folder, "ada 700\nca.pem\ncert.pem\nkey.pem\n");
    }

    let _ = ada(&cluster, &["scancel", &job]);
    within(Duration::from_secs(5), "no process is left", || {
        nodes.iter().all(|node| processes(*node).is_empty())
    });
    until("the job is over", || head.sh("squeue -h").is_empty());
    client.kill().unwrap();
    client.wait().unwrap();
    // The job's log, and Slurm's own.
    let mut new = cluster.fleet.changes_since(&before);
    new.retain(|line| !line.contains(" /var/spool/slurmd"));
    let log = format!("h1: + /home/ada/fleetpool-agents-{job}.log ");
    assert!(new.len() == 1 && new[0].starts_with(&log), "{new:?}");
}
