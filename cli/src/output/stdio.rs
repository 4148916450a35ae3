//! Writes to stdout and stderr without ever blocking the program: a reader that has stopped reading must not keep
//! Ctrl-C from being heard.
//!
//! The descriptors stay in blocking mode, since others share them. A pipe or terminal that polls as writable takes
//! `PIPE_BUF` bytes at once, so these are written, and no more; files take everything.

use std::{
    collections::VecDeque,
    io,
    os::fd::{AsFd, BorrowedFd},
};

use fleetpool_proto::message::Stream;
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::stat::{SFlag, fstat},
};

use super::Printer;

/// Bytes that a pipe which polls as writable takes for sure (`PIPE_BUF`).
const PIPE_BYTES: usize = 4096;
/// Bytes gathered before they are written.
const BATCH_BYTES: usize = 64 << 10;
/// How long a thread waits for room before it asks whether anybody still cares, in milliseconds.
const LOOK_AGAIN_MS: u8 = 100;

/// Both outputs and what is to be written to them, in order.
#[derive(Debug)]
pub(crate) struct Stdio {
    outputs: [Output; 2],
    queue: VecDeque<(Stream, Vec<u8>)>,
    /// Bytes of the first in the queue that are written.
    written: usize,
}

#[derive(Debug)]
struct Output {
    stream: Stream,
    handle: Handle,
    is_file: bool,
}

/// One of the process's own outputs.
#[derive(Debug)]
enum Handle {
    Stdout(io::Stdout),
    Stderr(io::Stderr),
}

impl Stdio {
    /// The process's own stdout and stderr.
    pub(crate) fn new() -> Self {
        let outputs = [Stream::Stdout, Stream::Stderr].map(Output::new);
        Self {
            outputs,
            queue: VecDeque::new(),
            written: 0,
        }
    }

    /// Writes all that `printer` has due. Cancel-safe: called again, it goes on where it was.
    ///
    /// # Errors
    /// When nobody reads any more ([`io::ErrorKind::BrokenPipe`]), a disk is full, or what waited cannot be read.
    pub(crate) async fn flush(&mut self, printer: &mut Printer) -> io::Result<()> {
        loop {
            let mut bytes = 0;
            while bytes < BATCH_BYTES {
                let Some((stream, chunk)) = printer.next_bytes()? else {
                    break;
                };
                bytes += chunk.len();
                self.push(stream, chunk);
            }
            if self.queue.is_empty() {
                return Ok(());
            }
            self.drain().await?;
        }
    }

    /// Whether nothing waits to be written.
    pub(crate) fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    fn push(&mut self, stream: Stream, bytes: Vec<u8>) {
        match self.queue.back_mut() {
            Some((last, chunk)) if *last == stream => chunk.extend_from_slice(&bytes),
            _ => self.queue.push_back((stream, bytes)),
        }
    }

    async fn drain(&mut self) -> io::Result<()> {
        while let Some((stream, bytes)) = self.queue.front() {
            let output = &mut self.outputs[super::tag::slot(*stream)];
            self.written += output.write(&bytes[self.written..]).await?;
            if self.written == bytes.len() {
                self.queue.pop_front();
                self.written = 0;
            }
        }
        Ok(())
    }
}

impl Output {
    fn new(stream: Stream) -> Self {
        let handle = Handle::new(stream);
        let is_file = fstat(&handle).is_ok_and(|stat| {
            let kind = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
            matches!(kind, SFlag::S_IFREG | SFlag::S_IFBLK)
        });
        Self {
            stream,
            handle,
            is_file,
        }
    }

    /// Writes some of `bytes`, as soon as some can be written.
    async fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            if self.is_file || self.is_writable()? {
                let bytes = if self.is_file {
                    bytes
                } else {
                    &bytes[..bytes.len().min(PIPE_BYTES)]
                };
                match nix::unistd::write(&self.handle, bytes) {
                    Ok(written) => return Ok(written),
                    Err(Errno::EINTR) => continue,
                    Err(Errno::EAGAIN) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            self.wait().await?;
        }
    }

    fn is_writable(&self) -> io::Result<bool> {
        self.handle.is_writable(PollTimeout::ZERO)
    }

    /// Returns when there may be room. Waiting is left to a thread: a descriptor that others share cannot be given to
    /// the runtime.
    async fn wait(&self) -> io::Result<()> {
        let stream = self.stream;
        let wait = move || Handle::new(stream).is_writable(PollTimeout::from(LOOK_AGAIN_MS));
        tokio::task::spawn_blocking(wait)
            .await
            .map_err(io::Error::other)??;
        Ok(())
    }
}

impl Handle {
    fn new(stream: Stream) -> Self {
        match stream {
            Stream::Stdout => Self::Stdout(io::stdout()),
            Stream::Stderr => Self::Stderr(io::stderr()),
        }
    }

    /// Whether it takes bytes, or becomes able to within `wait`.
    fn is_writable(&self, wait: PollTimeout) -> io::Result<bool> {
        let mut fds = [PollFd::new(self.as_fd(), PollFlags::POLLOUT)];
        match poll(&mut fds, wait) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::EINTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for Handle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Stdout(stdout) => stdout.as_fd(),
            Self::Stderr(stderr) => stderr.as_fd(),
        }
    }
}
