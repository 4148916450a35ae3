//! What lives below a spawner: its keepers, and what they leave behind.
//!
//! It owns the set of keepers. It must never let go of anything below it but what tasks were allowed to leave behind.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, Write as _},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

use fleetpool_proto::frame::{decode_header, encode_header};
use nix::{
    sys::{prctl, signalfd::SignalFd},
    unistd::Pid,
};

use super::{
    cgroup::{Contained, Groups},
    process::{Fate, child_signals},
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
    keepers: BTreeMap<Pid, Keeper>,
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
    /// Keepers that are to be gone, and from when on they are killed for it.
    doomed: BTreeSet<Pid>,
    doom_at: Option<Instant>,
    /// Where keepers are born, once an agent has asked for it.
    groups: Option<Groups>,
    /// Kept open so that its lock outlives the agent (see `Spawner::start_locked`).
    lock: OwnedFd,
}

/// A keeper, from its spawner's side.
struct Keeper {
    /// A second handle on its socket: the agent sees its end only when both are closed, and the spawner closes its own when
    /// nothing of that keeper is left.
    socket: OwnedFd,
    /// Of one that outlives its agent.
    kept: Option<Kept>,
}

/// What a spawner needs to hand a keeper over to the next agent.
struct Kept {
    name: Name,
    /// Where it is told of its next agent. When it is closed, the keeper ends.
    control: OwnedFd,
    /// The present agent has asked for it.
    is_claimed: bool,
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
            templates: BTreeSet::new(),
            adopted: BTreeSet::new(),
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
            request::SWEEP => self.ended.extend(descriptors),
            request::ATTACH => self.attach(request.name, descriptors.pop()?),
            request::CONTAIN => self.contain(descriptors.pop()?),
            kind => return self.start_keeper(kind, request.name, descriptors),
        }
        None
    }

    /// Forks a keeper. In the child, its descriptors.
    fn start_keeper(&mut self, kind: u8, name: Name, descriptors: Vec<OwnedFd>) -> Option<Fate> {
        let socket = descriptors.first()?.try_clone().ok()?;
        let control = match kind {
            request::KEPT => Some(sys::pair().ok()?),
            _ => None,
        };
        let (ours, theirs) = control.unzip();
        let lock = self.lock.try_clone().ok()?;
        let leaf = self.groups.as_ref().map(Groups::leaf).unwrap_or_default();
        match self.single.fork() {
            Ok(None) => return Some(Fate::Keeper(descriptors, lock, theirs, leaf)),
            Ok(Some(pid)) => {
                let kept = ours.map(|control| Kept {
                    name,
                    control,
                    is_claimed: true,
                });
                self.keepers.insert(pid, Keeper { socket, kept });
                if kind == request::TEMPLATE {
                    self.templates.insert(pid);
                }
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

    /// Gives a keeper another agent. Where there is none of that name, the agent sees the socket close.
    fn attach(&mut self, name: Name, socket: OwnedFd) {
        let is_it =
            |keeper: &&mut Keeper| keeper.kept.as_ref().is_some_and(|kept| kept.name == name);
        let Some(keeper) = self.keepers.values_mut().find(is_it) else {
            return;
        };
        let Ok(second) = socket.try_clone() else {
            return;
        };
        if let Some(kept) = &mut keeper.kept
            && request::hand_over(kept.control.as_fd(), &socket).is_ok()
        {
            kept.is_claimed = true;
            keeper.socket = second;
        }
    }

    /// The agent has gone. Those that outlive it wait for the next one; the others see its end themselves.
    pub(super) fn agent_gone(&mut self) {
        for kept in self
            .keepers
            .values_mut()
            .filter_map(|keeper| keeper.kept.as_mut())
        {
            kept.is_claimed = false;
        }
        let keepers = self.keepers.iter();
        let others = keepers.filter(|(_, keeper)| keeper.kept.is_none());
        let others: Vec<Pid> = others.map(|(pid, _)| *pid).collect();
        self.doom(others);
    }

    /// Ends what the present agent has not asked for.
    pub(super) fn end_unclaimed(&mut self) {
        let is_claimed = |keeper: &Keeper| keeper.kept.as_ref().is_some_and(|kept| kept.is_claimed);
        let unclaimed = self
            .keepers
            .iter_mut()
            .filter(|(_, keeper)| !is_claimed(keeper));
        let mut doomed = Vec::new();
        for (pid, keeper) in unclaimed {
            keeper.kept = None;
            doomed.push(*pid);
        }
        self.doom(doomed);
    }

    fn doom(&mut self, keepers: Vec<Pid>) {
        self.doomed.extend(keepers);
        self.doomed.extend(&self.adopted);
        if self.is_clearing() {
            self.doom_at.get_or_insert(Instant::now() + KEEPERS_END_MAX);
        }
    }

    /// Whether something is to be gone that is not.
    pub(super) fn is_clearing(&self) -> bool {
        !self.doomed.is_empty() || self.is_burying()
    }

    /// Whether a keeper lives that cannot be handed over to another agent.
    pub(super) fn has_bound(&self) -> bool {
        let bound = |keeper: &Keeper| keeper.kept.is_none();
        !self.adopted.is_empty() || self.keepers.values().any(bound)
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
            let spared = self.spared();
            tree::kill_all(&spared.difference(&self.doomed).copied().collect());
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
        if self.is_burying() && self.kill_orphans() == 0 {
            self.ended.clear();
            self.is_orphaned = false;
        }
        Ok(())
    }

    fn on_ended(&mut self, pid: Pid, status: Option<i32>) {
        self.left.remove(&pid);
        self.doomed.remove(&pid);
        self.is_orphaned |= self.adopted.remove(&pid);
        let Some(keeper) = self.keepers.remove(&pid) else {
            return;
        };
        if status == Some(keeper::STATUS_LEFT_CHILDREN) {
            self.left.extend(self.orphans());
        }
        if self.templates.remove(&pid) {
            let mut orphans = self.orphans();
            orphans.retain(|&pid| tree::runs_our_program(pid));
            if self.doom_at.is_some() {
                self.doomed.extend(&orphans);
            }
            self.adopted.extend(orphans);
        }
        self.ended.push(keeper.socket);
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
}

/// Readable when a child has ended.
impl AsFd for Brood {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.children.as_fd()
    }
}
