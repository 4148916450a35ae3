//! A native worker's stdout and stderr, read here, and whose they are.

use std::{collections::VecDeque, future::pending, io, os::fd::OwnedFd, time::Duration};

use bytes::Bytes;
use fleetpool_proto::{AttemptId, limits::STDERR_TAIL_BYTES, message::Stream};
use nix::unistd::read;
use tokio::{net::unix::pipe::Receiver, time::Instant};

use super::{Printed, outlet::Outlet};
use crate::lines::Lines;

/// Bytes read at once: what a pipe holds.
const READ_BYTES: usize = 64 << 10;
/// Reads of less than this are worth waiting for more.
const FLOOD_BYTES: usize = READ_BYTES / 4;
/// What an initializer prints is kept up to this many bytes, and dropped past it: nobody listens yet.
const EARLY_BYTES_MAX: usize = 1 << 20;
/// How long printed lines wait for more to come.
const PACE: Duration = Duration::from_millis(5);

/// Both streams of a worker.
#[derive(Debug)]
pub(crate) struct Pipes {
    streams: [Pipe; 2],
    /// Not before this time is read again.
    read_at: Option<Instant>,
    scratch: Vec<u8>,
    tail: VecDeque<u8>,
    /// What was printed before the first task, which it will be told with.
    early: Vec<(Stream, Bytes)>,
    early_bytes: usize,
}

#[derive(Debug)]
struct Pipe {
    stream: Stream,
    reader: Receiver,
    lines: Lines,
    ended: bool,
}

/// Who prints.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Author {
    pub(crate) attempt: AttemptId,
    pub(crate) pid: u32,
}

impl Pipes {
    /// Of the ends that are read from.
    pub(crate) fn new(stdout: OwnedFd, stderr: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            streams: [
                Pipe::new(Stream::Stdout, stdout)?,
                Pipe::new(Stream::Stderr, stderr)?,
            ],
            read_at: None,
            scratch: vec![0; READ_BYTES],
            tail: VecDeque::new(),
            early: Vec::new(),
            early_bytes: 0,
        })
    }

    /// Waits until there is something to read, at a pace that lets lines gather. Cancel-safe.
    pub(crate) async fn readable(&self) {
        if let Some(time) = self.read_at {
            tokio::time::sleep_until(time).await;
        }
        let [stdout, stderr] = &self.streams;
        tokio::select! {
            () = stdout.readable() => {}
            () = stderr.readable() => {}
        }
    }

    /// Reads what is there, up to a pipe full of each; `author`'s.
    pub(crate) fn read(&mut self, author: Option<Author>, outlet: &mut Outlet) {
        let mut most = 0;
        for at in 0..self.streams.len() {
            let pipe = &mut self.streams[at];
            match pipe.reader.try_read(&mut self.scratch) {
                Ok(0) => pipe.ended = true,
                Ok(len) => {
                    most = most.max(len);
                    self.take(at, len, author, outlet);
                }
                Err(_) => {}
            }
        }
        self.read_at = (most < FLOOD_BYTES).then(|| Instant::now() + PACE);
    }

    /// Reads all that is there: the author has ended.
    pub(crate) fn drain(&mut self, author: Option<Author>, outlet: &mut Outlet) {
        for at in 0..self.streams.len() {
            // Past the runtime's notion of what is readable, which may be older than what is in the pipe.
            while let Ok(len @ 1..) = read(&self.streams[at].reader, &mut self.scratch) {
                self.take(at, len, author, outlet);
            }
        }
        self.finish_lines(author, outlet);
    }

    /// Gives out last lines even without an end: the author has ended.
    pub(crate) fn finish_lines(&mut self, author: Option<Author>, outlet: &mut Outlet) {
        for at in 0..self.streams.len() {
            if let Some(rest) = self.streams[at].lines.finish() {
                self.give(self.streams[at].stream, rest, author, outlet);
            }
        }
    }

    /// Forgets what was written to stderr so far: it explains nothing that comes.
    pub(crate) fn forget_tail(&mut self) {
        self.tail.clear();
    }

    /// The last of what was written to stderr.
    pub(crate) fn tail(&self) -> String {
        let bytes: Vec<u8> = self.tail.iter().copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn take(&mut self, at: usize, len: usize, author: Option<Author>, outlet: &mut Outlet) {
        let bytes = &self.scratch[..len];
        let pipe = &mut self.streams[at];
        let stream = pipe.stream;
        if stream == Stream::Stderr {
            self.tail.extend(bytes);
            let over = self.tail.len().saturating_sub(STDERR_TAIL_BYTES);
            self.tail.drain(..over);
        }
        let mut pieces = Vec::new();
        pipe.lines.push(bytes, |piece| pieces.push(piece));
        for piece in pieces {
            self.give(stream, piece, author, outlet);
        }
    }

    fn give(&mut self, stream: Stream, piece: Bytes, author: Option<Author>, outlet: &mut Outlet) {
        match author {
            Some(author) => {
                for (stream, piece) in std::mem::take(&mut self.early) {
                    outlet.print(author.printed(stream, piece));
                }
                outlet.print(author.printed(stream, piece));
            }
            None if self.early_bytes + piece.len() <= EARLY_BYTES_MAX => {
                self.early_bytes += piece.len();
                self.early.push((stream, piece));
            }
            None => {}
        }
    }
}

impl Pipe {
    fn new(stream: Stream, reader: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            stream,
            reader: Receiver::from_owned_fd(reader)?,
            lines: Lines::default(),
            ended: false,
        })
    }

    async fn readable(&self) {
        if self.ended {
            return pending().await;
        }
        if self.reader.readable().await.is_err() {
            pending::<()>().await;
        }
    }
}

impl Author {
    fn printed(self, stream: Stream, bytes: Bytes) -> Printed {
        Printed {
            attempt: self.attempt,
            pid: self.pid,
            stream,
            bytes,
        }
    }
}
