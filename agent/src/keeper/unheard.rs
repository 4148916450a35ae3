//! What a keeper or a relay has said and its agent may not have written down: to be said again to the next one.

use std::collections::VecDeque;

/// Messages in their order. They are numbered from 1, without what answers to an agent's coming.
pub(crate) struct Unheard<T> {
    /// The first one's number.
    next: u64,
    said: VecDeque<T>,
}

impl<T> Default for Unheard<T> {
    fn default() -> Self {
        Self {
            next: 1,
            said: VecDeque::new(),
        }
    }
}

impl<T> Unheard<T> {
    pub(crate) fn push(&mut self, message: T) {
        self.said.push_back(message);
    }

    /// Lets go of all up to that number.
    pub(crate) fn heard(&mut self, number: u64) -> std::collections::vec_deque::Drain<'_, T> {
        let count = (number + 1).saturating_sub(self.next);
        let count =
            usize::try_from(count).map_or(self.said.len(), |count| count.min(self.said.len()));
        self.next += count as u64;
        self.said.drain(..count)
    }

    /// The number of the first of them, or of the next one.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.said.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.said.iter()
    }
}
