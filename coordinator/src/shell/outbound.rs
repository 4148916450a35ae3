//! The way out to one peer, which never makes the owning task wait.
//!
//! A frame goes straight into the session's own queue. While that is full, frames collect here, in order, and a
//! task of this session feeds them on as the peer reads.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use fleetpool_net::{Sender, TrySendError};
use fleetpool_proto::{ClientId, Frame, Message};
use tokio::{
    sync::mpsc::{self, UnboundedReceiver, UnboundedSender},
    task::JoinHandle,
};

use super::owner::Input;

/// Bytes that may wait for a peer that does not read, besides its session's own queue. Results wait within the credit
/// of their pools; past this bound an agent is sent away (it reconnects), and so is a client whose tasks print on
/// although their agents were told to hold them.
pub(crate) const WAITING_BYTES_MAX: usize = 64 << 20;
/// Bytes that wait for a client, from which on the tasks that print more are held.
const HOLD_BYTES: usize = 4 << 20;
/// Bytes that still wait for a client when they are let go on.
const RELEASE_BYTES: usize = 1 << 20;
/// What a waiting frame costs besides its bytes.
const FRAME_BYTES: usize = 256;

/// Sends to one peer.
#[derive(Debug)]
pub(crate) struct Outbound {
    sender: Sender,
    overflow: UnboundedSender<Frame>,
    waiting: Arc<Waiting>,
    _feeder: AbortOnDrop,
}

/// What waits in the overflow or is just being handed on.
#[derive(Debug, Default)]
struct Waiting {
    frames: AtomicUsize,
    bytes: AtomicUsize,
    /// Whether somebody wants to know when little waits again.
    watched: AtomicBool,
}

/// Whom to tell that a client has read most of what waited.
#[derive(Debug)]
pub(crate) struct Relief {
    pub(crate) inbox: mpsc::Sender<Input>,
    pub(crate) client: ClientId,
}

/// A task that ends with its owner.
#[derive(Debug)]
pub(crate) struct AbortOnDrop(JoinHandle<()>);

impl AbortOnDrop {
    pub(crate) fn spawn(task: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(task))
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Too much waits for a peer: it is to be sent away.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Overrun;

impl Outbound {
    pub(crate) fn new(sender: Sender, relief: Option<Relief>) -> Self {
        let (overflow, frames) = mpsc::unbounded_channel();
        let waiting = Arc::default();
        let feeder = feed(frames, sender.clone(), Arc::clone(&waiting), relief);
        Self {
            sender,
            overflow,
            waiting,
            _feeder: AbortOnDrop::spawn(feeder),
        }
    }

    /// Sends without waiting. What a session that is over does not take is dropped: its reader tells of the end.
    ///
    /// # Errors
    /// [`Overrun`] when more than `bytes_max` waits.
    pub(crate) fn send(&self, message: impl Message, bytes_max: usize) -> Result<(), Overrun> {
        let frame = message.into_frame();
        // Nobody else adds to it, so that a zero stays one while we look.
        if self.waiting.frames.load(Ordering::Acquire) > 0 {
            return self.wait(frame, bytes_max);
        }
        match self.sender.try_send(frame) {
            Ok(()) | Err(TrySendError::Closed(_)) => Ok(()),
            Err(TrySendError::Full(frame)) => self.wait(frame, bytes_max),
        }
    }

    /// As [`Self::send`], for what is bounded elsewhere.
    pub(crate) fn send_credited(&self, message: impl Message) {
        let unbounded = self.send(message, usize::MAX);
        debug_assert_eq!(unbounded, Ok(()));
    }

    /// Whether so much waits that those who cause it should hold.
    pub(crate) fn is_behind(&self) -> bool {
        self.waiting.bytes.load(Ordering::SeqCst) > HOLD_BYTES
    }

    /// Has the [`Relief`] told when little waits again; at once when that is so already.
    pub(crate) fn watch(&self) -> bool {
        self.waiting.watched.store(true, Ordering::SeqCst);
        self.waiting.takes_relief()
    }

    /// Ends the session: what is in its queue still goes out, then the reason.
    pub(crate) fn close(&self, reason: &str) {
        self.sender.close(reason);
    }

    /// Waits until the goodbye is on its way.
    pub(crate) async fn finished(&self) {
        self.sender.finished().await;
    }

