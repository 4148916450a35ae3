//! This program, as the workers of a pool get it.

use std::{
    fs::File,
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use fleetpool_proto::pool::{ContentHash, Runtime};

/// What this process was started from; also when that file was replaced since.
const OWN: &str = "/proc/self/exe";

/// A program's file and what it is known by.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    pub(crate) path: PathBuf,
    pub(crate) hash: ContentHash,
    pub(crate) size: u64,
}

impl Program {
    /// For workers of this machine, which start it from where it is: known by its file, which is quicker than to read it.
    pub(crate) fn local() -> io::Result<Self> {
        let file = std::fs::metadata(OWN)?;
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"local program");
        for number in [file.dev(), file.ino(), file.size()] {
            hasher.update(&number.to_le_bytes());
        }
        for number in [file.mtime(), file.mtime_nsec()] {
            hasher.update(&number.to_le_bytes());
        }
        Ok(Self {
            path: PathBuf::from(OWN),
            hash: ContentHash(*hasher.finalize().as_bytes()),
            size: file.size(),
        })
    }

    /// For workers anywhere: known by its content.
    pub(crate) fn remote() -> io::Result<Self> {
        let path = Path::new(OWN);
        let mut hasher = blake3::Hasher::new();
        let size = io::copy(&mut File::open(path)?, &mut hasher)?;
        Ok(Self {
            path: path.to_owned(),
            hash: ContentHash(*hasher.finalize().as_bytes()),
            size,
        })
    }

    pub(crate) fn runtime(&self) -> Runtime {
        Runtime::Native {
            program: self.hash,
            size: self.size,
        }
    }
}
