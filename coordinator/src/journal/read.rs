//! Reading a journal: all that was written whole, or a refusal.

use std::{
    fs::{self, File},
    io::Read as _,
    path::{Path, PathBuf},
};

use bytes::{Buf as _, Bytes};
use fleetpool_proto::journal::Fact;

use super::{
    JournalError,
    record::{self, Flaw},
};

/// Begins every journal, and says which version of it this is.
pub(super) const HEAD: &[u8; 16] = b"fleetpool jrnl 1";
const EXTENSION: &str = "journal";

/// A journal's file of that number.
pub(super) fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:010}.{EXTENSION}"))
}

/// The numbers of the journals in a folder. Each is whole: it gets its name when its snapshot is on disk.
pub(super) fn numbers(dir: &Path) -> Result<Vec<u64>, JournalError> {
    let entries = fs::read_dir(dir).map_err(|error| JournalError::io("reading", dir, &error))?;
    let mut numbers = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| JournalError::io("reading", dir, &error))?;
        let path = entry.path();
        if path
            .extension()
            .is_some_and(|extension| extension == EXTENSION)
            && let Some(stem) = path.file_stem().and_then(|stem| stem.to_str())
            && let Ok(number) = stem.parse()
        {
            numbers.push(number);
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Hands over every fact of a journal, in order.
///
/// What was not written whole at its end is left out: nobody was told of it. Damage before that is refused.
pub(super) fn read(path: &Path, take: &mut dyn FnMut(Fact)) -> Result<u64, JournalError> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|mut file| file.read_to_end(&mut bytes));
    read.map_err(|error| JournalError::io("reading", path, &error))?;
    let all = Bytes::from(bytes);
    let mut rest = all.clone();
    if rest.len() < HEAD.len() || rest[..HEAD.len()] != HEAD[..] {
        return Err(JournalError::Foreign(path.to_owned()));
    }
    rest.advance(HEAD.len());
    let mut facts = 0;
    while !rest.is_empty() {
        match record::read(&rest) {
            Ok((fact, length)) => {
                take(fact);
                facts += 1;
                rest.advance(length);
            }
            Err(flaw) => return end(path, all.len() - rest.len(), &rest, flaw).map(|()| facts),
        }
    }
    Ok(facts)
}

/// Whether a flaw is the end of what was written, or damage.
fn end(path: &Path, at: usize, rest: &Bytes, flaw: Flaw) -> Result<(), JournalError> {
    let how = match flaw {
        Flaw::Short => "it is cut off".to_owned(),
        Flaw::Damaged(how) => how,
    };
    match record::next_sound(rest) {
        None => {
            tracing::warn!(path = %path.display(), at, left = rest.len(), how, "the journal's end was not written whole");
            Ok(())
        }
        Some(_) => Err(JournalError::Damaged {
            path: path.to_owned(),
            at: at as u64,
            how,
        }),
    }
}
