//! `--results`: what each task printed, kept in files. A folder gets GNU parallel's tree, written as output comes;
//! `FILE.json` a line a task with the fields of `--json`; `FILE.csv` the same fields as columns.

mod archives;
mod tree;

use std::{
    fs::File,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use fleetpool_proto::message::Stream;

use crate::{
    output::record::Record,
    run::ended::{Ended, Task},
};

use archives::Archives;
use tree::Tree;

/// A result that could not be kept.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the results to {}: {source}: make room there or name another place with --results; with --joblog, --resume goes on from here", path.display())]
pub(crate) struct ResultsError {
    path: PathBuf,
    source: io::Error,
}

/// Where results are kept.
#[derive(Debug)]
pub(crate) struct Results {
    path: PathBuf,
    form: Form,
}

#[derive(Debug)]
enum Form {
    Tree(Tree),
    Json(File),
    Csv(Box<csv::Writer<File>>),
    Archives(Archives),
}

impl Results {
    /// Makes the folder or file. `go_on` keeps what an earlier run left in it.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(crate) fn open(path: &Path, go_on: bool) -> Result<Self, ResultsError> {
        let form = match path.extension().and_then(|extension| extension.to_str()) {
            Some("json") => open_file(path, go_on).map(Form::Json),
            Some("csv") => open_csv(path, go_on).map(|writer| Form::Csv(Box::new(writer))),
            _ => Tree::open(path).map(Form::Tree),
        };
        form.map(|form| Self {
            path: path.to_owned(),
            form,
        })
        .map_err(|source| ResultsError {
            path: path.to_owned(),
            source,
        })
    }

    /// What hosts pack goes to a folder below `dest` for each.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(crate) fn archives(dest: &Path) -> Result<Self, ResultsError> {
        let path = dest.to_owned();
        match Archives::open(dest) {
            Ok(archives) => Ok(Self {
                path,
                form: Form::Archives(archives),
            }),
            Err(source) => Err(ResultsError { path, source }),
        }
    }

    /// Whether what comes by that stream is for nobody else.
    pub(crate) fn keeps_alone(&self, stream: Stream) -> bool {
        matches!(self.form, Form::Archives(_)) && stream == Stream::Stdout
    }

    /// Whether [`Self::ended`] wants all that a task printed.
    pub(crate) fn wants_output(&self) -> bool {
        matches!(self.form, Form::Json(_) | Form::Csv(_))
    }

    /// Keeps what a task printed; `anew` drops what an earlier try of it has printed.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn output(
        &mut self,
        task: &Task,
        stream: Stream,
        bytes: &[u8],
        anew: bool,
    ) -> Result<(), ResultsError> {
        let written = match &mut self.form {
            Form::Tree(tree) => tree.output(task, stream, bytes, anew),
            Form::Archives(archives) if stream == Stream::Stdout => archives.output(task, bytes),
            Form::Archives(_) | Form::Json(_) | Form::Csv(_) => Ok(()),
        };
        written.map_err(|source| self.error(source))
    }

    /// Keeps how a task ended, and whether it has printed anything.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn ended(
        &mut self,
        ended: &Ended,
        printed: bool,
        record: Option<&Record>,
    ) -> Result<(), ResultsError> {
        let written = match (&mut self.form, record) {
            (Form::Tree(tree), _) => tree.ended(&ended.task, printed),
            (Form::Archives(archives), _) => archives.ended(ended),
            (Form::Json(file), Some(record)) => file.write_all(&record.json_line()),
            (Form::Csv(writer), Some(record)) => writer
                .serialize(record)
                .map_err(io::Error::other)
                .and_then(|()| writer.flush()),
            (_, None) => Ok(()),
        };
        written.map_err(|source| self.error(source))
    }

    fn error(&self, source: io::Error) -> ResultsError {
        ResultsError {
            path: self.path.clone(),
            source,
        }
    }
}

fn open_file(path: &Path, go_on: bool) -> io::Result<File> {
    File::options()
        .create(true)
        .write(true)
        .append(go_on)
        .truncate(!go_on)
        .open(path)
}

fn open_csv(path: &Path, go_on: bool) -> io::Result<csv::Writer<File>> {
    let file = open_file(path, go_on)?;
    let is_new = file.metadata()?.len() == 0;
    Ok(csv::WriterBuilder::new()
        .has_headers(is_new)
        .from_writer(file))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::ended::tests::ended;

    fn write(path: &Path, go_on: bool, seq: u64) {
        let mut results = Results::open(path, go_on).unwrap();
        let ended = ended(seq, "a b", 0);
        results
            .ended(&ended, true, Some(&Record::new(&ended, b"x,\"y\"\n", b"")))
            .unwrap();
    }

    #[test]
    fn json_and_csv_hold_a_record_a_task_and_go_on_when_resumed() {
        let dir = tempfile::tempdir().unwrap();
        let check = |name: &str, expect_lines: usize| {
            let path = dir.path().join(name);
            write(&path, false, 9);
            write(&path, false, 1);
            write(&path, true, 2);
            let text = std::fs::read_to_string(&path).unwrap();
            assert_eq!(text.lines().count(), expect_lines, "{text}");
        };
        check("r.json", 2);
        check("r.csv", 5);
        insta::assert_snapshot!(std::fs::read_to_string(dir.path().join("r.csv")).unwrap(), @r#"
        index,host,pid,attempt,start,runtime,exit,signal,outcome,stdout,stderr,cmd
        0,web1,77,0,1700000000.123456,0.012345,0,,done,"x,""y""
        ",,echo 'a b'
        1,web1,77,0,1700000000.123456,0.012345,0,,done,"x,""y""
        ",,echo 'a b'
        "#);
    }

    #[test]
    fn a_full_disk_is_told_with_the_way_out() {
        let file = File::options().write(true).open("/dev/full").unwrap();
        let mut results = Results {
            path: "/dev/full".into(),
            form: Form::Json(file),
        };
        let ended = ended(1, "a", 0);
        let error = results
            .ended(&ended, true, Some(&Record::new(&ended, b"", b"")))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("/dev/full") && error.contains("make room"),
            "{error}"
        );
    }
}