    /// A sender for answers that are found outside the owning task.
    pub(crate) fn sender(&self) -> Sender {
        self.sender.clone()
    }

    fn wait(&self, frame: Frame, bytes_max: usize) -> Result<(), Overrun> {
        let before = self.waiting.bytes.fetch_add(cost(&frame), Ordering::SeqCst);
        if before > bytes_max {
            return Err(Overrun);
        }
        self.waiting.frames.fetch_add(1, Ordering::Release);
        // Fails only when the feeder has ended, which it does with the session.
        self.overflow.send(frame).ok();
        Ok(())
    }
}

impl Waiting {
    /// Whether it is time to tell of relief, which is then told once.
    fn takes_relief(&self) -> bool {
        self.bytes.load(Ordering::SeqCst) < RELEASE_BYTES
            && self.watched.swap(false, Ordering::SeqCst)
    }
}

async fn feed(
    mut frames: UnboundedReceiver<Frame>,
    sender: Sender,
    waiting: Arc<Waiting>,
    relief: Option<Relief>,
) {
    while let Some(frame) = frames.recv().await {
        let bytes = cost(&frame);
        if sender.send(frame).await.is_err() {
            return;
        }
        waiting.bytes.fetch_sub(bytes, Ordering::SeqCst);
        waiting.frames.fetch_sub(1, Ordering::Release);
        if let Some(Relief { inbox, client }) = relief.as_ref().filter(|_| waiting.takes_relief()) {
            let client = *client;
            // An owner that has stopped needs no relief.
            inbox.send(Input::Relieved { client }).await.ok();
        }
    }
}

fn cost(frame: &Frame) -> usize {
    frame.len() + FRAME_BYTES
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use fleetpool_net::{Peer, local_pair};
    use fleetpool_proto::{
        PoolId, Role,
        limits::{SEND_QUEUE_BYTES, SEND_QUEUE_FRAMES},
        message::{ToAgent, ToClient},
        pool::ContentHash,
    };

    use super::*;

    fn pair() -> (fleetpool_net::Session, fleetpool_net::Session) {
        local_pair(
            Peer::local(Role::Agent, "web1"),
            Peer::local(Role::Coordinator, "here"),
        )
    }

    #[tokio::test]
    async fn what_does_not_fit_waits_and_keeps_its_order() {
        let (mut agent, coordinator) = pair();
        let out = Outbound::new(coordinator.sender, None);
        let total = 3 * u64::try_from(SEND_QUEUE_FRAMES).expect("small");
        for renewal in 0..total {
            assert_eq!(out.send(ToAgent::Renewed { renewal }, usize::MAX), Ok(()));
        }
        for expected in 0..total {
            let frame = agent.receiver.recv().await.expect("a frame");
            let message = ToAgent::from_frame(frame).expect("a message");
            assert_eq!(message, ToAgent::Renewed { renewal: expected });
        }
    }

    #[tokio::test]
    async fn a_peer_that_never_reads_is_given_up() {
        let (_agent, coordinator) = pair();
        let out = Outbound::new(coordinator.sender, None);
        let content = || ToAgent::Content {
            hash: ContentHash([0; 32]),
            payloads: [Bytes::from(vec![0; 8 << 20])].into_iter().collect(),
        };
        let sent = (0..100)
            .take_while(|_| out.send(content(), WAITING_BYTES_MAX).is_ok())
            .count();
        // At most what the session queues and what may wait, and two frames that straddle the bounds.
        let most = (SEND_QUEUE_BYTES + WAITING_BYTES_MAX) / (8 << 20) + 2;
        assert!((8..=most).contains(&sent), "{sent} × 8 MiB");
    }

    #[tokio::test]
    async fn what_has_credit_waits_however_much_it_is() {
        let (mut client, coordinator) = pair();
        let out = Outbound::new(coordinator.sender, None);
        for _ in 0..40 {
            out.send_credited(ToClient::Results {
                number: 0,
                pool: PoolId(1),
                rows: vec![Default::default()],
                payloads: [Bytes::from(vec![0; 8 << 20])].into_iter().collect(),
            });
        }
        for _ in 0..40 {
            client.receiver.recv().await.expect("a frame");
        }
    }
}
