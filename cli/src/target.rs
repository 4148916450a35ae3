//! Which cluster: what the command line names, or the environment, or the configuration file, or one embedded in this process.

use std::path::{Path, PathBuf};

use clap::Args;
use fleetpool::{
    cluster::{Arrivals, Cluster, Farewell},
    config::{self, Place},
    groups,
};
use fleetpool_deploy::{Destination, Program};
use fleetpool_net::{Address, Identity};

use crate::{
    commands::hosts::On,
    failure::{Failure, say},
};

/// Options that every verb takes.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct ClusterArgs {
    /// The cluster: HOST:PORT, unix:/PATH, or `local` for this machine alone [env: FLEETPOOL_CLUSTER]
    #[arg(long, global = true, value_name = "ADDR", help_heading = "Cluster")]
    cluster: Option<String>,
    /// In place of a cluster, these hosts, whose agents are started over ssh for this one run: web[01-08], ada@web1, @rack1
    /// [env: FLEETPOOL_HOSTS]
    #[arg(
        id = "over_ssh",
        long = "hosts",
        global = true,
        value_name = "NODESET",
        conflicts_with = "cluster",
        help_heading = "Cluster"
    )]
    hosts: Option<String>,
    /// Folder of the identity to use [default: ~/.config/fleetpool/identity]
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "FLEETPOOL_IDENTITY",
        hide_env_values = true,
        help_heading = "Cluster"
    )]
    identity: Option<PathBuf>,
}

/// A cluster that was chosen.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// Where it is; none: embedded.
    pub(crate) address: Option<Address>,
    /// Hosts that are to be one for this run, in place of an address.
    pub(crate) hosts: Vec<Destination>,
    /// Where this client's identity is.
    pub(crate) identity: PathBuf,
}

impl ClusterArgs {
    /// Where the identity is, or is to be.
    ///
    /// # Errors
    /// When there is no home folder to look in.
    pub(crate) fn identity_dir(&self) -> Result<PathBuf, Failure> {
        match &self.identity {
            Some(dir) => Ok(dir.clone()),
            None => Ok(config_dir()?.join("identity")),
        }
    }

    /// The folder of an agent: the one that was named, or one beside the user's own identity.
    ///
    /// # Errors
    /// When there is no home folder to look in.
    pub(crate) fn agent_dir(&self) -> Result<PathBuf, Failure> {
        match &self.identity {
            Some(dir) => Ok(dir.clone()),
            None => Ok(config_dir()?.join("agent")),
        }
    }

    /// The folder of the coordinator's own files: the one that was named, or one within the identity's.
    ///
    /// # Errors
    /// When there is no home folder to look in.
    pub(crate) fn state_dir(&self, named: Option<&Path>) -> Result<PathBuf, Failure> {
        match named {
            Some(dir) => Ok(dir.to_owned()),
            None => Ok(self.identity_dir()?.join("coordinator")),
        }
    }

    /// Whether the identity's folder was named.
    pub(crate) fn names_identity(&self) -> bool {
        self.identity.is_some()
    }

    /// Chooses.
    ///
    /// # Errors
    /// When an address, the hosts or the configuration file make no sense.
    pub(crate) fn target(&self) -> Result<Target, Failure> {
        let place = Place::choose(self.cluster.as_deref(), self.hosts.as_deref());
        let (address, hosts) = match place.map_err(Failure::usage)? {
            Place::At(name) => (Some(name.parse().map_err(Failure::usage)?), Vec::new()),
            Place::Hosts(hosts) => (None, groups::destinations(&hosts).map_err(Failure::usage)?),
            _ => (None, Vec::new()),
        };
        // Without a home there may be nothing to identify with; only a cluster elsewhere asks.
        let identity = self.identity_dir().or_else(|failure| match &address {
            None => Ok(PathBuf::new()),
            Some(_) => Err(failure),
        })?;
        Ok(Target {
            address,
            hosts,
            identity,
        })
    }
}

