//! The half of a pool that asks.

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use fleetpool_proto::{HostId, PoolId, SpecId, message::FromClient, pool::Spec};

use super::{
    error::Error,
    outbox::{NewTask, Outbox},
};

/// Sends tasks to a pool, as far as the coordinator's credit goes. Clones speak for the same pool, from any thread.
///
/// Tasks leave in batches: whatever was submitted while the ones before were on their way goes together.
#[derive(Clone, Debug)]
pub struct Submitter {
    pool: PoolId,
    outbox: Arc<Outbox>,
    specs: Arc<AtomicU32>,
}

impl Submitter {
    pub(crate) fn new(pool: PoolId, outbox: Arc<Outbox>) -> Self {
        Self {
            pool,
            outbox,
            specs: Arc::default(),
        }
    }

    /// The pool's number, as the coordinator and `fleetpool jobs` know it.
    #[must_use]
    pub fn pool(&self) -> PoolId {
        self.pool
    }

    /// Says once what many tasks have in common, and gives it a number for [`Self::submit`].
    pub fn define(&self, body: Spec) -> SpecId {
        let spec = SpecId(self.specs.fetch_add(1, Ordering::Relaxed));
        self.outbox.say(FromClient::Define {
            pool: self.pool,
            spec,
            body: Box::new(body),
        });
        spec
    }

    /// Submits a task, for `host` alone if one is named, and tells its index. Waits while there is no credit.
    ///
    /// # Errors
    /// When the pool is closed, refused or lost, or the argument is too large.
    pub async fn submit(
        &self,
        spec: SpecId,
        host: Option<HostId>,
        payload: Bytes,
    ) -> Result<u64, Error> {
        loop {
            if let Some(index) = self.try_submit(spec, host, payload.clone())? {
                return Ok(index);
            }
            poll_fn(|context| self.outbox.poll_credit(context)).await?;
        }
    }

    /// Submits a task if there is credit for it now; `None` when there is not.
    ///
    /// # Errors
    /// As for [`Self::submit`].
    pub fn try_submit(
        &self,
        spec: SpecId,
        host: Option<HostId>,
        payload: Bytes,
    ) -> Result<Option<u64>, Error> {
        let task = NewTask {
            spec,
            host,
            payload,
        };
        self.outbox.push(task, |_| ())
    }

    /// Waits until all that was submitted is on its way. It gets there without being waited for, too.
    ///
    /// # Errors
    /// When the session is lost.
    pub async fn flush(&self) -> Result<(), Error> {
        poll_fn(|context| self.outbox.poll_flushed(context)).await
    }

    /// Waits until the coordinator holds all that was submitted, and that the pool is closed, if it is, whatever becomes of it or
    /// of this process.
    ///
    /// # Errors
    /// When the pool is refused or the session is lost.
    pub async fn held(&self) -> Result<(), Error> {
        poll_fn(|context| self.outbox.poll_safe(context)).await
    }

    /// Leaves a detached pool to itself: dropping its [`Events`](super::Events) does not end it.
    pub fn leave(&self) {
        self.outbox.leave();
    }

    /// Ends these tasks, running or not. Each gets its outcome.
    pub fn cancel(&self, tasks: Vec<u64>) {
        let pool = self.pool;
        self.outbox.say(FromClient::Cancel { pool, tasks });
    }

    /// No more tasks will come: the pool ends when those submitted have.
    pub fn close(&self) {
        self.outbox.close();
    }

    /// Ends the pool now. What runs is killed; nothing more is delivered than that the pool has ended.
    pub fn terminate(&self) {
        self.outbox.terminate();
    }

    /// Changes how many tasks may run at once; `None`: as many as there are slots.
    pub fn resize(&self, slots: Option<u32>) {
        let pool = self.pool;
        self.outbox.say(FromClient::Resize { pool, slots });
    }

    /// As [`Self::try_submit`]; `placed` hears the index before anything is sent.
    pub(crate) fn push(
        &self,
        spec: SpecId,
        payload: Bytes,
        placed: impl FnOnce(u64),
    ) -> Result<Option<u64>, Error> {
        let host = None;
        let task = NewTask {
            spec,
            host,
            payload,
        };
        self.outbox.push(task, placed)
    }

    /// Ready when there is credit for another task, or never will be.
    pub(crate) fn poll_credit(&self, context: &Context<'_>) -> Poll<Result<(), Error>> {
        self.outbox.poll_credit(context)
    }

    /// Counts results as consumed.
    pub(crate) fn consume(&self, tasks: u64, bytes: u64) {
        self.outbox.consume(tasks, bytes);
    }
}
