//! What has come back of one call.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use fleetpool_proto::{HostId, Outcome, outcome::Loss, worker::NativeError};
use serde::de::DeserializeOwned;

use crate::{
    cluster::Hosts,
    codec,
    error::{Error, TaskError},
};

/// A task of a call that has ended.
#[derive(Clone, Debug)]
pub struct Arrived {
    /// Its place among the call's inputs.
    pub position: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// Where it ran.
    pub host: HostId,
    /// The process that ran it.
    pub pid: u32,
    /// Its result, its error, or a [`Loss`], as the outcome says.
    pub payload: Bytes,
}

/// A call that waits for its results: filled by the dispatcher, emptied by the caller.
#[derive(Debug)]
pub(crate) struct Call {
    state: Mutex<State>,
    /// Inputs in each of its tasks; 0: each has as many as it is said to have.
    weight: u64,
}

impl Default for Call {
    fn default() -> Self {
        Self::of_weight(1)
    }
}

#[derive(Debug, Default)]
struct State {
    arrived: Vec<Arrived>,
    /// Results that have come, in all, and their bytes.
    received: (u64, u64),
    /// Where this call's runs begin.
    runs: Vec<u64>,
    /// Which input is each task's first, where that cannot be reckoned; and one past the last.
    firsts: Vec<u64>,
    cancelled: bool,
    /// Nothing more will come.
    over: Option<Error>,
    wakers: Vec<Waker>,
}

impl Call {
    pub(crate) fn of_weight(weight: u64) -> Self {
        let state = Mutex::default();
        Self { state, weight }
    }

    /// The next task that is pushed has so many inputs.
    pub(crate) fn add_chunk(&self, inputs: u64) {
        let mut state = self.state();
        let first = state.firsts.last().copied().unwrap_or(0);
        if state.firsts.is_empty() {
            state.firsts.push(first);
        }
        state.firsts.push(first + inputs);
    }

    /// The first input of the task at this position.
    pub(crate) fn first_input(&self, position: u64) -> u64 {
        self.state().first_input(position, self.weight)
    }

    /// Takes a result in; tells how many inputs it is of. Those who wait are to be woken by the dispatcher, when it has done.
    pub(crate) fn deliver(&self, arrived: Arrived, wake: &mut Vec<Waker>) -> u64 {
        let mut state = self.state();
        let first = |position| state.first_input(position, self.weight);
        let inputs = first(arrived.position + 1) - first(arrived.position);
        state.received.0 += 1;
        state.received.1 += arrived.payload.len() as u64;
        state.arrived.push(arrived);
        wake.append(&mut state.wakers);
        inputs
    }

    /// Ends the call, with what has arrived until now.
    pub(crate) fn end(&self, why: Error) {
        let mut state = self.state();
        state.over.get_or_insert(why);
        state.wakers.drain(..).for_each(Waker::wake);
    }

    /// Takes out what has arrived; ready when that is anything.
    pub(crate) fn poll_arrived(
        &self,
        context: &Context<'_>,
        into: &mut Vec<Arrived>,
    ) -> Poll<Result<(), Error>> {
        let mut state = self.state();
        if !state.arrived.is_empty() {
            std::mem::swap(&mut state.arrived, into);
            return Poll::Ready(Ok(()));
        }
        state.wait(context)
    }

    /// Ready when `count` results are there, which stay.
    pub(crate) fn poll_complete(
        &self,
        context: &Context<'_>,
        count: u64,
    ) -> Poll<Result<(), Error>> {
        let mut state = self.state();
        if state.arrived.len() as u64 >= count {
            return Poll::Ready(Ok(()));
        }
        state.wait(context)
    }

    /// Ready when more than `seen` results have come in all, or something else has changed.
    pub(crate) fn poll_received(
        &self,
        context: &Context<'_>,
        seen: u64,
    ) -> Poll<Result<(), Error>> {
        let mut state = self.state();
        if state.received.0 > seen || state.cancelled {
            return Poll::Ready(Ok(()));
        }
        state.wait(context)
    }

