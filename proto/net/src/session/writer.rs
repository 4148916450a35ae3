//! The task that drains a session's queue into a byte stream.
//!
//! It takes what is queued, copies small pieces together and writes them at once. When this side closes, it sends
//! what is left and the goodbye, as long as the peer takes them within [`CLOSE_TIME_MAX`].

use std::{io, sync::Arc};

use bytes::BytesMut;
use fleetpool_proto::{
    Frame,
    frame::{Prelude, SegmentPlace},
    limits::CLOSE_TIME_MAX,
};
use tokio::{
    io::{AsyncWrite, AsyncWriteExt as _},
    sync::{OwnedSemaphorePermit, mpsc},
    time::sleep,
};

use super::{
    bulk::BulkSender,
    end::{Cause, End},
    sender::Queued,
    wire,
};

/// Frames taken from the queue at once.
const BATCH_FRAMES: usize = 256;
/// Bytes copied together before they are written.
const BATCH_BYTES: usize = 128 << 10;
/// A segment from this size on is written as it is: copying would cost more than another call.
const COPY_BYTES_MAX: usize = 16 << 10;

/// The writing half of a session over a byte stream.
#[derive(Debug)]
pub(crate) struct Writer<W> {
    io: W,
    queue: mpsc::Receiver<Queued>,
    end: Arc<End>,
    /// Where large segments go, on carriers that have more than one stream.
    bulk: Option<BulkSender>,
    out: BytesMut,
    /// Room of the frames in `out`, given back once they are written.
    rooms: Vec<OwnedSemaphorePermit>,
}

impl<W: AsyncWrite + Unpin + Send + 'static> Writer<W> {
    pub(crate) fn new(
        io: W,
        queue: mpsc::Receiver<Queued>,
        end: Arc<End>,
        bulk: Option<BulkSender>,
    ) -> Self {
        Self {
            io,
            queue,
            end,
            bulk,
            out: BytesMut::new(),
            rooms: Vec::new(),
        }
    }

    /// Writes until the session ends. Senders learn of a broken stream by the queue's end.
    pub(crate) async fn run(mut self) {
        let end = Arc::clone(&self.end);
        let written = tokio::select! {
            written = self.write_all() => written,
            () = overdue(&end) => Ok(()),
        };
        if let Err(error) = written {
            tracing::debug!(%error, "session's stream broke");
        }
    }

    async fn write_all(&mut self) -> io::Result<()> {
        let end = Arc::clone(&self.end);
        let mut batch = Vec::with_capacity(BATCH_FRAMES);
        loop {
            let taken = tokio::select! {
                biased;
                taken = self.queue.recv_many(&mut batch, BATCH_FRAMES) => taken,
                _ = end.wait() => 0,
            };
            if taken == 0 {
                break;
            }
            self.write_batch(&mut batch).await?;
        }
        if says_goodbye(&end) {
            self.leave().await?;
        }
        Ok(())
    }

    async fn write_batch(&mut self, batch: &mut Vec<Queued>) -> io::Result<()> {
        for queued in batch.drain(..) {
            self.encode(queued).await?;
            if self.out.len() >= BATCH_BYTES {
                self.flush().await?;
            }
        }
        self.flush().await?;
        self.io.flush().await
    }

    async fn encode(&mut self, queued: Queued) -> io::Result<()> {
        let prelude = Prelude::of(&queued.frame, self.bulk.is_some());
        prelude.write(&mut self.out);
        let Frame { header, body } = queued.frame;
        self.out.extend_from_slice(&header);
        let room = queued.room.map(Arc::new);
        for (segment, place) in body.into_iter().zip(&prelude.segments) {
            match (place, &mut self.bulk) {
                (SegmentPlace::Apart(_), Some(bulk)) => bulk.send(segment, room.clone()),
                _ if segment.len() >= COPY_BYTES_MAX => {
                    self.flush().await?;
                    self.io.write_all(&segment).await?;
                }
                _ => self.out.extend_from_slice(&segment),
            }
        }
        // Bulk that is still on its way keeps the room until it is written.
        self.rooms.extend(room.and_then(Arc::into_inner));
        Ok(())
    }

    async fn flush(&mut self) -> io::Result<()> {
        self.io.write_all(&self.out).await?;
        self.out.clear();
        self.rooms.clear();
        Ok(())
    }

    /// What is still queued, then the last word.
    async fn leave(&mut self) -> io::Result<()> {
        let mut rest = Vec::new();
        while let Ok(queued) = self.queue.try_recv() {
            rest.push(queued);
        }
        self.write_batch(&mut rest).await?;
        if let Some(bulk) = self.bulk.take() {
            bulk.finish().await;
        }
        self.io.write_all(&wire::goodbye(self.end.get())).await?;
        self.io.shutdown().await
    }
}

/// Whether the peer is still there to hear why.
fn says_goodbye(end: &End) -> bool {
    match end.get().map(|closed| closed.cause) {
        None | Some(Cause::Us | Cause::Malformed) => true,
        Some(Cause::Peer | Cause::Lost) => false,
    }
}

/// Returns when there is no use in going on writing.
async fn overdue(end: &End) {
    end.wait().await;
    if says_goodbye(end) {
        sleep(CLOSE_TIME_MAX).await;
    }
}
