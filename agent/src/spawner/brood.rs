//! What lives below a spawner: its keepers, and what they leave behind.
//!
//! It owns the set of keepers. It must never let go of anything below it but what tasks were allowed to leave behind.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, Write as _},
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

use fleetpool_proto::frame::{decode_header, encode_header};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        prctl,
        signal::Signal,
        signalfd::SignalFd,
        socket::{Shutdown, shutdown},
        wait::{Id, WaitPidFlag, WaitStatus, waitid},
    },
    unistd::Pid,
};

use super::{
    cgroup::{Contained, Groups},
    process::{Fate, child_signals, is_ready},
    request::{self, Name, Request},
    sys::{self, SingleThreaded},
};
use crate::{TaskLimits, keeper, tree};

/// How long keepers have, when their agent has gone, to end what is below them before the spawner does.
const KEEPERS_END_MAX: Duration = Duration::from_millis(500);
/// Pause between two rounds of killing: what does not die at once waits for the kernel.
pub(super) const KILL_AGAIN: Duration = Duration::from_millis(20);

/// What limits may take to be said, in bytes.
const LIMITS_BYTES_MAX: usize = 1024;

/// Everything below a spawner.
pub(super) struct Brood {
    children: SignalFd,
    single: SingleThreaded,
    /// Keepers, and relays.
    keepers: BTreeMap<Pid, Keeper>,
    /// Keepers whose template has died, and whether they end with their agent; the others' agents are relays.
    adopted: BTreeMap<Pid, bool>,
    /// What has ended and may have left something that still lives.
    ended: Vec<Ended>,
    /// Whether an adopted one has ended, and its orphans may still live.
    is_orphaned: bool,
    /// What tasks were allowed to leave behind.
    left: BTreeSet<Pid>,
    /// Keepers that are to be gone, and from when on they are killed for it.
    doomed: BTreeSet<Pid>,
    doom_at: Option<Instant>,
    /// Where keepers are born, once an agent has asked for it.
    groups: Option<Groups>,
    /// Kept open so that its lock outlives the agent (see `Spawner::start_locked`).
    lock: OwnedFd,
}

/// A keeper or a relay, from its spawner's side.
struct Keeper {
    /// A second handle on its socket: the agent sees its end only when both are closed, and the spawner closes its own when
    /// nothing of that keeper is left.
    socket: OwnedFd,
    name: Name,
    role: Role,
    /// Of a relay: a second handle on the socket that leads to its keeper. The keeper is told through it that its relay has ended, and
    /// it tells that the keeper has.
    below: Option<OwnedFd>,
}

/// With whom a keeper ends.
enum Role {
    /// With its agent.
    Bound,
    /// With its agent. It has become a template; whether that is so of the keepers that it starts, too.
    Template { binds: bool },
    /// With the relay of its name.
    Held,
    /// When nobody asks for it any more.
    Kept(Kept),
}

/// What a spawner needs to hand a keeper over to the next agent.
struct Kept {
    /// Where it is told of its next agent. When it is closed, the keeper ends.
    control: OwnedFd,
    /// The present agent has asked for it.
    is_claimed: bool,
}

/// What is left of a keeper or a relay that has ended, until nothing is below it.
struct Ended {
    /// Closed then.
    _socket: OwnedFd,
    below: Option<OwnedFd>,
}

impl Keeper {
    fn kept(&self) -> Option<&Kept> {
        match &self.role {
            Role::Kept(kept) => Some(kept),
            _ => None,
        }
    }

    fn kept_mut(&mut self) -> Option<&mut Kept> {
        match &mut self.role {
            Role::Kept(kept) => Some(kept),
            _ => None,
        }
    }
}

impl Ended {
    /// With `below`, the keeper there is told to end.
    fn new(socket: OwnedFd, below: Option<OwnedFd>) -> Self {
        if let Some(below) = &below {
            // One that has closed its end already needs no telling.
            shutdown(below.as_raw_fd(), Shutdown::Write).ok();
        }
        Self {
            _socket: socket,
            below,
        }
    }

