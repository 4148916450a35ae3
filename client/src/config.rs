//! Which cluster, when the program does not say.

use std::{
    env,
    path::{Path, PathBuf},
};

use crate::error::Error;

/// Says "no cluster" where the environment or the configuration name one.
const LOCAL: &str = "local";

/// The address to use: what was `named`, else `$FLEETPOOL_CLUSTER`, else that of the configuration file; none: an
/// embedded cluster.
pub(crate) fn address(named: Option<&str>) -> Result<Option<String>, Error> {
    let address = match named {
        Some(named) => Some(named.to_owned()),
        None => match env::var("FLEETPOOL_CLUSTER") {
            Ok(address) => Some(address),
            Err(_) => configured()?,
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

fn folder() -> Option<PathBuf> {
    let home = env::home_dir().filter(|home| !home.as_os_str().is_empty());
    home.map(|home| home.join(".config/fleetpool"))
}

fn configured() -> Result<Option<String>, Error> {
    match folder() {
        Some(folder) => read(&folder.join("config.toml")),
        None => Ok(None),
    }
}

fn read(path: &Path) -> Result<Option<String>, Error> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            let path = path.display();
            return Err(Error::Invalid(format!(
                "cannot read {path}: {error}: mend it or move it away"
            )));
        }
    };
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        Error::Invalid(format!(
            "{}: {}",
            path.display(),
            error.to_string().trim_end()
        ))
    })?;
    match table.get("cluster") {
        None => Ok(None),
        Some(toml::Value::String(cluster)) => Ok(Some(cluster.clone())),
        Some(other) => Err(Error::Invalid(format!(
            "{}: cluster is {other}, not an address in quotes",
            path.display()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Result<Option<String>, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        read(file.path()).map_err(|error| error.to_string())
    }

    #[test]
    fn the_configuration_names_a_cluster() {
        assert_eq!(
            config("cluster = \"head:7700\""),
            Ok(Some("head:7700".to_owned()))
        );
        assert_eq!(config(""), Ok(None));
        assert_eq!(read(Path::new("/does/not/exist")).unwrap(), None);
    }

    #[test]
    fn slips_in_it_are_shown() {
        assert!(
            config("cluster = 7700")
                .unwrap_err()
                .contains("not an address in quotes")
        );
        assert!(config("cluster =").is_err());
    }

    #[test]
    fn what_is_named_comes_first_and_local_means_embedded() {
        assert_eq!(address(Some("head:1")).unwrap().as_deref(), Some("head:1"));
        assert_eq!(address(Some("local")).unwrap(), None);
        assert_eq!(identity(Some(Path::new("/i"))).unwrap(), Path::new("/i"));
    }
}
