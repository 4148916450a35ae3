//! The coordinator's folder: its CA, its own identity, who is invited, and how often it has started.
//!
//! ```text
//! ca/           the cluster's CA; whoever can read its key can make identities
//! coordinator/  the coordinator's own identity and endpoint keys
//! registry.json identities by public key
//! tokens.json   join tokens, hashed
//! tunnels.json  hosts that the coordinator keeps a tunnel to
//! journal/      what a killed coordinator's successor needs to know of pools and tasks
//! jobs/         what detached jobs returned and printed
//! starts.json   how often the coordinator was started
//! lock          held by the one coordinator that runs on this folder
//! ```

use std::{
    fs::{File, OpenOptions, TryLockError},
    path::{Path, PathBuf},
    time::Duration,
};

use fleetpool_net::{
    Identity, ServerIdentity,
    identity::{ClusterCa, IdentityError},
};
use fleetpool_proto::Role;
use serde::{Deserialize, Serialize};

use crate::{
    access::{Access, Record, Registry, StoreError, Tokens, Tunnels, io_error, load, save},
    shell::wall_s,
};

const CA_DIR: &str = "ca";
const COORDINATOR_DIR: &str = "coordinator";
/// The coordinator's own id.
const COORDINATOR_ID: &str = "coordinator";
/// The first admin's id.
const ADMIN_ID: &str = "admin";
/// How long the coordinator's and the first admin's certificates are valid.
const FOUNDED_TTL: Duration = Duration::from_hours(365 * 24);
/// A coordinator that starts with less left of its certificate makes itself a new one.
const RENEWED_BEFORE: Duration = Duration::from_hours(180 * 24);

/// Why the coordinator's folder cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// A key or certificate is the matter.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A file is.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no cluster.
    #[error("there is no cluster in {}: make one with `fleetpool init`, or name its folder with `--state`", .0.display())]
    NoCluster(PathBuf),
    /// It is in use.
    #[error("another coordinator runs on {}: stop it, or give this one another `--state`", .0.display())]
    InUse(PathBuf),
}

/// A cluster that has just been made.
#[derive(Debug)]
pub struct Founded {
    /// The first admin's identity: to be saved where that admin will look for it.
    pub admin: Identity,
}

/// Makes a cluster in an empty folder: its CA, the coordinator's identity and the first admin's.
///
/// # Errors
/// When there is a cluster already, the name cannot stand in certificates, or the disk refuses.
pub fn init_cluster(dir: &Path, name: &str) -> Result<Founded, StateError> {
    let ca = ClusterCa::create(name)?;
    ca.save(&dir.join(CA_DIR))?;
    let coordinator = ca.identity(Role::Coordinator, COORDINATOR_ID, FOUNDED_TTL)?;
    coordinator.save(&dir.join(COORDINATOR_DIR))?;
    let admin = ca.identity(Role::Admin, ADMIN_ID, FOUNDED_TTL)?;
    let record = Record {
        id: ADMIN_ID.to_owned(),
        role: Role::Admin,
        labels: Vec::new(),
        expires_s: expires_s(&admin),
    };
    Registry::open(dir)?.insert(admin.key_id(), record, wall_s())?;
    Ok(Founded { admin })
}

/// A folder that this process alone uses.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) access: Access,
    pub(crate) identity: ServerIdentity,
    /// Starts so far, this one included.
    pub(crate) epoch: u64,
    /// The lock ends with the process, however that ends.
    pub(crate) lock: File,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Starts {
    starts: u64,
}

impl State {
    pub(crate) fn open(dir: &Path) -> Result<Self, StateError> {
        if !dir.join(CA_DIR).is_dir() {
            return Err(StateError::NoCluster(dir.to_owned()));
        }
        let lock = lock(dir)?;
        let ca = ClusterCa::load(&dir.join(CA_DIR))?;
        let identity = own_identity(&ca, &dir.join(COORDINATOR_DIR))?;
        Ok(Self {
            identity,
            epoch: count_start(dir)?,
            access: Access {
                registry: Registry::open(dir)?,
                tokens: Tokens::open(dir)?,
                ca,
                tunnels: Tunnels::open(dir)?,
            },
            lock,
        })
    }
}

fn lock(dir: &Path) -> Result<File, StateError> {
    let path = dir.join("lock");
    let opened = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path);
    let file = opened.map_err(io_error("opening", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StateError::InUse(dir.to_owned())),
        Err(TryLockError::Error(error)) => Err(io_error("locking", &path)(error).into()),
    }
}

/// The coordinator's identity, renewed in time: it has the CA, so it need not ask anybody.
fn own_identity(ca: &ClusterCa, dir: &Path) -> Result<ServerIdentity, StateError> {
    let identity = Identity::load(dir)?;
    let left_s = expires_s(&identity).saturating_sub(wall_s());
    if left_s < RENEWED_BEFORE.as_secs() {
        tracing::info!(left_s, "the coordinator's certificate is renewed");
        ca.identity(Role::Coordinator, COORDINATOR_ID, FOUNDED_TTL)?
            .save(dir)?;
    }
    Ok(ServerIdentity::load(dir)?)
}

fn count_start(dir: &Path) -> Result<u64, StoreError> {
    let path = dir.join("starts.json");
    let starts = load::<Starts>(&path)?.starts + 1;
    save(&path, &Starts { starts })?;
    Ok(starts)
}

fn expires_s(identity: &Identity) -> u64 {
    u64::try_from(identity.facts().valid_until_s).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_is_made_once_and_its_starts_are_counted() {
        let dir = tempfile::tempdir().expect("a directory");
        let founded = init_cluster(dir.path(), "test").expect("a cluster");
        assert_eq!(founded.admin.role(), Role::Admin);
        let again = init_cluster(dir.path(), "test").expect_err("there is one");
        assert!(
            again
                .to_string()
                .contains("holds the CA of a cluster already"),
            "{again}"
        );
        for epoch in 1..3 {
            let state = State::open(dir.path()).expect("a cluster");
            assert_eq!(state.epoch, epoch);
            assert_eq!(state.access.registry.list().len(), 1);
        }
    }

    #[test]
    fn a_folder_has_one_coordinator() {
        let dir = tempfile::tempdir().expect("a directory");
        init_cluster(dir.path(), "test").expect("a cluster");
        let _first = State::open(dir.path()).expect("a cluster");
        let second = State::open(dir.path()).expect_err("in use");
        assert!(
            second
                .to_string()
                .starts_with("another coordinator runs on "),
            "{second}"
        );
    }

    #[test]
    fn a_folder_without_a_cluster_says_what_to_do() {
        let dir = tempfile::tempdir().expect("a directory");
        let error = State::open(dir.path())
            .expect_err("nothing there")
            .to_string();
        assert!(error.contains("make one with `fleetpool init`"), "{error}");
    }

    #[test]
    fn a_coordinators_certificate_is_renewed_before_it_ends() {
        let dir = tempfile::tempdir().expect("a directory");
        init_cluster(dir.path(), "test").expect("a cluster");
        let own = dir.path().join(COORDINATOR_DIR);
        let ca = ClusterCa::load(&dir.path().join(CA_DIR)).expect("a CA");
        let old = ca
            .identity(Role::Coordinator, COORDINATOR_ID, RENEWED_BEFORE / 2)
            .expect("an identity");
        old.save(&own).expect("saved");
        let state = State::open(dir.path()).expect("a cluster");
        assert!(expires_s(state.identity.identity()) > expires_s(&old));
    }
}
