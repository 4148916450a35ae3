//! Frames over a Unix socket to a process of this host: a keeper or a worker.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, IoSlice},
    os::fd::AsRawFd as _,
    sync::Arc,
};

use bytes::{Buf as _, Bytes, BytesMut};
use fleetpool_proto::{
    DecodeError, Frame, Message,
    frame::{Prelude, read_inline},
    limits::BULK_BYTES_MIN,
};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use tokio::{
    io::{AsyncReadExt as _, Interest},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
};

/// Bytes read at once, unless a larger frame is on its way.
const READ_BYTES: usize = 64 << 10;
/// Buffers handed to the kernel at once.
const WRITE_BUFFERS_MAX: usize = 16;

/// The two directions of a socket.
pub(crate) fn split(stream: std::os::unix::net::UnixStream) -> io::Result<(Incoming, Outgoing)> {
    stream.set_nonblocking(true)?;
    let (reader, writer) = UnixStream::from_std(stream)?.into_split();
    let incoming = Incoming {
        reader,
        buffer: BytesMut::new(),
    };
    let outgoing = Outgoing {
        writer,
        waiting: VecDeque::new(),
        tail: BytesMut::new(),
        broken: false,
    };
    Ok((incoming, outgoing))
}

/// Frames that come in.
#[derive(Debug)]
pub(crate) struct Incoming {
    reader: OwnedReadHalf,
    buffer: BytesMut,
}

impl Incoming {
    /// Waits until bytes have come; `false` at the end. Cancel-safe.
    pub(crate) async fn fill(&mut self) -> io::Result<bool> {
        // Amid a large frame the buffer has room for just the rest of it: more would move all that has come.
        if self.buffer.len() < READ_BYTES || self.buffer.len() == self.buffer.capacity() {
            self.buffer.reserve(READ_BYTES);
        }
        match self.reader.read_buf(&mut self.buffer).await {
            Ok(len) => Ok(len > 0),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The next whole message among them.
    pub(crate) fn take<M: Message>(&mut self) -> Result<Option<M>, DecodeError> {
        self.take_with(|buffer| read_inline(buffer)?.map(M::from_frame).transpose())
    }

    /// The same, of another encoding.
    pub(crate) fn take_with<M>(
        &mut self,
        read: impl FnOnce(&mut BytesMut) -> Result<Option<M>, DecodeError>,
    ) -> Result<Option<M>, DecodeError> {
        read(&mut self.buffer)
    }
}

/// Bytes, and a descriptor that goes with the first of them.
#[derive(Debug)]
struct Piece {
    bytes: Bytes,
    descriptor: Option<Arc<File>>,
}

impl From<Bytes> for Piece {
    fn from(bytes: Bytes) -> Self {
        Self {
            bytes,
            descriptor: None,
        }
    }
}

/// Frames that go out.
#[derive(Debug)]
pub(crate) struct Outgoing {
    writer: OwnedWriteHalf,
    waiting: VecDeque<Piece>,
    /// Small pieces that will be one buffer.
    tail: BytesMut,
    /// The peer is gone.
    broken: bool,
}

impl Outgoing {
    /// Puts a message behind the others; large payloads are not copied.
    pub(crate) fn put<M: Message>(&mut self, message: M) {
        self.put_frame(message.into_frame());
    }

    /// The same of one that is a frame already.
    pub(crate) fn put_frame(&mut self, frame: Frame) {
        Prelude::of(&frame, false).write(&mut self.tail);
        let Frame { header, body } = frame;
        self.put_pieces(std::iter::once(header).chain(body));
    }

    /// Puts a message behind the others that goes with a descriptor. Whoever reads it expects that of this message.
    pub(crate) fn put_with<M: Message>(&mut self, message: M, descriptor: Arc<File>) {
        self.seal();
        let first = self.waiting.len();
        self.put(message);
        self.seal();
        if let Some(piece) = self.waiting.get_mut(first) {
            piece.descriptor = Some(descriptor);
        }
    }

    /// Puts bytes behind the others; large pieces are not copied.
    pub(crate) fn put_pieces(&mut self, pieces: impl IntoIterator<Item = Bytes>) {
        for piece in pieces {
            if piece.len() < BULK_BYTES_MIN {
                self.tail.extend_from_slice(&piece);
            } else {
                self.seal();
                self.waiting.push_back(piece.into());
            }
        }
    }

    /// Sends what the socket takes now. A peer that is gone is noticed where it is read from.
    pub(crate) fn flush(&mut self) {
        self.seal();
        while !self.waiting.is_empty() {
            match self.send() {
                Ok(sent) => self.advance(sent),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.broken = true;
                    self.waiting.clear();
                }
            }
        }
    }

    /// As much as the socket takes, a descriptor in front of all.
    fn send(&self) -> io::Result<usize> {
        let mut pieces = self.waiting.iter().take(WRITE_BUFFERS_MAX);
        let Some(first) = pieces.next() else {
            return Ok(0);
        };
        let rest = pieces.take_while(|piece| piece.descriptor.is_none());
        let all = std::iter::once(first).chain(rest);
        let buffers: Vec<_> = all.map(|piece| IoSlice::new(&piece.bytes)).collect();
        let Some(descriptor) = &first.descriptor else {
            return self.writer.try_write_vectored(&buffers);
        };
        let socket: &UnixStream = self.writer.as_ref();
        socket.try_io(Interest::WRITABLE, || {
            let descriptors = [descriptor.as_raw_fd()];
            let control = [ControlMessage::ScmRights(&descriptors)];
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
            Ok(sendmsg::<()>(
                socket.as_raw_fd(),
                &buffers,
                &control,
                flags,
                None,
            )?)
        })
    }

    /// Whether [`Self::flush`] has found that nobody takes anything any more.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken
    }

    /// Whether [`Self::flush`] has left something.
    pub(crate) fn is_behind(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Waits until [`Self::flush`] may get further. Cancel-safe.
    pub(crate) async fn writable(&self) {
        // An error is found again, and dealt with, by the flush.
        let _ = self.writer.writable().await;
    }

    fn seal(&mut self) {
        if !self.tail.is_empty() {
            self.waiting.push_back(self.tail.split().freeze().into());
        }
    }

    fn advance(&mut self, mut sent: usize) {
        while let Some(front) = self.waiting.front_mut() {
            if sent > 0 {
                front.descriptor = None;
            }
            if sent < front.bytes.len() {
                front.bytes.advance(sent);
                return;
            }
            sent -= front.bytes.len();
            self.waiting.pop_front();
        }
    }
}
