//! What a pool wants to say, between those who say it and the flusher that sends it.
//!
//! Submitters of any thread put tasks in; tasks that are put in faster than they are sent leave as one batch. The
//! router brings credit. One flusher a pool takes everything out, in order. The queue is bounded by the credit.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use fleetpool_net::Sender;
use fleetpool_proto::{
    HostId, Message as _, PoolId, SpecId,
    limits::{BATCH_BYTES_MAX, BATCH_TASKS_MAX, PAYLOAD_BYTES_MAX},
    message::FromClient,
    rows::Payloads,
};
use tokio::sync::Notify;

use super::{
    error::Error,
    line::{Line, Sessions},
    statement::Statement,
    window::Window,
};

/// The shared half of a pool's [`Submitter`](super::Submitter).
#[derive(Debug)]
pub(crate) struct Outbox {
    pool: PoolId,
    state: Mutex<State>,
    /// Wakes the flusher.
    filled: Notify,
    line: Arc<Line>,
}

#[derive(Debug, Default)]
struct State {
    window: Window,
    /// What would have to be said again.
    statement: Statement,
    /// Tasks that the coordinator holds, whatever becomes of it; `None`: it has not said so of the pool itself.
    safe: Option<u64>,
    /// It also holds that no more will come.
    safely_closed: bool,
    queue: VecDeque<Out>,
    /// The flusher is at work, or has been woken. While it is not, the queue is empty.
    busy: bool,
    /// Why nothing may be submitted any more.
    refusal: Option<Error>,
    /// The pool was told to end now.
    terminated: bool,
    /// The pool goes on without this handle.
    left: bool,
    /// Nothing will be sent any more, not even a goodbye.
    over: bool,
    /// Those who wait for credit, or for the queue to be empty.
    waiters: Vec<Waker>,
}

#[derive(Debug)]
enum Out {
    Tasks(Batch),
    Message(FromClient),
}

/// Tasks with neighbouring indexes and one specification.
#[derive(Debug)]
struct Batch {
    spec: SpecId,
    first: u64,
    hosts: Vec<HostId>,
    payloads: Vec<Bytes>,
    bytes: usize,
}

/// A task to be put in.
#[derive(Clone, Debug)]
pub(crate) struct NewTask {
    pub(crate) spec: SpecId,
    pub(crate) host: Option<HostId>,
    pub(crate) payload: Bytes,
}

impl Outbox {
    pub(crate) fn new(pool: PoolId, line: Arc<Line>) -> Self {
        Self {
            pool,
            line,
            state: Mutex::default(),
            filled: Notify::new(),
        }
    }

    /// Puts a task in, if there is credit for it; tells its index. `placed` is called with it before anything can
    /// be sent, so that its result finds whoever waits for it.
    pub(crate) fn push(
        &self,
        task: NewTask,
        placed: impl FnOnce(u64),
    ) -> Result<Option<u64>, Error> {
        let bytes = task.payload.len();
        if bytes > PAYLOAD_BYTES_MAX {
            return Err(Error::TooLarge { bytes });
        }
        let mut state = self.lock();
        if let Some(refusal) = &state.refusal {
            return Err(refusal.clone());
        }
        let Some(index) = state.window.admit(bytes as u64) else {
            return Ok(None);
        };
        placed(index);
        state.append(index, task);
        self.release(state);
        Ok(Some(index))
    }

    /// Ready when there is credit for another task, or when there will never be.
    pub(crate) fn poll_credit(&self, context: &Context<'_>) -> Poll<Result<(), Error>> {
        let mut state = self.lock();
        match &state.refusal {
            Some(refusal) => Poll::Ready(Err(refusal.clone())),
            None if state.window.is_full() => state.wait(context),
            None => Poll::Ready(Ok(())),
        }
    }

    /// Ready when all that was put in is with the session.
    pub(crate) fn poll_flushed(&self, context: &Context<'_>) -> Poll<Result<(), Error>> {
        let mut state = self.lock();
        match &state.refusal {
            Some(lost @ Error::Lost { .. }) => Poll::Ready(Err(lost.clone())),
            _ if state.busy && !state.over => state.wait(context),
            _ => Poll::Ready(Ok(())),
        }
    }

    /// Ready when the coordinator holds all that was submitted, whatever becomes of it.
    pub(crate) fn poll_safe(&self, context: &Context<'_>) -> Poll<Result<(), Error>> {
        let mut state = self.lock();
        match &state.refusal {
            Some(refusal) if state.over => Poll::Ready(Err(refusal.clone())),
            Some(Error::Closed) if !state.safely_closed => state.wait(context),
            _ if state.safe >= Some(state.window.submitted()) => Poll::Ready(Ok(())),
            _ => state.wait(context),
        }
    }

