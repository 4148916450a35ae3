//! The socket that a worker is born with.

use std::{
    env,
    os::{
        fd::{FromRawFd as _, OwnedFd, RawFd},
        unix::net::UnixStream,
    },
};

use fleetpool_proto::worker::WORKER_FD_ENV;
use nix::{
    fcntl::{FcntlArg, FdFlag, fcntl},
    sys::socket::{SockType, getsockopt, sockopt},
};

/// The socket to the agent, if this process was started as a worker. It is kept, and the variable that told of it,
/// from the processes that tasks start.
pub(super) fn socket() -> Option<UnixStream> {
    let number: RawFd = env::var(WORKER_FD_ENV).ok()?.parse().ok()?;
    forget_variable();
    let socket = adopt(number)?;
    fcntl(&socket, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).ok()?;
    let is_stream = getsockopt(&socket, sockopt::SockType) == Ok(SockType::Stream);
    is_stream.then(|| UnixStream::from(socket))
}

#[expect(unsafe_code, reason = "an inherited descriptor is a number")]
fn adopt(number: RawFd) -> Option<OwnedFd> {
    if number <= 2 || !std::path::Path::new(&format!("/proc/self/fd/{number}")).exists() {
        return None;
    }
    // SAFETY: the descriptor is open, as was just seen. It came with the process: `init` runs first in `main` and
    // only once, so nothing in this program has opened or adopted it.
    Some(unsafe { OwnedFd::from_raw_fd(number) })
}

#[expect(unsafe_code, reason = "the environment belongs to the whole process")]
fn forget_variable() {
    // SAFETY: `init` runs first in `main`, before the program starts threads that could read the environment.
    unsafe { env::remove_var(WORKER_FD_ENV) };
}
