//! A keeper whose slot is for a worker that stays, or that becomes a template.

use std::{
    convert::Infallible,
    ffi::CString,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    path::PathBuf,
    time::Duration,
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, FdFlag, OFlag, fcntl, open},
    sys::{prctl, signal::SigSet, stat::Mode},
    unistd::{Pid, dup2_stderr},
};

use super::{
    ending::Tree,
    environment::Environment,
    launch::Launch,
    message::FromKeeper,
    process::{Job, Keeper},
};

/// The descriptor at which a worker finds its socket.
const WORKER_FD: i32 = 3;

impl Keeper {
    pub(super) fn start_worker(&mut self, program: PathBuf) {
        let descriptors = std::mem::take(&mut self.descriptors);
        let reason = match self.spawn_worker(program, &descriptors) {
            Ok(pid) => {
                self.job = Job::Worker(Tree::new(pid));
                let pid = pid.as_raw().unsigned_abs();
                return self.channel.put(FromKeeper::WorkerStarted { pid });
            }
            Err(reason) => reason,
        };
        self.channel.put(FromKeeper::WorkerNotStarted { reason });
        self.end(Duration::ZERO);
    }

    fn spawn_worker(&mut self, program: PathBuf, descriptors: &[OwnedFd]) -> Result<Pid, String> {
        let [socket, stdout, stderr] = descriptors else {
            return Err("its descriptors are missing".into());
        };
        let mut environment = Environment::new(std::env::vars_os(), &self.place, &self.place.env)?;
        let path = environment.path().to_owned();
        let argv = [word(program)?];
        self.launcher.start(&Launch {
            argv: &argv,
            path: &path,
            environment: environment.of_worker(WORKER_FD),
            descriptors: &[
                (stdout.as_fd(), 1),
                (stderr.as_fd(), 2),
                (socket.as_fd(), WORKER_FD),
            ],
            cwd: self.place.cwd.as_deref().map(AsRef::as_ref),
        })
    }

    /// Returns only when it cannot be: why.
    pub(super) fn become_template(&mut self, program: PathBuf, args: Vec<String>) -> String {
        let attempt = || -> Result<Infallible, String> {
            let not_possible = |error: Errno| format!("it cannot be prepared: {}", error.desc());
            // Given on to keepers, whose program this is, whatever becomes of its file meanwhile.
            let own = open("/proc/self/exe", OFlag::O_PATH, Mode::empty()).map_err(not_possible)?;
            let given = self.descriptors.iter().chain([&own, &self.lock]);
            let mut numbers = Vec::new();
            for fd in given {
                fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty())).map_err(not_possible)?;
                numbers.push(fd.as_raw_fd().to_string());
            }
            let inherited = std::env::vars_os().chain(self.leaf.variable());
            let mut environment = Environment::new(inherited, &self.place, &self.place.env)?;
            let path = environment.path().to_owned();
            let args: Result<Vec<_>, _> = args.into_iter().map(|arg| word(arg.into())).collect();
            let argv = [vec![word(program)?], args?].concat();
            // What it imports says nothing to anybody. Workers have pipes of their own.
            let null = open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())
                .map_err(not_possible)?;
            dup2_stderr(&null).map_err(not_possible)?;
            // Orphans of its workers go to the spawner, which knows what to do with them.
            prctl::set_child_subreaper(false).map_err(not_possible)?;
            SigSet::empty().thread_set_mask().map_err(not_possible)?;
            self.launcher.exec(&Launch {
                argv: &argv,
                path: &path,
                environment: environment.of_template(&numbers.join(" ")),
                descriptors: &[],
                cwd: self.place.cwd.as_deref().map(AsRef::as_ref),
            })
        };
        match attempt() {
            Ok(never) => match never {},
            Err(reason) => reason,
        }
    }
}

fn word(text: PathBuf) -> Result<CString, String> {
    CString::new(text.into_os_string().into_encoded_bytes())
        .map_err(|_| "its program's path has a NUL byte in it".to_owned())
}
