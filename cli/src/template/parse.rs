//! Reads templates: finds the places in the words, and turns down what looks like a place and is none.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt as _,
};

use super::{Edit, Part, Place, Quotes, Template, Which, shell};

/// Which placeholders there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Syntax {
    /// All of them, over this many sources of inputs.
    Inputs {
        /// Sources.
        sources: usize,
    },
    /// Only this text, in place of `{}`: braces mean nothing (`-I`).
    Only {
        /// The text.
        placeholder: Vec<u8>,
    },
    /// Only `{host}`: there are no inputs.
    Host,
}

/// Why a template makes no sense.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TemplateError {
    /// Something in braces that looks like a placeholder.
    #[error(
        "`{typo}` in `{word}` is no placeholder. There are {{}} {{.}} {{/}} {{//}} {{/.}} {{#}} {{%}} {{host}}, and with several inputs {{1}} {{2.}} and so on. \
         To pass braces as they are, choose another placeholder with -I, as in: fleetpool map -I @ awk '{{print}}' @ ::: *.txt"
    )]
    Unknown {
        /// What it is.
        typo: String,
        /// The word it stands in.
        word: String,
    },
    /// `{3}` of two sources.
    #[error("`{place}` in `{word}` asks for input source {number}, and there {}", are(*sources))]
    NoSuchSource {
        /// The placeholder.
        place: String,
        /// The word it stands in.
        word: String,
        /// The source asked for, counted from 1.
        number: usize,
        /// Sources there are.
        sources: usize,
    },
    /// A placeholder where a shell's line has no safe way to quote a value.
    #[error("in `{line}` a placeholder stands {place}: {way_out}")]
    Unquotable {
        /// The line.
        line: String,
        /// Where.
        place: &'static str,
        /// What to write in its place.
        way_out: &'static str,
    },
}

fn are(sources: usize) -> String {
    match sources {
        1 => "is 1".to_owned(),
        _ => format!("are {sources}"),
    }
}

impl Template {
    /// Reads `words`; one word with blanks in it, or any with `shell` set, is a line for `sh -c`. Without a place for
    /// the input, it is appended; without words, the input itself is the line.
    ///
    /// # Errors
    /// On a placeholder that is misspelt or cannot be quoted where it stands.
    pub(crate) fn parse(
        words: &[OsString],
        shell: bool,
        syntax: &Syntax,
    ) -> Result<Self, TemplateError> {
        let all = |quotes| Part::Place(Place::Input(Which::All, Edit::Whole), quotes);
        if words.is_empty() {
            return Ok(Self {
                words: vec![vec![all(Quotes::NoShell)]],
                shell: true,
                starter: Vec::new(),
            });
        }
        let shell = shell || is_line(words);
        let words = if shell {
            vec![words.join(OsStr::new(" "))]
        } else {
            words.to_vec()
        };
        let mut template = Self {
            words: words
                .iter()
                .map(|word| syntax.parts(word.as_bytes()))
                .collect::<Result<_, _>>()?,
            shell,
            starter: Vec::new(),
        };
        if *syntax != Syntax::Host && !template.has_place() {
            template.append(all(Quotes::NoShell));
        }
        if shell {
            shell::find_quotes(&mut template.words[0])?;
        }
        Ok(template)
    }

    fn has_place(&self) -> bool {
        self.words
            .iter()
            .flatten()
            .any(|part| matches!(part, Part::Place(..)))
    }

    fn append(&mut self, all: Part) {
        if self.shell {
            self.words[0].extend([Part::Literal(b" ".to_vec()), all]);
        } else {
            self.words.push(vec![all]);
        }
    }
}

/// Whether `words` are a line for a shell rather than a program and its arguments.
fn is_line(words: &[OsString]) -> bool {
    matches!(words, [word] if word.as_bytes().iter().any(u8::is_ascii_whitespace))
}

impl Syntax {
    fn parts(&self, word: &[u8]) -> Result<Vec<Part>, TemplateError> {
        let mut parts = Parts::default();
        let mut at = 0;
        while at < word.len() {
            match self.place_at(word, at)? {
                Some((place, len)) => {
                    parts.place(place);
                    at += len;
                }
                None => {
                    parts.byte(word[at]);
                    at += 1;
                }
            }
        }
        Ok(parts.done())
    }

    /// The place that begins at `at`, and its length.
    fn place_at(&self, word: &[u8], at: usize) -> Result<Option<(Place, usize)>, TemplateError> {
        let rest = &word[at..];
        match self {
            Self::Only { placeholder } => {
                let input = Place::Input(Which::All, Edit::Whole);
                Ok(rest
                    .starts_with(placeholder)
                    .then_some((input, placeholder.len())))
            }
            Self::Host => Ok(rest
                .starts_with(b"{host}")
                .then_some((Place::Host, b"{host}".len()))),
            Self::Inputs { sources } => braced(word, at, *sources),
        }
    }
}

/// The place of `{…}` at `at`. What a shell, awk, JSON or a template language would write in braces is none.
fn braced(word: &[u8], at: usize, sources: usize) -> Result<Option<(Place, usize)>, TemplateError> {
    let Some(inner) = word[at..].strip_prefix(b"{") else {
        return Ok(None);
    };
    let Some(len) = inner.iter().position(|byte| *byte == b'}') else {
        return Ok(None);
    };
    let name = &inner[..len];
    let before = at.checked_sub(1).map(|before| word[before]);
    if before == Some(b'$') && !name.is_empty() {
        return Ok(None);
    }
    let text = || String::from_utf8_lossy(&word[at..at + len + 2]).into_owned();
    let whole = || String::from_utf8_lossy(word).into_owned();
    if let Some(place) = Place::named(name, sources) {
        return place.map(|place| Some((place, len + 2))).map_err(|number| {
            TemplateError::NoSuchSource {
                place: text(),
                word: whole(),
                number,
                sources,
            }
        });
    }
    if before != Some(b'{') && looks_like_a_place(name) {
        return Err(TemplateError::Unknown {
            typo: text(),
            word: whole(),
        });
    }
    Ok(None)
}

