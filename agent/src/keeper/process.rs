//! The keeper process: one slot's commands, or its worker, and every process below.
//!
//! It talks to its agent over one socket and to nobody else. It owns everything below it: what a task starts
//! cannot leave, since the keeper is a subreaper. It is one thread in one poll loop, and must never block
//! elsewhere, nor report a task's end while anything of that task lives that may not.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io,
    os::fd::{AsFd as _, OwnedFd},
    time::{Duration, Instant},
};

use bytes::Bytes;
use fleetpool_proto::{AttemptId, Outcome, SpecId, frame::encode_header, outcome::Loss};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags},
    sys::{prctl, signalfd::SignalFd},
    unistd::Pid,
};

use super::{
    channel::Channel,
    ending::Tree,
    launch::{Input, Launcher},
    memory::{self, MemoryWatch},
    message::{Attached, FromKeeper, Place, ToKeeper, one, only},
    pipe::{self, READ_BYTES},
    task::{PACE, Recipe, Task, never_ran},
};
use crate::{
    spawner::{
        Control, Leaf, child_signals, hear, is_ready,
        sys::{self, Reaped},
        wait_for,
    },
    tree,
};

/// A keeper exits with this when what lives below it was left there on purpose; its spawner then lets it live.
pub(crate) const STATUS_LEFT_CHILDREN: i32 = 75;
/// Reads of less than this are worth waiting for more.
const FLOOD_BYTES: usize = READ_BYTES / 4;

/// Is a keeper until its agent lets it end or goes away; the status to exit with. The first descriptor is its
/// socket, the others its fence, if it has one, and a worker's socket, stdout and stderr, or a template's two sockets.
/// With `control` it outlives its agent, and ends with its spawner alone.
pub(crate) fn run(
    mut descriptors: Vec<OwnedFd>,
    lock: OwnedFd,
    control: Option<OwnedFd>,
    leaf: Leaf,
) -> i32 {
    // A template, and with it the workers that are forked from one, inherits it too.
    memory::offer();
    let socket = descriptors.remove(0);
    status(Keeper::new(socket, descriptors, lock, control, leaf).and_then(Keeper::serve))
}

/// Is the keeper of a worker that a template has forked as this process's child. The descriptors are its socket, the
/// lock, and its fence, if it has one.
pub(crate) fn adopt(worker: Pid, mut descriptors: Vec<OwnedFd>) -> i32 {
    let fence = descriptors.split_off(2);
    let lock = descriptors.pop();
    let (Some(lock), Some(socket)) = (lock, descriptors.pop()) else {
        return 2;
    };
    // Before it is told to begin.
    let leaf = Leaf::of_template().beside(worker);
    let keeper = Keeper::new(socket, fence, lock, None, leaf).and_then(|mut keeper| {
        keeper.job = Job::Worker(Tree::new(worker));
        let pid = worker.as_raw().unsigned_abs();
        keeper.channel.put(FromKeeper::WorkerStarted { pid });
        // It may have ended before this process heard of its children.
        keeper.look_after(true);
        keeper.serve()
    });
    status(keeper)
}

fn status(served: io::Result<i32>) -> i32 {
    served.unwrap_or_else(|error| {
        eprintln!("fleetpool: a keeper cannot go on: {error}");
        1
    })
}

pub(super) struct Keeper {
    pub(super) channel: Channel,
    /// Where it hears of its next agent.
    control: Option<OwnedFd>,
    children: SignalFd,
    /// Readable when the agent's lease is over, and with it all that runs here. The agent itself may be stopped then.
    fence: Option<OwnedFd>,
    /// A worker's descriptors until it is started, behind the fence until that is known.
    pub(super) descriptors: Vec<OwnedFd>,
    pub(super) place: Place,
    pub(super) launcher: Launcher,
    recipes: BTreeMap<SpecId, Result<Recipe, String>>,
    waiting: VecDeque<Waiting>,
    pub(super) job: Job,
    /// What earlier tasks were allowed to leave behind.
    left: BTreeSet<Pid>,
    ending: Ending,
    memory: MemoryWatch,
    /// Where this process and all below it are.
    pub(super) leaf: Leaf,
    /// Open as long as anything below the spawner lives.
    pub(super) lock: OwnedFd,
    scratch: Vec<u8>,
}

