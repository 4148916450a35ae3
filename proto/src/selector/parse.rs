//! Reads selectors, and tells where one is wrong.

use super::{Condition, Op, Pattern, Piece, Range, Selector, SelectorError, Step, Term};
use crate::limits::{
    GROUPS_IN_WORD_MAX, HOST_NAME_BYTES_MAX, SELECTOR_BYTES_MAX, SELECTOR_DEEP_MAX,
};

pub(super) fn selector(text: &str) -> Result<Selector, SelectorError> {
    read(text, None).map(|(selector, _)| selector)
}

/// The groups that stand in a selector, in their order; `@*` is none.
pub(super) fn mentions(text: &str) -> Result<Vec<Mention>, SelectorError> {
    read(text, Some(Vec::new())).map(|(_, groups)| groups)
}

/// A word that names groups, `@rack1` or `@rack[1-3]`.
pub(super) struct Mention {
    /// Where the word begins and ends, in bytes.
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) names: Vec<String>,
}

/// Reads a selector, and collects its groups where there may be some.
fn read(
    text: &str,
    groups: Option<Vec<Mention>>,
) -> Result<(Selector, Vec<Mention>), SelectorError> {
    let mut parser = Parser {
        text,
        at: 0,
        deep: 0,
        groups,
    };
    if text.len() > SELECTOR_BYTES_MAX {
        let reason = format!("is longer than {SELECTOR_BYTES_MAX} bytes: use a label or a range");
        return Err(SelectorError::too_long(text, reason));
    }
    parser.skip_spaces();
    if parser.peek().is_none() {
        return Ok((Selector::all(), Vec::new()));
    }
    let steps = parser.steps()?;
    let text = text.to_owned();
    let groups = parser.groups.unwrap_or_default();
    Ok((Selector { text, steps }, groups))
}

struct Parser<'a> {
    text: &'a str,
    /// Bytes read.
    at: usize,
    /// Parentheses that are open here.
    deep: usize,
    /// The groups so far; none: groups are refused.
    groups: Option<Vec<Mention>>,
}

/// A step, before neighbouring conditions are joined.
enum Word {
    Label(Condition),
    Other(Term),
}

impl Parser<'_> {
    fn steps(&mut self) -> Result<Vec<Step>, SelectorError> {
        let mut steps = Vec::new();
        let mut op = Op::With;
        self.skip_spaces();
        let at = self.at;
        if self.eat('!') {
            let term = Term::All;
            steps.push(Step { op, term, at });
            op = Op::Without;
        }
        loop {
            self.skip_spaces();
            let at = self.at;
            let word = self.word()?;
            push(&mut steps, op, word, at);
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
            ')' if self.deep > 0 => return Ok(None),
            ')' => return Err(self.wrong("`)` without a `(` before it")),
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
        let start = self.at;
        match self.peek() {
            Some('@') => return self.group(),
            Some('(') => return self.parentheses(),
            Some(')') if self.deep == 0 => return Err(self.wrong("`)` without a `(` before it")),
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
            (false, false) => return Ok(Word::Other(Term::Host(name))),
        };
        let key = self.key(start, name)?;
        let value = self.pattern()?;
        if value.0.is_empty() {
            return Err(self.wrong(format!("a value is missing: `{key}=*` stands for any")));
        }
        Ok(Word::Label(Condition { key, equal, value }))
    }

    fn parentheses(&mut self) -> Result<Word, SelectorError> {
        let open = self.at;
        if self.deep == SELECTOR_DEEP_MAX {
            let reason = format!(
                "parentheses are nested deeper than {SELECTOR_DEEP_MAX}: operators go from left to right, many are not needed"
            );
            return Err(self.wrong(reason));
        }
        self.bump('(');
        self.skip_spaces();
        if self.eat(')') {
            return Err(self.wrong_at(
                open,
                "nothing is in the parentheses: name hosts in them, or leave them out",
            ));
        }
        self.deep += 1;
        let steps = self.steps()?;
        self.deep -= 1;
        if !self.eat(')') {
            return Err(self.wrong_at(open, "the `(` is not closed: write `)` behind its hosts"));
        }
        Ok(Word::Other(Term::Within(steps)))
    }

    /// `@*`, or a group whose hosts are to be put in its place.
    fn group(&mut self) -> Result<Word, SelectorError> {
        let from = self.at;
        self.bump('@');
        let name = self.pattern()?;
        let term = Term::Host(Pattern(vec![Piece::Any]));
        if name.0 == [Piece::Any] {
            return Ok(Word::Other(term));
        }
        // Before its names are made: a coordinator takes no memory for them.
        if self.groups.is_none() {
            return Err(self.wrong_at(
                from,
                "groups are known where the client is, and it has not put this one's hosts in its place: name the hosts, \
                 or give them a label (`fleetpool agent --label role=web`) and write `role=web`",
            ));
        }
        let names = self.group_names(from, &name)?;
        let to = self.at;
        self.groups
            .get_or_insert_default()
            .push(Mention { from, to, names });
        Ok(Word::Other(term))
    }

    fn group_names(&self, from: usize, name: &Pattern) -> Result<Vec<String>, SelectorError> {
        if name.0.is_empty() {
            return Err(self.wrong("the name of a group is missing: `@*` is every host"));
        }
        if name.open_end().is_some() {
            return Err(self.wrong_at(from, "groups are named in full: only `@*` is every host"));
        }
        let bytes = name.bytes_min();
        if bytes > HOST_NAME_BYTES_MAX {
            let reason = format!("no group has a name of {bytes} bytes: commas go between names");
            return Err(self.wrong_at(from, reason));
        }
        if name.count() > GROUPS_IN_WORD_MAX as u128 {
            let reason = format!("these are more than {GROUPS_IN_WORD_MAX} groups");
            return Err(self.wrong_at(from, reason));
        }
        Ok(name.names())
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
        SelectorError::new(self.text, at, reason)
    }
}

/// Adds a word; a condition beside a condition joins it.
fn push(steps: &mut Vec<Step>, op: Op, word: Word, at: usize) {
    let term = match (word, steps.last_mut().map(|step| &mut step.term)) {
        (Word::Label(condition), Some(Term::Labels(conditions))) if op == Op::With => {
            conditions.push(condition);
            return;
        }
        (Word::Label(condition), _) => Term::Labels(vec![condition]),
        (Word::Other(term), _) => term,
    };
    steps.push(Step { op, term, at });
}

/// What names and values are made of, besides `*`, `?` and `[…]`. An `@` that begins a word is taken before.
fn is_text(c: char) -> bool {
    !c.is_whitespace() && !",!&^=[]*?()".contains(c)
}
