//! The inputs, one after another: all combinations of the groups, the last one changing fastest. The first group is
//! read lazily; the others are kept, since they are needed again and again.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read as _},
    path::PathBuf,
};

use fleetpool_proto::limits::INPUT_BYTES_MAX;

use super::{
    Row,
    split::{Group, Source},
};

/// Why an input cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InputError {
    /// A file of `::::` that does not open.
    #[error("cannot open the input file {}: {source}: name one that is there, or `-` for stdin", path.display())]
    Open {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Reading failed half way.
    #[error("cannot read on in {name}: {source}: the inputs after this point were not run")]
    Read {
        /// What was read.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// One that no program can be given.
    #[error(
        "input {number} of {name} is longer than {INPUT_BYTES_MAX} bytes, the most that a program takes as an argument: put it into a file and give the file's name; it and the inputs after it were not run"
    )]
    TooLong {
        /// What was read.
        name: String,
        /// Which, counted from 1.
        number: u64,
    },
}

type Values = Box<dyn Iterator<Item = Result<Vec<u8>, InputError>> + Send>;

/// An iterator over all inputs.
pub(crate) struct Rows {
    first: Linked,
    current: Option<Row>,
    kept: Vec<Vec<Row>>,
    /// Which row of each kept group comes next.
    odometer: Vec<usize>,
    len: Option<u64>,
    waits: bool,
}

impl Rows {
    /// Opens every source. `separator` ends each input of a file or of stdin.
    ///
    /// # Errors
    /// When a file does not open, or one that must be read ahead cannot be read.
    pub(crate) fn open(groups: Vec<Group>, separator: u8) -> Result<Self, InputError> {
        let mut groups = groups.into_iter();
        let first = groups.next().unwrap_or_default();
        let waits = first
            .iter()
            .any(|source| !matches!(source, Source::Values(_)));
        let first_len = first
            .iter()
            .filter_map(Source::len)
            .min()
            .filter(|_| !waits);
        let first = Linked::open(first, separator)?;
        let kept = groups
            .map(|group| Linked::open(group, separator)?.collect())
            .collect::<Result<Vec<Vec<Row>>, _>>()?;
        let combinations = kept.iter().map(|rows| rows.len() as u64).product::<u64>();
        Ok(Self {
            first,
            current: None,
            odometer: vec![0; kept.len()],
            kept,
            len: first_len.map(|len| len * combinations),
            waits,
        })
    }

    /// How many there are, where that is known before they are read.
    pub(crate) fn total(&self) -> Option<u64> {
        self.len
    }

    /// Whether the next one may have to be waited for.
    pub(crate) fn waits(&self) -> bool {
        self.waits
    }

    /// Turns the odometer; `false` when it is back at its start.
    fn turn(&mut self) -> bool {
        for (digit, rows) in self.odometer.iter_mut().zip(&self.kept).rev() {
            *digit += 1;
            if *digit < rows.len() {
                return true;
            }
            *digit = 0;
        }
        false
    }
}

impl Iterator for Rows {
    type Item = Result<Row, InputError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.kept.iter().any(Vec::is_empty) {
            return None;
        }
        if self.current.is_none() {
            match self.first.next()? {
                Ok(row) => self.current = Some(row),
                Err(error) => return Some(Err(error)),
            }
        }
        let mut row = self.current.clone()?;
        for (digit, rows) in self.odometer.iter().zip(&self.kept) {
            row.extend_from_slice(&rows[*digit]);
        }
        if !self.turn() {
            self.current = None;
        }
        Some(Ok(row))
    }
}

impl Source {
    fn len(&self) -> Option<u64> {
        match self {
            Self::Values(values) => Some(values.len() as u64),
            Self::File(_) | Self::Stdin => None,
        }
    }

    fn open(self, separator: u8) -> Result<Values, InputError> {
        Ok(match self {
            Self::Values(values) => Box::new(values.into_iter().map(Ok)),
            Self::File(path) => {
                let name = path.display().to_string();
                let file = File::open(&path).map_err(|source| InputError::Open { path, source })?;
                Box::new(records(BufReader::new(file), separator, name))
            }
            Self::Stdin => Box::new(records(
                BufReader::new(io::stdin()),
                separator,
                "stdin".to_owned(),
            )),
        })
    }
}

/// The sources of one group side by side; the shortest ends them all.
struct Linked(Vec<Values>);

impl Linked {
    fn open(group: Group, separator: u8) -> Result<Self, InputError> {
        let sources = group.into_iter().map(|source| source.open(separator));
        sources.collect::<Result<_, _>>().map(Self)
    }
}

impl Iterator for Linked {
    type Item = Result<Row, InputError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0
            .iter_mut()
            .map(Iterator::next)
            .collect::<Option<Result<Row, _>>>()
    }
}

