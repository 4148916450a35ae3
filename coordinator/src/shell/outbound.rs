//! The way out to one peer, which never makes the owning task wait.
//!
//! A frame goes straight into the session's own queue. While that is full, frames collect here, in order, and a
//! task of this session feeds them on as the peer reads.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use fleetpool_net::{Sender, TrySendError};
use fleetpool_proto::{Frame, Message};
use tokio::{
    sync::mpsc::{self, UnboundedReceiver, UnboundedSender},
    task::JoinHandle,
};

/// Bytes that may wait for a peer that does not read, besides its session's own queue. Results wait within the credit
/// of their pools; past this bound an agent is sent away (it reconnects), and so is a client to which tasks print more
/// than it reads.
const WAITING_BYTES_MAX: usize = 64 << 20;
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
    pub(crate) fn new(sender: Sender) -> Self {
        let (overflow, frames) = mpsc::unbounded_channel();
        let waiting = Arc::default();
        let feeder = feed(frames, sender.clone(), Arc::clone(&waiting));
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
    /// [`Overrun`] when more waits than may.
    pub(crate) fn send(&self, message: impl Message) -> Result<(), Overrun> {
        self.send_within(message, WAITING_BYTES_MAX)
    }

    /// As [`Self::send`], for what is bounded elsewhere.
    pub(crate) fn send_credited(&self, message: impl Message) {
        let unbounded = self.send_within(message, usize::MAX);
        debug_assert_eq!(unbounded, Ok(()));
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

    fn send_within(&self, message: impl Message, bytes_max: usize) -> Result<(), Overrun> {
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

    fn wait(&self, frame: Frame, bytes_max: usize) -> Result<(), Overrun> {
        let before = self
            .waiting
            .bytes
            .fetch_add(cost(&frame), Ordering::Relaxed);
        if before > bytes_max {
            return Err(Overrun);
        }
        self.waiting.frames.fetch_add(1, Ordering::Release);
        // Fails only when the feeder has ended, which it does with the session.
        self.overflow.send(frame).ok();
        Ok(())
    }
}

async fn feed(mut frames: UnboundedReceiver<Frame>, sender: Sender, waiting: Arc<Waiting>) {
    while let Some(frame) = frames.recv().await {
        let bytes = cost(&frame);
        if sender.send(frame).await.is_err() {
            return;
        }
        waiting.bytes.fetch_sub(bytes, Ordering::Relaxed);
        waiting.frames.fetch_sub(1, Ordering::Release);
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
        limits::SEND_QUEUE_FRAMES,
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
        let out = Outbound::new(coordinator.sender);
        let total = 3 * u64::try_from(SEND_QUEUE_FRAMES).expect("small");
        for renewal in 0..total {
            assert_eq!(out.send(ToAgent::Renewed { renewal }), Ok(()));
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
        let out = Outbound::new(coordinator.sender);
        let content = || ToAgent::Content {
            hash: ContentHash([0; 32]),
            payloads: [Bytes::from(vec![0; 8 << 20])].into_iter().collect(),
        };
        let sent = (0..100).take_while(|_| out.send(content()).is_ok()).count();
        assert!((14..=18).contains(&sent), "{sent} × 8 MiB");
    }

    #[tokio::test]
    async fn what_has_credit_waits_however_much_it_is() {
        let (mut client, coordinator) = pair();
        let out = Outbound::new(coordinator.sender);
        for _ in 0..40 {
            out.send_credited(ToClient::Results {
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