struct Waiting {
    attempt: AttemptId,
    spec: SpecId,
    argument: Bytes,
}

pub(super) enum Job {
    None,
    Task(Box<Task>),
    Worker(Tree),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    No,
    /// When what it has is done.
    Soon,
    /// When what runs is killed; its end interests nobody.
    Now,
}

/// What woke the keeper.
struct Awake {
    control: bool,
    fence: bool,
    channel: bool,
    children: bool,
    pipes: [bool; 2],
}

impl Keeper {
    fn new(
        socket: OwnedFd,
        descriptors: Vec<OwnedFd>,
        lock: OwnedFd,
        control: Option<OwnedFd>,
        leaf: Leaf,
    ) -> io::Result<Self> {
        prctl::set_child_subreaper(true)?;
        let _ = prctl::set_name(c"fleetpool-keep");
        let mut channel = Channel::new(socket, control.is_some());
        let pid = std::process::id();
        channel.put(FromKeeper::Ready { pid });
        Ok(Self {
            channel,
            control,
            children: child_signals()?,
            fence: None,
            descriptors,
            place: Place::default(),
            launcher: Launcher::new(String::new())?,
            recipes: BTreeMap::new(),
            waiting: VecDeque::new(),
            job: Job::None,
            left: BTreeSet::new(),
            ending: Ending::No,
            memory: MemoryWatch::new(&leaf),
            leaf,
            lock,
            scratch: vec![0; READ_BYTES],
        })
    }

    fn serve(mut self) -> io::Result<i32> {
        loop {
            self.channel.flush();
            // The agent's end may be found out by writing, before there is anything to read.
            if self.channel.is_ended() {
                self.without_agent();
            }
            if self.is_over() {
                return Ok(if self.left.is_empty() {
                    0
                } else {
                    STATUS_LEFT_CHILDREN
                });
            }
            let awake = self.wait()?;
            if awake.control {
                self.hear_spawner();
            }
            if awake.fence {
                self.fence_off();
            }
            if awake.channel {
                self.hear()?;
            }
            self.read_output(awake.pipes);
            if awake.children {
                let _ = self.children.read_signal();
            }
            self.look_after(awake.children);
            self.begin();
        }
    }

    /// Whether everything is done and said.
    fn is_over(&self) -> bool {
        self.ending != Ending::No
            && matches!(self.job, Job::None)
            && self.waiting.is_empty()
            && !self.channel.is_behind()
            && (self.control.is_none() || self.channel.is_heard())
    }

    /// Ends, unless it is to wait for another agent.
    fn without_agent(&mut self) {
        if self.control.is_none() && self.ending != Ending::Now {
            self.end(Duration::ZERO);
        }
    }

    /// Its spawner knows of another agent, or nobody wants it any more.
    fn hear_spawner(&mut self) {
        let heard = self.control.as_ref().map(|control| hear(control.as_fd()));
        match heard {
            Some(Control::Agent(socket)) => self.channel.attach(socket, self.attached()),
            Some(Control::End) => {
                self.control = None;
                self.end(Duration::ZERO);
            }
            Some(Control::Nothing) | None => {}
        }
    }

    /// How things are here.
    fn attached(&self) -> Attached {
        let running = match &self.job {
            Job::Task(task) => Some((task.attempt, task.pid())),
            Job::None | Job::Worker(_) => None,
        };
        Attached {
            pid: std::process::id(),
            running,
            waiting: self.waiting.iter().map(|waiting| waiting.attempt).collect(),
            is_ending: self.ending != Ending::No,
            ..Attached::default()
        }
    }

