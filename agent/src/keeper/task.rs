//! One command while it runs.

use std::{
    ffi::CString,
    io,
    os::fd::AsFd as _,
    path::PathBuf,
    time::{Duration, Instant},
};

use bytes::Bytes;
use fleetpool_proto::{
    AttemptId, Outcome,
    command::{CommandEnd, CommandTask},
    frame::encode_header,
    message::Stream,
    outcome::Loss,
    pool::Spec,
    time::micros,
};

use super::{
    ending::Tree,
    environment::Environment,
    launch::{Input, Launch, Launcher, fill},
    memory::MemoryWatch,
    message::{Place, TaskEnd},
    pipe::Pipe,
};
use crate::{clock::wall_us, spawner::sys::Reaped};

/// How long a command runs before anybody is told, and how long its output may wait in the pipe to be read in
/// bulk. Shorter commands cost one wake-up in all, and a chatty one does not cost one a line.
pub(crate) const PACE: Duration = Duration::from_millis(5);

/// What the commands of a specification have in common, made once.
pub(crate) struct Recipe {
    environment: Environment,
    cwd: Option<PathBuf>,
    input: Option<Input>,
    leave_children: bool,
}

impl Recipe {
    /// Prepares, or says why no command of this specification can be started.
    pub(crate) fn new(
        place: &Place,
        spec: &Spec,
        input: io::Result<Option<Input>>,
    ) -> Result<Self, String> {
        let changes = place.env.iter().chain(&spec.env);
        let input = input.map_err(|error| format!("cannot keep the standard input: {error}"))?;
        Ok(Self {
            environment: Environment::new(std::env::vars_os(), place, changes)?,
            cwd: folder(place.cwd.as_deref(), spec.cwd.as_deref()),
            input,
            leave_children: spec.leave_children,
        })
    }
}

/// A task's folder: a relative one is meant within the pool's.
fn folder(pool: Option<&str>, spec: Option<&str>) -> Option<PathBuf> {
    match (pool, spec) {
        (None, None) => None,
        (pool, spec) => Some(PathBuf::from(pool.unwrap_or("")).join(spec.unwrap_or(""))),
    }
}

/// A command that runs, or has left something that does.
pub(crate) struct Task {
    pub(crate) attempt: AttemptId,
    pub(crate) tree: Tree,
    pub(crate) pipes: [Pipe; 2],
    pub(crate) leave_children: bool,
    /// Whether it has run for a while, and its agent knows.
    pub(crate) known: bool,
    /// When its output is read next.
    pub(crate) read_at: Instant,
    started: Instant,
    started_us: u64,
}

impl Task {
    /// Starts a command, or says why it cannot be.
    pub(crate) fn start(
        attempt: AttemptId,
        argument: &[u8],
        place: &Place,
        recipe: &mut Recipe,
        launcher: &mut Launcher,
    ) -> Result<Self, String> {
        let argv = words(argument, place)?;
        let no_pipe =
            |error: nix::Error| format!("cannot read a command's output: {}", error.desc());
        let pipes = [
            Pipe::new(Stream::Stdout).map_err(no_pipe)?,
            Pipe::new(Stream::Stderr).map_err(no_pipe)?,
        ];
        let input = recipe.input.as_ref().map(Input::open).transpose();
        let input = input.map_err(|error| format!("cannot open the standard input: {error}"))?;
        let mut descriptors = vec![(pipes[0].writer(), 1), (pipes[1].writer(), 2)];
        descriptors.extend(input.as_ref().map(|input| (input.as_fd(), 0)));
        // The time before, so that no time that it runs is lost. The wall clock first: if this process has to wait
        // between the two, tasks that follow each other still do not seem to overlap.
        let started_us = wall_us();
        let started = Instant::now();
        let path = recipe.environment.path().to_owned();
        let main = launcher.start(&Launch {
            argv: &argv,
            path: &path,
            environment: recipe.environment.of_task(attempt),
            descriptors: &descriptors,
            cwd: recipe.cwd.as_deref(),
        })?;
        drop(descriptors);
        Ok(Self {
            attempt,
            tree: Tree::new(main),
            pipes,
            leave_children: recipe.leave_children,
            known: false,
            read_at: started + PACE,
            started,
            started_us,
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.tree.main.as_raw().unsigned_abs()
    }

    /// How it ended, for its agent; `end` is its main process's.
    pub(crate) fn report(&self, end: &Reaped, memory: &mut MemoryWatch) -> (TaskEnd, Bytes) {
        let signal = std::os::unix::process::ExitStatusExt::signal(&end.status);
        let command = CommandEnd {
            exit: end.status.code(),
            signal,
            memory_kib_peak: end.memory_kib_peak,
            user_us: micros(end.user),
            system_us: micros(end.system),
            leaked: self.tree.leaked(),
        };
        let (outcome, payload) = if end.status.success() {
            // One that was short is not worth a look.
            if self.known {
                memory.look_behind();
            }
            (Outcome::Done, encode_header(&command))
        } else if memory.was_taken(signal, command.exit) && !self.tree.asked {
            (
                Outcome::OutOfMemory,
                encode_header(&out_of_memory(&command)),
            )
        } else {
            (Outcome::Failed, encode_header(&command))
        };
        let end = TaskEnd {
            attempt: self.attempt,
            outcome,
            pid: self.pid(),
            started_us: self.started_us,
            run_us: micros(self.started.elapsed()),
        };
        (end, payload)
    }
}

fn words(argument: &[u8], place: &Place) -> Result<Vec<CString>, String> {
    let task: CommandTask = rmp_serde::from_slice(argument)
        .map_err(|error| format!("the task is not a command: {error}"))?;
    task.argv.iter().map(|word| fill(word, place)).collect()
}

fn out_of_memory(end: &CommandEnd) -> Loss {
    Loss {
        message: "the kernel killed it for want of memory".into(),
        signal: end.signal,
        exit: end.exit,
        memory_kib_peak: end.memory_kib_peak,
        ..Loss::default()
    }
}

/// An attempt that did not come to run.
pub(crate) fn never_ran(attempt: AttemptId, outcome: Outcome) -> TaskEnd {
    TaskEnd {
        attempt,
        outcome,
        pid: 0,
        started_us: 0,
        run_us: 0,
    }
}
