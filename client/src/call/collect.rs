//! All results of a call at once, as its caller waits for them.

use std::{
    sync::Arc,
    task::{Context, Poll, ready},
};

use super::{
    arrived::{Arrived, Call},
    encode::Encoded,
    feed::{Fed, Feed},
};
use crate::{
    error::{Error, TaskError},
    task::Task,
};

/// Feeds a call and puts its results in order.
#[derive(Debug)]
pub(crate) struct Collect<T: Task, I: Iterator<Item = Encoded>> {
    call: Arc<Call>,
    feed: Feed<I>,
    arrived: Vec<Arrived>,
    results: Vec<Option<T::Output>>,
    taken: u64,
    /// Of the failures so far, that of the lowest index.
    failure: Option<TaskError>,
}

impl<T: Task, I: Iterator<Item = Encoded>> Collect<T, I> {
    pub(crate) fn new(feed: Feed<I>, call: Arc<Call>) -> Self {
        Self {
            call,
            feed,
            arrived: Vec::new(),
            results: Vec::new(),
            taken: 0,
            failure: None,
        }
    }

    /// Goes on as far as it can; ready when all tasks have ended.
    pub(crate) fn poll(&mut self, context: &Context<'_>) -> Poll<Result<Vec<T::Output>, Error>> {
        loop {
            let fed = self.feed.feed(self.taken)?;
            if self
                .call
                .poll_arrived(context, &mut self.arrived)?
                .is_ready()
            {
                self.sort_in();
                continue;
            }
            if fed == Fed::Wholly && self.taken == self.feed.submitted() {
                return Poll::Ready(self.finish());
            }
            ready!(self.feed.poll_more(context, fed))?;
        }
    }

    fn sort_in(&mut self) {
        self.taken += self.arrived.len() as u64;
        let mut arrived = std::mem::take(&mut self.arrived);
        for arrived in arrived.drain(..) {
            match arrived.result(self.feed.core().hosts()) {
                Ok(result) => self.place(arrived.position, result),
                Err(error) => self.note(error),
            }
        }
        self.arrived = arrived;
    }

    fn place(&mut self, position: u64, result: T::Output) {
        // More results than memory can address are not kept; there is no machine for them.
        let Ok(place) = usize::try_from(position) else {
            return;
        };
        if place >= self.results.len() {
            self.results.resize_with(place + 1, || None);
        }
        self.results[place] = Some(result);
    }

    fn note(&mut self, error: TaskError) {
        let first = self
            .failure
            .as_ref()
            .is_none_or(|first| error.index() < first.index());
        if first {
            self.failure = Some(error);
        }
    }

    fn finish(&mut self) -> Result<Vec<T::Output>, Error> {
        match self.failure.take() {
            Some(error) => Err(Error::Task(error)),
            None => Ok(std::mem::take(&mut self.results)
                .into_iter()
                .flatten()
                .collect()),
        }
    }
}

/// An input that panics leaves tasks behind that nobody waits for.
impl<T: Task, I: Iterator<Item = Encoded>> Drop for Collect<T, I> {
    fn drop(&mut self) {
        if self.taken < self.feed.submitted() {
            self.feed.core().abandon(&self.call);
        }
    }
}
