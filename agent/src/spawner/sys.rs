//! The system calls that have no safe wrapper. All `unsafe` of this crate is here.
#![expect(
    unsafe_code,
    reason = "fork without exec, wait4 and descriptor passing have no safe wrappers"
)]

use std::{
    io::{IoSlice, IoSliceMut},
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
    process::ExitStatus,
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::{
        signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction},
        socket::{
            AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType,
            recvmsg, sendmsg, socketpair,
        },
        timerfd::TimerFd,
    },
    unistd::{ForkResult, Pid},
};

/// Most descriptors in one message: a keeper's socket, its fence, and a worker's socket, stdout, stderr and tray.
pub(crate) const DESCRIPTORS_MAX: usize = 6;

/// Proof that this process had one thread when it was made, which is what makes forking without exec sound.
/// Only the spawner holds one, and it starts no threads.
#[derive(Debug)]
pub(crate) struct SingleThreaded(());

impl SingleThreaded {
    /// The proof, or `None` when there are other threads (or `/proc` cannot tell).
    pub(crate) fn prove() -> Option<Self> {
        let threads = std::fs::read_dir("/proc/self/task").ok()?.count();
        (threads == 1).then_some(Self(()))
    }

    /// Forks; `None` in the child, the child's pid in the parent.
    pub(crate) fn fork(&self) -> nix::Result<Option<Pid>> {
        // SAFETY: `self` proves that no other thread can hold a lock (the allocator's, stdio's) that the child
        // would find locked for ever.
        match unsafe { nix::unistd::fork() }? {
            ForkResult::Parent { child } => Ok(Some(child)),
            ForkResult::Child => Ok(None),
        }
    }
}

/// Makes ended children wait to be waited for. A process may have been started with SIGCHLD ignored, and then they do
/// not; unlike handlers, that survives exec.
pub(crate) fn expect_children(_only: &SingleThreaded) -> nix::Result<()> {
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: no handler of ours is replaced, and none is installed.
    unsafe { sigaction(Signal::SIGCHLD, &default) }.map(drop)
}

/// Closes every descriptor but the standard ones. What this process was started with beyond them is somebody
/// else's, who may wait for its end.
pub(crate) fn close_inherited(_only: &SingleThreaded) {
    // SAFETY: the proof says that this is the spawner's first thread; it has opened nothing that it keeps by number.
    unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
}

/// Takes over descriptors that this process was started with, so that its own children are not; `None` where they are no
/// such.
pub(crate) fn take_inherited(numbers: &[RawFd]) -> Option<Vec<OwnedFd>> {
    numbers
        .iter()
        .map(|&number| {
            // SAFETY: setting a flag of a descriptor touches no memory, whatever the number is.
            let set = unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
            // SAFETY: it is open, and this process, which has only begun, has no other owner of it.
            (number > 2 && set == 0).then(|| unsafe { OwnedFd::from_raw_fd(number) })
        })
        .collect()
}

/// A child that has ended, and what it and those it waited for used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reaped {
    pub(crate) pid: Pid,
    pub(crate) status: ExitStatus,
    pub(crate) memory_kib_peak: u64,
    pub(crate) user: Duration,
    pub(crate) system: Duration,
}

/// Takes one ended child; `None` while all children live; `ECHILD` when there are none.
pub(crate) fn reap() -> nix::Result<Option<Reaped>> {
    let mut status = 0;
    // SAFETY: all-zero bytes are a valid `rusage`, a C struct of integers.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live locals of the types wait4 writes.
    let pid = unsafe { libc::wait4(-1, &raw mut status, libc::WNOHANG, &raw mut usage) };
    match Errno::result(pid)? {
        0 => Ok(None),
        pid => Ok(Some(Reaped {
            pid: Pid::from_raw(pid),
            status: std::os::unix::process::ExitStatusExt::from_raw(status),
            memory_kib_peak: u64::try_from(usage.ru_maxrss).unwrap_or(0),
            user: duration(usage.ru_utime),
            system: duration(usage.ru_stime),
        })),
    }
}

fn duration(time: libc::timeval) -> Duration {
    let micros = time
        .tv_sec
        .saturating_mul(1_000_000)
        .saturating_add(time.tv_usec);
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}

/// Sends `descriptors` with a message. Never blocks.
pub(crate) fn send_descriptors(
    socket: BorrowedFd,
    message: &[u8],
    descriptors: &[RawFd],
) -> nix::Result<()> {
    let control = [ControlMessage::ScmRights(descriptors)];
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    sendmsg::<()>(
        socket.as_raw_fd(),
        &[IoSlice::new(message)],
        &control,
        flags,
        None,
    )?;
    Ok(())
}

/// Two sockets that lead to each other.
pub(crate) fn pair() -> nix::Result<(OwnedFd, OwnedFd)> {
    let flags = SockFlag::SOCK_CLOEXEC;
    socketpair(AddressFamily::Unix, SockType::Stream, None, flags)
}

/// A timer that another process has made and sent.
pub(crate) fn timer(fd: OwnedFd) -> TimerFd {
    // SAFETY: it came from our own spawner, which sends nothing else; were it something else, setting it would fail.
    unsafe { TimerFd::from_owned_fd(fd) }
}

/// Receives a message of this size, and its descriptors; `None` when the peer has closed. Never blocks.
pub(crate) fn receive_descriptors(
    socket: BorrowedFd,
    bytes: &mut [u8],
) -> nix::Result<Option<Vec<OwnedFd>>> {
    let (count, descriptors) = receive(socket, bytes)?;
    Ok((count > 0).then_some(descriptors))
}

/// Receives bytes, how many, and what descriptors came with them. Never blocks.
pub(crate) fn receive(socket: BorrowedFd, buffer: &mut [u8]) -> nix::Result<(usize, Vec<OwnedFd>)> {
    let mut iov = [IoSliceMut::new(buffer)];
    let mut control = nix::cmsg_space!([RawFd; DESCRIPTORS_MAX]);
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut iov, Some(&mut control), flags)?;
    let mut descriptors = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = control {
            // SAFETY: the kernel has just made these descriptors for this process; nobody else knows them.
            descriptors.extend(
                fds.into_iter()
                    .map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }),
            );
        }
    }
    Ok((message.bytes, descriptors))
}
