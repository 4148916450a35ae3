//! The worker's way to its agent.

use std::{
    io::Write as _,
    os::unix::net::UnixStream,
    sync::{Mutex, PoisonError},
};

use bytes::BytesMut;
use fleetpool_proto::{Message as _, frame::write_inline, worker::FromWorker};

/// Writes whole messages, from either thread.
#[derive(Debug)]
pub(super) struct Outlet(Mutex<(UnixStream, BytesMut)>);

impl Outlet {
    pub(super) fn new(socket: UnixStream) -> Self {
        Self(Mutex::new((socket, BytesMut::new())))
    }

    /// Writes at once. An agent that does not listen any more is gone, and the worker with it.
    pub(super) fn send(&self, message: FromWorker) {
        let mut guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (socket, buffer) = &mut *guard;
        buffer.clear();
        write_inline(&message.into_frame(), buffer);
        if socket.write_all(buffer).is_err() {
            std::process::exit(0);
        }
    }
}