impl Place {
    /// The place called `name`; the number of the source it asks for, when there is no such source.
    fn named(name: &[u8], sources: usize) -> Option<Result<Self, usize>> {
        match name {
            b"#" => return Some(Ok(Self::Seq)),
            b"%" => return Some(Ok(Self::Slot)),
            b"host" => return Some(Ok(Self::Host)),
            _ => {}
        }
        let name = std::str::from_utf8(name).ok()?;
        let (number, edit) = name.split_at(
            name.find(|c: char| !c.is_ascii_digit() && c != '-')
                .unwrap_or(name.len()),
        );
        let edit = Edit::named(edit)?;
        if number.is_empty() {
            return Some(Ok(Self::Input(Which::All, edit)));
        }
        let number: i64 = number.parse().ok()?;
        Some(source(number, sources).map(|source| Self::Input(Which::Source(source), edit)))
    }
}

/// The source with this number, from 1 up or, counted from the last, from -1 down.
fn source(number: i64, sources: usize) -> Result<usize, usize> {
    let asked = usize::try_from(number.unsigned_abs()).unwrap_or(usize::MAX);
    match asked {
        1.. if asked <= sources && number > 0 => Ok(asked - 1),
        1.. if asked <= sources => Ok(sources - asked),
        _ => Err(asked),
    }
}

impl Edit {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "" => Self::Whole,
            "." => Self::NoExtension,
            "/" => Self::Base,
            "//" => Self::Folder,
            "/." => Self::BaseNoExtension,
            _ => return None,
        })
    }
}

/// Longest text in braces that can be a slip of the finger.
const TYPO_BYTES_MAX: usize = 16;

/// Whether somebody who wrote `{name}` can have meant a placeholder. Not `{a,b}`, `{1..3}`, `{ cmd; }` or `{"a":1}`.
fn looks_like_a_place(name: &[u8]) -> bool {
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || b"._/#%+-@*!=".contains(byte);
    let is_range = name.windows(2).any(|pair| pair == b"..") && name.len() > 2;
    name.len() <= TYPO_BYTES_MAX && name.iter().all(is_word) && !is_range
}

/// Parts under construction: neighbouring bytes become one literal.
#[derive(Default)]
struct Parts {
    done: Vec<Part>,
    literal: Vec<u8>,
}

impl Parts {
    fn byte(&mut self, byte: u8) {
        self.literal.push(byte);
    }

    fn place(&mut self, place: Place) {
        self.flush();
        self.done.push(Part::Place(place, Quotes::NoShell));
    }

    fn flush(&mut self) {
        if !self.literal.is_empty() {
            self.done
                .push(Part::Literal(std::mem::take(&mut self.literal)));
        }
    }

    fn done(mut self) -> Vec<Part> {
        self.flush();
        self.done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str], sources: usize) -> Result<Template, TemplateError> {
        let words: Vec<_> = words.iter().map(OsString::from).collect();
        Template::parse(&words, false, &Syntax::Inputs { sources })
    }

    #[test]
    fn typos_are_named_with_the_way_out() {
        for word in [
            "{x}", "{..}", "a{hsot}b", "{#}{##}", "{./}", "{%%}", "{0x}", "{print}", "{.//}",
        ] {
            let error = parse(&["echo", word], 1).expect_err(word).to_string();
            assert!(
                error.contains("{host}") && error.contains("-I @") && error.contains(word),
                "{error}"
            );
        }
    }

    #[test]
    fn what_others_write_in_braces_is_left_alone() {
        for word in [
            "${x}",
            "${#}",
            "${host}",
            "{a,b}",
            "{1..3}",
            "{a..z}",
            "{ echo; }",
            "{\"a\":1}",
            "{{.Names}}",
            "{",
            "}",
            "{x",
            "{print $1}",
            "{ }",
            "{a_name_far_too_long_to_be_a_slip}",
        ] {
            let template = parse(&["echo", word, "{}"], 1).expect(word);
            assert_eq!(template.words[1], [Part::Literal(word.into())], "{word}");
        }
    }

    #[test]
    fn sources_that_are_not_there_are_refused() {
        let check = |word, sources, number| {
            let error = TemplateError::NoSuchSource {
                place: word,
                word: format!("x{{{number}}}"),
                number,
                sources,
            };
            let word = format!("x{{{number}}}");
            assert_eq!(parse(&["echo", &word], sources), Err(error), "{word}");
        };
        check("{3}".into(), 2, 3);
        check("{0}".into(), 2, 0);
        check("{2}".into(), 1, 2);
    }

    #[test]
    fn another_placeholder_leaves_braces_alone() {
        let only = Syntax::Only {
            placeholder: b"@".to_vec(),
        };
        let words = ["awk", "{print}", "@.txt"].map(OsString::from);
        let template = Template::parse(&words, false, &only).unwrap();
        assert_eq!(template.words[1], [Part::Literal(b"{print}".to_vec())]);
        assert_eq!(template.words.len(), 3);
    }
}