    /// Whether the keeper below is gone, too: what it has left is an orphan then.
    fn is_over(&self) -> bool {
        self.below.as_ref().is_none_or(|below| {
            let mut fds = [PollFd::new(below.as_fd(), PollFlags::empty())];
            poll(&mut fds, PollTimeout::ZERO).is_err() || is_ready(&fds[0])
        })
    }
}

impl Brood {
    pub(super) fn new(single: SingleThreaded, lock: OwnedFd) -> io::Result<Self> {
        sys::expect_children(&single)?;
        prctl::set_child_subreaper(true)?;
        let _ = prctl::set_name(c"fleetpool-spawn");
        Ok(Self {
            children: child_signals()?,
            single,
            keepers: BTreeMap::new(),
            adopted: BTreeMap::new(),
            ended: Vec::new(),
            is_orphaned: false,
            left: BTreeSet::new(),
            doomed: BTreeSet::new(),
            doom_at: None,
            groups: None,
            lock,
        })
    }

    /// Does what an agent asks for. In a forked child, what it is to be; all of `self` is dropped there.
    pub(super) fn on_request(
        &mut self,
        request: Request,
        mut descriptors: Vec<OwnedFd>,
    ) -> Option<Fate> {
        match request.kind {
            request::SWEEP => {
                let sockets = descriptors.into_iter();
                self.ended
                    .extend(sockets.map(|socket| Ended::new(socket, None)));
            }
            request::ATTACH => self.attach(request.name, descriptors.pop()?),
            request::CONTAIN => self.contain(descriptors.pop()?),
            kind => return self.start_keeper(kind, request.name, descriptors),
        }
        None
    }

    /// Forks a keeper or a relay. In the child, what it is to be.
    fn start_keeper(&mut self, kind: u8, name: Name, descriptors: Vec<OwnedFd>) -> Option<Fate> {
        let socket = descriptors.first()?.try_clone().ok()?;
        let below = match kind {
            request::RELAY => Some(descriptors.get(1)?.try_clone().ok()?),
            _ => None,
        };
        let control = match kind {
            request::KEPT | request::RELAY => Some(sys::pair().ok()?),
            _ => None,
        };
        let (ours, theirs) = control.unzip();
        let lock = self.lock.try_clone().ok()?;
        let leaf = self.groups.as_ref().map(Groups::leaf).unwrap_or_default();
        match self.single.fork() {
            Ok(None) if kind == request::RELAY => {
                return Some(Fate::Relay(descriptors, lock, theirs?, leaf));
            }
            Ok(None) => return Some(Fate::Keeper(descriptors, lock, theirs, leaf)),
            Ok(Some(pid)) => {
                let role = match ours {
                    Some(control) => Role::Kept(Kept {
                        control,
                        is_claimed: true,
                    }),
                    None => match kind {
                        request::HELD => Role::Held,
                        request::TEMPLATE => Role::Template { binds: true },
                        request::HELD_TEMPLATE => Role::Template { binds: false },
                        _ => Role::Bound,
                    },
                };
                let keeper = Keeper {
                    socket,
                    name,
                    role,
                    below,
                };
                self.keepers.insert(pid, keeper);
                if let Some(groups) = &mut self.groups {
                    groups.move_on();
                }
            }
            // The agent sees the socket close, and says that the worker could not be started.
            Err(error) => eprintln!("fleetpool: cannot fork a keeper: {error}"),
        }
        None
    }

    /// Holds what is forked from now on to limits, as far as the host allows that, and tells.
    fn contain(&mut self, socket: OwnedFd) {
        let mut bytes = [0; LIMITS_BYTES_MAX];
        let asked = sys::receive(socket.as_fd(), &mut bytes);
        let asked = asked.ok().and_then(|(len, _)| bytes.get(..len));
        let contained = match asked.map(decode_header) {
            Some(Ok(limits)) => self.limit(limits),
            _ => Contained::not("the spawner cannot read the limits that it is told"),
        };
        // An agent that is gone needs no answer.
        File::from(socket)
            .write_all(&encode_header(&contained))
            .ok();
    }

    fn limit(&mut self, limits: TaskLimits) -> Contained {
        match &mut self.groups {
            Some(groups) => {
                groups.limit(limits);
                groups.contained()
            }
            None => self.groups.insert(Groups::make(limits)).contained(),
        }
    }

