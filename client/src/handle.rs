//! A call that runs in the background.

use std::{fmt, future::poll_fn, sync::Arc, time::Duration};

use crate::{
    call::{Arrived, Call, Core},
    cluster::Hosts,
    error::{Error, TaskError},
    park,
};

/// A call that was made and not waited for: the result of [`apply_async`](crate::Pool::apply_async) and
/// [`map_async`](crate::Pool::map_async). The call goes on when the handle is dropped.
///
/// ```no_run
/// # #[fleetpool::task] fn square(x: u64) -> u64 { x * x }
/// # fn f(pool: &fleetpool::Pool) -> Result<(), fleetpool::Error> {
/// let handle = pool.apply_async(square, 12)?;
/// // … something else meanwhile …
/// assert_eq!(handle.get()?, 144);
/// # Ok(()) }
/// ```
pub struct TaskHandle<R> {
    core: Arc<Core>,
    call: Arc<Call>,
    count: u64,
    read: fn(&[Arrived], &Hosts) -> Result<R, TaskError>,
}

impl<R> TaskHandle<R> {
    pub(crate) fn new(
        core: Arc<Core>,
        call: Arc<Call>,
        count: u64,
        read: fn(&[Arrived], &Hosts) -> Result<R, TaskError>,
    ) -> Self {
        Self {
            core,
            call,
            count,
            read,
        }
    }

    /// Waits for the result.
    ///
    /// # Errors
    /// When the task failed (of several: the one of the lowest index, after all have ended), or the pool has ended.
    pub fn get(&self) -> Result<R, Error> {
        park::block_on(self.complete())?;
        self.read()
    }

    /// Waits for the result, but not longer than `timeout`.
    ///
    /// # Errors
    /// As for [`Self::get`], and [`Error::TimedOut`] when it has not come by then. The task goes on.
    pub fn get_timeout(&self, timeout: Duration) -> Result<R, Error> {
        park::block_on_for(self.complete(), timeout).unwrap_or(Err(Error::TimedOut))?;
        self.read()
    }

    /// Waits for the result on an executor.
    ///
    /// # Errors
    /// As for [`Self::get`].
    pub async fn get_async(&self) -> Result<R, Error> {
        self.complete().await?;
        self.read()
    }

    /// Whether the call has ended, well or not.
    #[must_use]
    pub fn ready(&self) -> bool {
        self.wait(Duration::ZERO)
    }

    /// Whether the call has ended well; `None` while it has not ended.
    #[must_use]
    pub fn successful(&self) -> Option<bool> {
        self.ready().then(|| self.get().is_ok())
    }

    /// Waits until the call has ended, well or not, but not longer than `timeout`; whether it has.
    pub fn wait(&self, timeout: Duration) -> bool {
        park::block_on_for(self.complete(), timeout).is_some()
    }

    /// Ends the call's tasks, running or not. Those that had not ended end as [`TaskError::Cancelled`].
    pub fn cancel(&self) {
        self.core.cancel(&self.call);
    }

    async fn complete(&self) -> Result<(), Error> {
        poll_fn(|context| self.call.poll_complete(context, self.count)).await
    }

    fn read(&self) -> Result<R, Error> {
        let read = |arrived: &[Arrived]| (self.read)(arrived, self.core.hosts());
        self.call.with_arrived(read).map_err(Error::Task)
    }
}

impl<R> fmt::Debug for TaskHandle<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskHandle")
            .field("tasks", &self.count)
            .field("ready", &self.ready())
            .finish_non_exhaustive()
    }
}
