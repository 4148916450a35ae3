//! Small files that are either as they were or as they should be, whatever happens in between.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};

/// A file of the coordinator could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The file system refused.
    #[error("{} {}: {error}", .doing, .path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The file's content cannot be understood.
    #[error("{} is damaged ({error}): restore it from a backup, or `fleetpool init` a new cluster", .path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        error: serde_json::Error,
    },
}

/// Reads a JSON file; the default when there is none.
pub(crate) fn load<T: DeserializeOwned + Default>(path: &Path) -> Result<T, StoreError> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(T::default()),
        Err(error) => return Err(io_error("reading", path)(error)),
    };
    serde_json::from_slice(&text).map_err(|error| StoreError::Damaged {
        path: path.to_owned(),
        error,
    })
}

/// Replaces a JSON file: whole and on disk, or not at all. Only its owner may read it.
pub(crate) fn save<T: Serialize>(path: &Path, value: &T) -> Result<(), StoreError> {
    let mut text = serde_json::to_vec_pretty(value).map_err(|error| StoreError::Damaged {
        path: path.to_owned(),
        error,
    })?;
    text.push(b'\n');
    replace(path, &text).map_err(io_error("writing", path))
}

fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    // The rename itself is only on disk once its directory is.
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

pub(crate) fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |error| StoreError::Io { doing, path, error }
}
