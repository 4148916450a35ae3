//! The thread that a cluster lives on.

use std::{future::Future, io, thread::JoinHandle, time::Duration};

use tokio::{
    runtime::{Builder, Handle},
    sync::oneshot,
};

use super::error::Error;

/// How long helper threads may take to end: one may wait for ever, for a reader of what tasks printed.
const HELPERS_END_MAX: Duration = Duration::from_millis(100);

/// A thread with a current-thread runtime. Dropping it ends what runs there, and waits for that.
#[derive(Debug)]
pub(crate) struct Thread {
    runtime: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Thread {
    /// Starts a thread. `setup` brings what the caller gets, and what is to be done when the thread is dropped.
    pub(crate) fn start<T, F>(
        setup: impl Future<Output = Result<(T, F), Error>> + Send + 'static,
    ) -> io::Result<(Self, oneshot::Receiver<Result<T, Error>>)>
    where
        T: Send + 'static,
        F: Future<Output = ()>,
    {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let (reply, answer) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("fleetpool".to_owned())
            .spawn(move || {
                runtime.block_on(live(setup, stopped, reply));
                runtime.shutdown_timeout(HELPERS_END_MAX);
            })?;
        let thread = Self {
            runtime: handle,
            stop: Some(stop),
            thread: Some(thread),
        };
        Ok((thread, answer))
    }

    pub(crate) fn runtime(&self) -> &Handle {
        &self.runtime
    }
}

async fn live<T, F: Future<Output = ()>>(
    setup: impl Future<Output = Result<(T, F), Error>>,
    mut stopped: oneshot::Receiver<()>,
    reply: oneshot::Sender<Result<T, Error>>,
) {
    let made = tokio::select! {
        made = setup => made,
        // By the message, or by the sender being dropped.
        _ = &mut stopped => return,
    };
    match made {
        Err(error) => {
            // One who does not wait for the answer any more does not care.
            let _ = reply.send(Err(error));
        }
        Ok((made, farewell)) => {
            if reply.send(Ok(made)).is_ok() {
                let _ = stopped.await;
            }
            farewell.await;
        }
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        drop(self.stop.take());
        let itself = |thread: &JoinHandle<()>| thread.thread().id() == std::thread::current().id();
        if let Some(thread) = self.thread.take().filter(|thread| !itself(thread)) {
            // A panic in it was printed where it happened.
            let _ = thread.join();
        }
    }
}
