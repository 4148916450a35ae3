//! The worker's way to its agent.

use std::{
    io::Write as _,
    os::unix::net::UnixStream,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::BytesMut;
use fleetpool_proto::{
    Message as _,
    frame::write_inline,
    limits::BULK_BYTES_MIN,
    worker::{DoneRow, FromWorker},
};

use super::done::write_done;

/// Writes whole messages, from either thread, at once. An agent that does not listen any more is gone, and the worker
/// with it.
#[derive(Debug)]
pub(super) struct Outlet(Mutex<Pen>);

#[derive(Debug)]
struct Pen {
    socket: UnixStream,
    buffer: Vec<u8>,
}

impl Outlet {
    pub(super) fn new(socket: UnixStream) -> Self {
        let buffer = Vec::new();
        Self(Mutex::new(Pen { socket, buffer }))
    }

    pub(super) fn send(&self, message: FromWorker) {
        let mut bytes = BytesMut::new();
        write_inline(&message.into_frame(), &mut bytes);
        self.pen().write(&bytes);
    }

    /// Tells how a task has ended, and its result or error.
    pub(super) fn send_done(&self, row: &DoneRow, payload: &[u8]) {
        let len = u32::try_from(payload.len()).expect("the caller keeps within the limits");
        let mut pen = self.pen();
        let mut buffer = std::mem::take(&mut pen.buffer);
        buffer.clear();
        write_done(row, len, &mut buffer);
        if payload.len() < BULK_BYTES_MIN {
            buffer.extend_from_slice(payload);
            pen.write(&buffer);
        } else {
            pen.write(&buffer);
            pen.write(payload);
        }
        pen.buffer = buffer;
    }

    fn pen(&self) -> MutexGuard<'_, Pen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pen {
    fn write(&mut self, bytes: &[u8]) {
        if self.socket.write_all(bytes).is_err() {
            std::process::exit(0);
        }
    }
}
