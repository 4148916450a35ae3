//! A call's inputs on their way into the pool.

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use bytes::Bytes;
use fleetpool_proto::{Outcome, SpecId};

use super::{
    arrived::{Arrived, Call},
    core::Core,
    encode::Encoded,
    flow::Flow,
};
use crate::error::Error;

/// Pulls a call's inputs and submits them.
#[derive(Debug)]
pub(crate) struct Feed<I> {
    core: Arc<Core>,
    call: Arc<Call>,
    spec: SpecId,
    inputs: Option<I>,
    /// Pulled, and not yet submitted for want of credit.
    pulled: Option<Bytes>,
    submitted: u64,
    flow: Flow,
}

/// Why a feed does not go on now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fed {
    /// There are no more inputs.
    Wholly,
    /// As much as is good for now, with so many slots.
    Enough(u64),
    /// As much as there is credit for.
    NoCredit,
}

impl<I: Iterator<Item = Encoded>> Feed<I> {
    pub(crate) fn new(core: Arc<Core>, call: Arc<Call>, spec: SpecId, inputs: I) -> Self {
        Self {
            core,
            call,
            spec,
            inputs: Some(inputs),
            pulled: None,
            submitted: 0,
            flow: Flow::new(Instant::now()),
        }
    }

    /// Of a call whose inputs before `position` have been submitted already.
    pub(crate) fn from(
        core: Arc<Core>,
        call: Arc<Call>,
        spec: SpecId,
        position: u64,
        inputs: I,
    ) -> Self {
        Self {
            submitted: position,
            ..Self::new(core, call, spec, inputs)
        }
    }

    pub(crate) fn core(&self) -> &Core {
        &self.core
    }

    /// Inputs that have been taken in.
    pub(crate) fn submitted(&self) -> u64 {
        self.submitted
    }

    /// Submits what may be submitted while the caller has taken `taken` results.
    pub(crate) fn feed(&mut self, taken: u64) -> Result<Fed, Error> {
        self.flow.on_received(self.call.received(), Instant::now());
        let slots = self.core.slots();
        loop {
            if self.inputs.is_none() && self.pulled.is_none() {
                return Ok(Fed::Wholly);
            }
            if !self.flow.allows(self.submitted - taken, slots) {
                return Ok(Fed::Enough(slots));
            }
            let Some(argument) = self.pull() else {
                continue;
            };
            let (call, position) = (&self.call, self.submitted);
            if !self
                .core
                .push(self.spec, argument.clone(), call, position)?
            {
                self.pulled = Some(argument);
                return Ok(Fed::NoCredit);
            }
            self.submitted += 1;
        }
    }

    /// Ready when more may be submitted than was, for another reason than a result. Ask for results before: that one is woken then.
    pub(crate) fn poll_more(&self, context: &Context<'_>, fed: Fed) -> Poll<Result<(), Error>> {
        match fed {
            Fed::NoCredit => self.poll_credit(context),
            Fed::Enough(slots) if slots != self.core.slots() => Poll::Ready(Ok(())),
            Fed::Enough(_) | Fed::Wholly => Poll::Pending,
        }
    }

    /// Ready when there is credit again.
    fn poll_credit(&self, context: &Context<'_>) -> Poll<Result<(), Error>> {
        self.core.poll_credit(context)
    }

    /// Takes no more inputs.
    pub(crate) fn cut(&mut self) {
        self.inputs = None;
        self.pulled = None;
    }

    /// The next argument to be submitted. One that cannot be encoded has ended before it began.
    fn pull(&mut self) -> Option<Bytes> {
        if let Some(argument) = self.pulled.take() {
            return Some(argument);
        }
        match self.inputs.as_mut()?.next() {
            Some(Ok(argument)) => Some(argument),
            Some(Err(message)) => {
                self.core
                    .refuse_argument(&self.call, self.submitted, message);
                self.submitted += 1;
                None
            }
            None => {
                self.inputs = None;
                None
            }
        }
    }

    /// Submits everything, as results of the call come and are kept by it; what is left when the call is cancelled
    /// is cancelled here. For inputs that nobody waits for.
    pub(crate) fn poll_all(&mut self, context: &Context<'_>) -> Poll<Result<(), Error>> {
        loop {
            if self.call.is_cancelled() {
                self.cancel_rest();
                return Poll::Ready(Ok(()));
            }
            let taken = self.call.received().0;
            let fed = self.feed(taken)?;
            let ready = match fed {
                Fed::Wholly => return Poll::Ready(Ok(())),
                Fed::Enough(_) => self.call.poll_received(context, taken),
                Fed::NoCredit => Poll::Pending,
            };
            if ready?.is_pending() {
                std::task::ready!(self.poll_more(context, fed))?;
            }
        }
    }

    fn cancel_rest(&mut self) {
        let rest = self.inputs.take().into_iter().flatten().count();
        let rest = rest as u64 + u64::from(self.pulled.take().is_some());
        for position in self.submitted..self.submitted + rest {
            let cancelled = Arrived::unsent(position, Outcome::Cancelled, Bytes::new());
            self.core.deliver(&self.call, cancelled);
        }
        self.submitted += rest;
    }
}
