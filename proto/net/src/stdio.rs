//! Sessions over byte streams that somebody else has made and vouches for: a program's standard input and output,
//! which ssh joins to another host. No port is needed on either side, and no identity but the one that ssh checks.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream as StdUnixStream,
    },
};

use fleetpool_proto::{
    Role,
    limits::CONNECT_TIME_MAX,
    version::{Hello, Welcome},
};
use nix::{
    sys::stat::{SFlag, fstat},
    unistd::{dup2_stdin, dup2_stdout},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{UnixStream, unix::pipe},
    time::timeout,
};

use crate::{
    connect::ConnectError,
    hello::{self, Incoming},
    peer::{Carrier, Peer},
    session::{Session, stream},
};
/// A stream of bytes that comes in.
pub type Inward = Box<dyn AsyncRead + Send + Sync + Unpin>;
/// A stream of bytes that goes out.
pub type Outward = Box<dyn AsyncWrite + Send + Sync + Unpin>;

/// What the dialling end calls the other.
const AT: &str = "the other end of ssh";

/// Takes this process's stdin and stdout for a session. What is printed from here on goes nowhere, rather than into
/// the middle of a frame.
///
/// # Errors
/// When they are neither pipes nor sockets, or are closed.
pub fn take_stdio() -> io::Result<(Inward, Outward)> {
    let (stdin, stdout) = (io::stdin(), io::stdout());
    let read = inward(stdin.as_fd().try_clone_to_owned()?)?;
    let write = outward(stdout.as_fd().try_clone_to_owned()?)?;
    let nothing = File::options().read(true).write(true).open("/dev/null")?;
    dup2_stdin(&nothing)?;
    dup2_stdout(&nothing)?;
    Ok((read, write))
}

/// The dialling end of a session over streams.
///
/// # Errors
/// When the other end does not answer, or sends us away.
pub async fn dial_over(
    read: impl AsyncRead + Send + Sync + Unpin + 'static,
    write: impl AsyncWrite + Send + Unpin + 'static,
    hello: Hello,
) -> Result<(Session, Welcome), ConnectError> {
    let peer = peer(Role::Coordinator, "coordinator", AT);
    let introduced = hello::introduce(session(peer, read, write), hello);
    let at = || AT.to_owned();
    timeout(CONNECT_TIME_MAX, introduced)
        .await
        .unwrap_or_else(|_| Err(ConnectError::TimedOut { at: at() }))
}

/// The listening end of a session over streams that lead to an agent on `host`. `None`: it left, or was sent away.
pub async fn accept_over(
    read: impl AsyncRead + Send + Sync + Unpin + 'static,
    write: impl AsyncWrite + Send + Unpin + 'static,
    host: &str,
) -> Option<Incoming> {
    let peer = peer(Role::Agent, host, host);
    hello::receive(session(peer, read, write), &[Role::Agent], |_| Ok(())).await
}

fn session(
    peer: Peer,
    read: impl AsyncRead + Send + Sync + Unpin + 'static,
    write: impl AsyncWrite + Send + Unpin + 'static,
) -> Session {
    let (sender, receiver) = stream::open(read, write);
    Session {
        peer,
        sender,
        receiver,
    }
}

fn peer(role: Role, id: &str, address: &str) -> Peer {
    Peer {
        role,
        id: id.to_owned(),
        name: id.to_owned(),
        carrier: Carrier::Ssh,
        address: address.to_owned(),
        key: None,
    }
}

/// sshd gives its programs pipes or a socket, as it was built.
fn inward(file: OwnedFd) -> io::Result<Inward> {
    if is_socket(file.as_fd())? {
        return Ok(Box::new(socket(file)?));
    }
    Ok(Box::new(pipe::Receiver::from_owned_fd(file)?))
}

fn outward(file: OwnedFd) -> io::Result<Outward> {
    if is_socket(file.as_fd())? {
        return Ok(Box::new(socket(file)?));
    }
    Ok(Box::new(pipe::Sender::from_owned_fd(file)?))
}

fn is_socket(file: BorrowedFd<'_>) -> io::Result<bool> {
    let kind = SFlag::from_bits_truncate(fstat(file)?.st_mode) & SFlag::S_IFMT;
    Ok(kind == SFlag::S_IFSOCK)
}

fn socket(file: OwnedFd) -> io::Result<UnixStream> {
    let socket = StdUnixStream::from(file);
    socket.set_nonblocking(true)?;
    UnixStream::from_std(socket)
}
