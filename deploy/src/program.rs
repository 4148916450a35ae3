//! The program that is brought to hosts: one binary is coordinator, agent and all of their helpers.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use tokio::sync::OnceCell;

/// What this process was started from; also when that file was replaced since.
const OWN: &str = "/proc/self/exe";

/// A program and what it is known by. Clones share what was read of it.
#[derive(Clone, Debug)]
pub struct Program {
    path: PathBuf,
    hash: [u8; 32],
    size: u64,
    bytes: Arc<OnceCell<Bytes>>,
}

impl Program {
    /// This very program.
    ///
    /// # Errors
    /// When its file cannot be read.
    pub fn own() -> io::Result<Self> {
        Self::of(Path::new(OWN))
    }

    /// The program of that file. Its whole content is read, to be known by.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn of(path: &Path) -> io::Result<Self> {
        let mut hasher = blake3::Hasher::new();
        let size = io::copy(&mut File::open(path)?, &mut hasher)?;
        Ok(Self {
            path: path.to_owned(),
            hash: *hasher.finalize().as_bytes(),
            size,
            bytes: Arc::default(),
        })
    }

    /// BLAKE3 of its content.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        self.hash
    }

    /// The same, as files are named by it.
    pub(crate) fn hex(&self) -> String {
        blake3::Hash::from_bytes(self.hash).to_hex().to_string()
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// What it runs on, as `uname -sm` says it.
    pub(crate) fn platform() -> &'static str {
        match std::env::consts::ARCH {
            "x86_64" => "Linux x86_64",
            "aarch64" => "Linux aarch64",
            "riscv64" => "Linux riscv64",
            "powerpc64" if cfg!(target_endian = "little") => "Linux ppc64le",
            _ => "Linux",
        }
    }

    /// Its content, read once however many hosts need it.
    pub(crate) async fn bytes(&self) -> io::Result<&Bytes> {
        let read = || async {
            let read = tokio::fs::read(&self.path).await?;
            Ok(Bytes::from(read))
        };
        self.bytes.get_or_try_init(read).await
    }
}
