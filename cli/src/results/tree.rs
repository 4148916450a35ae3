//! GNU parallel's tree: `DIR/1/VALUE/stdout`, and `DIR/1/VALUE/2/VALUE/stdout` for several sources. On hosts, where
//! there is no input, `DIR/HOST/stdout`.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, Write as _},
    os::unix::ffi::OsStringExt as _,
    path::{Path, PathBuf},
};

use fleetpool_proto::message::Stream;

use crate::run::ended::Task;

/// Longest name that file systems take, in bytes.
const NAME_BYTES_MAX: usize = 255;

/// A folder of results. It opens files for each write: with 5,000 slots, open ones would run out.
#[derive(Debug)]
pub(super) struct Tree {
    root: PathBuf,
}

impl Tree {
    pub(super) fn open(root: &Path) -> io::Result<Self> {
        fs::create_dir_all(root)?;
        Ok(Self {
            root: root.to_owned(),
        })
    }

    pub(super) fn output(
        &self,
        task: &Task,
        stream: Stream,
        bytes: &[u8],
        anew: bool,
    ) -> io::Result<()> {
        let folder = self.folder(task);
        if anew {
            begin(&folder)?;
        }
        let name = match stream {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        };
        let mut file = File::options()
            .append(true)
            .create(true)
            .open(folder.join(name))?;
        file.write_all(bytes)
    }

    /// Writes the task's number, which says that it has ended.
    pub(super) fn ended(&self, task: &Task, printed: bool) -> io::Result<()> {
        let folder = self.folder(task);
        if !printed {
            begin(&folder)?;
        }
        fs::write(folder.join("seq"), task.seq.to_string())
    }

    fn folder(&self, task: &Task) -> PathBuf {
        let mut folder = self.root.clone();
        if task.values.is_empty() {
            folder.push(name(task.host_name().as_bytes()));
        }
        for (at, value) in task.values.iter().enumerate() {
            folder.push((at + 1).to_string());
            folder.push(name(value));
        }
        folder
    }
}

/// Makes the folder of a task, with nothing printed yet.
fn begin(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    File::create(folder.join("stdout"))?;
    File::create(folder.join("stderr"))?;
    Ok(())
}

/// A value as a file's name, escaped as GNU parallel does; unlike there, `.` and `..` do not lead out of the tree.
fn name(value: &[u8]) -> OsString {
    let escape = |byte: &u8| match byte {
        b'\\' => b"\\\\".to_vec(),
        b'\t' => b"\\t".to_vec(),
        0 => b"\\0".to_vec(),
        b'/' => b"\\_".to_vec(),
        b'.' if matches!(value, b"." | b"..") => b"\\.".to_vec(),
        byte => vec![*byte],
    };
    let mut name: Vec<u8> = value.iter().flat_map(escape).collect();
    name.truncate(NAME_BYTES_MAX);
    OsString::from_vec(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::ended::tests::task;

    #[test]
    fn values_become_names() {
        let check = |value: &[u8], expect: &str| assert_eq!(name(value), OsString::from(expect));
        check(b"x y", "x y");
        check(b"a/b", "a\\_b");
        check(b"a\\b\tc\0", "a\\\\b\\tc\\0");
        check(b".", "\\.");
        check(b"..", "\\.\\.");
        check(b"...", "...");
        assert_eq!(name(&[b'x'; 300]).len(), NAME_BYTES_MAX);
    }

    #[test]
    fn the_tree_is_gnu_parallels() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::open(dir.path()).unwrap();
        let read = |path: &str| fs::read_to_string(dir.path().join(path)).unwrap();
        tree.output(&task(1, "a/b"), Stream::Stdout, b"first try\n", true)
            .unwrap();
        tree.output(&task(1, "a/b"), Stream::Stdout, b"one\n", true)
            .unwrap();
        tree.output(&task(1, "a/b"), Stream::Stdout, b"two\n", false)
            .unwrap();
        tree.ended(&task(1, "a/b"), true).unwrap();
        tree.ended(&task(2, "silent"), false).unwrap();
        assert_eq!(read("1/a\\_b/stdout"), "one\ntwo\n");
        assert_eq!(read("1/a\\_b/seq"), "1");
        assert_eq!(read("1/silent/stderr"), "");
        let two = Task {
            values: vec![b"a".to_vec(), b"b".to_vec()],
            ..task(3, "a")
        };
        tree.ended(&two, false).unwrap();
        assert_eq!(read("1/a/2/b/seq"), "3");
    }
}
