//! The mark of an agent's life on its host.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::Path,
    time::Duration,
};

use crate::options::Error;

/// Pause between two looks at the lock.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Waits until no earlier agent of this folder, nor anything that it started, is left; then marks the folder as
/// this agent's. The mark goes away with the last process that has the file open.
pub(crate) async fn lock(folder: &Path) -> Result<File, Error> {
    let failed = |source: io::Error| Error::State {
        folder: folder.to_owned(),
        source,
    };
    fs::create_dir_all(folder).map_err(failed)?;
    let file = File::create(folder.join("agent.lock")).map_err(failed)?;
    let mut told = false;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if !told => {
                tracing::warn!(
                    folder = %folder.display(),
                    "another agent of this folder, or a task of it, still lives: waiting until it is gone"
                );
                told = true;
            }
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}
