//! `--joblog`, in GNU parallel's columns, and `--resume`, which reads it again.
//!
//! A row is written when its task has ended by itself. What was cancelled leaves none, so that it runs on resume.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use fleetpool_proto::Outcome;

use crate::run::ended::{Ended, Task};

const HEADER: &str = "Seq\tHost\tStarttime\tJobRuntime\tSend\tReceive\tExitval\tSignal\tCommand\n";
/// Columns before the command.
const COLUMNS: usize = 8;

/// Why a joblog cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JoblogError {
    /// It cannot be opened or written.
    #[error("cannot write the joblog {}: {source}: what has run so far is in it, make room or name another file and go on with --resume", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It cannot be opened.
    #[error("cannot open the joblog {}: {source}: name a file that you may write", path.display())]
    Open {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is some other kind of file.
    #[error("{} is no joblog: line {line} is `{text}`: name the file that --joblog wrote, or start afresh without --resume", path.display())]
    Malformed {
        /// Which.
        path: PathBuf,
        /// Where.
        line: usize,
        /// What stands there.
        text: String,
    },
    /// It tells of other tasks.
    #[error("the joblog {} is of another run: its task {seq} ran `{logged}`, task {seq} of this run is `{now}`: give the same command and inputs, or start afresh without --resume", path.display())]
    OtherRun {
        /// Which.
        path: PathBuf,
        /// The first task that differs.
        seq: u64,
        /// What the joblog says.
        logged: String,
        /// What this run would do.
        now: String,
    },
}

/// Which finished tasks are not run again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resume {
    /// All that have a row.
    Finished,
    /// All that succeeded.
    Succeeded,
}

/// What an earlier run did.
#[derive(Debug)]
pub(crate) struct Past {
    path: PathBuf,
    resume: Resume,
    rows: BTreeMap<u64, PastRow>,
    /// Bytes of whole lines: what follows was cut off in the middle of writing.
    whole_bytes: u64,
}

#[derive(Debug, PartialEq, Eq)]
struct PastRow {
    host: String,
    succeeded: bool,
    command: Vec<u8>,
}

impl Past {
    /// Reads `path`; a file that is not there tells of nothing.
    ///
    /// # Errors
    /// When it cannot be read or is no joblog.
    pub(crate) fn read(path: &Path, resume: Resume) -> Result<Self, JoblogError> {
        let content = match std::fs::read(path) {
            Ok(content) => content,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(source) => {
                return Err(JoblogError::Open {
                    path: path.to_owned(),
                    source,
                });
            }
        };
        let whole = content
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |at| at + 1);
        let rows = content[..whole]
            .split_inclusive(|byte| *byte == b'\n')
            .enumerate();
        let rows = rows
            .filter(|(_, line)| *line != HEADER.as_bytes())
            .map(|(at, line)| {
                PastRow::parse(&line[..line.len() - 1]).ok_or_else(|| JoblogError::Malformed {
                    path: path.to_owned(),
                    line: at + 1,
                    text: String::from_utf8_lossy(line)
                        .trim_end()
                        .chars()
                        .take(80)
                        .collect(),
                })
            });
        Ok(Self {
            path: path.to_owned(),
            resume,
            rows: rows.collect::<Result<_, _>>()?,
            whole_bytes: whole as u64,
        })
    }

    /// Whether `task` need not be run again.
    ///
    /// # Errors
    /// When the joblog tells of another command under its number.
    pub(crate) fn covers(&self, task: &Task) -> Result<bool, JoblogError> {
        let Some(row) = self.rows.get(&task.seq) else {
            return Ok(false);
        };
        if !row.is_of(task) {
            return Err(JoblogError::OtherRun {
                path: self.path.clone(),
                seq: task.seq,
                logged: on(&row.host, &row.command, task),
                now: on(task.host_name(), &task.command.text_anywhere(), task),
            });
        }
        Ok(row.succeeded || self.resume == Resume::Finished)
    }
}

