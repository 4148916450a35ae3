//! Reads selectors, and tells where one is wrong.

use std::fmt;

use super::{Condition, Op, Pattern, Piece, Range, Selector, Term};

/// Longest selector, in bytes: far above what people and programs write, far below what would take time to match.
const SELECTOR_BYTES_MAX: usize = 64 << 10;

/// Why a text is not a selector: where, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelectorError {
    selector: String,
    /// Characters before the place.
    at: usize,
    /// A sentence for people.
    reason: String,
}

impl fmt::Display for SelectorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            selector,
            at,
            reason,
        } = self;
        match selector.chars().nth(*at) {
            Some(_) if *at == 0 => write!(f, "selector `{selector}`: {reason}"),
            Some(_) => {
                let rest: String = selector.chars().skip(*at).collect();
                write!(
                    f,
                    "selector `{selector}`, at `{rest}` (character {}): {reason}",
                    at + 1
                )
            }
            None => write!(f, "selector `{selector}`, at its end: {reason}"),
        }
    }
}

impl std::error::Error for SelectorError {}

pub(super) fn selector(text: &str) -> Result<Selector, SelectorError> {
    let mut parser = Parser { text, at: 0 };
    if text.len() > SELECTOR_BYTES_MAX {
        let reason = format!("is longer than {SELECTOR_BYTES_MAX} bytes: use a label or a range");
        return Err(SelectorError {
            selector: text.chars().take(20).chain("…".chars()).collect(),
            at: 0,
            reason,
        });
    }
    parser.skip_spaces();
    if parser.peek().is_none() {
        return Ok(Selector::all());
    }
    parser.steps().map(|steps| Selector { steps })
}

struct Parser<'a> {
    text: &'a str,
    /// Bytes read.
    at: usize,
}

/// A step, before neighbouring conditions are joined.
enum Word {
    Host(Pattern),
    Label(Condition),
}

