//! The journal: what a killed coordinator's successor needs to know.
//!
//! One file of records in the coordinator's folder, appended to; `write` puts facts there before anything that follows from
//! them is done, so that they survive the process, and a thread of its own puts them on disk, so that they survive the
//! machine: what is acknowledged waits for that. A journal begins with a snapshot; when it has grown to twice that (and a
//! floor), another one is begun and takes its place by a rename.
//!
//! It must never acknowledge anything after the disk has refused, and never guess what damaged bytes meant.

mod read;
pub(crate) mod record;
mod sync;

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use fleetpool_proto::journal::Fact;

pub(crate) use sync::Told;
use sync::{Position, Syncer};

/// A journal smaller than this is not begun anew, in bytes.
const RENEWED_BYTES_MIN: u64 = 64 << 20;
/// Bytes that are kept free for what must still be written when the disk is full.
const RESERVE_BYTES: u64 = 16 << 20;
const RESERVE: &str = "reserve";
/// A file that says that there may be attempts of which the journal knows nothing: its end may not be what was written, or was
/// not what a predecessor of this process wrote, and hosts have not had the time to fence what they run since.
const DOUBT: &str = "doubt";

/// Why a journal cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// The disk refuses.
    #[error("{doing} {}: {reason}", .path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// It is no journal of this build.
    #[error("{} is not a journal that this build can read: start the build that wrote it, or move the file away to begin \
        without what it holds", .0.display())]
    Foreign(PathBuf),
    /// Its bytes are not what was written.
    #[error("the journal {} is damaged at byte {at} ({how}), with intact records behind it. Nothing was changed. Bring the file \
        back from a copy, or move it away to begin without what it holds: pools that it knows are lost then, and what still runs \
        of them ends as its agents connect", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        at: u64,
        /// What is wrong.
        how: String,
    },
}

impl JournalError {
    pub(crate) fn io(doing: &'static str, path: &Path, error: &io::Error) -> Self {
        let mut reason = error.to_string();
        if is_full(error) {
            reason.push_str(": make room there, then start again");
        }
        let path = path.to_owned();
        Self::Io {
            doing,
            path,
            reason,
        }
    }
}

