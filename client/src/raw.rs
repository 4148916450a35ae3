//! The pool without types: payloads in, payloads out. What fleetpool's faces in other languages stand on; a program in
//! Rust wants [`Pool`](crate::Pool), and a tool [`cluster`](crate::cluster).
//!
//! A [`Hub`] is a cluster, embedded or not; a [`RawPool`] a pool of any runtime on it; a [`RawCall`] some of its tasks
//! whose results are wanted together. Whoever pushes tasks decides how far to go ahead of the results, by a [`Flow`],
//! and waits for credit where there is none. Nothing here blocks but [`wait`].

use std::{
    future::{Future, poll_fn},
    path::{Path, PathBuf},
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use fleetpool_proto::{
    HostId, SpecId,
    pool::{ContentHash, PoolOptions, Spec},
    view::HostView,
};
use tokio::runtime::Handle;

pub use crate::call::Arrived;
use crate::{
    builder::{connect, gather, slots_of_host},
    call::{self, Call, Core, Feed, dispatch},
    cluster::Cluster,
    config::Place,
    error::{Error, TaskError},
    groups,
    output::{Notes, Output, Printed, Printer},
    park,
    pool::hosts,
};

/// A cluster that pools can be opened on.
#[derive(Clone, Debug)]
pub struct Hub {
    cluster: Cluster,
    embedded: bool,
}

impl Hub {
    /// The cluster of that place: an embedded one of `slots` slots, whose helper is `program`; one of hosts, whose agents are
    /// `program`, and `note` is told of those that cannot be had; or another, which the identity in that folder is shown.
    ///
    /// # Errors
    /// When the cluster cannot be reached or started.
    pub fn open(
        place: &Place,
        identity: Option<&Path>,
        slots: Option<u32>,
        program: PathBuf,
        note: impl Fn(String) + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        let cluster = match place {
            Place::At(address) => connect(address, identity)?,
            Place::Hosts(hosts) => gather(hosts, &program, Notes::to(note))?,
            Place::Here => Cluster::embedded_with(slots.map(slots_of_host), program)?,
        };
        let embedded = *place == Place::Here;
        Ok(Self { cluster, embedded })
    }

    /// Whether the cluster is in this process.
    #[must_use]
    pub fn is_embedded(&self) -> bool {
        self.embedded
    }

    /// Offers bytes to agents that ask for them by their hash.
    pub fn offer(&self, bytes: Bytes) -> ContentHash {
        self.cluster.offer_bytes(bytes)
    }

    /// Opens a pool. `output` gets what its tasks print, before the tasks' results are delivered, and `note` what is to be
    /// known of the pool as a whole, in words for people; on other threads. Groups in its selector are looked up here, which
    /// may take some seconds.
    ///
    /// # Errors
    /// When there is no such group, or the cluster is lost. What only the coordinator can know is told by the first call.
    pub fn pool(
        &self,
        mut options: PoolOptions,
        output: impl Fn(Printed) + Send + Sync + 'static,
        note: impl Fn(String) + Send + Sync + 'static,
    ) -> Result<RawPool, Error> {
        options.on = groups::expand(&options.on)?.into_owned();
        let (on, slots) = (options.on.clone(), options.slots);
        let (submitter, events) = self.cluster.open(options)?;
        let core = Arc::new(Core::new(submitter, self.cluster.hosts(), Duration::ZERO));
        core.limit(slots);
        let printer = Printer::new(Output::To(Arc::new(output)));
        let dispatch = dispatch(Arc::clone(&core), events, printer, Notes::to(note));
        self.cluster.runtime().spawn(dispatch);
        let hub = self.clone();
        Ok(RawPool { core, hub, on })
    }
}

/// A pool of any runtime. Dropping it terminates it.
#[derive(Debug)]
pub struct RawPool {
    core: Arc<Core>,
    hub: Hub,
    on: String,
}

impl RawPool {
    /// The cluster that it is on.
    #[must_use]
    pub fn hub(&self) -> &Hub {
        &self.hub
    }

    /// Says once what many tasks have in common.
    #[must_use]
    pub fn define(&self, spec: Spec) -> SpecId {
        self.core.submitter().define(spec)
    }

    /// A call without tasks, unless the pool takes none any more. Each of its tasks has so many inputs; or, with 0, as many
    /// as [`RawCall::add_chunk`] says.
    ///
    /// # Errors
    /// When the pool is closed or has ended.
    pub fn begin(&self, weight: u64) -> Result<RawCall, Error> {
        let call = self.core.begin_call_of(weight)?;
        let core = Arc::clone(&self.core);
        let runtime = self.hub.cluster.runtime().clone();
        Ok(RawCall {
            core,
            call,
            runtime,
        })
    }

    /// How many inputs' tasks have ended, and how many tasks of these have not succeeded.
    #[must_use]
    pub fn ended(&self) -> (u64, u64) {
        self.core.ended()
    }

    /// Slots that the pool may use, as far as is known.
    #[must_use]
    pub fn slots(&self) -> u64 {
        self.core.slots()
    }

    /// Takes no more calls.
    pub fn close(&self) {
        self.core.close();
    }

    /// Ready when all that was given to the closed pool has ended and its workers are gone.
    ///
    /// # Errors
    /// When the pool is not closed, or its cluster is lost.
    pub async fn join(&self) -> Result<(), Error> {
        self.core.join().await
    }

    /// Ends the pool and everything in it.
    pub fn terminate(&self) {
        self.core.terminate();
    }

    /// Changes how many tasks may run at once; `None`: as many as the cluster has slots.
    pub fn resize(&self, slots: Option<u32>) {
        self.core.limit(slots);
        self.core.submitter().resize(slots);
    }

    /// The hosts that the pool may use, by name.
    ///
    /// # Errors
    /// When the cluster is lost.
    pub async fn hosts(&self) -> Result<Vec<HostView>, Error> {
        hosts(&self.hub.cluster, &self.on).await
    }
}

impl Drop for RawPool {
    fn drop(&mut self) {
        self.core.terminate();
    }
}

/// Some tasks of a pool, whose results are wanted together. It goes on when it is dropped.
#[derive(Clone, Debug)]
pub struct RawCall {
    core: Arc<Core>,
    call: Arc<Call>,
    runtime: Handle,
}

impl RawCall {
    /// The next task has so many inputs. To be said of each, in their order, before it is pushed.
    pub fn add_chunk(&self, inputs: u64) {
        self.call.add_chunk(inputs);
    }

    /// The first input of the task at this position among the call's tasks.
    #[must_use]
    pub fn first_input(&self, position: u64) -> u64 {
        self.call.first_input(position)
    }

    /// Submits the task at `position` among the call's tasks; `false` when there is no credit for it now.
    ///
    /// # Errors
    /// When the pool has ended.
    pub fn push(&self, spec: SpecId, position: u64, payload: Bytes) -> Result<bool, Error> {
        self.core.push(spec, payload, &self.call, position)
    }

    /// Submits the tasks of `payloads` as there is credit and results come, beside the caller; from `position` on among
    /// the call's tasks. [`RawPool::join`] waits for them.
    pub fn feed(&self, spec: SpecId, position: u64, payloads: Vec<Bytes>) {
        let inputs = payloads.into_iter().map(Ok);
        let (core, call) = (Arc::clone(&self.core), Arc::clone(&self.call));
        let mut feed = Feed::from(core, Arc::clone(&call), spec, position, inputs);
        let feeding = self.core.begin_feeding();
        self.runtime.spawn(async move {
            if let Err(error) = poll_fn(|context| feed.poll_all(context)).await {
                call.end(error);
            }
            drop(feeding);
        });
    }

    /// Ready when there is credit for another task.
    ///
    /// # Errors
    /// When there never will be.
    pub fn poll_credit(&self, context: &Context<'_>) -> Poll<Result<(), Error>> {
        self.core.poll_credit(context)
    }

    /// Takes out what has arrived; ready when that is anything.
    ///
    /// # Errors
    /// When nothing more will.
    pub fn poll_arrived(
        &self,
        context: &Context<'_>,
        into: &mut Vec<Arrived>,
    ) -> Poll<Result<(), Error>> {
        self.call.poll_arrived(context, into)
    }

    /// Ready when `count` results are there, which stay.
    ///
    /// # Errors
    /// When they will not come.
    pub fn poll_complete(&self, context: &Context<'_>, count: u64) -> Poll<Result<(), Error>> {
        self.call.poll_complete(context, count)
    }

    /// Ready when more than `seen` results have come in all, or the call was cancelled.
    ///
    /// # Errors
    /// When no more will.
    pub fn poll_received(&self, context: &Context<'_>, seen: u64) -> Poll<Result<(), Error>> {
        self.call.poll_received(context, seen)
    }

    /// Slots that the pool may use, as far as is known. Who waits for the call is woken when they change.
    #[must_use]
    pub fn slots(&self) -> u64 {
        self.core.slots()
    }

    /// Looks at what has arrived and not been taken.
    pub fn with_arrived<T>(&self, look: impl FnOnce(&[Arrived]) -> T) -> T {
        self.call.with_arrived(look)
    }

    /// Results that have come in all, and their bytes.
    #[must_use]
    pub fn received(&self) -> (u64, u64) {
        self.call.received()
    }

    /// A host's name, as far as it is known.
    #[must_use]
    pub fn host_name(&self, host: HostId) -> String {
        self.core.hosts().name(host).unwrap_or_default()
    }

    /// Why a task has no result.
    #[must_use]
    pub fn error(&self, arrived: &Arrived) -> TaskError {
        arrived.error(self.core.hosts())
    }

    /// Makes those who wait for the call look again: something that they wait for besides has changed.
    pub fn wake(&self) {
        self.call.wake();
    }

    /// Ends the call's tasks, running or not. Their outcomes still come.
    pub fn cancel(&self) {
        self.core.cancel(&self.call);
    }

    /// Whether it was cancelled.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.call.is_cancelled()
    }

    /// Ends the call's tasks, whose outcomes nobody waits for.
    pub fn abandon(&self) {
        self.core.abandon(&self.call);
    }
}

/// How far a call's inputs are submitted ahead of its results.
#[derive(Clone, Debug)]
pub struct Flow(call::Flow);

impl Default for Flow {
    fn default() -> Self {
        Self(call::Flow::new(Instant::now()))
    }
}

impl Flow {
    /// Whether another task of the call may be sent while `open` are on their way or wait to be taken.
    pub fn allows(&mut self, call: &RawCall, open: u64) -> bool {
        let (received, now) = (call.received(), Instant::now());
        self.0.on_received(received, now);
        self.0.allows(open, call.core.slots())
    }
}

/// Waits for a future on a thread that has no runtime, not longer than `timeout`.
pub fn wait<F: Future>(future: F, timeout: Option<Duration>) -> Option<F::Output> {
    match timeout {
        Some(timeout) => park::block_on_for(future, timeout),
        None => Some(park::block_on(future)),
    }
}