    /// One poll: the socket, ended children, and the output of a task once it has run for a while.
    fn wait(&self) -> nix::Result<Awake> {
        let now = Instant::now();
        let writing = if self.channel.is_behind() {
            PollFlags::POLLOUT
        } else {
            PollFlags::empty()
        };
        let listening = if self.channel.is_ended() {
            PollFlags::empty()
        } else {
            PollFlags::POLLIN
        };
        let mut fds = vec![
            PollFd::new(self.children.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.channel.as_fd(), listening | writing),
        ];
        if self.channel.is_ended() {
            fds.pop();
        }
        let at_fence = fds.len();
        fds.extend(
            self.fence
                .iter()
                .map(|fence| PollFd::new(fence.as_fd(), PollFlags::POLLIN)),
        );
        let at_control = fds.len();
        let control = self.control.iter();
        fds.extend(control.map(|control| PollFd::new(control.as_fd(), PollFlags::POLLIN)));
        let first_pipe = fds.len();
        if let Job::Task(task) = &self.job
            && task.read_at <= now
            && !self.channel.is_full()
        {
            fds.extend(
                task.pipes
                    .each_ref()
                    .map(|pipe| PollFd::new(pipe.reader(), PollFlags::POLLIN)),
            );
        }
        wait_for(
            &mut fds,
            self.due(now).map(|due| due.saturating_duration_since(now)),
        )?;
        let ready = |index: usize| fds.get(index).is_some_and(is_ready);
        Ok(Awake {
            children: ready(0),
            channel: at_fence == 2 && ready(1),
            fence: at_control > at_fence && ready(at_fence),
            control: first_pipe > at_control && ready(at_control),
            pipes: [ready(first_pipe), ready(first_pipe + 1)],
        })
    }

    /// When to wake up, if nothing happens before.
    fn due(&self, now: Instant) -> Option<Instant> {
        let read_at = match &self.job {
            Job::Task(task) => Some(task.read_at).filter(|&at| at > now),
            _ => None,
        };
        let tree = self.tree().and_then(Tree::due);
        read_at.into_iter().chain(tree).min()
    }

    /// What runs below.
    fn tree(&self) -> Option<&Tree> {
        match &self.job {
            Job::None => None,
            Job::Worker(tree) => Some(tree),
            Job::Task(task) => Some(&task.tree),
        }
    }

    /// The lease is over. There is no grace left: it was in the time that the fence was set to.
    fn fence_off(&mut self) {
        self.fence = None;
        self.channel.put(FromKeeper::Fenced);
        self.end(Duration::ZERO);
    }

    /// Takes in what the agent says.
    fn hear(&mut self) -> io::Result<()> {
        self.channel.fill();
        while let Some(message) = self.channel.take()? {
            self.on_message(message)?;
        }
        if self.channel.is_ended() {
            self.without_agent();
        }
        Ok(())
    }

    fn on_message(&mut self, message: ToKeeper) -> io::Result<()> {
        match message {
            ToKeeper::Place(place) => {
                self.launcher = Launcher::new(place.host.clone())?;
                if place.fenced && !self.descriptors.is_empty() {
                    self.fence = Some(self.descriptors.remove(0));
                }
                self.place = place;
            }
            // Given before it was known that the fence had ended this keeper.
            ToKeeper::Work { .. } | ToKeeper::Run { .. } if self.ending == Ending::Now => {}
            ToKeeper::Work { program } => self.start_worker(program),
            ToKeeper::Become { program, args } => {
                let reason = self.become_template(program, args);
                self.channel.put(FromKeeper::WorkerNotStarted { reason });
                self.end(Duration::ZERO);
            }
            ToKeeper::Define {
                spec,
                body,
                payloads,
                by_descriptor,
            } => {
                let input = match by_descriptor {
                    true => Ok(self.channel.take_descriptor().map(Input::from)),
                    false => Input::of(&only(payloads)),
                };
                let recipe = Recipe::new(&self.place, &body, input);
                self.recipes.insert(spec, recipe);
            }
            ToKeeper::Run {
                attempt,
                spec,
                payloads,
            } => self.waiting.push_back(Waiting {
                attempt,
                spec,
                argument: only(payloads),
            }),
            ToKeeper::GiveBack { count } => self.give_back(count),
            ToKeeper::Kill { attempt, grace_ms } => self.kill(attempt, grace(grace_ms)),
            ToKeeper::End { grace_ms } => self.end(grace(grace_ms)),
            // To a relay.
            ToKeeper::Relay { .. } | ToKeeper::Hand { .. } => {}
            ToKeeper::Stop if self.ending == Ending::No => self.ending = Ending::Soon,
            ToKeeper::Stop => {}
            ToKeeper::Heard { number } => self.channel.heard(number),
        }
        Ok(())
    }

