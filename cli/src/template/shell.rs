//! Finds out which quotes each place of a shell's line stands in, so that its value is quoted to mean itself there:
//! `echo {}`, `echo '{}'` and `echo "{} $(wc -l {})"` all do what they look like.
//!
//! Where a line has no safe way to quote a value, the template is refused, since values come from file names
//! that anybody may have chosen.

use super::{Part, Quotes, parse::TemplateError};

/// Sets the quotes of every place of `line`.
///
/// # Errors
/// When a place stands where no quoting is safe.
pub(super) fn find_quotes(line: &mut [Part]) -> Result<(), TemplateError> {
    let mut scanner = Scanner::default();
    let text = text(line);
    for part in line {
        match part {
            Part::Literal(bytes) => scanner.read(bytes),
            Part::Place(_, quotes) => {
                *quotes =
                    scanner
                        .quotes()
                        .map_err(|(place, way_out)| TemplateError::Unquotable {
                            line: text.clone(),
                            place,
                            way_out,
                        })?;
                scanner.last = b'x';
            }
        }
    }
    Ok(())
}

fn text(line: &[Part]) -> String {
    let bytes = |part: &Part| match part {
        Part::Literal(bytes) => bytes.clone(),
        Part::Place(..) => b"{}".to_vec(),
    };
    String::from_utf8_lossy(&line.iter().flat_map(bytes).collect::<Vec<_>>()).into_owned()
}

/// What a part of the line is nested in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Context {
    /// `'…'`
    Single,
    /// `"…"`
    Double,
    /// `$(…)`, with this many parentheses open inside.
    Substitution(usize),
    /// `` `…` ``
    Backtick,
    /// `$'…'`
    AnsiC,
    /// `# …`
    Comment,
    /// What follows a line with `<<`.
    HereDocument,
}

/// Reads a shell's line from left to right.
#[derive(Default)]
struct Scanner {
    nested: Vec<Context>,
    /// The byte before.
    last: u8,
    /// The byte before was a backslash that escapes the next.
    escape: bool,
    /// The letters before, to find `case`.
    word: Vec<u8>,
    /// `<<` was seen.
    here: bool,
    /// `case` was seen in a `$(…)` between `"`: its `)` cannot be told from the one that closes.
    lost: bool,
}

impl Scanner {
    /// How to quote a value that stands here; else where it stands and what to write instead.
    fn quotes(&self) -> Result<Quotes, (&'static str, &'static str)> {
        if self.escape {
            return Err((
                "behind a backslash",
                "leave the backslash out, values are quoted for you",
            ));
        }
        if self.lost {
            return Err((
                "behind a `case` inside \"$(…)\"",
                "put `case` outside of the double quotes",
            ));
        }
        match self.nested.last() {
            None | Some(Context::Substitution(_)) => Ok(Quotes::Bare),
            Some(Context::Single) => Ok(Quotes::Single),
            Some(Context::Double) => Ok(Quotes::Double),
            Some(Context::Backtick) => Err(("between backticks", "write $(…) in place of `…`")),
            Some(Context::AnsiC) => Err((
                "in $'…'",
                "close the quotes before it and open them behind it",
            )),
            Some(Context::Comment) => Err(("in a comment", "leave the comment out")),
            Some(Context::HereDocument) => Err((
                "behind a `<<`",
                "print the text with printf, or put the script into a file",
            )),
        }
    }

