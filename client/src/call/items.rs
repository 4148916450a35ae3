//! The results of a call one by one, while its inputs are still being read.

use std::{
    collections::VecDeque,
    marker::PhantomData,
    sync::Arc,
    task::{Context, Poll, ready},
};

use super::{
    arrived::{Arrived, Call},
    core::Core,
    encode::Encoded,
    feed::{Fed, Feed},
};
use crate::{error::Error, task::Task};

/// In which order results are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// That of the inputs.
    Input,
    /// That in which tasks end.
    Completion,
}

/// Results as they are asked for. Dropping it cancels what is left.
#[derive(Debug)]
pub(crate) struct Items<T, I> {
    core: Arc<Core>,
    call: Arc<Call>,
    feed: Feed<I>,
    order: Order,
    /// What has come, as it came.
    arrived: Vec<Arrived>,
    /// What can be given out, from `taken` on where the order is that of the inputs.
    waiting: VecDeque<Option<Arrived>>,
    taken: u64,
    /// The call has ended before its time; told once.
    over: Option<Error>,
    told: bool,
    task: PhantomData<fn() -> T>,
}

impl<T: Task, I: Iterator<Item = Encoded>> Items<T, I> {
    pub(crate) fn new(core: Arc<Core>, call: Arc<Call>, feed: Feed<I>, order: Order) -> Self {
        Self {
            core,
            call,
            feed,
            order,
            arrived: Vec::new(),
            waiting: VecDeque::new(),
            taken: 0,
            over: None,
            told: false,
            task: PhantomData,
        }
    }

    /// Submits as much as is good before the first result is asked for, unless the call is refused.
    pub(crate) fn start(&mut self, refusal: Option<Error>) {
        let started = match refusal {
            Some(error) => Err(error),
            None => self.feed.feed(self.taken).map(|_| ()),
        };
        if let Err(error) = started {
            self.stop(error);
        }
    }

    /// The next result; `None` when all have been given out, or after the error that ended the call.
    pub(crate) fn poll_next(
        &mut self,
        context: &Context<'_>,
    ) -> Poll<Option<Result<T::Output, Error>>> {
        loop {
            if let Some(arrived) = self.take() {
                let result = arrived.result(self.core.hosts());
                return Poll::Ready(Some(result.map_err(Error::Task)));
            }
            let fed = self.feed.feed(self.taken).unwrap_or_else(|error| {
                self.stop(error);
                Fed::Wholly
            });
            if fed == Fed::Wholly && self.taken == self.feed.submitted() {
                return Poll::Ready(self.last_word());
            }
            if self.poll_more(context, fed).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// Ready when it is worth to look again.
    fn poll_more(&mut self, context: &Context<'_>, fed: Fed) -> Poll<()> {
        match self.call.poll_arrived(context, &mut self.arrived) {
            Poll::Ready(Ok(())) => {
                self.sort_in();
                return Poll::Ready(());
            }
            Poll::Ready(Err(error)) => {
                // What has not come by now never will.
                self.stop(error);
                self.taken = self.feed.submitted();
                return Poll::Ready(());
            }
            Poll::Pending => {}
        }
        if let Err(error) = ready!(self.feed.poll_more(context, fed)) {
            self.stop(error);
        }
        Poll::Ready(())
    }

    fn sort_in(&mut self) {
        for arrived in self.arrived.drain(..) {
            if self.order == Order::Completion {
                self.waiting.push_back(Some(arrived));
                continue;
            }
            let Ok(place) = usize::try_from(arrived.position - self.taken) else {
                continue;
            };
            if place >= self.waiting.len() {
                self.waiting.resize_with(place + 1, || None);
            }
            self.waiting[place] = Some(arrived);
        }
    }

    /// The result that is due, if it is here.
    fn take(&mut self) -> Option<Arrived> {
        self.waiting.front()?.as_ref()?;
        self.taken += 1;
        self.waiting.pop_front()?
    }

    fn stop(&mut self, error: Error) {
        self.feed.cut();
        self.over.get_or_insert(error);
    }

    fn last_word(&mut self) -> Option<Result<T::Output, Error>> {
        if std::mem::replace(&mut self.told, true) {
            return None;
        }
        self.over.take().map(Err)
    }
}

impl<T, I> Drop for Items<T, I> {
    fn drop(&mut self) {
        self.core.abandon(&self.call);
    }
}
