//! An agent that content is passed on to.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use fleetpool_net::pinned::PinnedStream;
use fleetpool_proto::limits::{PASSING_BEAT, PASSING_IDLE_MAX};
use tokio::{io::AsyncWrite as _, time::Instant};

use super::{HEAD_BYTES, PIECE_BYTES_MAX, flow::Content};

/// One of them. Nothing is ever read from it.
pub(super) struct Guest {
    stream: PinnedStream,
    /// Bytes of content that it has, or that are in the piece.
    has: usize,
    /// What is being sent, its head first.
    piece: Vec<u8>,
    /// Bytes of it that are sent.
    sent: usize,
    /// Whether it has all, but for the word that this is the end.
    done: bool,
    /// When it last took something.
    took: Instant,
}

impl Guest {
    pub(super) fn new(stream: PinnedStream) -> Self {
        Self {
            stream,
            has: 0,
            piece: Vec::new(),
            sent: 0,
            done: false,
            took: Instant::now(),
        }
    }

    /// Sends it what it lacks of what is here; ready when it has all of it, `bytes` in number.
    pub(super) fn poll(
        &mut self,
        context: &mut Context<'_>,
        content: &Content,
        bytes: usize,
    ) -> Poll<io::Result<()>> {
        loop {
            if self.sent < self.piece.len() {
                let took = Pin::new(&mut self.stream).poll_write(context, &self.piece[self.sent..]);
                let took = ready!(took)?;
                if took == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.sent += took;
                self.took = Instant::now();
            } else if self.has == bytes {
                self.done = true;
                return Pin::new(&mut self.stream).poll_shutdown(context);
            } else if let Some(len) = self.next_piece(content.len(), bytes) {
                self.begin(len);
                content.read_at(self.has, &mut self.piece[HEAD_BYTES..])?;
                self.has += len;
            } else {
                // There will be more; it is not for want of room that this waits.
                ready!(Pin::new(&mut self.stream).poll_flush(context))?;
                return Poll::Pending;
            }
        }
    }

    /// Lets it know that there is somebody, where it has heard nothing for a while; `false`: it does not read.
    pub(super) fn beat(&mut self) -> bool {
        let silent = self.took.elapsed();
        let amid = self.sent < self.piece.len() || self.done;
        if silent >= PASSING_BEAT / 2 && !amid {
            self.begin(0);
        }
        silent < PASSING_IDLE_MAX
    }

    /// How long the next piece is to be: whole ones, since a few bytes at a time would cost as many system calls.
    fn next_piece(&self, here: usize, bytes: usize) -> Option<usize> {
        let lacks = here.saturating_sub(self.has);
        let worth = lacks >= PIECE_BYTES_MAX || lacks > 0 && here == bytes;
        worth.then_some(lacks.min(PIECE_BYTES_MAX))
    }

    fn begin(&mut self, len: usize) {
        self.sent = 0;
        self.piece.clear();
        let head = u32::try_from(len).unwrap_or(0).to_be_bytes();
        self.piece.extend_from_slice(&head);
        self.piece.resize(HEAD_BYTES + len, 0);
    }
}