    /// Looks at what has arrived and not been taken.
    pub(crate) fn with_arrived<T>(&self, look: impl FnOnce(&[Arrived]) -> T) -> T {
        look(&self.state().arrived)
    }

    /// Results that have come in all, and their bytes.
    pub(crate) fn received(&self) -> (u64, u64) {
        self.state().received
    }

    pub(crate) fn add_run(&self, first: u64) {
        self.state().runs.push(first);
    }

    /// Cancels the call: no more of its inputs are sent. Tells where its runs begin, the first time.
    pub(crate) fn cancel(&self) -> Vec<u64> {
        let mut state = self.state();
        state.cancelled = true;
        state.wakers.drain(..).for_each(Waker::wake);
        std::mem::take(&mut state.runs)
    }

    /// Makes those who wait look again: something that they wait for besides has changed.
    pub(crate) fn wake(&self) {
        self.state().wakers.drain(..).for_each(Waker::wake);
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.state().cancelled
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn first_input(&self, position: u64, weight: u64) -> u64 {
        let known = usize::try_from(position)
            .ok()
            .and_then(|position| self.firsts.get(position).copied());
        known.unwrap_or(position * weight)
    }

    fn wait(&mut self, context: &Context<'_>) -> Poll<Result<(), Error>> {
        if let Some(why) = &self.over {
            return Poll::Ready(Err(why.clone()));
        }
        let waker = context.waker();
        if !self.wakers.iter().any(|other| other.will_wake(waker)) {
            self.wakers.push(waker.clone());
        }
        Poll::Pending
    }
}

impl Arrived {
    /// A task that never left this process.
    pub(crate) fn unsent(position: u64, outcome: Outcome, payload: Bytes) -> Self {
        let (host, pid) = (HostId::default(), 0);
        Self {
            position,
            outcome,
            host,
            pid,
            payload,
        }
    }

    /// The result, or why there is none.
    pub(crate) fn result<T: DeserializeOwned>(&self, hosts: &Hosts) -> Result<T, TaskError> {
        if self.outcome != Outcome::Done {
            return Err(self.error(hosts));
        }
        codec::decode(&self.payload).map_err(|error| TaskError::Decode {
            index: self.position,
            message: error.to_string(),
        })
    }

    /// Why there is no result.
    pub(crate) fn error(&self, hosts: &Hosts) -> TaskError {
        let (index, pid) = (self.position, self.pid);
        let host = hosts.name(self.host).unwrap_or_default();
        if self.outcome == Outcome::Failed {
            let NativeError { message, location } = self.details();
            return TaskError::Failed {
                index,
                host,
                message,
                location,
            };
        }
        let loss: Loss = self.details();
        let (message, memory) = (loss.message, loss.memory_kib_peak);
        match self.outcome {
            Outcome::WorkerLost => TaskError::WorkerLost {
                index,
                host,
                pid,
                signal: loss.signal,
                exit: loss.exit,
                memory,
                stderr_tail: loss.stderr_tail,
            },
            Outcome::OutOfMemory => TaskError::OutOfMemory {
                index,
                host,
                pid,
                memory,
            },
            Outcome::TimedOut => TaskError::TimedOut { index, host },
            Outcome::Cancelled => TaskError::Cancelled { index },
            Outcome::NotStarted => TaskError::NotStarted { index, message },
            Outcome::HostLost => TaskError::HostLost {
                index,
                host,
                message,
            },
            Outcome::Unknown | Outcome::Done | Outcome::Failed => TaskError::Unknown {
                index,
                host,
                message,
            },
        }
    }

    /// What a peer of another version says differently is left out.
    fn details<T: DeserializeOwned + Default>(&self) -> T {
        rmp_serde::from_slice(&self.payload).unwrap_or_default()
    }
}
