//! The mark of an agent's life on its host.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::Path,
    time::Duration,
};

use crate::{options::Error, spawner::lock_in};

/// Pause between two looks at the lock.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Waits until no earlier agent of this folder, nor anything that it started, is left; then marks the folder as
/// this agent's. The mark goes away with the last process that has the file open. What lives below a spawner that is a
/// service of its own counts only for an agent that does not go on with it.
pub(crate) async fn lock(folder: &Path, goes_on: bool) -> Result<File, Error> {
    let ours = lock_file(folder, &folder.join("agent.lock")).await?;
    if !goes_on {
        drop(lock_file(folder, &lock_in(folder)).await?);
    }
    Ok(ours)
}

async fn lock_file(folder: &Path, file: &Path) -> Result<File, Error> {
    let failed = |source: io::Error| Error::State {
        folder: folder.to_owned(),
        source,
    };
    fs::create_dir_all(folder).map_err(failed)?;
    let file = File::create(file).map_err(failed)?;
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
