//! Content that pools bring, by hash: programs, which are files to be executed, and what goes into a worker as it is
//! (pickled functions), which is kept in memory.
//!
//! Owns the cache folder. It must never give out content whose bytes it has not hashed in this life, except the
//! local programs that its owner vouches for.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, Permissions},
    io::{self, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use fleetpool_proto::{PoolId, limits::CONTENT_KEPT_BYTES_MAX, pool::ContentHash};

/// Content by hash.
#[derive(Debug)]
pub(crate) struct Store {
    folder: Option<PathBuf>,
    /// What may be executed.
    programs: BTreeMap<ContentHash, PathBuf>,
    /// Who waits for what.
    waiting: BTreeMap<ContentHash, BTreeSet<PoolId>>,
    blobs: Blobs,
}

/// Content in memory. It stays while a pool needs it, and as long as there is room afterwards: the next pool may well
/// need the same.
#[derive(Debug, Default)]
struct Blobs {
    kept: BTreeMap<ContentHash, Blob>,
    /// Counts uses, to tell which was last.
    clock: u64,
}

#[derive(Debug)]
struct Blob {
    bytes: Bytes,
    pools: BTreeSet<PoolId>,
    used: u64,
}

impl Blobs {
    /// A pool needs this; whether it is here.
    fn claim(&mut self, pool: PoolId, hash: ContentHash) -> bool {
        self.clock += 1;
        let Some(blob) = self.kept.get_mut(&hash) else {
            return false;
        };
        blob.used = self.clock;
        blob.pools.insert(pool);
        true
    }

    fn forget(&mut self, pool: PoolId) {
        for blob in self.kept.values_mut() {
            blob.pools.remove(&pool);
        }
        let unneeded = |blob: &&Blob| blob.pools.is_empty();
        let bytes = |blob: &Blob| blob.bytes.len();
        let mut idle: usize = self.kept.values().filter(unneeded).map(bytes).sum();
        while idle > CONTENT_KEPT_BYTES_MAX {
            let oldest = self.kept.iter().filter(|(_, blob)| unneeded(blob));
            let oldest = oldest
                .min_by_key(|(_, blob)| blob.used)
                .map(|(hash, _)| *hash);
            let Some(gone) = oldest.and_then(|hash| self.kept.remove(&hash)) else {
                return;
            };
            idle -= bytes(&gone);
        }
    }
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
            blobs: Blobs::default(),
        }
    }

    /// A pool needs content in memory: `Here`, `Wait`, or `Check` when it is to be asked for.
    pub(crate) fn need_blob(&mut self, pool: PoolId, hash: ContentHash) -> Need {
        if self.blobs.claim(pool, hash) {
            return Need::Here;
        }
        self.wait_for(pool, hash)
    }

    /// Content in memory.
    pub(crate) fn blob(&self, hash: ContentHash) -> Option<&Bytes> {
        self.blobs.kept.get(&hash).map(|blob| &blob.bytes)
    }

    /// Whether somebody waits for it as a program.
    pub(crate) fn is_program(&self, hash: ContentHash, pool: impl Fn(PoolId) -> bool) -> bool {
        let waiting = self.waiting.get(&hash);
        waiting.is_some_and(|pools| pools.iter().any(|&id| pool(id)))
    }

    /// The content is in memory now, checked: who waited for it.
    pub(crate) fn blob_arrived(&mut self, hash: ContentHash, bytes: Bytes) -> BTreeSet<PoolId> {
        let pools = self.waiting.remove(&hash).unwrap_or_default();
        let used = self.blobs.clock;
        let blob = Blob {
            bytes,
            pools: pools.clone(),
            used,
        };
        self.blobs.kept.insert(hash, blob);
        pools
    }

    /// A pool needs content.
    pub(crate) fn need(&mut self, pool: PoolId, hash: ContentHash) -> Need {
        if self.programs.contains_key(&hash) {
            return Need::Here;
        }
        self.wait_for(pool, hash)
    }

    fn wait_for(&mut self, pool: PoolId, hash: ContentHash) -> Need {
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
        self.blobs.forget(pool);
    }
}

/// Whether the file has that hash. Reads all of it: not for the runtime's thread.
pub(crate) fn is_sound(path: &Path, hash: ContentHash) -> bool {
    let mut hasher = blake3::Hasher::new();
    let copied = File::open(path).and_then(|mut file| io::copy(&mut file, &mut hasher));
    copied.is_ok() && hasher.finalize().as_bytes() == &hash.0
}

/// Whether content is what its hash says. Not for the runtime's thread, when it is large.
pub(crate) fn check(hash: ContentHash, bytes: &Bytes) -> Result<(), String> {
    if blake3::hash(bytes).as_bytes() != &hash.0 {
        return Err(format!("what came under the hash {hash} is something else"));
    }
    Ok(())
}

/// Stores content, durably and in one step: whoever finds the file finds all of it. Not for the runtime's thread.
pub(crate) fn store(path: &Path, hash: ContentHash, bytes: &Bytes) -> Result<(), String> {
    check(hash, bytes)?;
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