    /// Begins the next command when there is none, and reports those that cannot begin. Never before the end of
    /// the last one is told: should this process die, its agent knows which one ran.
    fn begin(&mut self) {
        while matches!(self.job, Job::None)
            && self.has_told()
            && let Some(next) = self.waiting.pop_front()
        {
            match self.start_task(&next) {
                Ok(task) => self.job = Job::Task(Box::new(task)),
                Err(reason) => self.channel.put(FromKeeper::Ended {
                    end: never_ran(next.attempt, Outcome::NotStarted),
                    payloads: one(encode_header(&Loss::because(reason))),
                }),
            }
        }
    }

    fn has_told(&mut self) -> bool {
        self.channel.flush();
        !self.channel.is_behind() && (self.control.is_none() || !self.channel.is_ended())
    }

    fn start_task(&mut self, next: &Waiting) -> Result<Task, String> {
        let recipe = match self.recipes.get_mut(&next.spec) {
            Some(Ok(recipe)) => recipe,
            Some(Err(reason)) => return Err(reason.clone()),
            None => {
                return Err(format!(
                    "nothing is known of its specification {}",
                    next.spec
                ));
            }
        };
        Task::start(
            next.attempt,
            &next.argument,
            &self.place,
            recipe,
            &mut self.launcher,
        )
    }

    fn give_back(&mut self, count: u32) {
        let keep = self.waiting.len().saturating_sub(count as usize);
        let back = self.waiting.split_off(keep);
        let attempts = back.into_iter().map(|waiting| waiting.attempt).collect();
        self.channel.put(FromKeeper::GivenBack { attempts });
    }

    fn kill(&mut self, attempt: AttemptId, grace: Duration) {
        match &mut self.job {
            Job::Task(task) if task.attempt == attempt => {
                task.tree.ask(Instant::now(), grace, &self.left);
            }
            _ => self.forget(attempt),
        }
    }

    /// Ends a command that has not begun.
    fn forget(&mut self, attempt: AttemptId) {
        let before = self.waiting.len();
        self.waiting.retain(|waiting| waiting.attempt != attempt);
        if self.waiting.len() < before {
            self.channel.put(FromKeeper::Ended {
                end: never_ran(attempt, Outcome::Cancelled),
                payloads: one(encode_header(&Loss::because("cancelled before it began"))),
            });
        }
    }

    pub(super) fn end(&mut self, grace: Duration) {
        self.ending = Ending::Now;
        self.waiting.clear();
        let tree = match &mut self.job {
            Job::None => return,
            Job::Task(task) => &mut task.tree,
            Job::Worker(tree) => tree,
        };
        tree.ask(Instant::now(), grace, &self.left);
    }

