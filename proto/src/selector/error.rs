//! What is said of a selector that cannot be used.

use std::fmt;

/// Why a text is not a selector: where, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelectorError {
    selector: String,
    /// Characters before the place.
    at: usize,
    /// A sentence for people.
    reason: String,
}

impl SelectorError {
    /// `at` is a byte of `text`, or its end.
    pub(super) fn new(text: &str, at: usize, reason: impl Into<String>) -> Self {
        Self {
            selector: text.to_owned(),
            at: text[..at].chars().count(),
            reason: reason.into(),
        }
    }

    /// Not of one place: a selector that is too long to be shown.
    pub(super) fn too_long(text: &str, reason: impl Into<String>) -> Self {
        Self {
            selector: text.chars().take(20).chain("…".chars()).collect(),
            at: 0,
            reason: reason.into(),
        }
    }
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
