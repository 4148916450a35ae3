//! The hosts that a selector names by itself, where no fleet is known.

use std::collections::BTreeSet;

use super::{Op, Pattern, Piece, Range, Selector, SelectorError, Step, Term, in_ranges};
use crate::limits::HOST_NAME_BYTES_MAX;

impl Selector {
    /// The hosts that this selector names, in the order written, each once, without knowing any fleet; perhaps none.
    ///
    /// All operators work on these sets. What cannot be listed (`*`, `?`) may still stand behind `!` and `&`, where it
    /// only has to be asked about names that are listed already.
    ///
    /// # Errors
    /// [`SelectorError`], where hosts cannot be known without a fleet (`*`, `?`, a label, a `!` with nothing before
    /// it), or where there would be more than `max`, which is found out before there are.
    pub fn names(&self, max: usize) -> Result<Vec<String>, SelectorError> {
        let text = &self.text;
        Lister { text, max }
            .steps(&self.steps)
            .map(|names| names.order)
    }
}

/// Names in the order of their first mention.
#[derive(Default)]
struct Names {
    order: Vec<String>,
    known: BTreeSet<String>,
}

impl Names {
    fn retain(&mut self, wanted: impl Fn(&str) -> bool) {
        self.order.retain(|name| wanted(name));
        self.known.retain(|name| wanted(name));
    }
}

struct Lister<'a> {
    text: &'a str,
    max: usize,
}

impl Lister<'_> {
    fn steps(&self, steps: &[Step]) -> Result<Names, SelectorError> {
        let mut names = Names::default();
        for step in steps {
            match step.op {
                Op::With => self.add(&mut names, step, self.term(step)?.order)?,
                Op::Without => self.keep(&mut names, step, false)?,
                Op::And => self.keep(&mut names, step, true)?,
                Op::Xor => {
                    let others = self.term(step)?;
                    let is_new = |name: &&String| !names.known.contains(*name);
                    let added = others.order.iter().filter(is_new).cloned().collect();
                    names.retain(|name| !others.known.contains(name));
                    self.add(&mut names, step, added)?;
                }
            }
        }
        Ok(names)
    }

    fn term(&self, step: &Step) -> Result<Names, SelectorError> {
        match &step.term {
            Term::Host(pattern) => self.pattern(step, pattern),
            Term::Within(steps) => self.steps(steps),
            Term::All => Err(self.all_unsaid(step)),
            Term::Labels(_) => Err(self.wrong(
                step,
                "labels are known of hosts in a fleet, and none is asked here: write names, as in `web[01-40]`",
            )),
        }
    }

    fn pattern(&self, step: &Step, pattern: &Pattern) -> Result<Names, SelectorError> {
        if let Some(any) = pattern.open_end() {
            let reason = format!(
                "`{any}` stands for hosts of a fleet, and none is asked here: write what they are called, as in `web[01-40]`"
            );
            return Err(self.wrong(step, reason));
        }
        let bytes = pattern.bytes_min();
        if bytes > HOST_NAME_BYTES_MAX {
            let reason = format!("no host has a name of {bytes} bytes: commas go between names");
            return Err(self.wrong(step, reason));
        }
        let count = pattern.count();
        if count > self.max as u128 {
            let reason = format!(
                "these are {count} hosts, and {} are the most: is a number too large?",
                self.max
            );
            return Err(self.wrong(step, reason));
        }
        let mut names = Names::default();
        self.add(&mut names, step, pattern.names())?;
        Ok(names)
    }

    fn add(&self, names: &mut Names, step: &Step, added: Vec<String>) -> Result<(), SelectorError> {
        for name in added {
            if names.known.contains(&name) {
                continue;
            }
            if names.order.len() == self.max {
                let reason = format!("with these there are more than {} hosts", self.max);
                return Err(self.wrong(step, reason));
            }
            names.known.insert(name.clone());
            names.order.push(name);
        }
        Ok(())
    }

    /// Keeps the names that are in the step's set, or those that are not.
    fn keep(&self, names: &mut Names, step: &Step, within: bool) -> Result<(), SelectorError> {
        match self.term(step) {
            Ok(others) => names.retain(|name| others.known.contains(name) == within),
            Err(_) if step.term.needs_names_alone() => {
                names.retain(|name| step.term.matches(name, &[]) == within);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn all_unsaid(&self, step: &Step) -> SelectorError {
        let reason = if self.text.trim().is_empty() {
            "names no host: write some, as in `web[01-40],db1`"
        } else {
            "hosts are left out of all there are, and none is known here: name those that are left, as in `web[01-40]!web03`"
        };
        self.wrong(step, reason)
    }

    fn wrong(&self, step: &Step, reason: impl Into<String>) -> SelectorError {
        SelectorError::new(self.text, step.at, reason)
    }
}

impl Term {
    /// Whether a host's name is enough to say if it is meant.
    fn needs_names_alone(&self) -> bool {
        match self {
            Self::All | Self::Host(_) => true,
            Self::Labels(_) => false,
            Self::Within(steps) => steps.iter().all(|step| step.term.needs_names_alone()),
        }
    }
}

impl Pattern {
    /// What in it has no end.
    pub(super) fn open_end(&self) -> Option<char> {
        self.0.iter().find_map(|piece| match piece {
            Piece::Any => Some('*'),
            Piece::One => Some('?'),
            Piece::Text(_) | Piece::Number(_) => None,
        })
    }

    /// No name is shorter.
    pub(super) fn bytes_min(&self) -> usize {
        let bytes = self.0.iter().map(|piece| match piece {
            Piece::Text(text) => text.len(),
            Piece::Any | Piece::One | Piece::Number(_) => 1,
        });
        bytes.sum()
    }

    /// How many names there are at most: numbers that are left out are counted too.
    pub(super) fn count(&self) -> u128 {
        let counts = self.0.iter().map(|piece| match piece {
            Piece::Text(_) | Piece::Any | Piece::One => 1,
            Piece::Number(ranges) => included(ranges).map(Range::count).sum(),
        });
        counts.fold(1, u128::saturating_mul)
    }

    /// All of them; the last number counts fastest.
    pub(super) fn names(&self) -> Vec<String> {
        let longer = |names: Vec<String>, piece: &Piece| {
            let ends = piece.texts();
            let with = |name: &String| ends.iter().map(|end| format!("{name}{end}")).collect();
            names.iter().flat_map::<Vec<String>, _>(with).collect()
        };
        self.0.iter().fold(vec![String::new()], longer)
    }
}

impl Piece {
    /// What it can be in a name.
    fn texts(&self) -> Vec<String> {
        match self {
            Self::Text(text) => vec![text.clone()],
            Self::Number(ranges) => included(ranges)
                .flat_map(Range::numbers)
                .filter(|digits| in_ranges(ranges, digits))
                .collect(),
            Self::Any | Self::One => Vec::new(),
        }
    }
}

fn included(ranges: &[Range]) -> impl Iterator<Item = &Range> {
    ranges.iter().filter(|range| !range.excluded)
}

impl Range {
    fn count(&self) -> u128 {
        u128::from((self.to - self.from) / self.step) + 1
    }

    fn numbers(&self) -> impl Iterator<Item = String> {
        let width = self.width;
        let numbers = (0..=(self.to - self.from) / self.step).map(|n| self.from + n * self.step);
        numbers.map(move |number| format!("{number:0width$}"))
    }
}
