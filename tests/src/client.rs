//! A client in the background: a verb of the command line whose lines are read as they come.

use std::{
    io::{BufRead as _, BufReader, Read, Write as _},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// How long anything may take that is waited for here.
const PATIENCE: Duration = Duration::from_secs(30);

/// A client, and what it says, line by line. Killed when the test fails.
#[derive(Debug)]
pub struct Client {
    process: Child,
    stdin: Option<ChildStdin>,
    /// What it prints.
    pub lines: mpsc::Receiver<String>,
    /// What it says about itself.
    pub notes: mpsc::Receiver<String>,
}

impl Client {
    /// Starts it with nothing to read.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(command: &mut Command) -> Self {
        let mut client = Self::fed(command);
        client.stdin = None;
        client
    }

    /// Starts it; it reads what it is [fed](Self::feed).
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn fed(command: &mut Command) -> Self {
        command.stdin(Stdio::piped());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().expect("the client starts");
        let lines = listen(process.stdout.take().expect("piped"));
        let notes = listen(process.stderr.take().expect("piped"));
        let stdin = process.stdin.take();
        Self {
            process,
            stdin,
            lines,
            notes,
        }
    }

    /// Gives it a line for each of these.
    ///
    /// # Panics
    /// When it does not read.
    pub fn feed(&mut self, numbers: impl IntoIterator<Item = u64>) {
        let lines: String = numbers.into_iter().map(|n| format!("{n}\n")).collect();
        let stdin = self.stdin.as_mut().expect("its input is open");
        stdin.write_all(lines.as_bytes()).expect("it reads");
    }

    /// There is nothing more to read.
    pub fn close(&mut self) {
        self.stdin = None;
    }

    /// Waits for its next line.
    ///
    /// # Panics
    /// When none comes in time.
    #[must_use]
    pub fn line(&self) -> String {
        let line = self.lines.recv_timeout(PATIENCE);
        line.unwrap_or_else(|_| panic!("no line comes; it says {:?}", self.said()))
    }

    /// Waits for its one line, and its end as it should be.
    ///
    /// # Panics
    /// When it ends in another way.
    #[must_use]
    pub fn last_line(mut self) -> String {
        self.close();
        let line = self.line();
        assert_eq!(self.end(), (Vec::new(), 0));
        line
    }

    /// What it has said about itself since this was asked last.
    #[must_use]
    pub fn said(&self) -> Vec<String> {
        self.notes.try_iter().collect()
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Stops it with SIGSTOP, until it [goes on](Self::go_on).
    ///
    /// # Panics
    /// When it has ended by itself.
    pub fn stop(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Lets it go on.
    ///
    /// # Panics
    /// When it has ended by itself.
    pub fn go_on(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.pid()).expect("a pid"));
        kill(pid, signal).expect("it runs");
    }

    /// Waits for its end: every line that was not read yet, and how it ended.
    ///
    /// # Panics
    /// When it is not this process's child.
    #[must_use]
    pub fn end(mut self) -> (Vec<String>, i32) {
        self.close();
        let lines = self.lines.iter().collect();
        let status = self.process.wait().expect("it is our child");
        (lines, status.code().unwrap_or(-1))
    }

    /// Kills it with SIGKILL, and waits for its end.
    ///
    /// # Panics
    /// When it has ended by itself.
    pub fn kill(&mut self) {
        self.process.kill().expect("it runs");
        self.process.wait().expect("it is our child");
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // It may have ended by itself, which is as good.
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

fn listen(from: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (said, lines) = mpsc::channel();
    thread::spawn(move || {
        let mut read = BufReader::new(from).lines().map_while(Result::ok);
        // A test that has failed does not listen.
        read.all(|line| said.send(line).is_ok())
    });
    lines
}
