//! A spawner that is a service of its own, and outlives its agent for a bounded time (G10).
//!
//! It listens in its agents' folder, for one agent at a time and for their user alone. Keepers of commands and relays that an agent has
//! left wait for the next one, which asks for each by name; what it does not ask for is ended. When no agent has come in time,
//! or this process is told to end, everything below ends (G6).

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, Write as _},
    os::{
        fd::AsFd as _,
        unix::{
            fs::PermissionsExt as _,
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, open},
    poll::{PollFd, PollFlags},
    sys::{
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
        socket::{getsockopt, sockopt::PeerCredentials},
        stat::Mode,
    },
    unistd::{Uid, dup2_stdin, dup2_stdout},
};

use super::{
    brood::{Brood, KILL_AGAIN},
    process::{Fate, be, is_ready, wait_for},
    request::{BEGIN, Greeting, Request, VERSION},
    sys::{self, SingleThreaded},
};
use crate::{facts::make_room_for_descriptors, fence::Fence};

/// The socket's name in its folder.
const SOCKET: &str = "spawner.sock";
/// The name of the file whose lock everything below holds.
const LOCK: &str = "spawner.lock";
/// Slots that there are to be descriptors for: its agents say nothing of how many they have.
const SLOTS: u16 = 1024;
/// Between two looks at the lock.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Where a spawner of that folder listens.
pub(crate) fn socket_in(folder: &Path) -> PathBuf {
    folder.join(SOCKET)
}

/// The file whose lock a spawner of that folder, and everything below it, holds.
pub(crate) fn lock_in(folder: &Path) -> PathBuf {
    folder.join(LOCK)
}

/// Is the service until it is told to end; in a forked child, is a keeper. The arguments are the folder, and the milliseconds
/// that it waits for an agent.
pub(super) fn run(mut args: impl Iterator<Item = OsString>) -> ! {
    let folder = args.next().map(PathBuf::from).unwrap_or_default();
    let outlives = args.next().and_then(|ms| ms.to_str()?.parse().ok());
    let outlives = Duration::from_millis(outlives.unwrap_or_default());
    be(Service::new(&folder, outlives).and_then(Service::serve))
}

struct Service {
    brood: Brood,
    listener: UnixListener,
    /// Readable when this process is told to end.
    ends: SignalFd,
    fence: Fence,
    outlives: Duration,
    /// The life that the keepers belong to; 0: none.
    incarnation: u64,
    agent: Option<Agent>,
    /// When everything ends, unless an agent has come.
    give_up_at: Option<Instant>,
    is_ending: bool,
}

/// Who is connected.
struct Agent {
    socket: UnixStream,
    /// It has said that it is an agent, and does not only look.
    is_agent: bool,
    /// It waits to hear that what it has not asked for is gone.
    waits: bool,
}

/// What an agent has asked for.
enum Heard {
    Request,
    /// What was forked for it is this.
    Fork(Fate),
}

/// What woke the service.
struct Awake {
    children: bool,
    ends: bool,
    listener: bool,
    agent: bool,
}

