//! The tasks that a host holds, by index.
//!
//! They are granted, and reported, very nearly in the order of their indexes: a ring in that order keeps them side by
//! side in memory, where a tree would touch a cache line or two for each. With 10,000 hosts that is most of what a
//! report costs.

use std::collections::VecDeque;

use crate::share::Granted;

/// Entries at the front that are looked at before the rest is searched.
const NEAR: usize = 8;

/// Tasks of one share, sorted by index.
#[derive(Debug, Default)]
pub(crate) struct Held(VecDeque<(u64, Granted)>);

impl Held {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Where the task is, or would be.
    fn find(&self, index: u64) -> Result<usize, usize> {
        let near = self.0.iter().take(NEAR);
        match near.zip(0..).find(|((other, _), _)| *other >= index) {
            Some(((other, _), at)) if *other == index => Ok(at),
            Some((_, at)) => Err(at),
            None => self.0.binary_search_by_key(&index, |&(other, _)| other),
        }
    }

    pub(crate) fn get(&self, index: u64) -> Option<&Granted> {
        let at = self.find(index).ok()?;
        self.0.get(at).map(|(_, task)| task)
    }

    pub(crate) fn get_mut(&mut self, index: u64) -> Option<&mut Granted> {
        let at = self.find(index).ok()?;
        self.0.get_mut(at).map(|(_, task)| task)
    }

    /// Adds a task that is not there yet.
    pub(crate) fn insert(&mut self, index: u64, task: Granted) {
        if self.0.back().is_none_or(|&(last, _)| last < index) {
            self.0.push_back((index, task));
        } else if let Err(at) = self.find(index) {
            self.0.insert(at, (index, task));
        }
    }

    pub(crate) fn remove(&mut self, index: u64) -> Option<Granted> {
        let at = self.find(index).ok()?;
        self.0.remove(at).map(|(_, task)| task)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &Granted)> {
        self.0.iter().map(|(index, task)| (*index, task))
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (u64, &mut Granted)> {
        self.0.iter_mut().map(|(index, task)| (*index, task))
    }

    pub(crate) fn into_iter(self) -> impl Iterator<Item = (u64, Granted)> {
        self.0.into_iter()
    }
}
