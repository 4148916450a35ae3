//! The sending half: a bounded queue that its carrier drains.

use std::sync::Arc;

use fleetpool_proto::{
    Frame,
    limits::{
        BULK_BYTES_MIN, FRAME_BODY_BYTES_MAX, FRAME_HEADER_BYTES_MAX, FRAME_SEGMENTS_MAX,
        SEND_QUEUE_BYTES, SEND_QUEUE_FRAMES,
    },
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::end::{Cause, Closed, End};

/// Sends frames. Clones send on the same session; when the last one is dropped the session ends.
#[derive(Clone, Debug)]
pub struct Sender {
    queue: mpsc::Sender<Queued>,
    /// Bytes of large frames that may still be queued: the number of frames bounds only small ones.
    room: Arc<Semaphore>,
    end: Arc<End>,
    /// The other side's end, where that is in this process.
    twin: Option<Arc<End>>,
}

/// Why a frame was not queued at once.
#[derive(Debug)]
pub enum TrySendError {
    /// The queue is full; the frame comes back.
    Full(Frame),
    /// The session is over.
    Closed(Closed),
}

/// A frame that waits for its carrier. Dropping it makes room.
#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) frame: Frame,
    pub(crate) room: Option<OwnedSemaphorePermit>,
}

impl Sender {
    /// The sender, and the queue that the carrier drains.
    pub(crate) fn new(end: Arc<End>, twin: Option<Arc<End>>) -> (Self, mpsc::Receiver<Queued>) {
        let (queue, drain) = mpsc::channel(SEND_QUEUE_FRAMES);
        let sender = Self {
            queue,
            room: Arc::new(Semaphore::new(SEND_QUEUE_BYTES)),
            end,
            twin,
        };
        (sender, drain)
    }

    /// Queues a frame; waits while the queue is full, which is how a peer that reads slowly slows its sender down.
    /// Cancel-safe: a frame whose future is dropped is not sent.
    ///
    /// # Errors
    /// When the session is over. A frame over the limits of the wire ends it.
    pub async fn send(&self, frame: Frame) -> Result<(), Closed> {
        match self.try_send(frame) {
            Ok(()) => Ok(()),
            Err(TrySendError::Closed(closed)) => Err(closed),
            Err(TrySendError::Full(frame)) => self.send_when_there_is_room(frame).await,
        }
    }

    /// Queues a frame if there is room for it now.
    ///
    /// # Errors
    /// When there is not, or the session is over.
    pub fn try_send(&self, frame: Frame) -> Result<(), TrySendError> {
        self.check(&frame).map_err(TrySendError::Closed)?;
        let room = match large(&frame) {
            None => None,
            Some(bytes) => match Arc::clone(&self.room).try_acquire_many_owned(bytes) {
                Ok(room) => Some(room),
                Err(_) => return Err(TrySendError::Full(frame)),
            },
        };
        self.queue
            .try_send(Queued { frame, room })
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(queued) => TrySendError::Full(queued.frame),
                mpsc::error::TrySendError::Closed(_) => TrySendError::Closed(self.unheard()),
            })
    }

    /// Ends the session, on both sides: what is queued is still sent, as long as the peer takes it, then `reason`.
    /// On this side receiving ends at once.
    pub fn close(&self, reason: &str) {
        self.end.set(Closed::new(Cause::Us, reason));
        if let Some(twin) = &self.twin {
            twin.set(Closed::new(Cause::Peer, reason));
        }
    }

    /// Waits for the end of the session, whoever ends it.
    pub async fn closed(&self) -> Closed {
        self.end.wait().await
    }

    /// Waits until the carrier takes nothing more: after [`close`](Self::close), until everything that was queued and
    /// the goodbye are on their way, or the peer has not taken them in time.
    pub async fn finished(&self) {
        // In one process what is queued has arrived.
        if self.twin.is_none() {
            self.queue.closed().await;
        }
    }

    /// How the session ended, if it has.
    #[must_use]
    pub fn is_closed(&self) -> Option<Closed> {
        self.end.get().cloned()
    }

    async fn send_when_there_is_room(&self, frame: Frame) -> Result<(), Closed> {
        tokio::select! {
            biased;
            closed = self.end.wait() => Err(closed),
            sent = self.queue_when_there_is_room(frame) => sent,
        }
    }

    async fn queue_when_there_is_room(&self, frame: Frame) -> Result<(), Closed> {
        let room = match large(&frame) {
            None => None,
            Some(bytes) => {
                let room = Arc::clone(&self.room).acquire_many_owned(bytes).await;
                Some(room.expect("the semaphore is never closed"))
            }
        };
        let sent = self.queue.send(Queued { frame, room }).await;
        sent.map_err(|_| self.unheard())
    }

    fn check(&self, frame: &Frame) -> Result<(), Closed> {
        if let Some(closed) = self.end.get() {
            return Err(closed.clone());
        }
        let (header, body) = (frame.header.len(), frame.len() - frame.header.len());
        if header <= FRAME_HEADER_BYTES_MAX
            && body <= FRAME_BODY_BYTES_MAX
            && frame.body.len() <= FRAME_SEGMENTS_MAX
        {
            return Ok(());
        }
        let segments = frame.body.len();
        self.close(&format!(
            "a frame of {header} + {body} bytes in {segments} segments is over the limits of the wire"
        ));
        Err(self.unheard())
    }

    /// The end, or what is known while it has not been written down.
    fn unheard(&self) -> Closed {
        let fallback = || Closed::lost("the other side does not listen any more");
        self.end.get().cloned().unwrap_or_else(fallback)
    }
}

/// The room that a frame takes, if it is not one of the small ones.
fn large(frame: &Frame) -> Option<u32> {
    let bytes = frame.len();
    if bytes < BULK_BYTES_MIN {
        return None;
    }
    // A frame larger than the whole room goes alone.
    u32::try_from(bytes.min(SEND_QUEUE_BYTES)).ok()
}
