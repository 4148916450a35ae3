//! A cluster on a fleet: a coordinator on the head, and agents where a test deploys them.

use std::{collections::BTreeMap, process::Stdio, time::Duration};

use fleetpool_test_fleet::{Fleet, Plan, Running};

use crate::support::{Ran, fleetpool, run, until};

/// Of every agent.
pub(crate) const LEASE: Duration = Duration::from_secs(5);

/// A fleet whose head has a coordinator, and an environment that names it.
pub(crate) struct Cluster {
    pub(crate) fleet: Fleet,
    coordinator: Running,
}

impl Cluster {
    pub(crate) fn start(plan: Plan) -> Self {
        let fleet = plan.start().unwrap();
        let head = fleet.head();
        let _ = head.sh("mkdir -p .config/fleetpool && echo 'cluster = \"head:7700\"' >.config/fleetpool/config.toml && fleetpool init");
        let lease = format!("{}s", LEASE.as_secs());
        // What it says nobody reads; a pipe that is full would stop it.
        let mut coordinator = fleetpool(head, &["coordinator", "--lease", &lease]);
        let coordinator = coordinator.stderr(Stdio::null()).spawn();
        let coordinator = coordinator.expect("it starts");
        until("the coordinator listens", || {
            run(head, &["status"]).code == Some(0)
        });
        Self { fleet, coordinator }
    }

    pub(crate) fn run(&self, words: &[&str]) -> Ran {
        run(self.fleet.head(), words)
    }

    /// Runs it, and it succeeds.
    #[track_caller]
    pub(crate) fn done(&self, words: &[&str]) -> String {
        let ran = self.run(words);
        assert_eq!(ran.code, Some(0), "{words:?}: {ran:?}");
        ran.stdout
    }

    /// Not a file has changed on any host, but what an agent that runs writes down all the time.
    #[track_caller]
    pub(crate) fn is_as(&self, before: &BTreeMap<String, Vec<String>>) {
        let is_journal = |line: &str| line.contains("/agent/agent.journal f ");
        let had_one = |host: &str| before[host].iter().any(|line| is_journal(line));
        let mut changes = self.fleet.changes_since(before);
        changes.retain(|change| {
            let host = change.split(':').next().unwrap_or_default();
            !(is_journal(change) && had_one(host))
        });
        assert_eq!(changes, Vec::<String>::new());
    }

    /// Every host's state and carrier, by name.
    pub(crate) fn carriers(&self) -> BTreeMap<String, String> {
        let said = self.done(&["hosts", "--json"]);
        let hosts: Vec<serde_json::Value> = serde_json::from_str(&said).unwrap();
        let text = |host: &serde_json::Value, field: &str| host[field].as_str().unwrap().to_owned();
        hosts
            .iter()
            .map(|host| {
                (
                    text(host, "name"),
                    format!("{} {}", text(host, "state"), text(host, "carrier")),
                )
            })
            .collect()
    }

    /// Names of the hosts in this state.
    pub(crate) fn hosts(&self, state: &str) -> Vec<String> {
        let said = self.done(&["hosts", "--json"]);
        let hosts: Vec<serde_json::Value> = serde_json::from_str(&said).unwrap();
        let named = hosts.iter().filter(|host| host["state"] == state);
        named
            .map(|host| host["name"].as_str().unwrap().to_owned())
            .collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = self.coordinator.kill();
        let _ = self.coordinator.wait();
    }
}
