//! A keeper's socket: frames in, frames out, never blocking.

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
};

use bytes::{Buf as _, BytesMut};
use fleetpool_proto::{Message as _, frame};
use nix::{
    errno::Errno,
    sys::socket::{MsgFlags, recv, send},
};

use super::message::{FromKeeper, ToKeeper};

/// Bytes waiting for the agent from which on no output is read: the task that floods is slowed down.
const OUT_BYTES_MAX: usize = 256 << 10;
/// Bytes asked for at once.
const IN_BYTES: usize = 16 << 10;

pub(crate) struct Channel {
    socket: OwnedFd,
    incoming: BytesMut,
    outgoing: BytesMut,
    ended: bool,
}

impl Channel {
    pub(crate) fn new(socket: OwnedFd) -> Self {
        Self {
            socket,
            incoming: BytesMut::new(),
            outgoing: BytesMut::new(),
            ended: false,
        }
    }

    /// Whether the agent is gone.
    pub(crate) fn is_ended(&self) -> bool {
        self.ended
    }

    /// Whether bytes wait for the agent to read.
    pub(crate) fn is_behind(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Whether so many wait that no more should come.
    pub(crate) fn is_full(&self) -> bool {
        self.outgoing.len() >= OUT_BYTES_MAX
    }

    /// Puts a message behind the others; [`Self::flush`] sends them.
    pub(crate) fn put(&mut self, message: FromKeeper) {
        frame::write_inline(&message.into_frame(), &mut self.outgoing);
    }

    /// Sends what the socket takes.
    pub(crate) fn flush(&mut self) {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        while !self.outgoing.is_empty() && !self.ended {
            match send(self.socket.as_raw_fd(), &self.outgoing, flags) {
                Ok(sent) => self.outgoing.advance(sent),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return,
                Err(_) => self.ended = true,
            }
        }
        if self.ended {
            self.outgoing.clear();
        }
    }

    /// Reads once; what came is given out by [`Self::take`].
    pub(crate) fn fill(&mut self) {
        let start = self.incoming.len();
        self.incoming.resize(start + IN_BYTES, 0);
        let got = recv(
            self.socket.as_raw_fd(),
            &mut self.incoming[start..],
            MsgFlags::MSG_DONTWAIT,
        );
        self.incoming.truncate(start + got.unwrap_or(0));
        self.ended |= !matches!(got, Ok(1..) | Err(Errno::EAGAIN | Errno::EINTR));
    }

    /// The next whole message.
    pub(crate) fn take(&mut self) -> io::Result<Option<ToKeeper>> {
        let Some(frame) = frame::read_inline(&mut self.incoming)? else {
            return Ok(None);
        };
        Ok(Some(ToKeeper::from_frame(frame)?))
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