    /// Reads the output that is there, and tells of a task that has run for a while.
    fn read_output(&mut self, ready: [bool; 2]) {
        let Job::Task(task) = &mut self.job else {
            return;
        };
        let now = Instant::now();
        if !task.known && now >= task.read_at {
            task.known = true;
            self.memory.look_within(task.tree.main);
            let (attempt, pid) = (task.attempt, task.pid());
            self.channel.put(FromKeeper::Running { attempt, pid });
        }
        let (attempt, pid) = (task.attempt, task.pid());
        let mut emit = |stream, bytes: Bytes| {
            let payloads = one(bytes);
            self.channel.put(FromKeeper::Printed {
                attempt,
                pid,
                stream,
                payloads,
            });
        };
        let mut most = 0;
        for (pipe, _) in task.pipes.iter_mut().zip(ready).filter(|(_, ready)| *ready) {
            most = most.max(pipe.pull(&mut self.scratch, &mut emit));
        }
        if (1..FLOOD_BYTES).contains(&most) {
            task.read_at = now + PACE;
        }
    }

    /// Reaps what has ended, and takes the running task or worker on its way out.
    fn look_after(&mut self, ended: bool) {
        let now = Instant::now();
        let due = self.tree().and_then(Tree::due);
        if !ended && due.is_none_or(|due| due > now) {
            return;
        }
        let alone = self.reap();
        match &mut self.job {
            Job::None => {}
            Job::Worker(tree) => match tree.end {
                Some(end) if alone => self.worker_ended(&end),
                _ => tree.advance(now, &self.left),
            },
            Job::Task(task) => match task.tree.end {
                Some(end) if alone => self.task_ended(&end),
                Some(end) if task.leave_children && !task.tree.asked => {
                    self.left.extend(tree::own_children());
                    self.task_ended(&end);
                }
                _ => task.tree.advance(now, &self.left),
            },
        }
    }

    /// Takes every child that has ended; tells whether nothing lives below but what was left on purpose.
    fn reap(&mut self) -> bool {
        loop {
            match sys::reap() {
                Ok(Some(reaped)) => self.on_reaped(reaped),
                Ok(None) if self.left.is_empty() => return false,
                Ok(None) => {
                    return tree::own_children()
                        .iter()
                        .all(|pid| self.left.contains(pid));
                }
                Err(Errno::EINTR) => {}
                Err(_) => return true,
            }
        }
    }

    fn on_reaped(&mut self, reaped: Reaped) {
        self.left.remove(&reaped.pid);
        match &mut self.job {
            Job::Task(task) if task.tree.main == reaped.pid => task.tree.end = Some(reaped),
            Job::Worker(tree) if tree.main == reaped.pid => tree.end = Some(reaped),
            _ => {}
        }
    }

    fn task_ended(&mut self, end: &Reaped) {
        let Job::Task(mut task) = std::mem::replace(&mut self.job, Job::None) else {
            return;
        };
        let (attempt, pid) = (task.attempt, task.pid());
        pipe::drain(
            &mut task.pipes,
            &mut self.scratch,
            &mut |stream, bytes: Bytes| {
                let payloads = one(bytes);
                self.channel.put(FromKeeper::Printed {
                    attempt,
                    pid,
                    stream,
                    payloads,
                });
            },
        );
        if self.ending != Ending::Now {
            let (end, payload) = task.report(end, &mut self.memory);
            let payloads = one(payload);
            self.channel.put(FromKeeper::Ended { end, payloads });
        }
    }

    fn worker_ended(&mut self, end: &Reaped) {
        let Job::Worker(tree) = std::mem::replace(&mut self.job, Job::None) else {
            return;
        };
        let signal = std::os::unix::process::ExitStatusExt::signal(&end.status);
        self.ending = Ending::Now;
        self.channel.put(FromKeeper::WorkerEnded {
            exit: end.status.code(),
            signal,
            out_of_memory: !tree.asked && self.memory.was_taken(signal, end.status.code()),
            memory_kib_peak: end.memory_kib_peak,
            pid: end.pid.as_raw().unsigned_abs(),
            stderr_tail: String::new(),
            was_given_up: false,
        });
    }
}

fn grace(ms: u32) -> Duration {
    Duration::from_millis(u64::from(ms))
}