impl Parser<'_> {
    fn steps(&mut self) -> Result<Vec<(Op, Term)>, SelectorError> {
        let mut steps = Vec::new();
        let mut op = Op::With;
        if self.eat('!') {
            steps.push((Op::With, Term::everything()));
            op = Op::Without;
        }
        loop {
            let word = self.word()?;
            push(&mut steps, op, word);
            match self.operator()? {
                Some(next) => op = next,
                None => return Ok(steps),
            }
        }
    }

    fn operator(&mut self) -> Result<Option<Op>, SelectorError> {
        self.skip_spaces();
        let Some(c) = self.peek() else {
            return Ok(None);
        };
        let op = match c {
            ',' => Op::With,
            '!' => Op::Without,
            '&' => Op::And,
            '^' => Op::Xor,
            ']' => return Err(self.wrong("`]` without a `[` before it")),
            _ => {
                return Err(self.wrong(
                    "an operator is missing: `,` adds hosts, `!` leaves hosts out, `&` keeps hosts of both",
                ));
            }
        };
        self.bump(c);
        self.skip_spaces();
        if op == Op::With && self.eat('!') {
            return Ok(Some(Op::Without));
        }
        Ok(Some(op))
    }

    fn word(&mut self) -> Result<Word, SelectorError> {
        self.skip_spaces();
        let start = self.at;
        match self.peek() {
            Some('@') => {
                return Err(self.wrong(
                    "groups come from a file that the coordinator does not have: name the hosts, or give them a label \
                     (`fleetpool agent --label role=web`) and write `role=web`",
                ));
            }
            Some('(' | ')') => {
                return Err(
                    self.wrong("there are no parentheses: operators are taken from left to right")
                );
            }
            _ => {}
        }
        let name = self.pattern()?;
        let equal = match (self.eat('='), self.text[self.at..].starts_with("!=")) {
            (true, _) => true,
            (false, true) => {
                self.at += 2;
                false
            }
            (false, false) if name.0.is_empty() => {
                return Err(self.wrong("a host or `label=value` is missing"));
            }
            (false, false) => return Ok(Word::Host(name)),
        };
        let key = self.key(start, name)?;
        let value = self.pattern()?;
        if value.0.is_empty() {
            return Err(self.wrong(format!("a value is missing: `{key}=*` stands for any")));
        }
        Ok(Word::Label(Condition { key, equal, value }))
    }

    fn key(&self, start: usize, name: Pattern) -> Result<String, SelectorError> {
        match <[Piece; 1]>::try_from(name.0) {
            Ok([Piece::Text(key)]) => Ok(key),
            Ok(_) | Err(_) => {
                Err(self.wrong_at(start, "the name of a label is plain text, as in `gpu=a100`"))
            }
        }
    }

    fn pattern(&mut self) -> Result<Pattern, SelectorError> {
        let mut pieces = Vec::new();
        while let Some(c) = self.peek() {
            match c {
                '*' | '?' => {
                    self.bump(c);
                    pieces.push(if c == '*' { Piece::Any } else { Piece::One });
                }
                '[' => pieces.push(Piece::Number(self.ranges()?)),
                c if is_text(c) => pieces.push(Piece::Text(self.take_while(is_text))),
                _ => break,
            }
        }
        Ok(Pattern(pieces))
    }

    fn ranges(&mut self) -> Result<Vec<Range>, SelectorError> {
        let open = self.at;
        self.bump('[');
        let mut ranges = Vec::new();
        loop {
            ranges.push(self.range(open)?);
            if self.eat(']') {
                break;
            }
            if !self.eat(',') {
                return Err(self.not_closed_or(open, "ranges are joined by `,` and end with `]`"));
            }
        }
        if ranges.iter().all(|range| range.excluded) {
            return Err(self.wrong_at(
                open,
                "only leaves numbers out: say of which, as in `[01-40,!03]`",
            ));
        }
        Ok(ranges)
    }

    fn range(&mut self, open: usize) -> Result<Range, SelectorError> {
        let excluded = self.eat('!');
        let start = self.at;
        let from_text = self.digits(open)?;
        let to_text = if self.eat('-') {
            self.digits(open)?
        } else {
            from_text.clone()
        };
        let step_text = if self.eat('/') {
            self.digits(open)?
        } else {
            "1".to_owned()
        };
        let (from, to) = (
            self.number(start, &from_text)?,
            self.number(start, &to_text)?,
        );
        let step = self.number(start, &step_text)?;
        let padded = |digits: &str| digits.len() > 1 && digits.starts_with('0');
        if from > to {
            let reason = format!("counts backwards: write `{to_text}-{from_text}`");
            return Err(self.wrong_at(start, reason));
        }
        if step == 0 {
            return Err(self.wrong_at(start, "a step of 0 goes nowhere"));
        }
        if padded(&to_text) && to_text.len() != from_text.len() {
            return Err(self.wrong_at(
                start,
                "pads its ends differently: write as many digits in both, as in `01-40`",
            ));
        }
        let width = if padded(&from_text) {
            from_text.len()
        } else {
            0
        };
        Ok(Range {
            excluded,
            from,
            to,
            step,
            width,
        })
    }

    fn digits(&mut self, open: usize) -> Result<String, SelectorError> {
        let digits = self.take_while(|c| c.is_ascii_digit());
        if digits.is_empty() {
            return Err(self.not_closed_or(
                open,
                "brackets hold numbers, as in `[01-40,!03]`; any text is `*`",
            ));
        }
        Ok(digits)
    }

    fn number(&self, start: usize, digits: &str) -> Result<u64, SelectorError> {
        digits
            .parse()
            .map_err(|_| self.wrong_at(start, "the number is too large"))
    }

    fn not_closed_or(&self, open: usize, reason: &str) -> SelectorError {
        match self.peek() {
            None => self.wrong_at(open, "the `[` is not closed: write `]` behind its numbers"),
            Some(_) => self.wrong(reason),
        }
    }

    fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> String {
        let taken: String = self.text[self.at..]
            .chars()
            .take_while(|&c| wanted(c))
            .collect();
        self.at += taken.len();
        taken
    }

    fn skip_spaces(&mut self) {
        self.take_while(char::is_whitespace);
    }

    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn bump(&mut self, c: char) {
        self.at += c.len_utf8();
    }

    fn eat(&mut self, c: char) -> bool {
        let there = self.peek() == Some(c) && !(c == '!' && self.text[self.at..].starts_with("!="));
        if there {
            self.bump(c);
        }
        there
    }

    fn wrong(&self, reason: impl Into<String>) -> SelectorError {
        self.wrong_at(self.at, reason)
    }

    fn wrong_at(&self, at: usize, reason: impl Into<String>) -> SelectorError {
        SelectorError {
            selector: self.text.to_owned(),
            at: self.text[..at].chars().count(),
            reason: reason.into(),
        }
    }
}

/// Adds a word; a condition beside a condition joins it.
fn push(steps: &mut Vec<(Op, Term)>, op: Op, word: Word) {
    match (word, steps.last_mut()) {
        (Word::Label(condition), Some((_, Term::Labels(conditions)))) if op == Op::With => {
            conditions.push(condition);
        }
        (Word::Label(condition), _) => steps.push((op, Term::Labels(vec![condition]))),
        (Word::Host(pattern), _) => steps.push((op, Term::Host(pattern))),
    }
}

/// What names and values are made of, besides `*`, `?` and `[…]`.
fn is_text(c: char) -> bool {
    !c.is_whitespace() && !",!&^=[]*?@()".contains(c)
}