impl PastRow {
    fn parse(line: &[u8]) -> Option<(u64, Self)> {
        let columns: Vec<&[u8]> = line.splitn(COLUMNS + 1, |byte| *byte == b'\t').collect();
        let text = |at: usize| std::str::from_utf8(columns.get(at)?).ok();
        let seq = text(0)?.parse().ok()?;
        let exit: i64 = text(6)?.parse().ok()?;
        let signal: i64 = text(7)?.parse().ok()?;
        let row = Self {
            host: text(1)?.to_owned(),
            succeeded: exit == 0 && signal == 0,
            command: swap(columns.get(COLUMNS)?, 0, b'\n'),
        };
        Some((seq, row))
    }

    fn is_of(&self, task: &Task) -> bool {
        let same_host = task.host.is_none() || task.host_name() == self.host;
        same_host && task.command.is(&self.command, &self.host)
    }
}

/// A command, with its host where a task is meant for one.
fn on(host: &str, command: &[u8], task: &Task) -> String {
    let command = String::from_utf8_lossy(command);
    match task.host {
        Some(_) => format!("{command} on {host}"),
        None => command.into_owned(),
    }
}

/// Writes a joblog.
#[derive(Debug)]
pub(crate) struct Joblog {
    path: PathBuf,
    file: File,
}

impl Joblog {
    /// Starts `path` afresh, or goes on behind what `past` read of it.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn open(path: &Path, past: Option<&Past>) -> Result<Self, JoblogError> {
        let keep = past.map_or(0, |past| past.whole_bytes);
        let open = || {
            let mut file = OpenOptions::new().append(true).create(true).open(path)?;
            if file.metadata()?.is_file() {
                file.set_len(keep)?;
            }
            if keep == 0 {
                file.write_all(HEADER.as_bytes())?;
            }
            Ok(file)
        };
        match open() {
            Ok(file) => Ok(Self {
                path: path.to_owned(),
                file,
            }),
            Err(source) => Err(JoblogError::Open {
                path: path.to_owned(),
                source,
            }),
        }
    }

    /// Notes a task that has ended, and the bytes it printed.
    ///
    /// # Errors
    /// When the row cannot be written.
    pub(crate) fn note(&mut self, ended: &Ended, printed: u64) -> Result<(), JoblogError> {
        let row = row(ended, printed);
        self.file
            .write_all(&row)
            .map_err(|source| JoblogError::Write {
                path: self.path.clone(),
                source,
            })
    }
}

/// One line. A newline within the command is written as NUL, as GNU parallel does. Times have six decimals where it
/// has three: rounded to milliseconds, tasks that follow each other in one slot would seem to overlap.
fn row(ended: &Ended, printed: u64) -> Vec<u8> {
    let (exit, signal) = exit_columns(ended);
    let mut row = format!(
        "{}\t{}\t{:.6}\t{:13.6}\t0\t{printed}\t{exit}\t{signal}\t",
        ended.task.seq,
        ended.host,
        ended.start_s(),
        ended.runtime_s(),
    )
    .into_bytes();
    row.extend(swap(&ended.text, b'\n', 0));
    row.push(b'\n');
    row
}

/// `Exitval` and `Signal`: -1 where there is no exit status to tell of, 127 where nothing could be started.
fn exit_columns(ended: &Ended) -> (i32, i32) {
    let signal = ended.signal.unwrap_or(0);
    match (ended.outcome, ended.exit) {
        (Outcome::Done, _) => (0, 0),
        (Outcome::NotStarted, exit) => (exit.unwrap_or(127), signal),
        (Outcome::TimedOut, _) => (-1, signal),
        (_, Some(exit)) => (exit, signal),
        (_, None) if signal != 0 => (0, signal),
        (_, None) => (-1, 0),
    }
}