    /// Whether the coordinator has acknowledged nothing of the pool, which is this client's own.
    pub(crate) fn is_unsaid(&self) -> bool {
        let state = self.lock();
        state.safe.is_none() && !state.statement.is_attached()
    }

    /// Leaves the pool to itself: it is not ended with this handle.
    pub(crate) fn leave(&self) {
        self.lock().left = true;
    }

    /// Says something behind everything said before.
    pub(crate) fn say(&self, message: FromClient) {
        let mut state = self.lock();
        state.queue.push_back(Out::Message(message));
        self.release(state);
    }

    /// No more tasks will come.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        if state.refusal.is_some() {
            return;
        }
        state.refusal = Some(Error::Closed);
        let (pool, submitted) = (self.pool, state.window.submitted());
        let close = FromClient::Close { pool, submitted };
        state.queue.push_back(Out::Message(close));
        state.wake_all();
        self.release(state);
    }

    /// Ends the pool. Tasks not yet sent never are.
    pub(crate) fn terminate(&self) {
        let mut state = self.lock();
        if state.over || state.terminated || state.left {
            return;
        }
        state.terminated = true;
        state.queue.retain(|out| matches!(out, Out::Message(_)));
        let pool = self.pool;
        let terminate = FromClient::Terminate { pool };
        state.queue.push_back(Out::Message(terminate));
        state.refusal.get_or_insert(Error::Closed);
        state.wake_all();
        self.release(state);
        self.line.terminated.notify_one();
    }

    /// Counts results as consumed; tells the coordinator when it is time.
    pub(crate) fn consume(&self, tasks: u64, bytes: u64) {
        let mut state = self.lock();
        let Some(tasks) = state.window.consume(tasks, bytes) else {
            return;
        };
        let pool = self.pool;
        let consumed = Out::Message(FromClient::Consumed { pool, tasks });
        match state.queue.back_mut() {
            Some(last @ Out::Message(FromClient::Consumed { .. })) => *last = consumed,
            _ => state.queue.push_back(consumed),
        }
        self.release(state);
    }

    /// Takes in the coordinator's credit.
    pub(crate) fn grant(&self, tasks: u64, bytes: u64) {
        let mut state = self.lock();
        state.window.grant(tasks, bytes);
        state.wake_all();
    }

    /// The coordinator holds all tasks before this one, whatever becomes of it, and that they are all if it is `closed`.
    pub(crate) fn safe(&self, tasks: u64, closed: bool) {
        let mut state = self.lock();
        state.safely_closed |= closed;
        state.statement.safe(tasks);
        state.safe = state.safe.max(Some(tasks));
        state.wake_all();
    }

    /// Nothing can be said any more: the pool or its session has ended.
    pub(crate) fn end(&self, why: Error) {
        let mut state = self.lock();
        state.over = true;
        if !matches!(state.refusal, Some(Error::Lost { .. })) {
            state.refusal = Some(why);
        }
        state.queue.clear();
        state.statement = Statement::default();
        state.wake_all();
        drop(state);
        self.filled.notify_one();
    }

    /// Why the session was lost, if that is what ended the pool.
    pub(crate) fn lost(&self) -> Option<String> {
        match &self.lock().refusal {
            Some(Error::Lost { reason }) => Some(reason.clone()),
            _ => None,
        }
    }

    /// Whether the pool was told to end now.
    pub(crate) fn is_terminated(&self) -> bool {
        self.lock().terminated
    }

    /// Whether the pool ends by itself, after its last task: it was closed, and not terminated since.
    pub(crate) fn is_closing(&self) -> bool {
        let state = self.lock();
        matches!(state.refusal, Some(Error::Closed)) && !state.terminated && !state.left
    }

    /// Tasks submitted so far.
    pub(crate) fn submitted(&self) -> u64 {
        self.lock().window.submitted()
    }

    /// Sends what is put in, until the pool or the last session ends. To every session but the first, what may not have come is
    /// said again.
    pub(crate) async fn flush_to(self: Arc<Self>, mut sessions: Sessions) {
        let mut first = true;
        while let Some(sender) = sessions.next().await {
            let again = if first { Vec::new() } else { self.restate() };
            let lost = self
                .flush_to_one(&sender, again, &mut sessions)
                .await
                .is_err();
            if !lost || !self.line.resumes() {
                return;
            }
            // It takes nothing any more, and its reader may have yet to see why: until then it would be tried again and again.
            sender.closed().await;
            first = false;
        }
    }

    /// The same to one session; an error when that is over.
    async fn flush_to_one(
        &self,
        sender: &Sender,
        again: Vec<FromClient>,
        sessions: &mut Sessions,
    ) -> Result<(), ()> {
        for message in again {
            sender.send(message.into_frame()).await.map_err(drop)?;
        }
        loop {
            while let Some(queue) = self.take() {
                for message in queue {
                    sender.send(message.into_frame()).await.map_err(drop)?;
                }
            }
            if self.lock().over {
                return Ok(());
            }
            tokio::select! {
                () = self.filled.notified() => {}
                () = sessions.changed() => return Err(()),
            }
        }
    }

    /// What may not have come.
    fn restate(&self) -> Vec<FromClient> {
        self.lock().statement.messages(self.pool)
    }

    /// Everything put in; `None`, and those who wait for that are woken, when there is nothing.
    fn take(&self) -> Option<Vec<FromClient>> {
        let mut state = self.lock();
        state.busy = !state.queue.is_empty();
        if !state.busy {
            state.wake_all();
            return None;
        }
        let queue = std::mem::take(&mut state.queue);
        let messages = queue.into_iter().map(|out| out.into_message(self.pool));
        let messages: Vec<FromClient> = messages.collect();
        if self.line.resumes() {
            let statement = &mut state.statement;
            messages.iter().for_each(|message| statement.note(message));
        }
        Some(messages)
    }

    /// Wakes the flusher if there is something for it that it does not know of.
    fn release(&self, mut state: MutexGuard<'_, State>) {
        let wake = !state.busy && !state.queue.is_empty();
        state.busy |= wake;
        drop(state);
        if wake {
            self.filled.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn append(&mut self, index: u64, task: NewTask) {
        if let Some(Out::Tasks(batch)) = self.queue.back_mut()
            && batch.takes(&task)
        {
            batch.add(task);
            return;
        }
        let mut batch = Batch {
            spec: task.spec,
            first: index,
            hosts: Vec::new(),
            payloads: Vec::new(),
            bytes: 0,
        };
        batch.add(task);
        self.queue.push_back(Out::Tasks(batch));
    }

    fn wait<T>(&mut self, context: &Context<'_>) -> Poll<T> {
        let waker = context.waker();
        if !self.waiters.iter().any(|other| other.will_wake(waker)) {
            self.waiters.push(waker.clone());
        }
        Poll::Pending
    }

    fn wake_all(&mut self) {
        self.waiters.drain(..).for_each(Waker::wake);
    }
}

impl Batch {
    fn takes(&self, task: &NewTask) -> bool {
        self.spec == task.spec
            && self.hosts.is_empty() == task.host.is_none()
            && self.payloads.len() < BATCH_TASKS_MAX
            && self.bytes + task.payload.len() <= BATCH_BYTES_MAX
    }

    fn add(&mut self, task: NewTask) {
        self.bytes += task.payload.len();
        self.hosts.extend(task.host);
        self.payloads.push(task.payload);
    }
}

impl Out {
    fn into_message(self, pool: PoolId) -> FromClient {
        match self {
            Self::Message(message) => message,
            Self::Tasks(batch) => FromClient::Submit {
                pool,
                spec: batch.spec,
                first: batch.first,
                hosts: batch.hosts,
                payloads: Payloads::from(batch.payloads),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{pin::pin, sync::mpsc, time::Duration};

    use fleetpool_net::{Peer, local_pair};
    use fleetpool_proto::{ClientId, Role};

    use super::*;
    use crate::cluster::line::Again;

    /// It would be tried again and again, on the thread that its reader may need.
    #[test]
    fn g4_a_session_that_takes_nothing_is_left_until_it_is_known_to_be_over() {
        let (ours, theirs) = local_pair(
            Peer::local(Role::User, "client"),
            Peer::local(Role::Coordinator, "coordinator"),
        );
        let again = Again {
            client: ClientId::default(),
            grace: Duration::from_secs(60),
            redial: Box::new(|_, _| Box::pin(std::future::pending())),
        };
        let sender = ours.sender.clone();
        let line = Line::new(ours.sender, Some(again));
        let sessions = line.sessions();
        let outbox = Arc::new(Outbox::new(PoolId(1), line));
        // To be said to each session anew.
        outbox.say(FromClient::OpenPool {
            pool: PoolId(1),
            options: Box::default(),
        });
        // The way out breaks first, and nothing has been read that would say so.
        drop(theirs.receiver);
        assert!(
            sender
                .try_send(FromClient::Done { pool: PoolId(1) }.into_frame())
                .is_err()
        );
        assert!(sender.is_closed().is_none(), "nobody knows yet");
        let (polled, waits) = mpsc::channel();
        std::thread::spawn(move || {
            let mut flushing = pin!(outbox.flush_to(sessions));
            let poll = flushing
                .as_mut()
                .poll(&mut Context::from_waker(Waker::noop()));
            polled.send(poll.is_pending()).ok();
        });
        let waits = waits.recv_timeout(Duration::from_secs(10));
        assert_eq!(waits, Ok(true), "it waits");
    }
}
