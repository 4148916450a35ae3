//! Who is invited: identities by public key, in one small file.
//!
//! Whoever changes the registry does so through this type alone; a change is on disk before it counts. It knows no
//! sessions: who revokes an identity also closes its session.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use fleetpool_net::KeyId;
use fleetpool_proto::Role;
use serde::{Deserialize, Serialize};

use super::store::{self, StoreError};

/// How long an identity whose certificate has ended is still listed, in seconds.
const KEPT_EXPIRED_S: u64 = 30 * 24 * 3600;

/// One holder of a certificate of this cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The end of its SAN URI; unique among those who are invited.
    pub id: String,
    /// What it may be.
    pub role: Role,
    /// Labels that its join token bound to it; they override what its agent says of itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<(String, String)>,
    /// When its certificate ends, in seconds since 1970.
    pub expires_s: u64,
}

/// Why somebody with a valid certificate is sent away.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotInvited {
    /// Its key is not in the registry.
    #[error(
        "identity {id} is not in this cluster's registry: it was revoked, or this is another cluster; ask an admin for a \
         new identity or join token"
    )]
    Unknown {
        /// What its certificate says.
        id: String,
    },
    /// Its certificate has ended.
    #[error(
        "the certificate of identity {id} has expired: ask an admin for a new identity or join token"
    )]
    Expired {
        /// Whose.
        id: String,
    },
    /// The registry knows it as something else.
    #[error(
        "identity {id} is registered as {registered}, not as {claimed}: use the identity that fits"
    )]
    OtherRole {
        /// Whose.
        id: String,
        /// What it may be.
        registered: Role,
        /// What it wants to be.
        claimed: Role,
    },
}

impl Record {
    /// Admins may also come as users, to have no more power than they need.
    fn may_be(&self, claimed: Role) -> bool {
        self.role == claimed || (self.role, claimed) == (Role::Admin, Role::User)
    }
}

/// The registry's file, and what it says.
#[derive(Debug)]
pub struct Registry {
    path: PathBuf,
    /// By public key. Held for the time of a lookup, or of writing the file.
    records: Mutex<Records>,
}

/// By public key in hexadecimal, as in the file.
type Records = BTreeMap<String, Record>;

