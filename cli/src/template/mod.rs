//! Command templates: what `{}` and its relatives become. Pure: words and an input go in, a command comes out.
//!
//! Without a shell a template is a list of words, and each input makes exactly these words. With a shell it is one
//! line, and what is filled in is quoted for the place where it stands ([`shell`]).

mod command;
mod expand;
mod parse;
mod path;
pub(crate) mod quote;
mod shell;

use fleetpool_proto::command::Word;

pub(crate) use command::Command;
pub(crate) use parse::Syntax;

/// A command with places to fill in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template {
    words: Vec<Vec<Part>>,
    /// The only word is a line for `sh -c`.
    shell: bool,
    /// What starts the command, and is not shown.
    starter: Vec<Word>,
}

impl Template {
    /// The same, started by these words.
    pub(crate) fn started_by(self, starter: Vec<Word>) -> Self {
        Self { starter, ..self }
    }
}

/// A part of a word.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    /// These bytes.
    Literal(Vec<u8>),
    /// Something to fill in, and the quotes it stands in.
    Place(Place, Quotes),
}

/// What is filled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// An input, or a piece of it.
    Input(Which, Edit),
    /// The task's number, counted from 1.
    Seq,
    /// The slot's number, counted from 1; only the host knows it.
    Slot,
    /// The host's name; only the host knows it.
    Host,
}

/// Which of several inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    /// All, as words of their own where they make up a whole word, joined by spaces elsewhere.
    All,
    /// The n-th source, counted from 0.
    Source(usize),
}

/// What of an input is filled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Edit {
    /// `{}`
    Whole,
    /// `{.}`: without its extension.
    NoExtension,
    /// `{/}`: without its folder.
    Base,
    /// `{//}`: its folder.
    Folder,
    /// `{/.}`: without either.
    BaseNoExtension,
}

/// Where in a shell's line a place stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Quotes {
    /// No shell will see it.
    NoShell,
    /// Outside of quotes.
    Bare,
    /// Between `'`.
    Single,
    /// Between `"`.
    Double,
}
