//! Content that pools bring, by hash: programs, which are files to be executed, and what goes into a worker as it is
//! (pickled functions), which is kept in memory.
//!
//! Owns the cache folder. It must never give out content whose bytes it has not hashed in this life, except the
//! local programs that its owner vouches for.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, Permissions},
    io::{self, Write as _},
    os::unix::fs::{FileExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use fleetpool_proto::{PoolId, limits::CONTENT_KEPT_BYTES_MAX, pool::ContentHash};
use nix::{
    fcntl::{FcntlArg, SealFlag, fcntl},
    sys::memfd::{MFdFlags, memfd_create},
};

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

/// What is kept of content in memory.
#[derive(Clone, Debug)]
pub(crate) enum Held {
    /// What is told to workers as it is.
    Bytes(Bytes),
    /// What commands read as their standard input: one file without a name for all of them.
    File(Arc<File>),
}

#[derive(Debug)]
struct Blob {
    held: Held,
    len: usize,
    pools: BTreeSet<PoolId>,
    used: u64,
}

impl Blobs {
    /// A pool needs this; whether it is here, in a form that it can use.
    fn claim(&mut self, pool: PoolId, hash: ContentHash, for_commands: bool) -> bool {
        self.clock += 1;
        let Some(blob) = self.kept.get_mut(&hash) else {
            return false;
        };
        if matches!(blob.held, Held::File(_)) && !for_commands {
            return false;
        }
        blob.used = self.clock;
        blob.pools.insert(pool);
        true
    }

    fn forget(&mut self, pool: PoolId) {
        for blob in self.kept.values_mut() {
            blob.pools.remove(&pool);
        }
        let unneeded = |blob: &&Blob| blob.pools.is_empty();
        let bytes = |blob: &Blob| blob.len;
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
    pub(crate) fn need_blob(
        &mut self,
        pool: PoolId,
        hash: ContentHash,
        for_commands: bool,
    ) -> Need {
        if self.blobs.claim(pool, hash, for_commands) {
            return Need::Here;
        }
        self.wait_for(pool, hash)
    }

    /// Content in memory.
    pub(crate) fn held(&self, hash: ContentHash) -> Option<&Held> {
        self.blobs.kept.get(&hash).map(|blob| &blob.held)
    }

    /// Content in memory, and how large it is.
    pub(crate) fn held_whole(&self, hash: ContentHash) -> Option<(Held, usize)> {
        let blob = self.blobs.kept.get(&hash)?;
        Some((blob.held.clone(), blob.len))
    }

    /// Content in memory, where it is not a file.
    pub(crate) fn blob(&self, hash: ContentHash) -> Option<&Bytes> {
        match self.held(hash) {
            Some(Held::Bytes(bytes)) => Some(bytes),
            _ => None,
        }
    }

    /// The pools that wait for it.
    pub(crate) fn waiting_for(
        &self,
        hash: ContentHash,
    ) -> impl Iterator<Item = PoolId> + Clone + '_ {
        self.waiting.get(&hash).into_iter().flatten().copied()
    }

    /// The content is in memory now, checked: who waited for it.
    pub(crate) fn blob_arrived(
        &mut self,
        hash: ContentHash,
        held: Held,
        len: usize,
    ) -> BTreeSet<PoolId> {
        let pools = self.waiting.remove(&hash).unwrap_or_default();
        let blob = Blob {
            held,
            len,
            pools: pools.clone(),
            used: self.blobs.clock,
        };
        if let Some(before) = self.blobs.kept.insert(hash, blob)
            && let Some(blob) = self.blobs.kept.get_mut(&hash)
        {
            blob.pools.extend(before.pools);
        }
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

    /// Whether a pool waits for it.
    pub(crate) fn is_waited_for(&self, hash: ContentHash) -> bool {
        self.waiting.contains_key(&hash)
    }

    /// Whether a pool waits for it, or a living one has it in memory.
    pub(crate) fn is_needed(&self, hash: ContentHash) -> bool {
        let blob = self.blobs.kept.get(&hash);
        self.waiting.contains_key(&hash) || blob.is_some_and(|blob| !blob.pools.is_empty())
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

/// A file without a name. Not for the runtime's thread, when much is written to it at once.
pub(crate) fn in_memory() -> io::Result<File> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    Ok(memfd_create(c"fleetpool-content", flags)?.into())
}

/// From now on nobody can change it: whoever it is given to may share it.
pub(crate) fn seal(file: &File) -> io::Result<()> {
    fcntl(file, FcntlArg::F_ADD_SEALS(SealFlag::all()))?;
    Ok(())
}

/// A file without a name that holds these bytes, and no others ever.
pub(crate) fn file_of(bytes: &[u8]) -> io::Result<File> {
    let mut file = in_memory()?;
    file.write_all(bytes)?;
    seal(&file)?;
    Ok(file)
}

/// All that such a file holds.
pub(crate) fn bytes_of(file: &File, len: usize) -> io::Result<Bytes> {
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes.into())
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

/// Stores content that is checked, durably and in one step: whoever finds the file finds all of it. Not for the runtime's
/// thread.
pub(crate) fn store(path: &Path, bytes: &Bytes) -> Result<(), String> {
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
        store(&path, &bytes).unwrap();
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
        let error = check(hash_of(b"a"), &Bytes::from_static(b"b")).unwrap_err();
        assert!(error.contains("something else"), "{error}");
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