impl Target {
    /// Of hosts that are logged in to, only those that the selector names.
    ///
    /// # Errors
    /// When it names none of them.
    pub(crate) fn only(mut self, on: &On) -> Result<Self, Failure> {
        let all = std::mem::take(&mut self.hosts);
        let any = !all.is_empty();
        for host in all {
            if on.names(host.name())? {
                self.hosts.push(host);
            }
        }
        if any && self.hosts.is_empty() {
            return Err(on.nothing_matched());
        }
        Ok(self)
    }

    /// Opens a session with it; an embedded one gets `slots`, lives on this runtime, and is to be seen off.
    ///
    /// # Errors
    /// When it cannot be reached or does not let us in.
    pub(crate) async fn connect_here(
        &self,
        slots: Option<u16>,
    ) -> Result<(Cluster, Option<Farewell>), Failure> {
        if self.address.is_some() {
            return Ok((self.connect().await?, None));
        }
        if !self.hosts.is_empty() {
            let (cluster, mut arrivals, farewell) = self.gather().await?;
            tokio::spawn(async move { tell(&mut arrivals).await });
            return Ok((cluster, Some(farewell)));
        }
        let embedded = Cluster::embedded_here(slots).await;
        let (cluster, farewell) = embedded.map_err(Failure::fleetpool)?;
        Ok((cluster, Some(farewell)))
    }

    /// A cluster of the hosts for this run, on this runtime; they join as they come.
    ///
    /// # Errors
    /// When this program cannot be read.
    pub(crate) async fn gather(&self) -> Result<(Cluster, Arrivals, Farewell), Failure> {
        let program = Program::own().map_err(Failure::fleetpool)?;
        let gathered = Cluster::ad_hoc_here(self.hosts.clone(), program).await;
        gathered.map_err(Failure::fleetpool)
    }

    /// Opens a session with it.
    ///
    /// # Errors
    /// When it cannot be reached or does not let us in.
    pub(crate) async fn connect(&self) -> Result<Cluster, Failure> {
        if !self.hosts.is_empty() {
            return Err(Failure::usage(
                "--hosts is for map, exec, run and hosts, which need a cluster only while they run; name one that stays with --cluster",
            ));
        }
        let Some(address) = &self.address else {
            return Cluster::embedded(None).map_err(Failure::fleetpool);
        };
        let identity = match address {
            Address::Unix(_) => None,
            Address::Tcp(_) => Some(Identity::load(&self.identity).map_err(Failure::fleetpool)?),
        };
        let connected = Cluster::connect(address, identity.as_ref()).await;
        connected.map_err(Failure::fleetpool)
    }

    /// Opens a session with a cluster that is no embedded one.
    ///
    /// # Errors
    /// Also when none was named.
    pub(crate) async fn connect_remote(&self, why: &str) -> Result<Cluster, Failure> {
        if self.address.is_none() && self.hosts.is_empty() {
            return Err(Failure::usage(format!(
                "{why} needs a cluster: name one with --cluster ADDR, $FLEETPOOL_CLUSTER, or `cluster = \"ADDR\"` in ~/.config/fleetpool/config.toml"
            )));
        }
        self.connect().await
    }
}

/// Tells of hosts that cannot be had, or not any more, while the others go on.
pub(crate) async fn tell(arrivals: &mut Arrivals) {
    while let Some(arrival) = arrivals.next().await {
        if let Some(note) = arrival.note() {
            say(&note);
        }
    }
}

fn config_dir() -> Result<PathBuf, Failure> {
    config::folder()
        .ok_or_else(|| Failure::usage("there is no home folder to find an identity in: set HOME, or name the folder with --identity DIR"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_means_embedded() {
        let target = |cluster: &str| {
            let args = ClusterArgs {
                cluster: Some(cluster.into()),
                hosts: None,
                identity: Some("/i".into()),
            };
            args.target()
                .unwrap()
                .address
                .map(|address| address.to_string())
        };
        assert_eq!(target("local"), None);
        assert_eq!(target("head:7700"), Some("head:7700".into()));
        assert_eq!(target("unix:/run/f"), Some("unix:/run/f".into()));
    }
}
