//! What is said of a selector that cannot be used.

use std::{borrow::Cow, fmt};

/// Characters of a selector that a message shows: groups of many hosts are long.
const SHOWN_CHARS_MAX: usize = 200;

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

    /// Where, and why: what follows the word "selector" in the message.
    pub(super) fn place_and_reason(&self) -> String {
        let Self {
            selector,
            at,
            reason,
        } = self;
        let text = shown(selector);
        match selector.char_indices().nth(*at) {
            Some(_) if *at == 0 => format!("`{text}`: {reason}"),
            Some((from, _)) => {
                let rest = shown(&selector[from..]);
                format!("`{text}`, at `{rest}` (character {}): {reason}", at + 1)
            }
            None => format!("`{text}`, at its end: {reason}"),
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
        write!(f, "selector {}", self.place_and_reason())
    }
}

impl std::error::Error for SelectorError {}

/// The beginning of a text that may be very long.
fn shown(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]).into(),
        None => text.into(),
    }
}