fn swap(bytes: &[u8], from: u8, to: u8) -> Vec<u8> {
    let swap = |byte: &u8| if *byte == from { to } else { *byte };
    bytes.iter().map(swap).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::ended::tests::{ended, task};

    fn write(path: &Path, rows: &[Ended]) {
        let mut joblog = Joblog::open(path, None).unwrap();
        rows.iter().for_each(|row| joblog.note(row, 4).unwrap());
    }

    #[test]
    fn the_columns_are_gnu_parallels() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        write(&path, &[ended(3, "a b\nc", 7)]);
        let text = std::fs::read_to_string(path).unwrap();
        assert_eq!(
            text,
            "Seq\tHost\tStarttime\tJobRuntime\tSend\tReceive\tExitval\tSignal\tCommand\n\
             3\tweb1\t1700000000.123456\t     0.012345\t0\t4\t7\t0\techo 'a b\0c'\n"
        );
    }

    #[test]
    fn each_end_has_its_columns() {
        let check = |outcome, exit, signal, expect| {
            let ended = Ended {
                outcome,
                exit,
                signal,
                ..ended(1, "a", 0)
            };
            assert_eq!(exit_columns(&ended), expect, "{outcome}");
        };
        check(Outcome::Done, Some(0), None, (0, 0));
        check(Outcome::Failed, Some(3), None, (3, 0));
        check(Outcome::Failed, None, Some(9), (0, 9));
        check(Outcome::TimedOut, None, Some(15), (-1, 15));
        check(Outcome::NotStarted, None, None, (127, 0));
        check(Outcome::HostLost, None, None, (-1, 0));
    }

    #[test]
    fn what_was_done_is_not_done_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        write(&path, &[ended(1, "a", 0), ended(3, "c", 1)]);
        let check = |resume, seq, value, expect| {
            let past = Past::read(&path, resume).unwrap();
            assert_eq!(
                past.covers(&task(seq, value)).unwrap(),
                expect,
                "{resume:?} {seq}"
            );
        };
        check(Resume::Finished, 1, "a", true);
        check(Resume::Finished, 2, "b", false);
        check(Resume::Finished, 3, "c", true);
        check(Resume::Succeeded, 1, "a", true);
        check(Resume::Succeeded, 3, "c", false);
    }

    #[test]
    fn the_last_row_of_a_task_counts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        write(&path, &[ended(1, "a", 1), ended(1, "a", 0)]);
        assert!(
            Past::read(&path, Resume::Succeeded)
                .unwrap()
                .covers(&task(1, "a"))
                .unwrap()
        );
    }

    #[test]
    fn a_joblog_of_another_run_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        write(&path, &[ended(1, "a", 0)]);
        let past = Past::read(&path, Resume::Finished).unwrap();
        let error = past.covers(&task(1, "z")).unwrap_err().to_string();
        assert!(
            error.contains("echo a") && error.contains("echo z") && error.contains("--resume"),
            "{error}"
        );
    }

    #[test]
    fn a_joblog_of_other_hosts_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        write(&path, &[ended(1, "a", 0)]);
        let past = Past::read(&path, Resume::Finished).unwrap();
        let on = |name: &str| {
            let (id, name) = (fleetpool_proto::HostId(1), name.to_owned());
            Task {
                host: Some(crate::run::ended::Pinned { id, name }),
                ..task(1, "a")
            }
        };
        assert!(past.covers(&on("web1")).unwrap());
        let error = past.covers(&on("web2")).unwrap_err().to_string();
        assert!(
            error.contains("`echo a on web1`") && error.contains("`echo a on web2`"),
            "{error}"
        );
    }

    #[test]
    fn another_kind_of_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, "root:x:0:0\n").unwrap();
        let error = Past::read(&path, Resume::Finished).unwrap_err().to_string();
        assert!(
            error.contains("no joblog") && error.contains("root:x"),
            "{error}"
        );
    }

    #[test]
    fn a_row_cut_off_in_the_middle_is_dropped_and_written_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        write(&path, &[ended(1, "a", 0), ended(2, "b", 0)]);
        let content = std::fs::read(&path).unwrap();
        std::fs::write(&path, &content[..content.len() - 5]).unwrap();
        let past = Past::read(&path, Resume::Finished).unwrap();
        assert!(!past.covers(&task(2, "b")).unwrap());
        Joblog::open(&path, Some(&past))
            .unwrap()
            .note(&ended(2, "b", 0), 4)
            .unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), content);
    }
}
