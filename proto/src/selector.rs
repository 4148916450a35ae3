//! Which hosts are meant: the language of `--on`.
//!
//! | written | means |
//! |---|---|
//! | nothing, `*` | every host |
//! | `web7`, `web*`, `web?` | the host of that name; `*` stands for any text, `?` for one character |
//! | `web[01-40]`, `web[1,3,9-20/2]`, `web[01-40,!03]` | numbers, padded as written, every second one, all but one |
//! | `gpu=a100`, `zone!=b`, `rack=[1-4]` | hosts with that label; hosts without it, or with another value |
//! | `A,B` | hosts of A and hosts of B |
//! | `A!B` (or `A,!B`), `!B` | hosts of A that are not of B; all hosts that are not of B |
//! | `A&B`, `A^B` | hosts of both; hosts of exactly one |
//! | `A!(B,C)` | parentheses come first |
//! | `@*` | every host; other groups (`@rack1`) are the client's to replace |
//!
//! Operators are taken from left to right, as in ClusterShell. An `@` within a word is part of a name (`ada@web1`). Conditions on labels that stand side by side
//! narrow each other, as in Kubernetes: `gpu=a100,zone!=b` is one condition, and binds before every operator. Two
//! values for one label are alternatives: `zone=a,zone=b`.

mod error;
mod groups;
mod names;
mod parse;

pub use error::SelectorError;
pub use groups::with_groups;

/// A set of hosts, by name and label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector {
    /// As it was written.
    text: String,
    /// Taken from left to right, from nothing.
    steps: Vec<Step>,
}

/// An operator and what stands behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Step {
    op: Op,
    term: Term,
    /// Where the term begins, in bytes of the text.
    at: usize,
}

/// How a term changes the set so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    With,
    Without,
    And,
    Xor,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Term {
    /// Every host, unsaid: there is nothing before a `!`, or nothing at all.
    All,
    Host(Pattern),
    /// All of them; conditions on one label with several values are alternatives.
    Labels(Vec<Condition>),
    /// In parentheses.
    Within(Vec<Step>),
}

/// `key=value` or `key!=value`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Condition {
    key: String,
    equal: bool,
    value: Pattern,
}

/// Text with places that match more than one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pattern(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    /// `*`
    Any,
    /// `?`
    One,
    /// `[01-40,!03]`
    Number(Vec<Range>),
}

/// `from-to/step`, or what is left out of the ranges beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Range {
    excluded: bool,
    from: u64,
    to: u64,
    step: u64,
    /// Digits that shorter numbers are filled up to with zeros.
    width: usize,
}

impl Selector {
    /// Reads a selector.
    ///
    /// # Errors
    /// [`SelectorError`], which points at the place and says what to write there.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        parse::selector(text)
    }

    /// Every host.
    #[must_use]
    pub fn all() -> Self {
        Self {
            text: String::new(),
            steps: vec![Step {
                op: Op::With,
                term: Term::All,
                at: 0,
            }],
        }
    }

    /// Whether the host of that name with these labels is meant.
    #[must_use]
    pub fn matches(&self, host: &str, labels: &[(String, String)]) -> bool {
        steps_match(&self.steps, host, labels)
    }
}

fn steps_match(steps: &[Step], host: &str, labels: &[(String, String)]) -> bool {
    steps.iter().fold(false, |so_far, step| match step.op {
        Op::With => so_far || step.term.matches(host, labels),
        Op::Without => so_far && !step.term.matches(host, labels),
        Op::And => so_far && step.term.matches(host, labels),
        Op::Xor => so_far != step.term.matches(host, labels),
    })
}

impl Term {
    fn matches(&self, host: &str, labels: &[(String, String)]) -> bool {
        match self {
            Self::All => true,
            Self::Host(pattern) => pattern.matches(host),
            Self::Within(steps) => steps_match(steps, host, labels),
            Self::Labels(conditions) => conditions.iter().all(|condition| {
                let alternative = |other: &&Condition| {
                    other.equal == condition.equal && other.key == condition.key
                };
                if condition.equal {
                    conditions
                        .iter()
                        .filter(alternative)
                        .any(|other| other.is_met(labels))
                } else {
                    !condition.is_met(labels)
                }
            }),
        }
    }
}

impl Condition {
    fn is_met(&self, labels: &[(String, String)]) -> bool {
        labels
            .iter()
            .any(|(key, value)| *key == self.key && self.value.matches(value))
    }
}

impl Pattern {
    /// Follows all readings at once, so that no pattern takes more than pieces × length² steps.
    fn matches(&self, text: &str) -> bool {
        let mut places = vec![0];
        for piece in &self.0 {
            let mut next: Vec<usize> = places
                .iter()
                .flat_map(|&place| piece.ends(text, place))
                .collect();
            next.sort_unstable();
            next.dedup();
            places = next;
        }
        places.contains(&text.len())
    }
}

impl Piece {
    /// Where the text after this piece can begin, when the piece begins at `start`.
    fn ends(&self, text: &str, start: usize) -> Vec<usize> {
        let rest = &text[start..];
        match self {
            Self::Text(word) if rest.starts_with(word) => vec![start + word.len()],
            Self::Text(_) => Vec::new(),
            Self::Any => (start..=text.len())
                .filter(|&end| text.is_char_boundary(end))
                .collect(),
            Self::One => rest
                .chars()
                .next()
                .map(|c| start + c.len_utf8())
                .into_iter()
                .collect(),
            Self::Number(ranges) => {
                let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
                (1..=digits)
                    .filter(|&len| in_ranges(ranges, &rest[..len]))
                    .map(|len| start + len)
                    .collect()
            }
        }
    }
}

fn in_ranges(ranges: &[Range], digits: &str) -> bool {
    let covered = |excluded| {
        ranges
            .iter()
            .any(|range| range.excluded == excluded && range.contains(digits))
    };
    covered(false) && !covered(true)
}

impl Range {
    fn contains(&self, digits: &str) -> bool {
        let as_written = |number: u64| format!("{number:0width$}", width = self.width) == digits;
        digits.parse().is_ok_and(|number: u64| {
            (self.from..=self.to).contains(&number)
                && (number - self.from).is_multiple_of(self.step)
                && as_written(number)
        })
    }
}