/// What stands between separators; the last one need not be ended by one. Nothing comes after an error.
fn records(
    mut reader: impl BufRead + Send,
    separator: u8,
    name: String,
) -> impl Iterator<Item = Result<Vec<u8>, InputError>> + Send {
    let mut number = 0;
    let mut over = false;
    std::iter::from_fn(move || {
        if over {
            return None;
        }
        number += 1;
        let record = record(&mut reader, separator);
        let name = || name.clone();
        let record = match record {
            Ok(Some(record)) if record.len() > INPUT_BYTES_MAX => {
                let name = name();
                Err(InputError::TooLong { name, number })
            }
            Ok(record) => Ok(record?),
            Err(source) => Err(InputError::Read {
                name: name(),
                source,
            }),
        };
        over = record.is_err();
        Some(record)
    })
    .fuse()
}

/// The next one, or as much of it as shows that it is too long; `None` at the end.
fn record(reader: &mut impl BufRead, separator: u8) -> io::Result<Option<Vec<u8>>> {
    let mut record = Vec::new();
    let most = INPUT_BYTES_MAX as u64 + 1;
    let read = reader.take(most).read_until(separator, &mut record)?;
    record.pop_if(|last| *last == separator);
    Ok((read > 0).then_some(record))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn rows(groups: Vec<Group>) -> Vec<String> {
        let rows = Rows::open(groups, b'\n').unwrap();
        let total = rows.total();
        let text: Vec<_> = rows
            .map(|row| String::from_utf8(row.unwrap().join(&b' ')).unwrap())
            .collect();
        assert!(total.is_none_or(|total| total == text.len() as u64));
        text
    }

    fn values(text: &str) -> Source {
        Source::Values(
            text.split_whitespace()
                .map(|value| value.as_bytes().to_vec())
                .collect(),
        )
    }

    fn file(content: &[u8]) -> (tempfile::NamedTempFile, Source) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content).unwrap();
        let source = Source::File(file.path().to_owned());
        (file, source)
    }

    #[test]
    fn several_sources_make_every_combination_the_last_changing_fastest() {
        assert_eq!(rows(vec![vec![values("a b")]]), ["a", "b"]);
        assert_eq!(
            rows(vec![vec![values("a b")], vec![values("1 2")]]),
            ["a 1", "a 2", "b 1", "b 2"]
        );
        assert_eq!(
            rows(vec![
                vec![values("a b")],
                vec![values("x")],
                vec![values("1 2")]
            ]),
            ["a x 1", "a x 2", "b x 1", "b x 2"]
        );
        assert!(rows(vec![vec![values("a b")], vec![values("")]]).is_empty());
        assert!(rows(vec![vec![values("")], vec![values("1")]]).is_empty());
    }

    #[test]
    fn linked_sources_run_side_by_side_until_the_shortest_ends() {
        assert_eq!(
            rows(vec![vec![values("a b c"), values("1 2")]]),
            ["a 1", "b 2"]
        );
    }

    #[test]
    fn files_give_lines_and_empty_ones_count() {
        let check = |content: &[u8], expect: &[&str]| {
            let (_guard, source) = file(content);
            assert_eq!(rows(vec![vec![source]]), expect, "{content:?}");
        };
        check(b"", &[]);
        check(b"a\nb\n", &["a", "b"]);
        check(b"a\n\nb", &["a", "", "b"]);
        check(b"a\r\n", &["a\r"]);
    }

    #[test]
    fn nul_separates_where_asked() {
        let (_guard, source) = file(b"a\nb\0c\0");
        let rows: Vec<_> = Rows::open(vec![vec![source]], 0)
            .unwrap()
            .map(|row| row.unwrap())
            .collect();
        assert_eq!(rows, [[b"a\nb".to_vec()], [b"c".to_vec()]]);
    }

    #[test]
    fn g7_an_input_that_no_program_can_be_given_is_refused_and_not_read_to_its_end() {
        let longest = vec![b'x'; INPUT_BYTES_MAX];
        let lines = [b"a", &longest[..], b"b"].join(&b'\n');
        let read = |lines: Vec<u8>| records(io::Cursor::new(lines), b'\n', "lines".to_owned());
        let all: Result<Vec<_>, _> = read(lines).collect();
        assert_eq!(all.unwrap(), [b"a", &longest[..], b"b"]);
        let longer = [b"a", &[&longest[..], b"x"].concat()[..], b"b"].join(&b'\n');
        let mut read = read(longer);
        assert_eq!(read.next().unwrap().unwrap(), b"a");
        let error = read.next().unwrap().unwrap_err().to_string();
        assert!(
            error.contains("input 2 of lines is longer than 131071 bytes"),
            "{error}"
        );
        assert!(read.next().is_none());
        // What never ends is no different.
        let mut endless = records(BufReader::new(io::repeat(b'x')), b'\n', "x".to_owned());
        let first = endless.next().unwrap();
        assert!(matches!(first, Err(InputError::TooLong { number: 1, .. })));
    }

    #[test]
    fn a_missing_file_is_told_before_anything_runs() {
        let missing = vec![vec![Source::File("/does/not/exist".into())]];
        let error = Rows::open(missing, b'\n').err().unwrap().to_string();
        assert!(
            error.contains("/does/not/exist") && error.contains("stdin"),
            "{error}"
        );
    }
}
