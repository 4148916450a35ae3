//! Programs that pools bring: where they are on this host, by hash.
//!
//! Owns the cache folder. It must never give out a file whose bytes it has not hashed in this life, except the
//! local programs that its owner vouches for.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, Permissions},
    io::{self, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use fleetpool_proto::{PoolId, pool::ContentHash};

/// Content by hash.
#[derive(Debug)]
pub(crate) struct Store {
    folder: Option<PathBuf>,
    /// What may be executed.
    programs: BTreeMap<ContentHash, PathBuf>,
    /// Who waits for what.
    waiting: BTreeMap<ContentHash, BTreeSet<PoolId>>,
}

/// What a pool that needs content is in for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// It is here.
    Here,
    /// It may be in the cache: check it.
    Check,
    /// Another pool waits for it already.
    Wait,
}

impl Store {
    pub(crate) fn new(folder: Option<PathBuf>, local: Vec<(ContentHash, PathBuf)>) -> Self {
        Self {
            folder,
            programs: local.into_iter().collect(),
            waiting: BTreeMap::new(),
        }
    }

    /// A pool needs content.
    pub(crate) fn need(&mut self, pool: PoolId, hash: ContentHash) -> Need {
        if self.programs.contains_key(&hash) {
            return Need::Here;
        }
        let pools = self.waiting.entry(hash).or_default();
        let first = pools.is_empty();
        pools.insert(pool);
        if first { Need::Check } else { Need::Wait }
    }

    /// The file to execute.
    pub(crate) fn program(&self, hash: ContentHash) -> Option<&Path> {
        self.programs.get(&hash).map(PathBuf::as_path)
    }

    /// Where content of that hash is, or will be.
    pub(crate) fn place(&self, hash: ContentHash) -> Option<PathBuf> {
        self.folder
            .as_ref()
            .map(|folder| folder.join(hash.to_string()))
    }

    /// The content is here now, checked: who waited for it.
    pub(crate) fn arrived(&mut self, hash: ContentHash, path: PathBuf) -> BTreeSet<PoolId> {
        self.programs.insert(hash, path);
        self.waiting.remove(&hash).unwrap_or_default()
    }

    /// The content cannot be had: who waited for it.
    pub(crate) fn failed(&mut self, hash: ContentHash) -> BTreeSet<PoolId> {
        self.waiting.remove(&hash).unwrap_or_default()
    }

    /// What is still waited for, and by whom, to be asked for anew.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = (ContentHash, PoolId)> + '_ {
        self.waiting
            .iter()
            .filter_map(|(hash, pools)| Some((*hash, *pools.first()?)))
    }

    /// A pool is over.
    pub(crate) fn forget(&mut self, pool: PoolId) {
        for pools in self.waiting.values_mut() {
            pools.remove(&pool);
        }
        self.waiting.retain(|_, pools| !pools.is_empty());
    }
}

/// Whether the file has that hash. Reads all of it: not for the runtime's thread.
pub(crate) fn is_sound(path: &Path, hash: ContentHash) -> bool {
    let mut hasher = blake3::Hasher::new();
    let copied = File::open(path).and_then(|mut file| io::copy(&mut file, &mut hasher));
    copied.is_ok() && hasher.finalize().as_bytes() == &hash.0
}

/// Stores content, durably and in one step: whoever finds the file finds all of it. Not for the runtime's thread.
pub(crate) fn store(path: &Path, hash: ContentHash, bytes: &Bytes) -> Result<(), String> {
    if blake3::hash(bytes).as_bytes() != &hash.0 {
        return Err(format!("what came under the hash {hash} is something else"));
    }
    write(path, bytes).map_err(|error| format!("cannot write {}: {error}", path.display()))
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    if !folder.exists() {
        fs::create_dir_all(folder)?;
        fs::set_permissions(folder, Permissions::from_mode(0o700))?;
    }
    let part = path.with_extension(format!("part-{}", std::process::id()));
    let written = write_part(&part, bytes).and_then(|()| fs::rename(&part, path));
    if written.is_err() {
        let _ = fs::remove_file(&part);
    }
    written?;
    File::open(folder)?.sync_all()
}

fn write_part(part: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(part)?;
    file.write_all(bytes)?;
    file.set_permissions(Permissions::from_mode(0o700))?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash_of(bytes: &[u8]) -> ContentHash {
        ContentHash(*blake3::hash(bytes).as_bytes())
    }

    #[test]
    fn what_is_stored_is_sound_and_executable() {
        let folder = tempfile::tempdir().unwrap();
        let store_in = Store::new(Some(folder.path().join("cache")), Vec::new());
        let bytes = Bytes::from_static(b"#!/bin/sh\n");
        let hash = hash_of(&bytes);
        let path = store_in.place(hash).unwrap();
        store(&path, hash, &bytes).unwrap();
        assert!(is_sound(&path, hash));
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o700
        );
        fs::write(&path, b"#!/bin/sh\nrm -rf\n").unwrap();
        assert!(!is_sound(&path, hash));
    }

    #[test]
    fn content_of_another_hash_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let error = store(&path, hash_of(b"a"), &Bytes::from_static(b"b")).unwrap_err();
        assert!(error.contains("something else"), "{error}");
        assert!(!path.exists());
    }

    #[test]
    fn one_request_serves_every_pool_that_waits() {
        let mut store = Store::new(None, Vec::new());
        let hash = hash_of(b"a");
        assert_eq!(store.need(PoolId(1), hash), Need::Check);
        assert_eq!(store.need(PoolId(2), hash), Need::Wait);
        store.forget(PoolId(1));
        assert_eq!(store.waiting().collect::<Vec<_>>(), [(hash, PoolId(2))]);
        assert_eq!(
            store.arrived(hash, "/x".into()),
            BTreeSet::from([PoolId(2)])
        );
        assert_eq!(store.need(PoolId(3), hash), Need::Here);
    }
}
