//! The spawner process: forks a keeper for each request of its agent, and buries what keepers leave.
//!
//! It talks to its agent over a socket that it finds as its standard input, and to nobody else. It owns the
//! set of keepers. It must never start a thread (it forks without exec), and never end while anything lives
//! below it, except what tasks were allowed to leave behind.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    os::fd::{AsFd as _, OwnedFd},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl, open},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        prctl,
        signal::{SigSet, SigmaskHow, Signal, sigprocmask},
        signalfd::{SfdFlags, SignalFd},
        stat::Mode,
    },
    unistd::{Pid, dup2_stdin, dup2_stdout},
};

use super::{
    request,
    sys::{self, SingleThreaded},
};
use crate::{keeper, tree};

/// How long keepers have, when their agent has gone, to end what is below them before the spawner does.
const KEEPERS_END_MAX: Duration = Duration::from_millis(500);
/// Pause between two rounds of killing: what does not die at once waits for the kernel.
const KILL_AGAIN: Duration = Duration::from_millis(20);

/// What a process that returns from [`Spawner::serve`] is to be.
enum Fate {
    /// A keeper, with its descriptors and the lock that it shares: the forked child.
    Keeper(Vec<OwnedFd>, OwnedFd),
    /// Gone.
    End,
}

/// Serves the agent at standard input until it goes away; in a forked child, is its keeper.
pub(super) fn run() -> ! {
    let served = Spawner::new().and_then(Spawner::serve);
    let status = match served {
        Ok(Fate::Keeper(descriptors, lock)) => keeper::run(descriptors, lock),
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
    children: SignalFd,
    single: SingleThreaded,
    /// The keepers, and a second handle on each one's socket: the agent sees its end only when both are closed,
    /// and the spawner closes its own when nothing of that keeper is left.
    keepers: BTreeMap<Pid, OwnedFd>,
    /// Those of them that have become templates.
    templates: BTreeSet<Pid>,
    /// Keepers whose template has died.
    adopted: BTreeSet<Pid>,
    /// Sockets of keepers that have ended, whose orphans may still live.
    ended: Vec<OwnedFd>,
    /// Whether an adopted one has ended, and its orphans may still live.
    is_orphaned: bool,
    /// What tasks were allowed to leave behind.
    left: BTreeSet<Pid>,
    /// Kept open so that its lock outlives the agent (see `Spawner::start_locked`).
    lock: OwnedFd,
}

impl Spawner {
    fn new() -> io::Result<Self> {
        let single = SingleThreaded::prove()
            .ok_or_else(|| io::Error::other("the spawner must be started before any thread"))?;
        sys::close_inherited(&single);
        sys::expect_children(&single)?;
        prctl::set_child_subreaper(true)?;
        let _ = prctl::set_name(c"fleetpool-spawn");
        let children = child_signals()?;
        let agent = cloexec_copy(io::stdin().as_fd())?;
        let lock = cloexec_copy(io::stdout().as_fd())?;
        let null = open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())?;
        dup2_stdin(&null)?;
        dup2_stdout(&null)?;
        Ok(Self {
            agent,
            children,
            single,
            keepers: BTreeMap::new(),
            templates: BTreeSet::new(),
            adopted: BTreeSet::new(),
            is_orphaned: false,
            ended: Vec::new(),
            left: BTreeSet::new(),
            lock,
        })
    }

    fn serve(mut self) -> io::Result<Fate> {
        loop {
            let (request, ended) = self.wait(self.burying().then_some(KILL_AGAIN))?;
            if ended || self.burying() {
                self.bury()?;
            }
            if !request {
                continue;
            }
            match sys::receive_descriptors(self.agent.as_fd()) {
                Ok(Some((request::SWEEP, descriptors))) => self.ended.extend(descriptors),
                Ok(Some((kind, descriptors))) => {
                    let is_template = kind == request::TEMPLATE;
                    if let Some(descriptors) = self.start_keeper(descriptors, is_template) {
                        return Ok(Fate::Keeper(descriptors, self.lock));
                    }
                }
                Ok(None) | Err(Errno::ECONNRESET) => return self.end(),
                Err(Errno::EAGAIN | Errno::EINTR | Errno::ENOBUFS) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits for the agent or for a child; tells which.
    fn wait(&self, timeout: Option<Duration>) -> nix::Result<(bool, bool)> {
        let mut fds = [
            PollFd::new(self.agent.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.children.as_fd(), PollFlags::POLLIN),
        ];
        wait_for(&mut fds, timeout)?;
        Ok((is_ready(&fds[0]), is_ready(&fds[1])))
    }

    /// Forks a keeper. In the child, its descriptors, and `self` is dropped with every other one.
    fn start_keeper(
        &mut self,
        descriptors: Vec<OwnedFd>,
        is_template: bool,
    ) -> Option<Vec<OwnedFd>> {
        let socket = descriptors.first()?.try_clone().ok()?;
        match self.single.fork() {
            Ok(None) => return Some(descriptors),
            Ok(Some(pid)) => {
                self.keepers.insert(pid, socket);
                if is_template {
                    self.templates.insert(pid);
                }
            }
            // The agent sees the socket close, and says that the worker could not be started.
            Err(error) => eprintln!("fleetpool: cannot fork a keeper: {error}"),
        }
        None
    }

    /// Whether orphans of ended keepers may still live.
    fn burying(&self) -> bool {
        self.is_orphaned || !self.ended.is_empty()
    }

    /// Reaps children; kills orphans until there are none, then lets the agent know by closing the sockets.
    fn bury(&mut self) -> io::Result<()> {
        while self.children.read_signal()?.is_some() {}
        while let Ok(Some(reaped)) = sys::reap() {
            self.on_ended(reaped.pid, reaped.status.code());
        }
        if self.burying() && self.kill_orphans() == 0 {
            self.ended.clear();
            self.is_orphaned = false;
        }
        Ok(())
    }

    fn on_ended(&mut self, pid: Pid, status: Option<i32>) {
        self.left.remove(&pid);
        self.is_orphaned |= self.adopted.remove(&pid);
        let Some(socket) = self.keepers.remove(&pid) else {
            return;
        };
        if status == Some(keeper::STATUS_LEFT_CHILDREN) {
            self.left.extend(self.orphans());
        }
        if self.templates.remove(&pid) {
            let mut orphans = self.orphans();
            orphans.retain(|&pid| tree::runs_our_program(pid));
            self.adopted.extend(orphans);
        }
        self.ended.push(socket);
    }

    /// Children that were not started here, and are not known.
    fn orphans(&self) -> Vec<Pid> {
        let spared = self.spared();
        let mut orphans = tree::own_children();
        orphans.retain(|pid| !spared.contains(pid));
        orphans
    }

    /// What an orphan is not, and what is below them is not either.
    fn spared(&self) -> BTreeSet<Pid> {
        let keepers = self.keepers.keys().chain(&self.adopted);
        keepers.chain(&self.left).copied().collect()
    }

    /// Kills what is below this process and neither a keeper's nor left on purpose; tells how many it found.
    fn kill_orphans(&self) -> usize {
        tree::kill_all(&self.spared());
        self.orphans().len()
    }

    /// The agent is gone. Its keepers see that too and clean up; what they have not ended soon is killed here,
    /// keepers and all.
    fn end(mut self) -> io::Result<Fate> {
        let patience = Instant::now() + KEEPERS_END_MAX;
        loop {
            self.bury()?;
            let late = Instant::now() >= patience;
            if late {
                tree::kill_all(&self.left);
            }
            if self.keepers.is_empty() && self.adopted.is_empty() && self.kill_orphans() == 0 {
                return Ok(Fate::End);
            }
            let mut fds = [PollFd::new(self.children.as_fd(), PollFlags::POLLIN)];
            wait_for(&mut fds, Some(KILL_AGAIN))?;
        }
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