    fn read(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.step(*byte);
            self.last = *byte;
        }
    }

    fn step(&mut self, byte: u8) {
        if std::mem::take(&mut self.escape) {
            return;
        }
        match self.nested.last() {
            Some(Context::Single) => self.close_on(byte, b'\''),
            Some(Context::Comment) => self.close_on(byte, b'\n'),
            Some(Context::HereDocument) => {}
            _ if byte == b'\\' => self.escape = true,
            Some(Context::AnsiC) => self.close_on(byte, b'\''),
            Some(Context::Backtick) => self.close_on(byte, b'`'),
            Some(Context::Double) => self.step_double(byte),
            None | Some(Context::Substitution(_)) => self.step_bare(byte),
        }
    }

    fn close_on(&mut self, byte: u8, end: u8) {
        if byte == end {
            self.nested.pop();
        }
    }

    fn step_double(&mut self, byte: u8) {
        match byte {
            b'"' => drop(self.nested.pop()),
            b'`' => self.nested.push(Context::Backtick),
            b'(' if self.last == b'$' => self.nested.push(Context::Substitution(0)),
            _ => {}
        }
    }

    fn step_bare(&mut self, byte: u8) {
        match byte {
            b'\'' if self.last == b'$' => self.nested.push(Context::AnsiC),
            b'\'' => self.nested.push(Context::Single),
            b'"' => self.nested.push(Context::Double),
            b'`' => self.nested.push(Context::Backtick),
            b'#' if is_word_start(self.last) => self.nested.push(Context::Comment),
            b'<' if self.last == b'<' => self.here = true,
            b'\n' if self.here => self.nested.push(Context::HereDocument),
            b'(' | b')' => self.step_parenthesis(byte),
            _ => {}
        }
        self.watch_for_case(byte);
    }

    fn step_parenthesis(&mut self, byte: u8) {
        match (byte, self.nested.last_mut()) {
            (b'(', _) if self.last == b'$' => self.nested.push(Context::Substitution(0)),
            (b'(', Some(Context::Substitution(open))) => *open += 1,
            (b')', Some(Context::Substitution(0))) => drop(self.nested.pop()),
            (b')', Some(Context::Substitution(open))) => *open -= 1,
            _ => {}
        }
    }

    fn watch_for_case(&mut self, byte: u8) {
        if byte.is_ascii_alphabetic() {
            self.word.push(byte);
            return;
        }
        let between_double_quotes = self.nested.contains(&Context::Double);
        self.lost |= self.word == b"case" && between_double_quotes;
        self.word.clear();
    }
}

/// Whether a word begins behind `byte`.
fn is_word_start(byte: u8) -> bool {
    matches!(byte, 0 | b' ' | b'\t' | b'\n' | b';' | b'&' | b'|' | b'(')
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::super::{Syntax, Template};
    use super::*;

    fn parse(line: &str) -> Result<Template, TemplateError> {
        Template::parse(
            &[OsString::from(line)],
            true,
            &Syntax::Inputs { sources: 1 },
        )
    }

    fn check(line: &str, expect: &[Quotes]) {
        let template = parse(line).expect(line);
        let quotes = |part: &Part| match part {
            Part::Place(_, quotes) => Some(*quotes),
            Part::Literal(_) => None,
        };
        let found: Vec<_> = template.words[0].iter().filter_map(quotes).collect();
        assert_eq!(found, expect, "{line}");
    }

    #[test]
    fn the_quotes_around_a_place_are_seen() {
        use Quotes::{Bare, Double, Single};
        check("echo {}", &[Bare]);
        check("echo '{}' {}", &[Single, Bare]);
        check("echo \"{}\" {}", &[Double, Bare]);
        check("echo \"it's {}\" '\"' {}", &[Double, Bare]);
        check("echo it\\'s {}", &[Bare]);
        check("echo \"\\\"{}\"", &[Double]);
        check("echo $(cat {}) \"$(cat {}) {}\"", &[Bare, Bare, Double]);
        check("echo \"$( (cat {}) ) {}\"", &[Bare, Double]);
        check("echo \"$(echo \"{}\")\"", &[Double]);
        check("echo `date` {}", &[Bare]);
        check("echo $# {} # don't", &[Bare]);
        check("echo a#'{}'", &[Single]);
        check("case {} in a) echo {};; esac", &[Bare, Bare]);
        check("sort <<< x; echo {}", &[Bare]);
    }

    #[test]
    fn places_that_cannot_be_quoted_are_refused() {
        for line in [
            "echo \\{}",
            "echo `cat {}`",
            "echo \"`cat {}`\"",
            "echo $'a{}'",
            "echo # {}",
            "echo # appended",
            "cat <<E\n{}\nE",
            "echo \"$(case {} in a) cat {};; esac)\"",
        ] {
            let error = parse(line).expect_err(line);
            assert!(
                matches!(error, TemplateError::Unquotable { .. }),
                "{line}: {error}"
            );
        }
    }
}
