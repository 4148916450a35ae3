//! Programs as tasks.

use std::{
    ffi::OsString,
    io::{self, Write as _},
    os::unix::{
        ffi::{OsStrExt as _, OsStringExt as _},
        process::ExitStatusExt as _,
    },
    path::PathBuf,
    process::{Command, Stdio},
};

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::{error::Error, handle::TaskHandle, pool::Pool};

/// A program to be run in a slot of a pool. Made by [`Pool::command`].
///
/// It is started on the host of the slot, without a shell, with the pool's environment and folder and no standard
/// input unless one is given.
#[derive(Debug)]
#[must_use = "a command runs when run() or start() is called"]
pub struct CommandBuilder<'a> {
    pool: &'a Pool,
    order: Order,
}

/// How a program ended and what it wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CommandOutput {
    /// The status it exited with; `None` when a signal ended it.
    pub exit: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// What it wrote to its standard output.
    #[serde(with = "serde_bytes")]
    pub stdout: Vec<u8>,
    /// What it wrote to its standard error.
    #[serde(with = "serde_bytes")]
    pub stderr: Vec<u8>,
}

impl CommandOutput {
    /// Whether it exited with status 0.
    #[must_use]
    pub fn success(&self) -> bool {
        self.exit == Some(0)
    }
}

/// What travels to the host.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Order {
    words: Vec<ByteBuf>,
    env: Vec<(String, Option<String>)>,
    cwd: Option<ByteBuf>,
    #[serde(with = "serde_bytes")]
    stdin: Vec<u8>,
}

impl<'a> CommandBuilder<'a> {
    pub(crate) fn new(pool: &'a Pool, program: OsString) -> Self {
        let words = vec![ByteBuf::from(program.into_vec())];
        let order = Order {
            words,
            ..Order::default()
        };
        Self { pool, order }
    }

    /// Adds an argument.
    pub fn arg(mut self, word: impl Into<OsString>) -> Self {
        self.order.words.push(ByteBuf::from(word.into().into_vec()));
        self
    }

    /// Adds arguments.
    pub fn args<W: Into<OsString>>(self, words: impl IntoIterator<Item = W>) -> Self {
        words.into_iter().fold(self, Self::arg)
    }

    /// Sets a variable of its environment.
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.order.env.push((name.into(), Some(value.into())));
        self
    }

    /// Removes a variable from its environment.
    pub fn env_remove(mut self, name: impl Into<String>) -> Self {
        self.order.env.push((name.into(), None));
        self
    }

    /// Its folder.
    pub fn cwd(mut self, folder: impl Into<PathBuf>) -> Self {
        let folder = folder.into().into_os_string().into_vec();
        self.order.cwd = Some(ByteBuf::from(folder));
        self
    }

    /// What it reads from its standard input.
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.order.stdin = bytes.into();
        self
    }

    /// Runs it and waits for its end. That it exits with another status than 0 is no error here.
    ///
    /// # Errors
    /// When it could not be started or was lost, or the pool has ended.
    pub fn run(self) -> Result<CommandOutput, Error> {
        self.start()?.get()
    }

    /// Runs it in the background.
    ///
    /// # Errors
    /// When the pool takes no calls any more.
    pub fn start(self) -> Result<TaskHandle<CommandOutput>, Error> {
        self.pool.apply_async(run_command, self.order)
    }
}

/// The task that runs a command: in a worker, like every other.
#[crate::task]
fn run_command(order: Order) -> CommandOutput {
    match order.run() {
        Ok(output) => output,
        Err(error) => {
            let program = String::from_utf8_lossy(order.words.first().map_or(&[], |word| word));
            panic!("cannot run {program}: {error}")
        }
    }
}

impl Order {
    fn run(&self) -> io::Result<CommandOutput> {
        let mut child = self.command().spawn()?;
        let stdin = child.stdin.take();
        let output = std::thread::scope(|scope| {
            // Beside the reading: a program may want to write before it reads on. One that does not read is no error.
            scope.spawn(|| stdin.map(|mut stdin| stdin.write_all(&self.stdin)));
            child.wait_with_output()
        })?;
        Ok(CommandOutput {
            exit: output.status.code(),
            signal: output.status.signal(),
            stdout: output.stdout,
            stderr: output.stderr,
        })
    }

    fn command(&self) -> Command {
        let mut words = self
            .words
            .iter()
            .map(|word| std::ffi::OsStr::from_bytes(word));
        let mut command = Command::new(words.next().unwrap_or_default());
        command
            .args(words)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command.stdin(match self.stdin.is_empty() {
            true => Stdio::null(),
            false => Stdio::piped(),
        });
        for (name, value) in &self.env {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        if let Some(folder) = &self.cwd {
            command.current_dir(std::ffi::OsStr::from_bytes(folder));
        }
        command
    }
}
