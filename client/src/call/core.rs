//! What a pool's handles, calls and dispatcher share.

use std::{
    collections::BTreeMap,
    fmt::Display,
    future::poll_fn,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use fleetpool_proto::{
    Outcome, SpecId, frame::encode_header, message::ResultRow, outcome::Loss, pool::Spec,
    time::micros,
};

use super::{
    arrived::{Arrived, Call},
    runs::Runs,
};
use crate::{
    cluster::{self, Hosts, Submitter},
    error::Error,
};

/// The living part of a pool.
#[derive(Debug)]
pub(crate) struct Core {
    submitter: Submitter,
    hosts: Arc<Hosts>,
    timeout: Duration,
    /// Slots that the pool may use, as last told.
    slots: AtomicU64,
    /// Most of them that it wants.
    slots_max: AtomicU64,
    specs: Mutex<BTreeMap<&'static str, SpecId>>,
    runs: Mutex<Runs<Call>>,
    /// Inputs whose tasks have ended, and tasks of them that have not succeeded.
    ended: [AtomicU64; 2],
    phase: Mutex<Phase>,
}

/// Where the pool is in its life.
#[derive(Debug, Default)]
struct Phase {
    /// No more calls.
    closed: bool,
    /// Calls whose inputs are all to be submitted before the pool may end.
    feeding: usize,
    /// Nothing of the pool runs any more.
    finished: bool,
    /// Why it ended before its time.
    failed: Option<Error>,
    wakers: Vec<Waker>,
}

/// Held while a call submits inputs that `join` waits for.
#[derive(Debug)]
pub(crate) struct Feeding(Arc<Core>);

impl Core {
    pub(crate) fn new(submitter: Submitter, hosts: Arc<Hosts>, timeout: Duration) -> Self {
        Self {
            submitter,
            hosts,
            timeout,
            slots: AtomicU64::new(0),
            slots_max: AtomicU64::new(u64::MAX),
            specs: Mutex::default(),
            runs: Mutex::default(),
            ended: [AtomicU64::new(0), AtomicU64::new(0)],
            phase: Mutex::default(),
        }
    }

    pub(crate) fn hosts(&self) -> &Hosts {
        &self.hosts
    }

    pub(crate) fn submitter(&self) -> &Submitter {
        &self.submitter
    }

    pub(crate) fn slots(&self) -> u64 {
        let most = self.slots_max.load(Ordering::Relaxed);
        self.slots.load(Ordering::Relaxed).min(most)
    }

    /// The pool wants no more slots than this.
    pub(crate) fn limit(&self, slots: Option<u32>) {
        let most = slots.map_or(u64::MAX, u64::from);
        self.slots_max.store(most, Ordering::Relaxed);
        self.wake_calls();
    }

    pub(crate) fn set_slots(&self, slots: u32) {
        if self.slots.swap(u64::from(slots), Ordering::Relaxed) != u64::from(slots) {
            self.wake_calls();
        }
    }

    /// How far calls read ahead goes by the slots there are.
    fn wake_calls(&self) {
        let calls = lock(&self.runs).calls();
        calls.iter().for_each(|call| call.wake());
    }

    /// The specification of calls of the function of that name.
    pub(crate) fn spec(&self, function: &'static str) -> SpecId {
        let mut specs = lock(&self.specs);
        let define = || {
            self.submitter.define(Spec {
                function: function.to_owned(),
                timeout_ms: micros(self.timeout).div_ceil(1000),
                ..Spec::default()
            })
        };
        *specs.entry(function).or_insert_with(define)
    }

    /// A new call, unless the pool takes none any more.
    pub(crate) fn begin_call(&self) -> Result<Arc<Call>, Error> {
        self.begin_call_of(1)
    }

    /// The same; each of its tasks has so many inputs, or, with 0, as many as it is said to have.
    pub(crate) fn begin_call_of(&self, weight: u64) -> Result<Arc<Call>, Error> {
        let phase = lock(&self.phase);
        match &phase.failed {
            Some(error) => Err(error.clone()),
            None if phase.closed => Err(Error::Closed),
            None => Ok(Arc::new(Call::of_weight(weight))),
        }
    }

    /// The pool is not to end while the guard lives.
    pub(crate) fn begin_feeding(self: &Arc<Self>) -> Feeding {
        lock(&self.phase).feeding += 1;
        Feeding(Arc::clone(self))
    }

    /// Submits the task at `position` of `call`; `false` when there is no credit for it now.
    pub(crate) fn push(
        &self,
        spec: SpecId,
        argument: Bytes,
        call: &Arc<Call>,
        position: u64,
    ) -> Result<bool, Error> {
        let place = |index| {
            if lock(&self.runs).place(index, call, position) {
                call.add_run(index);
            }
        };
        match self.submitter.push(spec, argument, place) {
            Ok(index) => Ok(index.is_some()),
            Err(error @ cluster::Error::TooLarge { .. }) => {
                self.refuse_argument(call, position, error);
                Ok(true)
            }
            Err(error) => Err(self.why(error)),
        }
    }

    /// Ready when there is credit for another task, or never will be.
    pub(crate) fn poll_credit(&self, context: &Context<'_>) -> Poll<Result<(), Error>> {
        let ready = self.submitter.poll_credit(context);
        ready.map_err(|error| self.why(error))
    }

    /// An argument that is never sent: its task ends in its place.
    pub(crate) fn refuse_argument(&self, call: &Call, position: u64, why: impl Display) {
        let loss = encode_header(&Loss::because(format!(
            "its argument cannot be sent: {why}"
        )));
        let refused = Arrived::unsent(position, Outcome::NotStarted, loss);
        self.deliver(call, refused);
    }

    /// Hands over one result that did not come from the cluster.
    pub(crate) fn deliver(&self, call: &Call, arrived: Arrived) {
        let mut wake = Vec::new();
        call.deliver(arrived, &mut wake);
        wake.into_iter().for_each(Waker::wake);
    }

    /// Hands results over to their calls, then wakes the callers.
    pub(crate) fn on_results(&self, rows: Vec<ResultRow>, payloads: Vec<Bytes>) {
        let count = rows.len() as u64;
        let mut bytes = 0;
        let mut wake = Vec::new();
        let mut runs = lock(&self.runs);
        for (row, payload) in rows.into_iter().zip(payloads) {
            bytes += payload.len() as u64;
            let Some((call, position)) = runs.take(row.index) else {
                continue;
            };
            self.ended[1].fetch_add(u64::from(!row.outcome.is_success()), Ordering::Relaxed);
            let arrived = Arrived {
                position,
                outcome: row.outcome,
                host: row.host,
                pid: row.pid,
                payload,
            };
            let inputs = call.deliver(arrived, &mut wake);
            self.ended[0].fetch_add(inputs, Ordering::Relaxed);
        }
        drop(runs);
        wake.into_iter().for_each(Waker::wake);
        self.submitter.consume(count, bytes);
    }

    /// How many inputs' tasks have ended, and how many tasks of these have not succeeded.
    pub(crate) fn ended(&self) -> (u64, u64) {
        let [all, failed] = &self.ended;
        (all.load(Ordering::Relaxed), failed.load(Ordering::Relaxed))
    }

    /// Cancels what a call has on its way. Its outcomes still come.
    pub(crate) fn cancel(&self, call: &Call) {
        let firsts = call.cancel();
        let indexes = lock(&self.runs).indexes(&firsts);
        if !indexes.is_empty() {
            self.submitter.cancel(indexes);
        }
    }

    /// Cancels what a call has on its way, whose outcomes nobody waits for.
    pub(crate) fn abandon(&self, call: &Call) {
        let firsts = call.cancel();
        let mut runs = lock(&self.runs);
        let indexes = runs.indexes(&firsts);
        runs.forget(&firsts);
        drop(runs);
        if !indexes.is_empty() {
            self.submitter.cancel(indexes);
        }
    }

    /// Takes no more calls.
    pub(crate) fn close(&self) {
        lock(&self.phase).closed = true;
    }

    /// Ends the pool and everything in it.
    pub(crate) fn terminate(&self) {
        let reason = String::new();
        self.fail(Error::Terminated { reason });
    }

    /// The pool is not what its callers wait for any more: all calls end with `why`.
    pub(crate) fn fail(&self, why: Error) {
        let mut phase = lock(&self.phase);
        let why = phase.failed.get_or_insert(why).clone();
        phase.closed = true;
        phase.wakers.drain(..).for_each(Waker::wake);
        drop(phase);
        // From here on nothing is placed any more, so that no call is overlooked.
        self.submitter.terminate();
        let calls = lock(&self.runs).drain();
        calls.iter().for_each(|call| call.end(why.clone()));
    }

    /// Nothing of the pool runs any more.
    pub(crate) fn finish(&self) {
        let mut phase = lock(&self.phase);
        phase.finished = true;
        phase.wakers.drain(..).for_each(Waker::wake);
    }

    /// Whether some call waits for a result.
    pub(crate) fn is_waiting(&self) -> bool {
        !lock(&self.runs).is_empty()
    }

    /// Whether the pool was closed and no call waits for a result.
    pub(crate) fn is_done(&self) -> bool {
        lock(&self.phase).closed && lock(&self.runs).is_empty()
    }

    /// Waits until all that was given to the closed pool has ended and its workers are gone.
    pub(crate) async fn join(&self) -> Result<(), Error> {
        poll_fn(|context| self.poll_fed(context)).await?;
        self.submitter.close();
        poll_fn(|context| self.poll_finished(context)).await
    }

    /// Ready when every input that the pool was given whole has been submitted. The pool must be closed.
    fn poll_fed(&self, context: &Context<'_>) -> Poll<Result<(), Error>> {
        let mut phase = lock(&self.phase);
        if !phase.closed {
            return Poll::Ready(Err(Error::NotClosed));
        }
        if phase.feeding == 0 || phase.finished || phase.failed.is_some() {
            return Poll::Ready(Ok(()));
        }
        phase.wait(context)
    }

    /// Ready when nothing of the pool runs any more.
    fn poll_finished(&self, context: &Context<'_>) -> Poll<Result<(), Error>> {
        let mut phase = lock(&self.phase);
        match &phase.failed {
            Some(error @ Error::Cluster(_)) => Poll::Ready(Err(error.clone())),
            _ if phase.finished => Poll::Ready(Ok(())),
            _ => phase.wait(context),
        }
    }

    /// What a refusal of the submitter means for a caller.
    fn why(&self, error: cluster::Error) -> Error {
        lock(&self.phase).failed.clone().unwrap_or(error.into())
    }
}

impl Phase {
    fn wait(&mut self, context: &Context<'_>) -> Poll<Result<(), Error>> {
        let waker = context.waker();
        if !self.wakers.iter().any(|other| other.will_wake(waker)) {
            self.wakers.push(waker.clone());
        }
        Poll::Pending
    }
}

impl Drop for Feeding {
    fn drop(&mut self) {
        let mut phase = lock(&self.0.phase);
        phase.feeding -= 1;
        phase.wakers.drain(..).for_each(Waker::wake);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
