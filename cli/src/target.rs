//! Which cluster: `--cluster`, else `$FLEETPOOL_CLUSTER`, else the configuration file, else one embedded in this
//! process.

use std::path::{Path, PathBuf};

use clap::Args;
use fleetpool::{
    cluster::{Cluster, Farewell},
    config::{self, Config, LOCAL},
};
use fleetpool_net::{Address, Identity};

use crate::failure::Failure;

/// Options that every verb takes.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct ClusterArgs {
    /// The cluster: HOST:PORT, unix:/PATH, or `local` for this machine alone
    #[arg(
        long,
        global = true,
        value_name = "ADDR",
        env = "FLEETPOOL_CLUSTER",
        hide_env_values = true,
        help_heading = "Cluster"
    )]
    cluster: Option<String>,
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
    /// When an address or the configuration file makes no sense.
    pub(crate) fn target(&self) -> Result<Target, Failure> {
        let named = match &self.cluster {
            Some(cluster) => Some(cluster.clone()),
            None => Config::load().map_err(Failure::usage)?.cluster,
        };
        let address = named.filter(|name| !name.is_empty() && name != LOCAL);
        let address = address
            .map(|name| name.parse::<Address>())
            .transpose()
            .map_err(Failure::usage)?;
        // Without a home there may be nothing to identify with; an embedded cluster does not ask.
        let identity = self.identity_dir().or_else(|failure| match &address {
            None => Ok(PathBuf::new()),
            Some(_) => Err(failure),
        })?;
        Ok(Target { address, identity })
    }
}

impl Target {
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
        let embedded = Cluster::embedded_here(slots).await;
        let (cluster, farewell) = embedded.map_err(Failure::fleetpool)?;
        Ok((cluster, Some(farewell)))
    }

    /// Opens a session with it.
    ///
    /// # Errors
    /// When it cannot be reached or does not let us in.
    pub(crate) async fn connect(&self) -> Result<Cluster, Failure> {
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
        if self.address.is_none() {
            return Err(Failure::usage(format!(
                "{why} needs a cluster: name one with --cluster ADDR, $FLEETPOOL_CLUSTER, or `cluster = \"ADDR\"` in ~/.config/fleetpool/config.toml"
            )));
        }
        self.connect().await
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