    /// All is gone that is to be: no cgroup of ours is left either.
    pub(super) fn leave_groups(&mut self) {
        if let Some(mut groups) = self.groups.take() {
            groups.leave();
        }
    }

    /// Gives a keeper or a relay another agent. Where there is none of that name, the agent sees the socket close.
    fn attach(&mut self, name: Name, socket: OwnedFd) {
        let is_it = |keeper: &&mut Keeper| keeper.name == name && keeper.kept().is_some();
        let Some(keeper) = self.keepers.values_mut().find(is_it) else {
            return;
        };
        let Ok(second) = socket.try_clone() else {
            return;
        };
        if let Some(kept) = keeper.kept_mut()
            && request::hand_over(kept.control.as_fd(), &socket).is_ok()
        {
            kept.is_claimed = true;
            keeper.socket = second;
        }
    }

    /// The agent has gone. Those that outlive it wait for the next one; the others see its end themselves.
    pub(super) fn agent_gone(&mut self) {
        for keeper in self.keepers.values_mut() {
            if let Some(kept) = keeper.kept_mut() {
                kept.is_claimed = false;
            }
        }
        let kept = self.names(|_| true);
        let mut others = self.all_but(&kept);
        others.extend(
            self.adopted
                .iter()
                .filter(|(_, binds)| **binds)
                .map(|(pid, _)| *pid),
        );
        self.doom(others);
    }

    /// Ends what the present agent has not asked for.
    pub(super) fn end_unclaimed(&mut self) {
        let claimed = self.names(|kept| kept.is_claimed);
        let mut doomed = self.all_but(&claimed);
        for pid in &doomed {
            if let Some(keeper) = self.keepers.get_mut(pid) {
                keeper.role = Role::Bound;
            }
        }
        // Whose relay an adopted one has is not known here: as long as any relay goes on, it is left to its own.
        let mut relays = self
            .keepers
            .values()
            .filter(|keeper| keeper.below.is_some());
        let goes_on = relays.any(|relay| claimed.contains(&relay.name));
        let is_doomed = |binds: bool| binds || !goes_on;
        let adopted = self.adopted.iter().filter(|(_, binds)| is_doomed(**binds));
        doomed.extend(adopted.map(|(pid, _)| *pid));
        self.doom(doomed);
    }

    /// The names of those that outlive their agent, and are such.
    fn names(&self, such: impl Fn(&Kept) -> bool) -> BTreeSet<Name> {
        let such = |keeper: &&Keeper| keeper.kept().is_some_and(&such);
        self.keepers
            .values()
            .filter(such)
            .map(|keeper| keeper.name)
            .collect()
    }

    /// Keepers and relays but those of these names, and those that end with their agent.
    fn all_but(&self, names: &BTreeSet<Name>) -> Vec<Pid> {
        let spared = |keeper: &Keeper| match keeper.role {
            Role::Bound | Role::Template { .. } => false,
            Role::Held | Role::Kept(_) => names.contains(&keeper.name),
        };
        let others = self.keepers.iter().filter(|(_, keeper)| !spared(keeper));
        others.map(|(pid, _)| *pid).collect()
    }

    fn doom(&mut self, keepers: Vec<Pid>) {
        self.doomed.extend(keepers);
        if self.is_clearing() {
            self.doom_at.get_or_insert(Instant::now() + KEEPERS_END_MAX);
        }
    }

    /// Whether something is to be gone that is not.
    pub(super) fn is_clearing(&self) -> bool {
        !self.doomed.is_empty() || self.is_burying()
    }

    /// Whether a worker's keeper lives that cannot be handed over to another agent.
    pub(super) fn has_bound(&self) -> bool {
        let binds =
            |keeper: &Keeper| matches!(keeper.role, Role::Bound | Role::Template { binds: true });
        self.adopted.values().any(|binds| *binds) || self.keepers.values().any(binds)
    }

    /// Whether there are relays.
    pub(super) fn has_relays(&self) -> bool {
        self.keepers.values().any(|keeper| keeper.below.is_some())
    }

