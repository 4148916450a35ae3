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

/// The address to use: what was `named`, else `$FLEETPOOL_CLUSTER`, else that of the configuration file; none: an
/// embedded cluster.
pub(crate) fn address(named: Option<&str>) -> Result<Option<String>, Error> {
    let address = match named {
        Some(named) => Some(named.to_owned()),
        None => match env::var("FLEETPOOL_CLUSTER") {
            Ok(address) => Some(address),
            Err(_) => Config::load()?.cluster,
        },
    };
    Ok(address.filter(|address| !address.is_empty() && address != LOCAL))
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
        assert_eq!(address(Some("head:1")).unwrap().as_deref(), Some("head:1"));
        assert_eq!(address(Some("local")).unwrap(), None);
        assert_eq!(identity(Some(Path::new("/i"))).unwrap(), Path::new("/i"));
    }
}
