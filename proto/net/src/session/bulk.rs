//! Large segments on QUIC streams of their own, on the sending side.
//!
//! Segments are numbered in the order in which the control stream mentions them. Each goes on its own stream,
//! behind its number. Streams are opened in that order, as many at once as the receiver allows, so that the ones
//! the receiver needs first are always among the open ones.

use std::sync::Arc;

use bytes::Bytes;
use quinn::Connection;
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    task::{JoinHandle, JoinSet},
};

/// Takes segments and sends them beside the control stream.
#[derive(Debug)]
pub(crate) struct BulkSender {
    // Not bounded by number, but by the room that each segment holds.
    segments: mpsc::UnboundedSender<Segment>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Segment {
    bytes: Bytes,
    /// Dropped when all segments of the frame have been written.
    room: Option<Arc<OwnedSemaphorePermit>>,
}

impl BulkSender {
    pub(crate) fn new(connection: Connection) -> Self {
        let (segments, queue) = mpsc::unbounded_channel();
        let task = tokio::spawn(send_all(connection, queue));
        Self { segments, task }
    }

    pub(crate) fn send(&self, bytes: Bytes, room: Option<Arc<OwnedSemaphorePermit>>) {
        // A pump that is gone has lost its connection: the control stream tells.
        let _ = self.segments.send(Segment { bytes, room });
    }

    /// Waits until everything has been written.
    pub(crate) async fn finish(self) {
        drop(self.segments);
        let _ = self.task.await;
    }
}

async fn send_all(connection: Connection, mut queue: mpsc::UnboundedReceiver<Segment>) {
    let mut writes = JoinSet::new();
    let mut number = 0_u64;
    while let Some(segment) = queue.recv().await {
        let Ok(stream) = connection.open_uni().await else {
            return;
        };
        writes.spawn(write(stream, number, segment));
        number += 1;
        while writes.try_join_next().is_some() {}
    }
    while writes.join_next().await.is_some() {}
}

/// A write that fails has lost its connection, which the control stream reports.
async fn write(mut stream: quinn::SendStream, number: u64, segment: Segment) {
    let number = Bytes::copy_from_slice(&number.to_be_bytes());
    let mut chunks = [number, segment.bytes];
    if stream.write_all_chunks(&mut chunks).await.is_ok() {
        let _ = stream.finish();
    }
    drop(segment.room);
}
