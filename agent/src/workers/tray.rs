//! What an agent and a Python worker share beside their socket: a page of memory, so that tasks can be taken back from a
//! worker that does not listen.
//!
//! A Python worker has one thread (its tasks may fork), which runs a task and reads nothing meanwhile. So a task that it
//! holds ahead is not asked back but marked: *void*. Tasks have numbers, in the order in which the worker is handed
//! them, for ever growing. The worker writes down that it has come to a task (`begun`), and then looks whether that is
//! void; the agent marks, waits a moment, and then looks how far the worker has come. Whichever came first, one of the
//! two sees the other: a worker that looked before the mark was there has said so before it looked, and what a processor
//! has written is seen by the others long before [`SETTLE`] is over. So a marked task that the worker has not come to is
//! the agent's again for certain; of one that it has come to, the worker tells: done, or given back.
//!
//! The same number tells, when a worker has died, which task it was running, and which it had not begun.
//!
//! Behind the marks is the worker's *outbox*. A system call a result would be most of what a short task costs, and a result
//! that were kept back would be lost with its worker: so the results of short tasks are put there, and sent together. What
//! was put there and not sent can be read by the agent, when the worker has died, or when nothing was heard of it for a
//! while because what it runs now is long. The worker counts up `turns` before it begins to overwrite what it has sent; so
//! what was read between two equal counts is whole, and anything else comes by the socket.

use std::{collections::BTreeSet, fs::File, io, os::unix::fs::FileExt as _, time::Duration};

use bytes::BytesMut;
use nix::sys::memfd::{MFdFlags, memfd_create};

/// How long a mark may take to be seen.
pub(super) const SETTLE: Duration = Duration::from_millis(1);
/// Where the worker writes the number behind that of the task that it has come to.
const BEGUN_AT: u64 = 0;
/// Where the marks are, a byte each; a task's is that of its number, modulo their count. There are far more than tasks
/// in the hands of a worker.
const MARKS_AT: u64 = 64;
const MARKS: u64 = 4096;
/// How often the outbox was sent, and how many bytes are in it now.
const TURNS_AT: u64 = 8;
const USED_AT: u64 = 16;
/// Where it is, and its size.
const OUTBOX_AT: u64 = 8192;
const OUTBOX_BYTES: u64 = 64 << 10;

/// The agent's side.
#[derive(Debug)]
pub(super) struct Tray {
    memory: File,
    /// Number of the next task.
    next: u64,
    marked: BTreeSet<u64>,
}

impl Tray {
    /// Memory for one.
    pub(super) fn memory() -> io::Result<File> {
        let memory = File::from(memfd_create("fleetpool-tray", MFdFlags::MFD_CLOEXEC)?);
        memory.set_len(OUTBOX_AT + OUTBOX_BYTES)?;
        Ok(memory)
    }

    /// A tray that nothing was done with.
    pub(super) fn of(memory: File) -> Self {
        Self {
            memory,
            next: 0,
            marked: BTreeSet::new(),
        }
    }

    /// The number of a task that is being handed over.
    pub(super) fn number(&mut self) -> io::Result<u64> {
        let number = self.next;
        self.next += 1;
        // Left there by one that was taken back long ago.
        if self.marked.remove(&(number % MARKS)) {
            self.write(number, 0)?;
        }
        Ok(number)
    }

    /// Marks a task as void.
    pub(super) fn void(&mut self, number: u64) -> io::Result<()> {
        self.marked.insert(number % MARKS);
        self.write(number, 1)
    }

    /// The number from which on the worker has come to no task.
    pub(super) fn begun(&self) -> u64 {
        // Memory that cannot be read says that everything may have begun.
        self.word(BEGUN_AT).unwrap_or(u64::MAX)
    }

    /// What the worker has put into its outbox and not sent; nothing, if it has been sent meanwhile.
    pub(super) fn outbox(&self) -> io::Result<BytesMut> {
        let turn = self.word(TURNS_AT)?;
        let used = self.word(USED_AT)?.min(OUTBOX_BYTES);
        let mut bytes = BytesMut::zeroed(usize::try_from(used).unwrap_or(0));
        self.memory.read_exact_at(&mut bytes, OUTBOX_AT)?;
        if self.word(TURNS_AT)? != turn {
            bytes.clear();
        }
        Ok(bytes)
    }

    fn word(&self, at: u64) -> io::Result<u64> {
        let mut word = [0; 8];
        self.memory.read_exact_at(&mut word, at)?;
        Ok(u64::from_ne_bytes(word))
    }

    fn write(&self, number: u64, mark: u8) -> io::Result<()> {
        self.memory.write_all_at(&[mark], MARKS_AT + number % MARKS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(tray: &Tray, number: u64) -> u8 {
        let mut mark = [9];
        tray.memory
            .read_exact_at(&mut mark, MARKS_AT + number % MARKS)
            .unwrap();
        mark[0]
    }

    #[test]
    fn a_mark_is_gone_when_its_place_is_used_again() {
        let mut tray = Tray::of(Tray::memory().unwrap());
        assert_eq!(tray.number().unwrap(), 0);
        tray.void(0).unwrap();
        assert_eq!((mark(&tray, 0), mark(&tray, 1)), (1, 0));
        while tray.number().unwrap() < MARKS {}
        assert_eq!(mark(&tray, MARKS), 0);
    }

    #[test]
    fn what_the_worker_has_written_is_read() {
        let tray = Tray::of(Tray::memory().unwrap());
        assert_eq!(tray.begun(), 0);
        tray.memory
            .write_all_at(&7u64.to_ne_bytes(), BEGUN_AT)
            .unwrap();
        assert_eq!(tray.begun(), 7);
    }
}
