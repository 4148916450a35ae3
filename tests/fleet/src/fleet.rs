//! A fleet, and what it is to be.

use std::{collections::BTreeMap, path::PathBuf};

use anyhow::Result;

use crate::{host::Host, yard::Yard};

/// The network of all hosts, and the one that only the jump host reaches from there.
const NETWORKS: (&str, &str) = ("br0", "br1");

/// The hosts that have systemd as their first process.
#[derive(Clone, Debug, Default)]
enum Systemd {
    #[default]
    Nowhere,
    On(Vec<String>),
    Everywhere,
}

impl Systemd {
    fn is_on(&self, host: &str) -> bool {
        match self {
            Self::Nowhere => false,
            Self::On(hosts) => hosts.iter().any(|named| named == host),
            Self::Everywhere => true,
        }
    }
}

/// What a fleet is to be; [`start`](Self::start) starts it.
#[derive(Clone, Debug, Default)]
#[must_use = "a fleet is started by start()"]
pub struct Plan {
    hosts: usize,
    behind_jump: Vec<String>,
    systemd: Systemd,
    programs: Vec<(PathBuf, String)>,
}

impl Plan {
    /// This host is on a network of its own, and reached through a host called `jump`.
    pub fn behind_jump(mut self, host: &str) -> Self {
        self.behind_jump.push(host.to_owned());
        self
    }

    /// Every host but the head and the jump host has systemd as its first process.
    pub fn systemd(mut self) -> Self {
        self.systemd = Systemd::Everywhere;
        self
    }

    /// These hosts do.
    pub fn systemd_on(mut self, hosts: &[&str]) -> Self {
        let hosts = hosts.iter().map(|host| (*host).to_owned());
        self.systemd = Systemd::On(hosts.collect());
        self
    }

    /// The head, and nobody else, has this file of the machine as a program of that name.
    pub fn program(mut self, name: &str, file: impl Into<PathBuf>) -> Self {
        self.programs.push((file.into(), name.to_owned()));
        self
    }

    /// Starts it: back when every host can be logged in to.
    ///
    /// # Errors
    /// When this machine lacks something for it; says what.
    pub fn start(self) -> Result<Fleet> {
        let yard = Yard::start()?;
        let mut names = vec!["head".to_owned()];
        yard.ask(&format!("make head 10.77.0.2 {}", NETWORKS.0))?;
        if !self.behind_jump.is_empty() {
            yard.ask(&format!("make jump 10.77.0.3 {}", NETWORKS.0))?;
            names.push("jump".to_owned());
        }
        for number in 1..=self.hosts {
            let name = format!("h{number}");
            let at = number + 10;
            let place = if self.behind_jump.contains(&name) {
                format!("10.78.0.{at} {}", NETWORKS.1)
            } else {
                format!("10.77.0.{at} {}", NETWORKS.0)
            };
            let options = if self.systemd.is_on(&name) {
                "systemd"
            } else {
                ""
            };
            yard.ask(&format!("make {name} {place} {options}"))?;
            names.push(name);
        }
        for (file, name) in &self.programs {
            let file = std::fs::canonicalize(file)?;
            yard.ask(&format!("lend head {} /usr/bin/{name}", file.display()))?;
        }
        yard.ask(&format!("acquaint {}", self.behind_jump.join(" ")))?;
        let fleet = Fleet { yard, names };
        fleet.boot()?;
        Ok(fleet)
    }
}

/// Hosts that are up, until this is dropped.
#[derive(Debug)]
pub struct Fleet {
    pub(crate) yard: Yard,
    names: Vec<String>,
}

impl Fleet {
    /// A head and so many hosts, `h1` and on.
    ///
    /// # Errors
    /// As [`Plan::start`].
    pub fn of(hosts: usize) -> Result<Self> {
        Self::plan(hosts).start()
    }

    /// The same, with something to be said of them first.
    pub fn plan(hosts: usize) -> Plan {
        Plan {
            hosts,
            ..Plan::default()
        }
    }

    /// Where people sit: it has the keys to all others, and the programs under test.
    #[must_use]
    pub fn head(&self) -> Host<'_> {
        self.host("head")
    }

    /// One of them.
    ///
    /// # Panics
    /// When there is none of that name.
    #[must_use]
    pub fn host(&self, name: &str) -> Host<'_> {
        let name = self.names.iter().find(|known| *known == name);
        Host {
            fleet: self,
            name: name.expect("a host of this fleet"),
        }
    }

    /// What is on each host, to be compared with what is there later; the head and the jump host aside.
    #[must_use]
    pub fn listings(&self) -> BTreeMap<String, Vec<String>> {
        let hosts = self
            .names
            .iter()
            .filter(|name| name.starts_with('h') && *name != "head");
        hosts
            .map(|name| (name.clone(), self.host(name).listing()))
            .collect()
    }

    /// What is not as it was at an earlier [`listings`](Self::listings): `h1: + /root/new …`, `h1: - /etc/old …`.
    #[must_use]
    pub fn changes_since(&self, before: &BTreeMap<String, Vec<String>>) -> Vec<String> {
        let mut changes = Vec::new();
        for (host, now) in self.listings() {
            let old = before.get(&host).map_or(&[][..], Vec::as_slice);
            let new = now.iter().filter(|line| !old.contains(line));
            changes.extend(new.map(|line| format!("{host}: + {line}")));
            let gone = old.iter().filter(|line| !now.contains(line));
            changes.extend(gone.map(|line| format!("{host}: - {line}")));
        }
        changes
    }

    /// All at once, then each is waited for.
    fn boot(&self) -> Result<()> {
        for name in &self.names {
            self.yard.ask(&format!("boot {name}"))?;
        }
        for name in &self.names {
            self.yard.wait_for(name)?;
        }
        Ok(())
    }
}
