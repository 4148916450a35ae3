//! A command that runs on a host without ssh: [`std::process::Command`], started by a thread that has entered the host.
//!
//! The child is one of this process, and not of some program in between: its id, its signals and its exit status are real.
//! Nothing is started on the machine instead: a host that is off is an error.

use std::{
    ffi::OsStr,
    fs::File,
    io::{Error, Result},
    os::unix::process::CommandExt as _,
    process::{self, ExitStatus, Output, Stdio},
    thread,
};

use nix::sched::{CloneFlags, setns, unshare};

use crate::running::Running;

/// What every login has.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// `yard.sh` gives ada this number, as a user and as a group.
const ADA: u32 = 1815;
/// The mounts last: the others are not looked for there.
const NAMESPACES: &[(&str, CloneFlags)] = &[
    ("pid", CloneFlags::CLONE_NEWPID),
    ("net", CloneFlags::CLONE_NEWNET),
    ("uts", CloneFlags::CLONE_NEWUTS),
    ("ipc", CloneFlags::CLONE_NEWIPC),
    ("cgroup", CloneFlags::CLONE_NEWCGROUP),
    ("mnt", CloneFlags::CLONE_NEWNS),
];

/// The namespaces of a host that is up. Held open, so that they are never those of whoever has its number later.
#[derive(Debug)]
pub(crate) struct Entrance(Vec<(File, CloneFlags)>);

impl Entrance {
    /// Those of a host's first process, by its number on this machine.
    pub(crate) fn of(init: u32) -> Result<Self> {
        let open = |(name, flag): &(&str, CloneFlags)| {
            File::open(format!("/proc/{init}/ns/{name}")).map(|file| (file, *flag))
        };
        NAMESPACES.iter().map(open).collect::<Result<_>>().map(Self)
    }

    /// The calling thread, and whatever it starts, is there from now on.
    fn enter(&self) -> Result<()> {
        // A thread that shares its root folder with others cannot have another one.
        unshare(CloneFlags::CLONE_FS)?;
        for (file, flag) in &self.0 {
            setns(file, *flag)?;
        }
        Ok(())
    }
}

/// A command on a host, with the environment of a login there and nothing of this process's own.
#[derive(Debug)]
pub struct Command {
    host: String,
    entrance: Option<Entrance>,
    inner: process::Command,
}

impl Command {
    pub(crate) fn new(host: &str, entrance: Option<Entrance>, program: &str) -> Self {
        let mut inner = process::Command::new(program);
        inner.env_clear().env("PATH", PATH);
        let host = host.to_owned();
        let mut command = Self {
            host,
            entrance,
            inner,
        };
        command.user("root");
        command
    }

    /// Runs it as `root`, as all are, or as `ada`, who may use sudo; in their home.
    ///
    /// # Panics
    /// When it is somebody else.
    pub fn user(&mut self, name: &str) -> &mut Self {
        let (id, home) = match name {
            "root" => (0, "/root"),
            "ada" => (ADA, "/home/ada"),
            other => panic!("hosts have root and ada, and not {other}"),
        };
        self.inner.uid(id).gid(id).current_dir(home);
        self.inner.env("HOME", home);
        self.inner.env("USER", name).env("LOGNAME", name);
        self
    }

    /// As [`process::Command::arg`].
    pub fn arg(&mut self, argument: impl AsRef<OsStr>) -> &mut Self {
        self.inner.arg(argument);
        self
    }

    /// As [`process::Command::args`].
    pub fn args(&mut self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> &mut Self {
        self.inner.args(arguments);
        self
    }

    /// As [`process::Command::env`].
    pub fn env(&mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> &mut Self {
        self.inner.env(name, value);
        self
    }

    /// As [`process::Command::current_dir`]: a folder of the host.
    pub fn current_dir(&mut self, folder: &str) -> &mut Self {
        self.inner.current_dir(folder);
        self
    }

    /// As [`process::Command::stdin`].
    pub fn stdin(&mut self, stdin: impl Into<Stdio>) -> &mut Self {
        self.inner.stdin(stdin);
        self
    }

    /// As [`process::Command::stdout`].
    pub fn stdout(&mut self, stdout: impl Into<Stdio>) -> &mut Self {
        self.inner.stdout(stdout);
        self
    }

    /// As [`process::Command::stderr`].
    pub fn stderr(&mut self, stderr: impl Into<Stdio>) -> &mut Self {
        self.inner.stderr(stderr);
        self
    }

    /// Starts it.
    ///
    /// # Errors
    /// When there is no such program there, or the host is off.
    pub fn spawn(&mut self) -> Result<Running> {
        let Some(entrance) = &self.entrance else {
            return Err(Error::other(format!("{} is off", self.host)));
        };
        let inner = &mut self.inner;
        let enter_and_start = move || entrance.enter().and_then(|()| inner.spawn());
        let child = thread::scope(|scope| scope.spawn(enter_and_start).join());
        child.expect("starting does not panic").map(Running::of)
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// As [`spawn`](Self::spawn).
    pub fn status(&mut self) -> Result<ExitStatus> {
        self.spawn()?.wait()
    }

    /// Runs it to its end, and collects what it prints; stdin is empty.
    ///
    /// # Errors
    /// As [`spawn`](Self::spawn).
    pub fn output(&mut self) -> Result<Output> {
        self.inner.stdin(Stdio::null());
        self.inner.stdout(Stdio::piped()).stderr(Stdio::piped());
        self.spawn()?.wait_with_output()
    }
}
