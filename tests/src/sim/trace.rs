//! What happened: as one number, to compare runs, and as the last lines of a story when somebody asks.

use std::collections::VecDeque;

/// Lines of the story that are kept, unless `SIM_LINES` says another number.
const LINES: usize = 100;

#[derive(Debug, Default)]
pub(super) struct Trace {
    hash: u64,
    events: u64,
    story: Option<VecDeque<String>>,
    lines: usize,
}

impl Trace {
    pub(super) fn new(tells: bool) -> Self {
        Self {
            story: tells.then(VecDeque::new),
            lines: std::env::var("SIM_LINES")
                .ok()
                .and_then(|lines| lines.parse().ok())
                .unwrap_or(LINES),
            ..Self::default()
        }
    }

    /// Takes in that something happened: who, what (a static name), and a number that tells it from its like.
    pub(super) fn note(&mut self, at: u64, who: u64, what: &str, number: u64) {
        self.events += 1;
        for part in [at, who, number] {
            self.mix(part);
        }
        for word in what.as_bytes().chunks(8) {
            let mut bytes = [0; 8];
            bytes[..word.len()].copy_from_slice(word);
            self.mix(u64::from_le_bytes(bytes));
        }
    }

    /// Adds a line to the story.
    pub(super) fn tell(&mut self, at: u64, line: impl FnOnce() -> String) {
        if let Some(story) = &mut self.story {
            if story.len() >= self.lines {
                story.pop_front();
            }
            let (seconds, us) = (at / 1_000_000, at % 1_000_000);
            story.push_back(format!("{seconds:>4}.{us:06} {}", line()));
        }
    }

    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    pub(super) fn events(&self) -> u64 {
        self.events
    }

    pub(super) fn into_story(self) -> Vec<String> {
        self.story.unwrap_or_default().into()
    }

    /// FNV-1a, a word at a time.
    fn mix(&mut self, part: u64) {
        self.hash = (self.hash ^ part)
            .wrapping_mul(0x0000_0100_0000_01b3)
            .rotate_left(29);
    }
}
