//! Fills a template in: the words of one task's command.

use bytes::BytesMut;
use fleetpool_proto::command::{Piece, Word};
use serde_bytes::ByteBuf;

use super::{Command, Edit, Part, Place, Quotes, Template, Which, path, quote};

impl Template {
    /// The command for input number `seq`, counted from 1.
    pub(crate) fn command(&self, seq: u64, values: &[Vec<u8>]) -> Command {
        let filler = Filler { seq, values };
        let words = self
            .words
            .iter()
            .flat_map(|parts| filler.words(parts))
            .collect();
        Command::new(words, self.shell, self.starter.clone())
    }
}

struct Filler<'a> {
    seq: u64,
    values: &'a [Vec<u8>],
}

impl Filler<'_> {
    /// The words that one word of the template becomes: several, when it is nothing but `{}`.
    fn words(&self, parts: &[Part]) -> Vec<Word> {
        match parts {
            [Part::Place(Place::Input(Which::All, edit), Quotes::NoShell)]
                if self.values.len() > 1 =>
            {
                self.values
                    .iter()
                    .map(|value| Word::literal(path::edit(value, *edit)))
                    .collect()
            }
            _ => vec![self.word(parts)],
        }
    }

    fn word(&self, parts: &[Part]) -> Word {
        let mut word = Builder::default();
        for part in parts {
            match part {
                Part::Literal(bytes) => word.bytes(bytes),
                Part::Place(place, quotes) => self.fill(&mut word, *place, *quotes),
            }
        }
        word.done()
    }

    fn fill(&self, word: &mut Builder, place: Place, quotes: Quotes) {
        match place {
            Place::Seq => word.bytes(self.seq.to_string().as_bytes()),
            Place::Slot => word.piece(Piece::Slot),
            Place::Host => quotes.around(word, |word| word.piece(Piece::Host)),
            Place::Input(Which::Source(source), edit) => {
                word.bytes(&self.value(source, edit, quotes))
            }
            Place::Input(Which::All, edit) => {
                let values = (0..self.values.len()).map(|source| self.value(source, edit, quotes));
                word.bytes(&values.collect::<Vec<_>>().join(&b' '));
            }
        }
    }

    fn value(&self, source: usize, edit: Edit, quotes: Quotes) -> Vec<u8> {
        let value = path::edit(&self.values[source], edit);
        match quotes {
            Quotes::NoShell => value.to_vec(),
            Quotes::Bare => quote::word(value),
            Quotes::Single => quote::inside_single(value),
            Quotes::Double => quote::inside_double(value),
        }
    }
}

impl Quotes {
    /// Puts quotes around what only the host knows: a host's name has no quotes in it.
    fn around(self, word: &mut Builder, inner: impl FnOnce(&mut Builder)) {
        let quote: &[u8] = if self == Self::Bare { b"'" } else { b"" };
        word.bytes(quote);
        inner(word);
        word.bytes(quote);
    }
}

/// A word under construction: neighbouring bytes become one piece.
#[derive(Default)]
struct Builder {
    pieces: Vec<Piece>,
    literal: BytesMut,
}

impl Builder {
    fn bytes(&mut self, bytes: &[u8]) {
        self.literal.extend_from_slice(bytes);
    }

    fn piece(&mut self, piece: Piece) {
        self.flush();
        self.pieces.push(piece);
    }

    fn flush(&mut self) {
        if !self.literal.is_empty() {
            self.pieces
                .push(Piece::Literal(ByteBuf::from(self.literal.split().to_vec())));
        }
    }

    fn done(mut self) -> Word {
        self.flush();
        Word(self.pieces)
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::super::Syntax;
    use super::*;

    fn expand(words: &[&str], values: &[&str]) -> String {
        let words: Vec<_> = words.iter().map(OsString::from).collect();
        let values: Vec<_> = values
            .iter()
            .map(|value| value.as_bytes().to_vec())
            .collect();
        let template = Template::parse(
            &words,
            false,
            &Syntax::Inputs {
                sources: values.len(),
            },
        )
        .unwrap();
        String::from_utf8(template.command(7, &values).text("web1", 2)).unwrap()
    }

    #[test]
    fn words_are_filled_in_without_a_shell() {
        let check = |words: &[&str], values: &[&str], expect: &str| {
            assert_eq!(expand(words, values), expect)
        };
        check(&["echo"], &["a"], "echo a");
        check(&["echo"], &["a b"], "echo 'a b'");
        check(&["echo"], &[""], "echo ''");
        check(&["echo", "{}"], &["$x"], "echo '$x'");
        check(&["echo", "x{}y"], &["a b"], "echo 'xa by'");
        check(&["mv", "{}", "{.}.png"], &["d/a.jpg"], "mv d/a.jpg d/a.png");
        check(
            &["echo", "{/}", "{//}", "{/.}"],
            &["d/a.jpg"],
            "echo a.jpg d a",
        );
        check(&["echo", "{#}"], &["a"], "echo 7");
        check(&["echo", "{%}", "{host}"], &["a"], "echo 2 web1");
        check(&["echo"], &["a", "b c"], "echo a 'b c'");
        check(&["echo", "{}"], &["a", "b c"], "echo a 'b c'");
        check(&["echo", "x{}y"], &["a", "b"], "echo 'xa by'");
        check(&["echo", "{2}-{1}"], &["a", "b"], "echo b-a");
        check(&["echo", "{-1}"], &["a", "b"], "echo b");
        check(&["echo", "{1/.}", "{2//}"], &["a/b.c", "d/e"], "echo b d");
        check(&["echo", "{{}}"], &["a"], "echo '{a}'");
        check(&["{}"], &["ls"], "ls");
    }

    #[test]
    fn a_line_goes_to_a_shell_with_its_values_quoted() {
        let check =
            |line: &str, values: &[&str], expect: &str| assert_eq!(expand(&[line], values), expect);
        check("echo {} | wc", &["a"], "echo a | wc");
        check("echo {}; ls", &["a b"], "echo 'a b'; ls");
        check("echo start", &["it's"], r"echo start 'it'\''s'");
        check("echo '{}'", &["it's $x"], r"echo 'it'\''s $x'");
        check("echo \"{}\"", &["a \"$x\""], r#"echo "a \"\$x\"""#);
        check("echo {}", &["a b", "c"], "echo 'a b' c");
        check(
            "echo {host} \"{host} {%}\"",
            &["a"],
            "echo 'web1' \"web1 2\"",
        );
    }

    #[test]
    fn without_words_the_input_is_the_line() {
        assert_eq!(expand(&[], &["echo a | wc"]), "echo a | wc");
    }
}
