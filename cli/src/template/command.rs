//! One task's command: what is sent, what is shown, and whether a joblog shows the same.

use bytes::Bytes;
use fleetpool_proto::command::{CommandTask, Piece, Word};

use super::quote;

/// Runs lines.
const SHELL: &str = "/bin/sh";

/// A command; only what its host alone knows is still to be filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Command {
    words: Vec<Word>,
    shell: bool,
    /// What starts it, and is not shown.
    starter: Vec<Word>,
}

impl Command {
    pub(super) fn new(words: Vec<Word>, shell: bool, starter: Vec<Word>) -> Self {
        Self {
            words,
            shell,
            starter,
        }
    }

    /// The argument of a task of the `command` runtime.
    pub(crate) fn payload(&self) -> Result<Bytes, rmp_serde::encode::Error> {
        let mut argv = self.starter.clone();
        if self.shell {
            argv.extend([Word::literal(SHELL), Word::literal("-c")]);
        }
        argv.extend_from_slice(&self.words);
        rmp_serde::to_vec_named(&CommandTask { argv }).map(Bytes::from)
    }

    /// The command as a shell's line, as it ran on `host` in the `slot`-th slot, counted from 1.
    pub(crate) fn text(&self, host: &str, slot: u32) -> Vec<u8> {
        self.line(host, &slot.to_string())
    }

    /// The command before it is known where it runs: `{host}` and `{%}` stand for themselves.
    pub(crate) fn text_anywhere(&self) -> Vec<u8> {
        self.line("{host}", "{%}")
    }

    /// Whether `text` is this command, run on `host` in whichever slot.
    pub(crate) fn is(&self, text: &[u8], host: &str) -> bool {
        let line = self.line(host, ANY_SLOT);
        let mut rest = text;
        let mut literals = split_at(&line, ANY_SLOT.as_bytes()).into_iter();
        let first = literals.next().unwrap_or_default();
        rest = match rest.strip_prefix(first) {
            Some(rest) => rest,
            None => return false,
        };
        for literal in literals {
            let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
            rest = match rest[digits..].strip_prefix(literal) {
                Some(rest) => rest,
                None => return false,
            };
        }
        rest.is_empty()
    }

    fn line(&self, host: &str, slot: &str) -> Vec<u8> {
        let fill = |piece: &Piece| match piece {
            Piece::Literal(bytes) => bytes.to_vec(),
            Piece::Host => host.as_bytes().to_vec(),
            Piece::Slot => slot.as_bytes().to_vec(),
        };
        let words = self
            .words
            .iter()
            .map(|Word(pieces)| pieces.iter().flat_map(fill).collect());
        let words: Vec<Vec<u8>> = words.collect();
        if self.shell {
            return words.join(&b' ');
        }
        quote::join(words.iter().map(Vec::as_slice))
    }
}

/// Stands for a slot's number in a line that is compared; quoted, or not, as digits are.
const ANY_SLOT: &str = "%%any-slot%%";

fn split_at<'a>(mut line: &'a [u8], mark: &[u8]) -> Vec<&'a [u8]> {
    let mut parts = Vec::new();
    while let Some(at) = line.windows(mark.len()).position(|window| window == mark) {
        parts.push(&line[..at]);
        line = &line[at + mark.len()..];
    }
    parts.push(line);
    parts
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::super::{Syntax, Template};

    #[test]
    fn a_command_knows_its_own_line_on_whichever_slot() {
        let check = |words: &[&str], value: &str, text: &str, expect: bool| {
            let words: Vec<_> = words.iter().map(OsString::from).collect();
            let template = Template::parse(&words, false, &Syntax::Inputs { sources: 1 }).unwrap();
            let command = template.command(1, &[value.as_bytes().to_vec()]);
            assert_eq!(
                command.is(text.as_bytes(), "web1"),
                expect,
                "{words:?} {text}"
            );
        };
        check(&["echo"], "a b", "echo 'a b'", true);
        check(&["echo"], "a b", "echo a b", false);
        check(&["echo"], "a", "echo ab", false);
        check(&["echo", "{%}-{host}"], "a", "echo 12-web1", true);
        check(&["echo", "{%}-{host}"], "a", "echo 12-web2", false);
        check(&["echo", "{%}-{host}"], "a", "echo x-web1", false);
        check(&["echo {%} {}"], "a b", "echo 3 'a b'", true);
        check(&["echo {} {%}"], "a", "echo a 31", true);
        check(&["echo {} {%}"], "a", "echo a 31x", false);
    }
}
