//! The side that content comes from: another agent.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
};

use fleetpool_net::pinned::{self, PinnedKey, PinnedStream};
use fleetpool_proto::{
    PeerPin,
    limits::{PASSING_SILENCE_MAX, PASSING_WAIT_MAX},
};
use tokio::{io::AsyncReadExt as _, time::Instant};

use super::{HEAD_BYTES, PIECE_BYTES_MAX};

/// Another agent, from when it is dialled.
pub(super) struct Source {
    way: Way,
    /// When anything was last heard.
    heard: Instant,
    /// When content last came.
    came: Instant,
}

enum Way {
    Dialling(Pin<Box<dyn Future<Output = io::Result<PinnedStream>> + Send>>),
    Open(Box<PinnedStream>, Piece),
}

/// Where in a piece the stream is.
enum Piece {
    Head([u8; HEAD_BYTES], usize),
    Body(usize),
}

const NEW_PIECE: Piece = Piece::Head([0; HEAD_BYTES], 0);

impl Source {
    pub(super) fn dial(key: Arc<PinnedKey>, addresses: Vec<SocketAddr>, pin: PeerPin) -> Self {
        let dialling = async move { pinned::dial(&key, pin, &addresses).await };
        let now = Instant::now();
        Self {
            way: Way::Dialling(Box::pin(dialling)),
            heard: now,
            came: now,
        }
    }

    /// Puts what has come into the buffer, `lacks` bytes at most in all: how many. Ready when something has happened, and then to
    /// be polled again.
    pub(super) fn poll(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut [u8],
        lacks: usize,
    ) -> Poll<io::Result<usize>> {
        match &mut self.way {
            Way::Dialling(dialling) => {
                let stream = ready!(dialling.as_mut().poll(context))?;
                self.way = Way::Open(Box::new(stream), NEW_PIECE);
                self.heard = Instant::now();
            }
            Way::Open(stream, Piece::Head(head, have)) => {
                let read = pin!(stream.read(&mut head[*have..])).poll(context);
                *have += some(ready!(read)?)?;
                self.heard = Instant::now();
                if *have == HEAD_BYTES {
                    let len = usize::try_from(u32::from_be_bytes(*head)).unwrap_or(usize::MAX);
                    if len > PIECE_BYTES_MAX.min(lacks) {
                        let error = "it sent more than was asked for";
                        return Poll::Ready(Err(io::Error::other(error)));
                    }
                    self.way_on(len);
                }
            }
            Way::Open(stream, Piece::Body(left)) => {
                let room = buffer.len().min(*left);
                let read = pin!(stream.read(&mut buffer[..room])).poll(context);
                let read = some(ready!(read)?)?;
                let left = *left - read;
                self.heard = Instant::now();
                self.came = self.heard;
                self.way_on(left);
                return Poll::Ready(Ok(read));
            }
        }
        Poll::Ready(Ok(0))
    }

    /// Why it is to be given up, if it is.
    pub(super) fn fault(&self) -> Option<&'static str> {
        if self.heard.elapsed() > PASSING_SILENCE_MAX {
            return Some("it is silent");
        }
        (self.came.elapsed() > PASSING_WAIT_MAX)
            .then_some("it has waited for the content for too long")
    }

    fn way_on(&mut self, left: usize) {
        if let Way::Open(_, piece) = &mut self.way {
            *piece = match left {
                0 => NEW_PIECE,
                left => Piece::Body(left),
            };
        }
    }
}

/// The end comes too early wherever it comes.
fn some(read: usize) -> io::Result<usize> {
    match read {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        read => Ok(read),
    }
}