impl Registry {
    /// The registry of that directory; an empty one where there is no file yet.
    ///
    /// # Errors
    /// When there is a file that cannot be read.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join("registry.json");
        let records = Mutex::new(store::load(&path)?);
        Ok(Self { path, records })
    }

    /// Invites the holder of `key`; tells whether its id was free. Who has been out of date for long is forgotten.
    ///
    /// # Errors
    /// When the file cannot be written; then nobody was invited.
    pub fn insert(&self, key: KeyId, record: Record, now_s: u64) -> Result<bool, StoreError> {
        self.change(|records| {
            records.retain(|_, old| old.expires_s + KEPT_EXPIRED_S > now_s);
            let free = records.values().all(|old| old.id != record.id);
            if free {
                records.insert(key.to_string(), record);
            }
            free
        })
    }

    /// Uninvites an identity; tells whether there was one.
    ///
    /// # Errors
    /// When the file cannot be written; then nobody was uninvited.
    pub fn revoke(&self, id: &str) -> Result<bool, StoreError> {
        let before = self.lock().len();
        self.change(|records| {
            records.retain(|_, record| record.id != id);
            records.len() < before
        })
    }

    /// Whether the holder of `key` may come in as `claimed`, at this time (seconds since 1970).
    ///
    /// # Errors
    /// Why not, and what to do.
    pub fn admit(&self, key: KeyId, id: &str, claimed: Role, now_s: u64) -> Result<(), NotInvited> {
        let records = self.lock();
        let id = id.to_owned();
        match records.get(&key.to_string()) {
            None => Err(NotInvited::Unknown { id }),
            Some(record) if record.id != id => Err(NotInvited::Unknown { id }),
            Some(record) if record.expires_s <= now_s => Err(NotInvited::Expired { id }),
            Some(record) if !record.may_be(claimed) => Err(NotInvited::OtherRole {
                id,
                registered: record.role,
                claimed,
            }),
            Some(_) => Ok(()),
        }
    }

    /// Labels that the holder of `key` has whatever it says.
    #[must_use]
    pub fn labels(&self, key: KeyId) -> Vec<(String, String)> {
        let records = self.lock();
        let record = records.get(&key.to_string());
        record
            .map(|record| record.labels.clone())
            .unwrap_or_default()
    }

    /// Identities whose certificates have ended by this time.
    #[must_use]
    pub fn expired(&self, now_s: u64) -> Vec<String> {
        let records = self.lock();
        let expired = records.values().filter(|record| record.expires_s <= now_s);
        expired.map(|record| record.id.clone()).collect()
    }

    /// Everybody who is invited, by id.
    #[must_use]
    pub fn list(&self) -> Vec<Record> {
        let mut list: Vec<_> = self.lock().values().cloned().collect();
        list.sort_by(|a, b| a.id.cmp(&b.id));
        list
    }

    fn change<T>(&self, change: impl FnOnce(&mut Records) -> T) -> Result<T, StoreError> {
        let mut records = self.lock();
        let mut changed = records.clone();
        let result = change(&mut changed);
        store::save(&self.path, &changed)?;
        *records = changed;
        Ok(result)
    }

    fn lock(&self) -> MutexGuard<'_, Records> {
        // A panic cannot leave the map half changed: it is replaced whole.
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: &str, role: Role) -> Record {
        Record {
            id: id.to_owned(),
            role,
            labels: Vec::new(),
            expires_s: 1_000,
        }
    }

    #[test]
    fn the_invited_come_in_and_nobody_else() {
        let dir = tempfile::tempdir().expect("a directory");
        let registry = Registry::open(dir.path()).expect("a registry");
        let (web, other) = (KeyId([1; 32]), KeyId([2; 32]));
        registry
            .insert(web, record("web1", Role::Agent), 0)
            .expect("written");

        assert_eq!(registry.admit(web, "web1", Role::Agent, 999), Ok(()));
        let unknown = |id: &str| Err(NotInvited::Unknown { id: id.to_owned() });
        assert_eq!(
            registry.admit(other, "web1", Role::Agent, 999),
            unknown("web1")
        );
        assert_eq!(
            registry.admit(web, "web2", Role::Agent, 999),
            unknown("web2")
        );
        let id = "web1".to_owned();
        assert_eq!(
            registry.admit(web, "web1", Role::Agent, 1_000),
            Err(NotInvited::Expired { id: id.clone() })
        );
        let (registered, claimed) = (Role::Agent, Role::Admin);
        assert_eq!(
            registry.admit(web, "web1", Role::Admin, 999),
            Err(NotInvited::OtherRole {
                id,
                registered,
                claimed
            })
        );
    }

    #[test]
    fn admins_may_come_as_users_and_nobody_else_as_something_else() {
        let dir = tempfile::tempdir().expect("a directory");
        let registry = Registry::open(dir.path()).expect("a registry");
        for (mark, registered) in (1..).zip(Role::ALL) {
            let (key, id) = (KeyId([mark; 32]), registered.name());
            registry
                .insert(key, record(id, registered), 0)
                .expect("written");
            for claimed in Role::ALL {
                let lesser = (registered, claimed) == (Role::Admin, Role::User);
                let admitted = registry.admit(key, id, claimed, 0).is_ok();
                assert_eq!(
                    admitted,
                    registered == claimed || lesser,
                    "{registered} as {claimed}"
                );
            }
        }
    }

    #[test]
    fn an_id_is_one_keys_until_long_after_it_has_expired() {
        let dir = tempfile::tempdir().expect("a directory");
        let registry = Registry::open(dir.path()).expect("a registry");
        let insert = |key, now_s| {
            registry
                .insert(KeyId([key; 32]), record("web1", Role::Agent), now_s)
                .ok()
        };
        assert_eq!(insert(1, 0), Some(true));
        assert_eq!(insert(2, 999 + KEPT_EXPIRED_S), Some(false));
        assert_eq!(registry.expired(999), [""; 0]);
        assert_eq!(registry.expired(1_000), ["web1"]);
        assert_eq!(insert(2, 1_000 + KEPT_EXPIRED_S), Some(true));
    }

    #[test]
    fn what_was_changed_is_in_the_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let registry = Registry::open(dir.path()).expect("a registry");
        registry
            .insert(KeyId([1; 32]), record("web1", Role::Agent), 0)
            .expect("written");
        registry
            .insert(KeyId([2; 32]), record("alice", Role::Admin), 0)
            .expect("written");
        assert_eq!(registry.revoke("web1").ok(), Some(true));
        assert_eq!(registry.revoke("web1").ok(), Some(false));

        let reopened = Registry::open(dir.path()).expect("a registry");
        assert_eq!(reopened.list(), [record("alice", Role::Admin)]);
    }

    #[test]
    fn a_change_that_cannot_be_written_does_not_count() {
        let dir = tempfile::tempdir().expect("a directory");
        let registry = Registry::open(&dir.path().join("missing")).expect("a registry");
        let error = registry.insert(KeyId([1; 32]), record("web1", Role::Agent), 0);
        assert!(matches!(error, Err(StoreError::Io { .. })), "{error:?}");
        assert_eq!(registry.list(), []);
    }

    #[test]
    fn a_damaged_file_is_not_taken_for_an_empty_registry() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("registry.json"), "{ \"01\": ").expect("written");
        let error = Registry::open(dir.path()).expect_err("a damaged file");
        assert!(
            error.to_string().contains("registry.json is damaged"),
            "{error}"
        );
    }
}
