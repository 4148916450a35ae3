//! A keeper's socket: frames in, frames out, never blocking.

use std::{
    collections::VecDeque,
    io,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
};

use bytes::{Buf as _, Bytes, BytesMut};
use fleetpool_proto::{Message as _, frame};
use nix::{
    errno::Errno,
    sys::socket::{MsgFlags, send},
};

use super::{
    message::{Attached, FromKeeper, ToKeeper},
    unheard::Unheard,
};
use crate::spawner::sys;

/// Bytes waiting for the agent from which on no output is read: the task that floods is slowed down.
const OUT_BYTES_MAX: usize = 256 << 10;
/// Bytes asked for at once.
const IN_BYTES: usize = 16 << 10;

pub(crate) struct Channel {
    socket: OwnedFd,
    incoming: BytesMut,
    /// What came with messages that say so, in their order.
    descriptors: VecDeque<OwnedFd>,
    outgoing: BytesMut,
    ended: bool,
    /// Of a keeper that outlives its agent.
    unheard: Option<Unheard<Bytes>>,
    /// Bytes of it.
    unheard_bytes: usize,
}

impl Channel {
    /// `keeps`: what is said may have to be said again to another agent.
    pub(crate) fn new(socket: OwnedFd, keeps: bool) -> Self {
        Self {
            unheard: keeps.then(Unheard::default),
            unheard_bytes: 0,
            socket,
            incoming: BytesMut::new(),
            descriptors: VecDeque::new(),
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
        self.outgoing.len().max(self.unheard_bytes) >= OUT_BYTES_MAX
    }

    /// Whether all that was said is known to be written down, where that matters.
    pub(crate) fn is_heard(&self) -> bool {
        self.unheard.as_ref().is_none_or(Unheard::is_empty)
    }

    /// What was said up to this number need not be said again.
    pub(crate) fn heard(&mut self, number: u64) {
        let heard = self
            .unheard
            .iter_mut()
            .flat_map(|unheard| unheard.heard(number));
        self.unheard_bytes -= heard.map(|frame| frame.len()).sum::<usize>();
    }

    /// Talks to another agent from now on: says how things are, and again all that is unheard.
    pub(crate) fn attach(&mut self, socket: OwnedFd, attached: Attached) {
        self.socket = socket;
        self.ended = false;
        self.incoming.clear();
        self.descriptors.clear();
        self.outgoing.clear();
        let next = self.unheard.as_ref().map_or(1, Unheard::next);
        let attached = FromKeeper::Attached(Attached { next, ..attached });
        frame::write_inline(&attached.into_frame(), &mut self.outgoing);
        for frame in self.unheard.iter().flat_map(Unheard::iter) {
            self.outgoing.extend_from_slice(frame);
        }
        frame::write_inline(&FromKeeper::Resumed.into_frame(), &mut self.outgoing);
    }

    /// Puts a message behind the others; [`Self::flush`] sends them.
    pub(crate) fn put(&mut self, message: FromKeeper) {
        let Some(unheard) = &mut self.unheard else {
            return frame::write_inline(&message.into_frame(), &mut self.outgoing);
        };
        let mut bytes = BytesMut::new();
        frame::write_inline(&message.into_frame(), &mut bytes);
        // Nobody is there to be told: it is said when somebody is.
        if !self.ended {
            self.outgoing.extend_from_slice(&bytes);
        }
        self.unheard_bytes += bytes.len();
        unheard.push(bytes.freeze());
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
        let got = sys::receive(self.socket.as_fd(), &mut self.incoming[start..]);
        let got = got.map(|(bytes, descriptors)| {
            self.descriptors.extend(descriptors);
            bytes
        });
        self.incoming.truncate(start + got.unwrap_or(0));
        self.ended |= !matches!(got, Ok(1..) | Err(Errno::EAGAIN | Errno::EINTR));
    }

    /// The descriptor that came with the message that was taken last.
    pub(crate) fn take_descriptor(&mut self) -> Option<OwnedFd> {
        self.descriptors.pop_front()
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
