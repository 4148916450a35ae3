//! Submits tasks: reads inputs lazily, as far as the gate and the cluster's credit let it.

use bytes::Bytes;
use fleetpool::cluster::{Error, Submitter};
use fleetpool_proto::SpecId;
use tokio::{
    runtime::Handle,
    sync::{
        mpsc::{self, error::TrySendError},
        watch,
    },
};

use super::ended::{Ended, Task};
use crate::{failure::Failure, joblog::Past};

/// Inputs that a reading thread may be ahead of the feeder.
const READ_AHEAD: usize = 256;
/// After so many tasks in a row, others get their turn.
const TURN_TASKS: u32 = 256;

/// Something to do.
#[derive(Debug)]
pub(crate) enum Item {
    /// A task to submit.
    Task(Task),
    /// A task that cannot be submitted, and why.
    Unsent(Task, String),
}

type Items = Box<dyn Iterator<Item = Result<Item, Failure>> + Send>;

/// Where tasks come from.
pub(crate) enum Inputs {
    /// They are there when asked for.
    Ready(Items),
    /// They may have to be waited for: a thread does.
    Awaited(mpsc::Receiver<Result<Item, Failure>>),
}

impl Inputs {
    /// Reads `items`, on a thread of their own if reading may take its time.
    pub(crate) fn new(
        items: impl Iterator<Item = Result<Item, Failure>> + Send + 'static,
        waits: bool,
    ) -> Self {
        if !waits {
            return Self::Ready(Box::new(items));
        }
        let (sender, receiver) = mpsc::channel(READ_AHEAD);
        let runtime = Handle::current();
        std::thread::spawn(move || {
            let mut items = items;
            while let Some(item) = items.next()
                && send(item, &sender, &runtime)
            {}
        });
        Self::Awaited(receiver)
    }

    pub(super) async fn next(&mut self) -> Option<Result<Item, Failure>> {
        match self {
            Self::Ready(items) => items.next(),
            Self::Awaited(items) => items.recv().await,
        }
    }
}

impl std::fmt::Debug for Inputs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Inputs")
    }
}

/// Sends at once while there is room; then waits for room for many, so that not each one taken wakes the reading
/// thread. Whether anybody wants more.
fn send<T>(item: T, sender: &mpsc::Sender<T>, runtime: &Handle) -> bool {
    let item = match sender.try_send(item) {
        Ok(()) => return true,
        Err(TrySendError::Closed(_)) => return false,
        Err(TrySendError::Full(item)) => item,
    };
    match runtime.block_on(sender.reserve_many(READ_AHEAD / 2)) {
        Ok(mut room) => room.next().is_some_and(|place| {
            place.send(item);
            true
        }),
        Err(_) => false,
    }
}

/// What the engine is told: in the same breath as the cluster, so that no event comes before it.
#[derive(Debug)]
pub(super) enum Fed {
    /// This task has this index now.
    Submitted(u64, Task),
    /// The joblog says that this one need not run.
    Skipped(u64),
    /// This one could not be sent.
    Unsent(Box<Ended>),
}

/// Feeds one pool.
#[derive(Debug)]
pub(super) struct Feeder {
    pub(super) inputs: Inputs,
    pub(super) past: Option<Past>,
    pub(super) submitter: Submitter,
    pub(super) spec: SpecId,
    /// Tasks below this index may be submitted.
    pub(super) limit: watch::Receiver<u64>,
    pub(super) engine: mpsc::UnboundedSender<Fed>,
}

impl Feeder {
    /// Submits everything, and closes the pool.
    ///
    /// # Errors
    /// When an input cannot be read, or the joblog is of another run.
    pub(super) async fn run(mut self) -> Result<(), Failure> {
        let fed = self.feed().await;
        self.submitter.close();
        fed
    }

    async fn feed(&mut self) -> Result<(), Failure> {
        let (mut submitted, mut turn) = (0, 0);
        while let Some(item) = self.inputs.next().await {
            match item? {
                Item::Unsent(task, reason) => {
                    self.tell(Fed::Unsent(Box::new(Ended::unsent(task, reason))))
                }
                Item::Task(task) if self.is_done(&task)? => self.tell(Fed::Skipped(task.seq)),
                Item::Task(task) => {
                    if self
                        .limit
                        .wait_for(|limit| submitted < *limit)
                        .await
                        .is_err()
                        || !self.submit(task).await?
                    {
                        return Ok(());
                    }
                    submitted += 1;
                }
            }
            turn += 1;
            if turn % TURN_TASKS == 0 {
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }

    fn is_done(&self, task: &Task) -> Result<bool, Failure> {
        let covers = |past: &Past| past.covers(task).map_err(Failure::usage);
        self.past.as_ref().map_or(Ok(false), covers)
    }

    /// Whether there is any point in going on.
    async fn submit(&mut self, task: Task) -> Result<bool, Failure> {
        let payload: Bytes = task.command.payload().map_err(Failure::fleetpool)?;
        let host = task.host.as_ref().map(|host| host.id);
        match self.submitter.submit(self.spec, host, payload).await {
            Ok(index) => self.tell(Fed::Submitted(index, task)),
            Err(error @ Error::TooLarge { .. }) => {
                return Err(Failure::fleetpool(format!("task {}: {error}", task.seq)));
            }
            // The events say why.
            Err(_) => return Ok(false),
        }
        Ok(true)
    }

    /// Tells the engine, which is gone only when nobody wants to know any more.
    fn tell(&self, fed: Fed) {
        let _ = self.engine.send(fed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waited_for_room_comes_in_order_and_whole() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let (sender, mut receiver) = mpsc::channel(READ_AHEAD);
        let handle = runtime.handle().clone();
        let items = 3 * READ_AHEAD;
        let reading = std::thread::spawn(move || {
            (0..items).all(|item| send(item, &sender, &handle)) && !sender.is_closed()
        });
        let received = runtime.block_on(async {
            let mut received = Vec::new();
            while let Some(item) = receiver.recv().await {
                received.push(item);
            }
            received
        });
        assert!(reading.join().unwrap());
        assert_eq!(received, Vec::from_iter(0..items));
    }

    #[test]
    fn reading_ends_when_nobody_wants_more() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let (sender, receiver) = mpsc::channel(1);
        drop(receiver);
        assert!(!send((), &sender, runtime.handle()));
    }
}
