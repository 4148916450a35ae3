//! The user's configuration file, and which cluster when the program does not say.
//!
//! This is the one definition of the file. The command line reads it through here, for which it is public; programs
//! have no use for it.

use std::{
    collections::BTreeMap,
    env,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::error::Error;

/// Says "no cluster" where the environment or the configuration name one.
pub const LOCAL: &str = "local";
/// Names a cluster's address where the program does not.
pub const CLUSTER_ENV: &str = "FLEETPOOL_CLUSTER";
/// Names hosts where nothing names a cluster.
pub const HOSTS_ENV: &str = "FLEETPOOL_HOSTS";

/// What `~/.config/fleetpool/config.toml` says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Config {
    /// The cluster's address.
    pub cluster: Option<String>,
    /// Groups of hosts: selectors by name.
    #[serde(default)]
    pub groups: BTreeMap<String, String>,
    /// A command that prints the hosts of `$GROUP`.
    pub groups_command: Option<String>,
}

impl Config {
    /// Reads the user's file; without one nothing is said.
    ///
    /// # Errors
    /// When there is a file that cannot be read or makes no sense.
    pub fn load() -> Result<Self, Error> {
        match file() {
            Some(file) => Self::read(&file),
            None => Ok(Self::default()),
        }
    }

    fn read(path: &Path) -> Result<Self, Error> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self::default());
            }
            Err(error) => {
                let path = path.display();
                return Err(Error::Invalid(format!(
                    "cannot read {path}: {error}: mend it or move it away"
                )));
            }
        };
        toml::from_str(&text).map_err(|error| {
            let path = path.display();
            Error::Invalid(format!("{path}: {}", error.to_string().trim_end()))
        })
    }
}

/// The user's folder of configuration and identities, where there is a home.
#[must_use]
pub fn folder() -> Option<PathBuf> {
    let home = env::home_dir().filter(|home| !home.as_os_str().is_empty());
    home.map(|home| home.join(".config/fleetpool"))
}

/// Where the configuration file is, or would be.
#[must_use]
pub fn file() -> Option<PathBuf> {
    folder().map(|folder| folder.join("config.toml"))
}

/// Which cluster is to be used.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Place {
    /// The one at this address.
    At(String),
    /// One of these hosts, a nodeset, for as long as the process uses it.
    Hosts(String),
    /// One that is embedded in this process.
    Here,
}

impl Place {
    /// What was named: an address or hosts. Where neither was: `$FLEETPOOL_CLUSTER`, `$FLEETPOOL_HOSTS`, and `cluster` of
    /// the configuration file, the first that there is.
    ///
    /// # Errors
    /// When both were named, or the configuration file makes no sense.
    pub fn choose(address: Option<&str>, hosts: Option<&str>) -> Result<Self, Error> {
        match (address, hosts) {
            (Some(_), Some(_)) => Err(Error::Invalid(
                "a cluster and hosts to make one of are both named: name one of them".to_owned(),
            )),
            (Some(address), None) => Ok(Self::at(address.to_owned())),
            (None, Some(hosts)) => Ok(Self::Hosts(hosts.to_owned())),
            (None, None) => Self::by_default(),
        }
    }

    fn by_default() -> Result<Self, Error> {
        let variable = |name| env::var(name).ok();
        if let Some(address) = variable(CLUSTER_ENV) {
            return Ok(Self::at(address));
        }
        if let Some(hosts) = variable(HOSTS_ENV).filter(|hosts| !hosts.is_empty()) {
            return Ok(Self::Hosts(hosts));
        }
        let configured = Config::load()?.cluster;
        Ok(configured.map_or(Self::Here, Self::at))
    }

    fn at(address: String) -> Self {
        match address.as_str() {
            "" | LOCAL => Self::Here,
            _ => Self::At(address),
        }
    }
}

/// The folder of the identity to use: what was `named`, else `$FLEETPOOL_IDENTITY`, else that of the configuration.
pub(crate) fn identity(named: Option<&Path>) -> Result<PathBuf, Error> {
    let from_environment = || env::var_os("FLEETPOOL_IDENTITY").map(PathBuf::from);
    let default = || folder().map(|folder| folder.join("identity"));
    named
        .map(Path::to_owned)
        .or_else(from_environment)
        .or_else(default)
        .ok_or_else(|| {
            Error::Invalid("there is no home folder to find an identity in: set HOME, or name the folder with identity()".to_owned())
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Result<Config, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Config::read(file.path()).map_err(|error| {
            error
                .to_string()
                .replace(file.path().to_str().unwrap(), "FILE")
        })
    }

    #[test]
    fn the_configuration_names_a_cluster_and_groups() {
        let text = "cluster = \"head:7700\"\ngroups_command = \"hosts-of\"\n[groups]\nrack1 = \"web[01-20]\"\n\"dc:a\" = \"@rack1\"\n";
        let groups = [("rack1", "web[01-20]"), ("dc:a", "@rack1")];
        let groups = groups.map(|(name, hosts)| (name.to_owned(), hosts.to_owned()));
        let expect = Config {
            cluster: Some("head:7700".to_owned()),
            groups: groups.into(),
            groups_command: Some("hosts-of".to_owned()),
        };
        assert_eq!(config(text), Ok(expect));
        assert_eq!(config(""), Ok(Config::default()));
        let none = Config::read(Path::new("/does/not/exist")).unwrap();
        assert_eq!(none, Config::default());
    }

    #[test]
    fn slips_in_it_are_shown() {
        let check = |text: &str, says: &str| {
            let error = config(text).unwrap_err();
            assert!(
                error.starts_with("FILE: ") && error.contains(says),
                "{error}"
            );
        };
        check("cluster = 7700", "expected a string");
        check("cluster =", "line 1");
        check("clutser = \"head\"", "unknown field `clutser`");
        check("[groups]\nrack1 = [\"web1\"]", "expected a string");
        check("[group]\nrack1 = \"web1\"", "unknown field `group`");
    }

    #[test]
    fn what_is_named_comes_first_and_local_means_embedded() {
        let choose = |address, hosts| Place::choose(address, hosts).unwrap();
        assert_eq!(choose(Some("head:1"), None), Place::At("head:1".to_owned()));
        assert_eq!(choose(Some("local"), None), Place::Here);
        assert_eq!(choose(None, Some("web1")), Place::Hosts("web1".to_owned()));
        assert!(Place::choose(Some("local"), Some("web1")).is_err());
        assert_eq!(identity(Some(Path::new("/i"))).unwrap(), Path::new("/i"));
    }
}
