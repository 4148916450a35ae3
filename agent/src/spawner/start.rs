//! The agent's side of the spawner.

use std::{
    fs::File,
    io,
    net::Shutdown,
    os::{
        fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd},
        unix::{net::UnixStream, process::CommandExt as _},
    },
    path::Path,
    process::{Child, Command, Stdio},
};

use super::{VERB, request, sys};

/// A running spawner. When it is dropped, or its process ends in whatever way, the spawner and everything
/// below it end too.
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

    /// Asks for a keeper; its socket. `more` is handed on to it. The socket ends when the keeper and everything
    /// below it are gone.
    ///
    /// # Errors
    /// `WouldBlock` when the spawner is behind; anything else when it is gone.
    pub(crate) fn start_keeper(&self, more: &[RawFd]) -> io::Result<UnixStream> {
        self.ask(request::KEEPER, more)
    }

    /// The same for one that is to become a template. When that dies, the keepers that it has started live on.
    ///
    /// # Errors
    /// `WouldBlock` when the spawner is behind; anything else when it is gone.
    pub(crate) fn start_template(&self, more: &[RawFd]) -> io::Result<UnixStream> {
        self.ask(request::TEMPLATE, more)
    }

    /// Asks for the end of all that keepers which are not its own children have left; the socket ends when that is done.
    ///
    /// # Errors
    /// `WouldBlock` when the spawner is behind; anything else when it is gone.
    pub(crate) fn sweep(&self) -> io::Result<UnixStream> {
        self.ask(request::SWEEP, &[])
    }

    fn ask(&self, request: u8, more: &[RawFd]) -> io::Result<UnixStream> {
        let (ours, theirs) = UnixStream::pair()?;
        let mut descriptors = vec![theirs.as_raw_fd()];
        descriptors.extend(more);
        sys::send_descriptors(self.socket.as_fd(), &[request], &descriptors)?;
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
    /// The spawner ends as soon as everything below it has. A thread waits for it, so that no trace of it stays.
    fn drop(&mut self) {
        let _ = self.socket.shutdown(Shutdown::Both);
        if let Some(mut process) = self.process.take() {
            std::thread::spawn(move || process.wait());
        }
    }
}
