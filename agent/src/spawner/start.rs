//! The agent's side of the spawner.

use fleetpool_proto::frame::encode_header;
use nix::poll::{PollFd, PollFlags};
use std::{
    fs::File,
    io::{self, Write as _},
    net::Shutdown,
    os::{
        fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd},
        unix::{net::UnixStream, process::CommandExt as _},
    },
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use super::{
    VERB,
    process::wait_for,
    request::{self, Greeting, Name, Request},
    service,
};
use crate::{TaskLimits, fence::Fence};

/// How long a spawner that listens may take to say something.
const GREETING_TIME_MAX: Duration = Duration::from_secs(5);

/// A running spawner. When it is dropped, or its process ends in whatever way, the spawner and everything
/// below it end too, unless it is a service of its own.
#[derive(Debug)]
pub(crate) struct Spawner {
    socket: UnixStream,
    process: Option<Child>,
}

impl Spawner {
    /// Starts `program` as a spawner; its `main` must begin with [`run_if_asked`](crate::run_if_asked).
    ///
    /// # Errors
    /// When the program cannot be started.
    pub(crate) fn start(program: &Path) -> io::Result<Self> {
        Self::spawn(program, Stdio::null())
    }

    /// The same, and the spawner holds `lock` open until it and everything below it are gone: a lock on that
    /// file (`flock`) tells a later agent when it may begin.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub(crate) fn start_locked(program: &Path, lock: File) -> io::Result<Self> {
        Self::spawn(program, Stdio::from(lock))
    }

    fn spawn(program: &Path, lock: Stdio) -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        // Standard descriptors are the way in: unlike others they reach the child without ever being
        // inheritable in this process, whose other threads may be starting children too.
        let process = Command::new(program)
            .arg(VERB)
            .stdin(OwnedFd::from(theirs))
            .stdout(lock)
            // A terminal's Ctrl-C is for the client, who decides what it means.
            .process_group(0)
            .spawn()?;
        Ok(Self {
            socket: ours,
            process: Some(process),
        })
    }

    /// Comes to a spawner that is a service of its own, in that folder: what it says first, and the fence of its keepers. To be
    /// followed by [`Self::attach`] for each keeper that is to live on, and [`Self::begin`].
    ///
    /// # Errors
    /// When there is none, or another agent is there.
    pub(crate) fn visit(folder: &Path) -> io::Result<(Self, Greeting, Fence)> {
        let socket = UnixStream::connect(service::socket_in(folder))?;
        let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
        wait_for(&mut fds, Some(GREETING_TIME_MAX))?;
        let greeting = Greeting::receive(socket.as_fd())?;
        let (greeting, fence) = greeting.ok_or(io::ErrorKind::ConnectionReset)?;
        let spawner = Self {
            socket,
            process: None,
        };
        Ok((spawner, greeting, Fence::of(fence)))
    }

    /// A keeper that another agent has left, under that name: the socket to it. It ends at once where there is none.
    ///
    /// # Errors
    /// `WouldBlock` when the spawner is behind; anything else when it is gone.
    pub(crate) fn attach(&self, name: Name) -> io::Result<UnixStream> {
        self.ask(request::ATTACH, name, &[])
    }

    /// Says which life of an agent this is. Answered by a byte when nothing is left below the spawner but what was attached.
    ///
    /// # Errors
    /// `WouldBlock` when the spawner is behind; anything else when it is gone.
    pub(crate) fn begin(&self, incarnation: u64) -> io::Result<()> {
        let request = Request {
            kind: request::BEGIN,
            name: Name {
                slot: 0,
                generation: incarnation,
            },
        };
        Ok(request.send(self.socket.as_fd(), &[])?)
    }

    /// A keeper that waits for another agent when this one has gone, and is found under that name.
    ///
    /// # Errors
    /// `WouldBlock` when the spawner is behind; anything else when it is gone.
    pub(crate) fn start_kept(&self, name: Name, more: &[RawFd]) -> io::Result<UnixStream> {
        self.ask(request::KEPT, name, more)
    }

    /// Asks for a keeper; its socket. `more` is handed on to it. The socket ends when the keeper and everything
    /// below it are gone.
    ///
    /// # Errors
    /// `WouldBlock` when the spawner is behind; anything else when it is gone.
    pub(crate) fn start_keeper(&self, more: &[RawFd]) -> io::Result<UnixStream> {
        self.ask(request::KEEPER, Name::default(), more)
    }

    /// A keeper whose agent will be the relay of that name.
    ///
    /// # Errors
    /// `WouldBlock` when the spawner is behind; anything else when it is gone.
    pub(crate) fn start_held(&self, name: Name, more: &[RawFd]) -> io::Result<UnixStream> {
        self.ask(request::HELD, name, more)
    }

    /// A relay, which waits for another agent when this one has gone, and is found under that name. The first of `more` leads to
    /// its keeper. Its socket ends when it, its keeper and everything below that are gone.
    ///
    /// # Errors
    /// `WouldBlock` when the spawner is behind; anything else when it is gone.
    pub(crate) fn start_relay(&self, name: Name, more: &[RawFd]) -> io::Result<UnixStream> {
        self.ask(request::RELAY, name, more)
    }

    /// A keeper that is to become a template. When that dies, the keepers that it has started live on. `held`: the agents of those
    /// are relays.
    ///
    /// # Errors
    /// `WouldBlock` when the spawner is behind; anything else when it is gone.
    pub(crate) fn start_template(&self, held: bool, more: &[RawFd]) -> io::Result<UnixStream> {
        let kind = if held {
            request::HELD_TEMPLATE
        } else {
            request::TEMPLATE
        };
        self.ask(kind, Name::default(), more)
    }

    /// Asks for the end of all that keepers which are not its own children have left; the socket ends when that is done.
    ///
    /// # Errors
    /// `WouldBlock` when the spawner is behind; anything else when it is gone.
    pub(crate) fn sweep(&self) -> io::Result<UnixStream> {
        self.ask(request::SWEEP, Name::default(), &[])
    }

    /// Has keepers held to limits from now on. What is held comes by the socket, whole, before its end.
    ///
    /// # Errors
    /// `WouldBlock` when the spawner is behind; anything else when it is gone.
    pub(crate) fn contain(&self, limits: TaskLimits) -> io::Result<UnixStream> {
        let (mut ours, theirs) = UnixStream::pair()?;
        ours.write_all(&encode_header(&limits))?;
        Request::new(request::CONTAIN).send(self.socket.as_fd(), &[theirs.as_raw_fd()])?;
        Ok(ours)
    }

    fn ask(&self, kind: u8, name: Name, more: &[RawFd]) -> io::Result<UnixStream> {
        let (ours, theirs) = UnixStream::pair()?;
        let mut descriptors = vec![theirs.as_raw_fd()];
        descriptors.extend(more);
        Request { kind, name }.send(self.socket.as_fd(), &descriptors)?;
        Ok(ours)
    }

    /// A handle that becomes readable when the spawner is gone.
    pub(crate) fn watch(&self) -> io::Result<tokio::net::UnixStream> {
        let watch = self.socket.try_clone()?;
        watch.set_nonblocking(true)?;
        tokio::net::UnixStream::from_std(watch)
    }
}

impl Drop for Spawner {
    /// A spawner of one agent ends as soon as everything below it has. A thread waits for it, so that no trace of it stays.
    fn drop(&mut self) {
        let _ = self.socket.shutdown(Shutdown::Both);
        if let Some(mut process) = self.process.take() {
            std::thread::spawn(move || process.wait());
        }
    }
}
