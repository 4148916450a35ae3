//! The thread that a cluster lives on.

use std::{future::Future, io, thread::JoinHandle};

use tokio::{
    runtime::{Builder, Handle},
    sync::oneshot,
};

/// A thread with a current-thread runtime. Dropping it lets its last future end, and waits for it.
#[derive(Debug)]
pub(crate) struct Thread {
    runtime: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Thread {
    /// Starts a thread; when it is dropped the thread runs `farewell` to its end, and is gone with all its tasks.
    pub(crate) fn start<F>(farewell: F) -> io::Result<Self>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let live = async {
            // Stopped by the message, or by the sender being dropped.
            let _ = stopped.await;
            farewell.await;
        };
        let thread = std::thread::Builder::new()
            .name("fleetpool".to_owned())
            .spawn(move || runtime.block_on(live))?;
        Ok(Self {
            runtime: handle,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    pub(crate) fn runtime(&self) -> &Handle {
        &self.runtime
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
