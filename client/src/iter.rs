//! The results of a call one by one.

use std::{fmt, future::poll_fn};

use crate::{
    call::{Encoder, Items},
    error::Error,
    park,
    task::Task,
};

/// Results one by one, for loops: of [`imap`](crate::Pool::imap) and [`imap_unordered`](crate::Pool::imap_unordered).
///
/// The input is read as results are taken, some way ahead of them, on the thread that takes them. A task that fails
/// gives an error in its place and the rest goes on; after an error that is not a task's, there is nothing more.
/// Dropping the iterator cancels what is left.
#[must_use = "the input is read as results are taken"]
pub struct Results<T: Task, I: Iterator<Item = T::Input>>(Items<T, Encoder<T, I>>);

/// Results one by one, for executors: of [`stream`](crate::Pool::stream). Otherwise as [`Results`].
#[must_use = "the input is read as results are taken"]
pub struct Stream<T: Task, I: Iterator<Item = T::Input>>(Items<T, Encoder<T, I>>);

impl<T: Task, I: Iterator<Item = T::Input>> Results<T, I> {
    pub(crate) fn new(items: Items<T, Encoder<T, I>>) -> Self {
        Self(items)
    }
}

impl<T: Task, I: Iterator<Item = T::Input>> Iterator for Results<T, I> {
    type Item = Result<T::Output, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        park::block_on(poll_fn(|context| self.0.poll_next(context)))
    }
}

impl<T: Task, I: Iterator<Item = T::Input>> Stream<T, I> {
    pub(crate) fn new(items: Items<T, Encoder<T, I>>) -> Self {
        Self(items)
    }

    /// The next result, in the order of the inputs; `None` after the last. Cancel-safe.
    pub async fn next(&mut self) -> Option<Result<T::Output, Error>> {
        poll_fn(|context| self.0.poll_next(context)).await
    }
}

impl<T: Task, I: Iterator<Item = T::Input>> fmt::Debug for Results<T, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Results").finish_non_exhaustive()
    }
}

impl<T: Task, I: Iterator<Item = T::Input>> fmt::Debug for Stream<T, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").finish_non_exhaustive()
    }
}
