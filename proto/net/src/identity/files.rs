//! The files of identities: whole or not there at all, and for their owner's eyes only.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::Path,
};

use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer, pem::PemObject as _};

use super::IdentityError;

/// Bits that let others than the owner read or write.
const OTHERS: u32 = 0o077;

/// A file of an identity that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The operating system refused.
    #[error("cannot {doing} {path}: {error}")]
    Io {
        /// Read or write.
        doing: &'static str,
        /// Which file.
        path: String,
        /// What it said.
        error: io::Error,
    },
    /// The key could be anybody's by now.
    #[error(
        "others than its owner may read {path} (mode {mode:o}): if nobody did, `chmod 600` it; else join again"
    )]
    Open {
        /// Which file.
        path: String,
        /// Its mode.
        mode: u32,
    },
}

pub(super) fn make_dir(dir: &Path) -> Result<(), FileError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(|error| io_error("make", dir, error))
}

/// Writes a file of mode 0600 so that a crash leaves the old one or the new one, never a part.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    write_atomically(path, bytes).map_err(|error| io_error("write", path, error))
}

fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let temporary = path.with_extension(format!("new-{}", std::process::id()));
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    // Without this a power cut may leave the folder without the new name.
    File::open(dir)?.sync_all()
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    fs::read(path).map_err(|error| io_error("read", path, error))
}

/// Reads what only its owner may see.
pub(super) fn read_secret(path: &Path) -> Result<Vec<u8>, FileError> {
    let meta = fs::metadata(path).map_err(|error| io_error("read", path, error))?;
    let mode = meta.mode() & 0o777;
    if mode & OTHERS != 0 {
        let path = path.display().to_string();
        return Err(FileError::Open { path, mode });
    }
    read(path)
}

pub(super) fn read_certificate(path: &Path) -> Result<CertificateDer<'static>, IdentityError> {
    let text = read(path)?;
    CertificateDer::from_pem_slice(&text).map_err(|why| damaged(path, &why))
}

pub(super) fn read_key(path: &Path) -> Result<PrivatePkcs8KeyDer<'static>, IdentityError> {
    let text = read_secret(path)?;
    PrivatePkcs8KeyDer::from_pem_slice(&text).map_err(|why| damaged(path, &why))
}

pub(super) fn pem(tag: &str, der: &[u8]) -> Vec<u8> {
    let lines = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_config(&pem::Pem::new(tag, der), lines).into_bytes()
}

fn damaged(path: &Path, why: &rustls_pki_types::pem::Error) -> IdentityError {
    IdentityError::damaged(path.display(), why)
}

fn io_error(doing: &'static str, path: &Path, error: io::Error) -> FileError {
    let path = path.display().to_string();
    FileError::Io { doing, path, error }
}