impl Service {
    fn new(folder: &Path, outlives: Duration) -> io::Result<Self> {
        let single = SingleThreaded::prove()
            .ok_or_else(|| io::Error::other("the spawner must be started before any thread"))?;
        sys::close_inherited(&single);
        make_room_for_descriptors(SLOTS);
        fs::create_dir_all(folder)?;
        let lock = lock(folder)?;
        let brood = Brood::new(single, lock.into())?;
        let null = open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())?;
        dup2_stdin(&null)?;
        dup2_stdout(&null)?;
        Ok(Self {
            brood,
            listener: listen(&socket_in(folder))?,
            ends: end_signals()?,
            fence: Fence::new()?,
            outlives,
            incarnation: 0,
            agent: None,
            give_up_at: None,
            is_ending: false,
        })
    }

    fn serve(mut self) -> io::Result<Fate> {
        loop {
            let awake = self.wait()?;
            self.brood.look_after(awake.children)?;
            if awake.ends {
                self.end();
            }
            // Whoever comes may come because the agent has gone: that is known first.
            if awake.agent || awake.listener {
                while let Some(heard) = self.hear() {
                    if let Heard::Fork(fate) = heard {
                        return Ok(fate);
                    }
                }
            }
            if awake.listener {
                self.let_in();
            }
            if self.give_up_at.is_some_and(|at| Instant::now() >= at) {
                eprintln!("fleetpool: no agent has come back: everything that it left is ended");
                self.give_up_at = None;
                self.incarnation = 0;
                self.brood.end_unclaimed();
            }
            self.answer();
            if self.is_ending && self.brood.is_gone() {
                self.brood.leave_groups();
                return Ok(Fate::End);
            }
        }
    }

    fn wait(&self) -> nix::Result<Awake> {
        let mut fds = vec![
            PollFd::new(self.brood.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.ends.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.listener.as_fd(), PollFlags::POLLIN),
        ];
        let agent = self.agent.iter();
        fds.extend(agent.map(|agent| PollFd::new(agent.socket.as_fd(), PollFlags::POLLIN)));
        let give_up = self
            .give_up_at
            .map(|at| at.saturating_duration_since(Instant::now()));
        let again = self.is_ending.then_some(KILL_AGAIN).or(self.brood.due());
        wait_for(&mut fds, again.into_iter().chain(give_up).min())?;
        let ready = |index: usize| fds.get(index).is_some_and(is_ready);
        Ok(Awake {
            children: ready(0),
            ends: ready(1),
            listener: ready(2),
            agent: ready(3),
        })
    }

    /// Takes in what the agent asks for next, if it does.
    fn hear(&mut self) -> Option<Heard> {
        let agent = self.agent.as_mut()?;
        match Request::receive(agent.socket.as_fd()) {
            Ok(Some((request, descriptors))) => {
                agent.is_agent = true;
                self.give_up_at = None;
                if request.kind != BEGIN {
                    let fate = self.brood.on_request(request, descriptors);
                    return Some(fate.map_or(Heard::Request, Heard::Fork));
                }
                agent.waits = true;
                self.incarnation = request.name.generation;
                self.brood.end_unclaimed();
                Some(Heard::Request)
            }
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ENOBUFS) => None,
            Ok(None) | Err(_) => {
                self.agent_gone();
                None
            }
        }
    }

    fn agent_gone(&mut self) {
        if self.agent.take().is_some_and(|agent| agent.is_agent) {
            self.brood.agent_gone();
            self.give_up_at = Some(Instant::now() + self.outlives);
        }
    }

    /// Lets somebody in who may be here. Who comes while there is an agent may only look.
    fn let_in(&mut self) {
        let Ok((socket, _)) = self.listener.accept() else {
            return;
        };
        let known = getsockopt(&socket, PeerCredentials).is_ok_and(|peer| {
            let uid = Uid::from_raw(peer.uid());
            uid == Uid::effective() || uid.is_root()
        });
        let greeting = Greeting {
            version: VERSION,
            has_bound: self.brood.has_bound(),
            has_relays: self.brood.has_relays(),
            contains: true,
            relays: true,
            incarnation: self.incarnation,
        };
        let greeted = known
            && socket.set_nonblocking(true).is_ok()
            && greeting
                .send(socket.as_fd(), self.fence.as_raw_fd())
                .is_ok();
        let is_taken = self.agent.as_ref().is_some_and(|agent| agent.is_agent);
        if greeted && !is_taken && !self.is_ending {
            self.agent = Some(Agent {
                socket,
                is_agent: false,
                waits: false,
            });
        }
    }

    /// Tells the agent when nothing is left but what it has asked for.
    fn answer(&mut self) {
        if let Some(agent) = self.agent.as_mut().filter(|agent| agent.waits)
            && !self.brood.is_clearing()
        {
            agent.waits = false;
            // One that is gone is noticed where it is read from.
            let _ = agent.socket.write(b".");
        }
    }

    fn end(&mut self) {
        let _ = self.ends.read_signal();
        self.is_ending = true;
        self.agent = None;
        self.brood.agent_gone();
        self.brood.end_unclaimed();
    }
}

/// Waits until nothing is left of an earlier spawner.
fn lock(folder: &Path) -> io::Result<File> {
    let file = File::create(lock_in(folder))?;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(fs::TryLockError::WouldBlock) => std::thread::sleep(LOOK_AGAIN),
            Err(fs::TryLockError::Error(error)) => return Err(error),
        }
    }
}

/// Listens for nobody but this user.
fn listen(path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let before = nix::sys::stat::umask(Mode::from_bits_truncate(0o177));
    let listener = UnixListener::bind(path);
    nix::sys::stat::umask(before);
    let listener = listener?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// What tells a service to end. Blocked for all of the family, see `child_signals`.
fn end_signals() -> nix::Result<SignalFd> {
    let ends: SigSet = [Signal::SIGTERM, Signal::SIGINT].into_iter().collect();
    SignalFd::with_flags(&ends, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
}
