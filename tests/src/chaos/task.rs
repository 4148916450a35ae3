//! What a task does: it says that it begins, holds its place alone, takes its time, and says that it ends.

use std::{fs::File, io, path::Path, thread::sleep, time::Duration};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, fcntl},
    libc,
};

use super::notes::{Job, Note, Notes, TASKS};

/// Tasks of one pool, at most.
pub(super) const TASKS_MAX: u64 = 1 << 10;

/// Runs task `index` of the pool `job`.
///
/// # Errors
/// When its files cannot be written.
pub fn run(
    folder: &Path,
    job: u64,
    index: u64,
    attempt: u32,
    host: &str,
    lasts: Duration,
) -> io::Result<()> {
    let job = Job(job);
    let notes = Notes::open(folder, TASKS)?;
    let place = File::options()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(folder.join("places"))?;
    if !take(&place, job.0 * TASKS_MAX + index)? {
        notes.add(Note::Overlapped {
            job,
            index,
            attempt,
        })?;
    }
    notes.add(Note::Began {
        job,
        index,
        attempt,
        host: host.to_owned(),
        pid: std::process::id(),
    })?;
    sleep(lasts);
    notes.add(Note::Ended {
        job,
        index,
        attempt,
    })?;
    drop(place);
    Ok(())
}

/// Locks one byte of the file, for as long as it is open in this process: whether nobody else has it.
fn take(file: &File, at: u64) -> io::Result<bool> {
    let lock = libc::flock {
        l_type: i16::try_from(libc::F_WRLCK).map_err(io::Error::other)?,
        l_whence: i16::try_from(libc::SEEK_SET).map_err(io::Error::other)?,
        l_start: i64::try_from(at).map_err(io::Error::other)?,
        l_len: 1,
        l_pid: 0,
    };
    match fcntl(file, FcntlArg::F_OFD_SETLK(&lock)) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_held_by_one_at_a_time() {
        let folder = tempfile::tempdir().expect("a folder");
        let open = || {
            File::options()
                .create(true)
                .truncate(false)
                .read(true)
                .write(true)
                .open(folder.path().join("places"))
                .expect("opened")
        };
        let (first, second) = (open(), open());
        assert!(take(&first, 7).expect("locked"));
        assert!(!take(&second, 7).expect("tried"));
        assert!(take(&second, 8).expect("another place"));
        drop(first);
        assert!(take(&second, 7).expect("free again"));
    }
}
