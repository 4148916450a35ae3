//! A command's output: a pipe, read in bulk and cut into lines.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use bytes::Bytes;
use fleetpool_proto::message::Stream;
use nix::{
    fcntl::OFlag,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    unistd::{pipe2, read},
};

use crate::{lines::Lines, spawner::is_ready};

/// Bytes read at once: what a pipe holds.
pub(crate) const READ_BYTES: usize = 64 << 10;
/// Bytes that are still read when a task has ended. More than a pipe holds unless a process enlarged it, so that
/// only what somebody else goes on writing is left.
const DRAIN_BYTES_MAX: usize = 4 << 20;

/// Both ends of one stream. The writing end stays open here until the task has ended: its end is told by its
/// processes, so that a pipe closed by one of them wakes nobody up, nor does one kept open hold up the end.
pub(crate) struct Pipe {
    pub(crate) stream: Stream,
    reader: OwnedFd,
    writer: OwnedFd,
    lines: Lines,
}

impl Pipe {
    pub(crate) fn new(stream: Stream) -> nix::Result<Self> {
        let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
        Ok(Self {
            stream,
            reader,
            writer,
            lines: Lines::default(),
        })
    }

    pub(crate) fn reader(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }

    pub(crate) fn writer(&self) -> BorrowedFd<'_> {
        self.writer.as_fd()
    }

    /// Reads once. Only when there is something: the pipe would block. Tells how much it was.
    pub(crate) fn pull(
        &mut self,
        scratch: &mut [u8],
        emit: &mut impl FnMut(Stream, Bytes),
    ) -> usize {
        let len = read(&self.reader, scratch).unwrap_or(0);
        self.lines
            .push(&scratch[..len], |bytes| emit(self.stream, bytes));
        len
    }

    fn finish(&mut self, emit: &mut impl FnMut(Stream, Bytes)) {
        if let Some(rest) = self.lines.finish() {
            emit(self.stream, rest);
        }
    }
}

/// Reads all that is there, and gives out the last lines even without an end.
pub(crate) fn drain(
    pipes: &mut [Pipe; 2],
    scratch: &mut [u8],
    emit: &mut impl FnMut(Stream, Bytes),
) {
    let mut budget = DRAIN_BYTES_MAX;
    while budget > 0 {
        let ready = ready(pipes);
        if ready == [false; 2] {
            break;
        }
        for (pipe, _) in pipes.iter_mut().zip(ready).filter(|(_, ready)| *ready) {
            budget = budget.saturating_sub(pipe.pull(scratch, emit).max(1));
        }
    }
    for pipe in pipes {
        pipe.finish(emit);
    }
}

/// Which of the two have something to read.
fn ready(pipes: &[Pipe; 2]) -> [bool; 2] {
    let mut fds = pipes
        .each_ref()
        .map(|pipe| PollFd::new(pipe.reader(), PollFlags::POLLIN));
    if poll(&mut fds, PollTimeout::ZERO).unwrap_or(0) == 0 {
        return [false; 2];
    }
    fds.each_ref().map(is_ready)
}
