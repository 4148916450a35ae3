//! Identities on the disk.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use fleetpool_net::{
    Identity, ServerIdentity,
    identity::{ClusterCa, IdentityError},
};
use fleetpool_proto::Role;
use tempfile::TempDir;

use crate::cluster::DAY;

fn saved() -> (TempDir, Identity) {
    let dir = TempDir::new().unwrap();
    let ca = ClusterCa::create("test").unwrap();
    let identity = ca.identity(Role::Admin, "root", DAY).unwrap();
    identity.save(dir.path()).unwrap();
    (dir, identity)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn what_is_saved_is_loaded_and_for_its_owner_only() {
    let (dir, identity) = saved();
    let loaded = Identity::load(dir.path()).unwrap();
    assert_eq!(loaded.facts(), identity.facts());
    let mut names = Vec::new();
    for entry in fs::read_dir(dir.path()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(mode(&entry.path()), 0o600, "{entry:?}");
        names.push(entry.file_name().into_string().unwrap());
    }
    names.sort();
    assert_eq!(names, ["ca.pem", "cert.pem", "key.pem"]);
}

#[test]
fn no_identity_says_where_one_comes_from() {
    let dir = TempDir::new().unwrap();
    let error = Identity::load(&dir.path().join("none")).unwrap_err();
    assert!(matches!(error, IdentityError::Missing { .. }));
    let text = error.to_string();
    assert!(
        text.contains("fleetpool init") && text.contains("token create"),
        "{text}"
    );
}

#[test]
fn a_key_that_others_may_read_is_not_used() {
    let (dir, _) = saved();
    let key = dir.path().join("key.pem");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
    let error = Identity::load(dir.path()).unwrap_err().to_string();
    assert!(
        error.contains("mode 640") && error.contains("chmod 600"),
        "{error}"
    );
}

#[test]
fn damaged_files_are_named() {
    for (file, with) in [
        (
            "cert.pem",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        ),
        ("cert.pem", "not a certificate"),
        ("key.pem", "not a key"),
        ("ca.pem", ""),
    ] {
        let (dir, _) = saved();
        fs::write(dir.path().join(file), with).unwrap();
        let error = Identity::load(dir.path()).unwrap_err();
        assert!(
            matches!(error, IdentityError::Damaged { .. }),
            "{file}: {error:?}"
        );
    }
    let (dir, _) = saved();
    let (other, _) = saved();
    fs::copy(other.path().join("key.pem"), dir.path().join("key.pem")).unwrap();
    let error = Identity::load(dir.path()).unwrap_err().to_string();
    assert!(error.contains("belongs to another certificate"), "{error}");
}

#[test]
fn a_ca_is_founded_once_and_signs_after_a_restart() {
    let dir = TempDir::new().unwrap();
    let ca = ClusterCa::create("prod").unwrap();
    ca.save(dir.path()).unwrap();
    assert!(matches!(
        ca.save(dir.path()),
        Err(IdentityError::Exists { .. })
    ));
    assert_eq!(mode(&dir.path().join("ca-key.pem")), 0o600);
    let loaded = ClusterCa::load(dir.path()).unwrap();
    assert_eq!((loaded.cluster(), loaded.hash()), ("prod", ca.hash()));
    let identity = loaded.identity(Role::User, "u", DAY).unwrap();
    assert_eq!(identity.name().to_string(), "fleetpool://prod/user/u");
    assert!(ClusterCa::create("no spaces").is_err());
    assert!(loaded.identity(Role::User, "a/b", DAY).is_err());
}

#[test]
fn endpoint_keys_are_made_once() {
    let dir = TempDir::new().unwrap();
    let ca = ClusterCa::create("test").unwrap();
    let identity = ca.identity(Role::Coordinator, "head", DAY).unwrap();
    identity.save(dir.path()).unwrap();
    ServerIdentity::load(dir.path()).unwrap();
    let key = dir.path().join("endpoint.key");
    let first = fs::read(&key).unwrap();
    assert_eq!((first.len(), mode(&key)), (40, 0o600));
    ServerIdentity::load(dir.path()).unwrap();
    assert_eq!(fs::read(&key).unwrap(), first);
}
