//! Splits `CMD… ::: ARG… :::: FILE…` into the command and its input sources.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::PathBuf,
};

/// One source of inputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// Values of the command line.
    Values(Vec<Vec<u8>>),
    /// Lines of a file.
    File(PathBuf),
    /// Lines of standard input.
    Stdin,
}

/// Sources that are read side by side: the n-th input takes the n-th value of each.
pub(crate) type Group = Vec<Source>;

/// Why the words make no sense.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SplitError {
    /// `::::` without a file.
    #[error("`{0}` needs at least one file behind it (`-` is stdin)")]
    NoFile(String),
    /// `:::+` or `::::+` first.
    #[error(
        "`{0}` links a source to the one before it, and there is none: begin with `:::` or `::::`"
    )]
    NothingToLink(String),
    /// Stdin twice.
    #[error("stdin can be only one of the inputs")]
    StdinTwice,
}

/// The words of the command, and groups of sources whose combinations are the inputs. Without any separator that
/// is one group: stdin.
///
/// # Errors
/// When a separator has nothing to separate.
pub(crate) fn split(words: &[OsString]) -> Result<(Vec<OsString>, Vec<Group>), SplitError> {
    let first = words
        .iter()
        .position(|word| Separator::of(word).is_some())
        .unwrap_or(words.len());
    let (command, rest) = words.split_at(first);
    let mut groups = Vec::new();
    let mut rest = rest.iter().peekable();
    while let Some(word) = rest.next() {
        let separator = Separator::of(word).unwrap_or_default();
        let mut values: Vec<&OsStr> = separator.file.into_iter().collect();
        while let Some(value) = rest.next_if(|word| Separator::of(word).is_none()) {
            values.push(value);
        }
        add(&mut groups, word, &separator, &values)?;
    }
    if groups.is_empty() {
        groups.push(vec![Source::Stdin]);
    }
    let stdins = groups
        .iter()
        .flatten()
        .filter(|source| **source == Source::Stdin);
    if stdins.count() > 1 {
        return Err(SplitError::StdinTwice);
    }
    Ok((command.to_vec(), groups))
}

/// `:::`, `::::`, `:::+`, `::::+`, or `::::FILE` in one word.
#[derive(Default)]
struct Separator<'a> {
    files: bool,
    linked: bool,
    file: Option<&'a OsStr>,
}

impl<'a> Separator<'a> {
    fn of(word: &'a OsStr) -> Option<Self> {
        let new = |files, linked| Self {
            files,
            linked,
            file: None,
        };
        match word.as_bytes() {
            b":::" => Some(new(false, false)),
            b":::+" => Some(new(false, true)),
            b"::::" => Some(new(true, false)),
            b"::::+" => Some(new(true, true)),
            bytes => bytes
                .strip_prefix(b"::::")
                .filter(|file| file[0] != b':')
                .map(|file| Self {
                    file: Some(OsStr::from_bytes(file)),
                    ..new(true, false)
                }),
        }
    }
}

fn add(
    groups: &mut Vec<Group>,
    word: &OsStr,
    separator: &Separator<'_>,
    values: &[&OsStr],
) -> Result<(), SplitError> {
    let word = word.to_string_lossy().into_owned();
    let sources = if separator.files {
        if values.is_empty() {
            return Err(SplitError::NoFile(word));
        }
        values.iter().map(|file| file_source(file)).collect()
    } else {
        let values = values.iter().map(|value| OsString::from(value).into_vec());
        vec![Source::Values(values.collect())]
    };
    if separator.linked {
        let group = groups.last_mut().ok_or(SplitError::NothingToLink(word))?;
        group.extend(sources);
    } else {
        groups.extend(sources.into_iter().map(|source| vec![source]));
    }
    Ok(())
}

/// The source behind a file name; `-` is stdin.
pub(crate) fn file_source(file: &OsStr) -> Source {
    match file.as_bytes() {
        b"-" => Source::Stdin,
        _ => Source::File(PathBuf::from(file)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<OsString> {
        text.split_whitespace().map(OsString::from).collect()
    }

    fn values(text: &str) -> Source {
        Source::Values(
            text.split_whitespace()
                .map(|value| value.as_bytes().to_vec())
                .collect(),
        )
    }

    fn check(text: &str, command: &str, groups: &[&[Source]]) {
        let groups = groups.iter().map(|group| group.to_vec()).collect();
        assert_eq!(split(&words(text)), Ok((words(command), groups)), "{text}");
    }

    #[test]
    fn sources_follow_the_command() {
        let file = |name: &str| Source::File(PathBuf::from(name));
        check("echo", "echo", &[&[Source::Stdin]]);
        check("echo {} ::: a b", "echo {}", &[&[values("a b")]]);
        check("::: a", "", &[&[values("a")]]);
        check("echo :::", "echo", &[&[values("")]]);
        check(
            "echo ::: a ::: b c",
            "echo",
            &[&[values("a")], &[values("b c")]],
        );
        check(
            "echo ::: a b :::+ c d",
            "echo",
            &[&[values("a b"), values("c d")]],
        );
        check("echo :::: f g", "echo", &[&[file("f")], &[file("g")]]);
        check("echo ::::f", "echo", &[&[file("f")]]);
        check("echo :::: -", "echo", &[&[Source::Stdin]]);
        check("echo ::: a ::::+ f", "echo", &[&[values("a"), file("f")]]);
        check(
            "echo a::: ::::: ::: b",
            "echo a::: :::::",
            &[&[values("b")]],
        );
    }

    #[test]
    fn separators_without_anything_to_separate_are_refused() {
        let check = |text: &str, error| assert_eq!(split(&words(text)), Err(error), "{text}");
        check("echo ::::", SplitError::NoFile("::::".into()));
        check("echo :::+ a", SplitError::NothingToLink(":::+".into()));
        check("echo :::: - :::: -", SplitError::StdinTwice);
    }
}
