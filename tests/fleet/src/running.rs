//! A command that was started on a host.
//!
//! A thread buries it as soon as it is dead, also when nobody asks: a host's first process is not gone before the last of its
//! dead is buried, and whoever turns the power off waits for that.

use std::{
    io::{Read, Result},
    process::{Child, ChildStderr, ChildStdin, ChildStdout, ExitStatus, Output},
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread,
};

use nix::{
    errno::Errno,
    sys::{
        signal::{Signal, kill},
        wait::{Id, WaitPidFlag, waitid},
    },
    unistd::Pid,
};

/// As [`std::process::Child`]. It goes on when this is dropped, and ends with the host.
#[derive(Debug)]
pub struct Running {
    /// Its stdin, where that is a pipe.
    pub stdin: Option<ChildStdin>,
    /// Its stdout, where that is a pipe.
    pub stdout: Option<ChildStdout>,
    /// Its stderr, where that is a pipe.
    pub stderr: Option<ChildStderr>,
    pid: Pid,
    end: Arc<End>,
}

/// How it ended, once it has.
#[derive(Debug, Default)]
struct End {
    status: Mutex<Option<ExitStatus>>,
    known: Condvar,
}

impl Running {
    pub(crate) fn of(mut child: Child) -> Self {
        let pid = Pid::from_raw(child.id().cast_signed());
        let end = Arc::new(End::default());
        let running = Self {
            stdin: child.stdin.take(),
            stdout: child.stdout.take(),
            stderr: child.stderr.take(),
            pid,
            end: Arc::clone(&end),
        };
        thread::spawn(move || bury(child, pid, &end));
        running
    }

    /// Its number on this machine.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.pid.as_raw().cast_unsigned()
    }

    /// Waits for its end, with its stdin closed.
    ///
    /// # Errors
    /// Never; as of [`std::process::Child`].
    pub fn wait(&mut self) -> Result<ExitStatus> {
        self.stdin = None;
        let ended = self
            .end
            .known
            .wait_while(self.end.lock(), |it| it.is_none());
        let status = *ended.expect("nobody panics with it");
        Ok(status.expect("it was waited for"))
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// Never; as of [`std::process::Child`].
    pub fn try_wait(&mut self) -> Result<Option<ExitStatus>> {
        Ok(*self.end.lock())
    }

    /// Waits for its end, and collects what it prints.
    ///
    /// # Errors
    /// When a pipe cannot be read.
    pub fn wait_with_output(mut self) -> Result<Output> {
        self.stdin = None;
        let (stdout, stderr) = (self.stdout.take(), self.stderr.take());
        let (stdout, stderr) = thread::scope(|scope| {
            let stderr = scope.spawn(|| drain(stderr));
            (
                drain(stdout),
                stderr.join().expect("reading does not panic"),
            )
        });
        Ok(Output {
            status: self.wait()?,
            stdout: stdout?,
            stderr: stderr?,
        })
    }

    /// Ends it by SIGKILL.
    ///
    /// # Errors
    /// When it may not be.
    pub fn kill(&mut self) -> Result<()> {
        self.signal(Signal::SIGKILL)
    }

    /// What Ctrl-C does to it.
    ///
    /// # Errors
    /// When it may not be done.
    pub fn interrupt(&mut self) -> Result<()> {
        self.signal(Signal::SIGINT)
    }

    /// Asks it to end, by SIGTERM.
    ///
    /// # Errors
    /// When it may not be done.
    pub fn terminate(&mut self) -> Result<()> {
        self.signal(Signal::SIGTERM)
    }

    /// It is not buried meanwhile, so that its number is not another's.
    fn signal(&self, signal: Signal) -> Result<()> {
        let ended = self.end.lock();
        if ended.is_none() {
            kill(self.pid, signal)?;
        }
        Ok(())
    }
}

impl End {
    fn lock(&self) -> MutexGuard<'_, Option<ExitStatus>> {
        self.status.lock().expect("nobody panics with it")
    }
}

fn bury(mut child: Child, pid: Pid, end: &End) {
    let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
    while waitid(Id::Pid(pid), look) == Err(Errno::EINTR) {}
    let mut status = end.lock();
    *status = Some(child.wait().expect("it is a child of this process"));
    end.known.notify_all();
}

/// All that comes out of a pipe, if there is one.
fn drain(pipe: Option<impl Read>) -> Result<Vec<u8>> {
    let mut all = Vec::new();
    if let Some(mut pipe) = pipe {
        pipe.read_to_end(&mut all)?;
    }
    Ok(all)
}
