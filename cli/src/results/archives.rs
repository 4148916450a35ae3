//! What hosts pack, unpacked into a folder for each: `DEST/HOST/`.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Seek as _, Write as _},
    path::{Path, PathBuf},
};

use crate::{
    archive,
    run::ended::{Ended, Task},
};

/// Archives that are on their way, and where they go.
#[derive(Debug)]
pub(super) struct Archives {
    dest: PathBuf,
    /// Unnamed files in that folder: gone with this process, however it ends.
    arriving: BTreeMap<u64, File>,
}

impl Archives {
    pub(super) fn open(dest: &Path) -> io::Result<Self> {
        fs::create_dir_all(dest)?;
        Ok(Self {
            dest: dest.to_owned(),
            arriving: BTreeMap::new(),
        })
    }

    /// A piece of a host's archive.
    pub(super) fn output(&mut self, task: &Task, bytes: &[u8]) -> io::Result<()> {
        let file = match self.arriving.get_mut(&task.seq) {
            Some(file) => file,
            None => {
                let file = tempfile::tempfile_in(&self.dest)?;
                self.arriving.entry(task.seq).or_insert(file)
            }
        };
        file.write_all(bytes)
    }

    /// It is whole, or there is none.
    pub(super) fn ended(&mut self, ended: &Ended) -> io::Result<()> {
        let Some(mut file) = self.arriving.remove(&ended.task.seq) else {
            return Ok(());
        };
        if !ended.outcome.is_success() {
            return Ok(());
        }
        file.rewind()?;
        archive::unpack(io::BufReader::new(file), &self.dest.join(&ended.host), true)
    }
}