    /// Whether nothing is left but what may be, now that all is to end. To be asked again after [`KILL_AGAIN`].
    pub(super) fn is_gone(&self) -> bool {
        self.keepers.is_empty() && self.adopted.is_empty() && self.kill_orphans() == 0
    }

    /// When to look again, whatever happens.
    pub(super) fn due(&self) -> Option<Duration> {
        self.is_clearing().then_some(KILL_AGAIN)
    }

    /// Looks after children, where `ended` says that some have ended or it is due.
    pub(super) fn look_after(&mut self, ended: bool) -> io::Result<()> {
        if ended || self.is_clearing() {
            self.bury()?;
        }
        if self.doomed.is_empty() {
            self.doom_at = None;
        } else if self.doom_at.is_some_and(|at| Instant::now() >= at) {
            self.kill_doomed();
        }
        Ok(())
    }

    /// Whether orphans of ended keepers may still live.
    fn is_burying(&self) -> bool {
        self.is_orphaned || !self.ended.is_empty()
    }

    /// Reaps children; kills orphans until there are none, then lets the agent know by closing the sockets.
    fn bury(&mut self) -> io::Result<()> {
        while self.children.read_signal()?.is_some() {}
        let mut some = false;
        while let Ok(Some(reaped)) = sys::reap() {
            self.on_ended(reaped.pid, reaped.status.code());
            some = true;
        }
        if let Some(groups) = self.groups.as_mut().filter(|_| some) {
            groups.tidy();
        }
        let over: Vec<bool> = self.ended.iter().map(Ended::is_over).collect();
        if over.contains(&false) {
            // A keeper that is stopped does not hear that its relay has ended.
            tree::signal_these(Signal::SIGCONT, self.adopted.keys().copied().collect());
        }
        if (self.is_orphaned || over.contains(&true)) && self.kill_orphans() == 0 {
            let mut over = over.into_iter();
            self.ended.retain(|_| over.next() != Some(true));
            self.is_orphaned = false;
        }
        Ok(())
    }

    fn on_ended(&mut self, pid: Pid, status: Option<i32>) {
        self.left.remove(&pid);
        self.doomed.remove(&pid);
        self.is_orphaned |= self.adopted.remove(&pid).is_some();
        let Some(keeper) = self.keepers.remove(&pid) else {
            return;
        };
        if status == Some(keeper::STATUS_LEFT_CHILDREN) {
            self.left.extend(self.orphans());
        }
        if let Role::Template { binds } = keeper.role {
            let mut orphans = self.orphans();
            orphans.retain(|&pid| tree::runs_our_program(pid));
            if binds && self.doom_at.is_some() {
                self.doomed.extend(&orphans);
            }
            self.adopted
                .extend(orphans.into_iter().map(|pid| (pid, binds)));
        }
        self.ended.push(Ended::new(keeper.socket, keeper.below));
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
        let keepers = self.keepers.keys().chain(self.adopted.keys());
        keepers.chain(&self.left).copied().collect()
    }

    /// Kills what is below this process and neither a keeper's nor left on purpose; tells how many it found.
    fn kill_orphans(&self) -> usize {
        if self.kill_all_but(&self.spared()) {
            self.orphans().len()
        } else {
            1
        }
    }

    /// Kills what is to be gone and has had its time.
    fn kill_doomed(&self) {
        let mut spared = self.spared();
        for pid in &self.doomed {
            match self.keepers.get(pid).map(|keeper| &keeper.role) {
                // What is below it is its workers' relays'.
                Some(Role::Template { binds: false }) => {
                    tree::signal_these(Signal::SIGKILL, vec![*pid]);
                }
                _ => drop(spared.remove(pid)),
            }
        }
        self.kill_all_but(&spared);
    }

    /// Kills what is below this process but these and what is below them, unless a child has just ended: a template that has leaves
    /// keepers, which look like orphans until it is waited for.
    fn kill_all_but(&self, spared: &BTreeSet<Pid>) -> bool {
        let found = tree::descendants(spared);
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        let is_sure = matches!(
            waitid(Id::All, flags),
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD)
        );
        if is_sure {
            tree::signal_these(Signal::SIGKILL, found);
        }
        is_sure
    }
}

/// Readable when a child has ended.
impl AsFd for Brood {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.children.as_fd()
    }
}
