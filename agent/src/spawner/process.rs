//! The spawner process of one agent: forks a keeper for each of its requests, and ends with it.
//!
//! It talks to its agent over a socket that it finds as its standard input, and to nobody else. It must never start a
//! thread (it forks without exec), and never end while anything lives below it, except what tasks were allowed to leave
//! behind.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    time::Duration,
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl, open},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{SigSet, SigmaskHow, Signal, sigprocmask},
        signalfd::{SfdFlags, SignalFd},
        stat::Mode,
    },
    unistd::{Pid, dup2_stdin, dup2_stdout},
};

use super::{
    Leaf,
    brood::{Brood, KILL_AGAIN},
    request::Request,
    sys::{self, SingleThreaded},
};
use crate::{keeper, workers};

/// What a process that has served is to be.
pub(super) enum Fate {
    /// A keeper, with its descriptors, the lock that it shares, where its spawner tells it of its next agent, if it is to
    /// outlive its own, and the cgroups that it was born in: the forked child.
    Keeper(Vec<OwnedFd>, OwnedFd, Option<OwnedFd>, Leaf),
    /// A relay, with its descriptors, the lock, where its spawner tells it of its next agent, and the cgroups that it was born in: the
    /// forked child.
    Relay(Vec<OwnedFd>, OwnedFd, OwnedFd, Leaf),
    /// Gone.
    End,
}

/// Serves the agent at standard input until it goes away; in a forked child, is its keeper.
pub(super) fn run() -> ! {
    be(Spawner::new().and_then(Spawner::serve))
}

/// Is what it is to be.
pub(super) fn be(fate: io::Result<Fate>) -> ! {
    let status = match fate {
        Ok(Fate::Keeper(descriptors, lock, control, leaf)) => {
            keeper::run(descriptors, lock, control, leaf)
        }
        Ok(Fate::Relay(descriptors, lock, control, leaf)) => {
            // It holds what its agent would.
            leaf.lift_memory();
            workers::relay::run(descriptors, lock, control)
        }
        Ok(Fate::End) => 0,
        Err(error) => {
            eprintln!("fleetpool: the spawner cannot go on: {error}");
            1
        }
    };
    std::process::exit(status)
}

/// Is the keeper of a worker that has been forked as its child.
pub(super) fn run_keeper(args: impl Iterator<Item = String>) -> ! {
    let numbers: Option<Vec<i32>> = args.map(|arg| arg.parse().ok()).collect();
    let status = match numbers.as_deref() {
        Some([worker, descriptors @ ..]) => match sys::take_inherited(descriptors) {
            Some(descriptors) => keeper::adopt(Pid::from_raw(*worker), descriptors),
            None => 2,
        },
        _ => 2,
    };
    std::process::exit(status)
}

struct Spawner {
    agent: OwnedFd,
    brood: Brood,
}

impl Spawner {
    fn new() -> io::Result<Self> {
        let single = SingleThreaded::prove()
            .ok_or_else(|| io::Error::other("the spawner must be started before any thread"))?;
        sys::close_inherited(&single);
        let agent = cloexec_copy(io::stdin().as_fd())?;
        let lock = cloexec_copy(io::stdout().as_fd())?;
        let brood = Brood::new(single, lock)?;
        let null = open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())?;
        dup2_stdin(&null)?;
        dup2_stdout(&null)?;
        Ok(Self { agent, brood })
    }

    fn serve(mut self) -> io::Result<Fate> {
        loop {
            let (request, ended) = self.wait()?;
            self.brood.look_after(ended)?;
            if !request {
                continue;
            }
            match Request::receive(self.agent.as_fd()) {
                Ok(Some((request, descriptors))) => {
                    if let Some(fate) = self.brood.on_request(request, descriptors) {
                        return Ok(fate);
                    }
                }
                Ok(None) | Err(Errno::ECONNRESET) => return self.end(),
                Err(Errno::EAGAIN | Errno::EINTR | Errno::ENOBUFS) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits for the agent or for a child; tells which.
    fn wait(&self) -> nix::Result<(bool, bool)> {
        let mut fds = [
            PollFd::new(self.agent.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.brood.as_fd(), PollFlags::POLLIN),
        ];
        wait_for(&mut fds, self.brood.due())?;
        Ok((is_ready(&fds[0]), is_ready(&fds[1])))
    }

    /// The agent is gone. Its keepers see that too and clean up; what they have not ended soon is killed here,
    /// keepers and all.
    fn end(mut self) -> io::Result<Fate> {
        self.brood.agent_gone();
        while !self.brood.is_gone() {
            let mut fds = [PollFd::new(self.brood.as_fd(), PollFlags::POLLIN)];
            wait_for(&mut fds, Some(KILL_AGAIN))?;
            self.brood.look_after(is_ready(&fds[0]))?;
        }
        self.brood.leave_groups();
        Ok(Fate::End)
    }
}

/// A descriptor that becomes readable when a child ends. SIGCHLD stays blocked from here on, and so does what
/// would end this process before those below it: a terminal's signals, a service manager's TERM, and the HUP that
/// the kernel sends to groups whose parent has gone. The agent's end is the only one that counts.
pub(crate) fn child_signals() -> nix::Result<SignalFd> {
    let mut children = SigSet::empty();
    children.add(Signal::SIGCHLD);
    let ends = [
        Signal::SIGHUP,
        Signal::SIGINT,
        Signal::SIGQUIT,
        Signal::SIGTERM,
        Signal::SIGTSTP,
    ];
    let blocked: SigSet = ends.into_iter().chain(&children).collect();
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&blocked), None)?;
    SignalFd::with_flags(&children, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
}

/// Polls until one of `fds` is ready or `timeout` is over. Interruptions count as neither.
pub(crate) fn wait_for(fds: &mut [PollFd], timeout: Option<Duration>) -> nix::Result<()> {
    let timeout = timeout.map_or(PollTimeout::NONE, |timeout| {
        // Rounded up: waking early would only mean to poll again.
        let ms = timeout.as_micros().div_ceil(1000);
        PollTimeout::try_from(ms).unwrap_or(PollTimeout::MAX)
    });
    match poll(fds, timeout) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Whether `poll` found anything to do at this descriptor, its end included.
pub(crate) fn is_ready(fd: &PollFd) -> bool {
    fd.revents().is_some_and(|events| !events.is_empty())
}

/// A copy of a standard descriptor outside the standard range, which children do not inherit.
fn cloexec_copy(fd: std::os::fd::BorrowedFd) -> io::Result<OwnedFd> {
    let copy = fd.try_clone_to_owned()?;
    fcntl(&copy, FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC))?;
    Ok(copy)
}