/// Makes a folder that its owner alone can look into: arguments and results are nobody else's business.
pub(crate) fn make_folder(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// A journal's folder, before anything is written to it.
#[derive(Debug)]
pub(crate) struct Folder {
    dir: PathBuf,
    numbers: Vec<u64>,
}

impl Folder {
    /// Opens the folder, and makes it where it is not there yet.
    pub(crate) fn open(dir: &Path) -> Result<Self, JournalError> {
        make_folder(dir).map_err(|error| JournalError::io("making", dir, &error))?;
        let numbers = read::numbers(dir)?;
        let dir = dir.to_owned();
        Ok(Self { dir, numbers })
    }

    /// Whether a predecessor left word that there may be attempts of which it wrote nothing.
    pub(crate) fn is_doubted(&self) -> bool {
        self.dir.join(DOUBT).exists()
    }

    /// Leaves that word: it has to outlast this process as well, until [`Journal::trust`].
    pub(crate) fn doubt(&self) -> Result<(), JournalError> {
        leave_doubt(&self.dir).map_err(|error| JournalError::io("writing", &self.dir, &error))
    }

    /// Hands over what a predecessor wrote; tells how many facts it was.
    pub(crate) fn read(&self, mut take: impl FnMut(Fact)) -> Result<u64, JournalError> {
        match self.numbers.last() {
            Some(&number) => read::read(&read::path(&self.dir, number), &mut take),
            None => Ok(0),
        }
    }

    /// Begins a new journal that says what the old one did, as `facts`. `told` hears what is on disk.
    pub(crate) fn begin(
        self,
        facts: impl IntoIterator<Item = Fact>,
        told: Told,
    ) -> Result<Journal, JournalError> {
        let number = self.numbers.last().copied().unwrap_or_default() + 1;
        let failed = |error: &io::Error| JournalError::io("writing", &self.dir, error);
        let short = match keep_reserve(&self.dir) {
            Err(error) if is_full(&error) => {
                tell_full(&self.dir);
                true
            }
            kept => kept.map(|()| false).map_err(|error| failed(&error))?,
        };
        let (file, length) =
            write_snapshot(&self.dir, number, facts).map_err(|error| failed(&error))?;
        remove_others(&self.dir, number);
        Ok(Journal {
            doubted: self.is_doubted(),
            syncer: Syncer::start(told).map_err(|error| failed(&error))?,
            dir: self.dir,
            number,
            file: Arc::new(file),
            pending: Vec::new(),
            position: 0,
            wanted: 0,
            length,
            renew_at: renew_at(length),
            short,
        })
    }
}

/// A journal that is written.
#[derive(Debug)]
pub(crate) struct Journal {
    dir: PathBuf,
    number: u64,
    file: Arc<File>,
    syncer: Syncer,
    /// Records that have not been written.
    pending: Vec<u8>,
    /// Bytes of records in this process's life, those pending included.
    position: Position,
    /// How far it was asked to be on disk.
    wanted: Position,
    /// Bytes of the file.
    length: u64,
    /// At which length another file is begun.
    renew_at: u64,
    /// The disk has been full, and the reserve is used.
    short: bool,
    /// There is word that attempts may be missing.
    doubted: bool,
}

impl Journal {
    /// Adds a fact to what will be written.
    pub(crate) fn add(&mut self, fact: Fact) {
        let before = self.pending.len();
        record::write(fact, &mut self.pending);
        self.position += (self.pending.len() - before) as u64;
    }

    /// Writes what was added: the kernel has it, whatever becomes of this process.
    pub(crate) fn write(&mut self) -> io::Result<()> {
        let mut written = 0;
        let outcome = loop {
            if written == self.pending.len() {
                break Ok(());
            }
            match (&*self.file).write(&self.pending[written..]) {
                Ok(0) => break Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_full(&error) && self.use_reserve() => {}
                Err(error) => break Err(error),
            }
        };
        self.length += written as u64;
        self.pending.drain(..written);
        if self.pending.capacity() > 4 << 20 && self.pending.is_empty() {
            self.pending = Vec::new();
        }
        outcome
    }

    /// Has the room that is kept for a full disk used; `false`: it is in use already.
    pub(crate) fn use_reserve(&mut self) -> bool {
        if self.short {
            return false;
        }
        self.short = true;
        tell_full(&self.dir);
        fs::remove_file(self.dir.join(RESERVE)).ok();
        true
    }

    /// Whether something was added that is not written.
    pub(crate) fn is_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// The disk has refused: leaves word for a successor, as far as the disk takes that.
    pub(crate) fn doubt(&self) {
        if let Err(error) = leave_doubt(&self.dir) {
            tracing::warn!(%error, "no word can be left that the journal's end may be missing");
        }
    }

    /// What hosts may have run that is not written here is over: takes back the word that there may be such.
    pub(crate) fn trust(&mut self) {
        if std::mem::take(&mut self.doubted) {
            // Where it stays, a successor waits once more.
            fs::remove_file(self.dir.join(DOUBT)).ok();
        }
    }

    /// Where it is now: what was added so far comes before.
    pub(crate) fn position(&self) -> Position {
        self.position
    }

    /// Has all that was written put on disk, after `others`.
    pub(crate) fn sync(&mut self, others: Vec<Arc<File>>) {
        let position = self.position - self.pending.len() as u64;
        if position > self.wanted {
            self.wanted = position;
            self.syncer.want(&self.file, position, others);
        }
    }

    /// Whether the disk has been full, as far as is known.
    pub(crate) fn is_short(&self) -> bool {
        self.short
    }

    /// Whether the disk is full still; looks whether there is room again.
    pub(crate) fn stays_short(&mut self) -> bool {
        if self.short && keep_reserve(&self.dir).is_ok() {
            tracing::info!(dir = %self.dir.display(), "there is room on the disk again");
            self.short = false;
        }
        self.short
    }

    /// Whether it has grown so long that it should be begun anew.
    pub(crate) fn is_long(&self) -> bool {
        self.length > self.renew_at && !self.short
    }

    /// Begins anew with these facts, which say all that there is to know. When that fails the old one goes on.
    pub(crate) fn renew(&mut self, facts: impl IntoIterator<Item = Fact>) {
        let number = self.number + 1;
        match write_snapshot(&self.dir, number, facts) {
            Ok((file, length)) => {
                remove_others(&self.dir, number);
                self.file = Arc::new(file);
                (self.number, self.length) = (number, length);
                self.renew_at = renew_at(length);
            }
            Err(error) => {
                tracing::warn!(%error, "the journal cannot be begun anew: the old one goes on");
                self.renew_at = self.length + RENEWED_BYTES_MIN;
            }
        }
    }
}

fn renew_at(snapshot: u64) -> u64 {
    (2 * snapshot).max(RENEWED_BYTES_MIN)
}

/// Whether space is the matter, and might be there again.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

fn tell_full(dir: &Path) {
    tracing::error!(dir = %dir.display(), "the disk is full: new tasks wait until there is room");
}

fn leave_doubt(dir: &Path) -> io::Result<()> {
    File::create(dir.join(DOUBT))?.sync_all()?;
    File::open(dir)?.sync_all()
}

/// Makes sure of the reserve.
fn keep_reserve(dir: &Path) -> io::Result<()> {
    let path = dir.join(RESERVE);
    if path
        .metadata()
        .is_ok_and(|known| known.len() == RESERVE_BYTES)
    {
        return Ok(());
    }
    let file = File::create(&path)?;
    let length = i64::try_from(RESERVE_BYTES).unwrap_or(i64::MAX);
    let kept = nix::fcntl::posix_fallocate(&file, 0, length).map_err(io::Error::from);
    if kept.is_err() {
        fs::remove_file(&path).ok();
    }
    kept
}

/// Writes a journal with a snapshot. It has its name when all of it is on disk.
fn write_snapshot(
    dir: &Path,
    number: u64,
    facts: impl IntoIterator<Item = Fact>,
) -> io::Result<(File, u64)> {
    /// Bytes that are written at once.
    const CHUNK: usize = 1 << 20;
    let part = dir.join("part");
    let written = (|| {
        let mut options = OpenOptions::new();
        let file = options
            .create(true)
            .truncate(true)
            .write(true)
            .open(&part)?;
        let mut out = read::HEAD.to_vec();
        let mut length = 0;
        for fact in facts {
            record::write(fact, &mut out);
            if out.len() >= CHUNK {
                (&file).write_all(&out)?;
                length += out.len() as u64;
                out.clear();
            }
        }
        (&file).write_all(&out)?;
        length += out.len() as u64;
        file.sync_all()?;
        fs::rename(&part, read::path(dir, number))?;
        File::open(dir)?.sync_all()?;
        Ok((file, length))
    })();
    if written.is_err() {
        fs::remove_file(&part).ok();
    }
    written
}

/// Removes journals that another one has taken the place of. One that stays is not read.
fn remove_others(dir: &Path, number: u64) {
    for other in read::numbers(dir).unwrap_or_default() {
        if other != number {
            fs::remove_file(read::path(dir, other)).ok();
        }
    }
}

#[cfg(test)]
mod tests;
