//! One login at a host: a script runs there, and says words on lines of their own; what it asks for is sent to it.
//!
//! It must never leave a caller waiting on a host that says nothing, nor take what a login prints for a word of the script.

use std::{
    fmt,
    future::Future,
    hash::{BuildHasher as _, RandomState},
    io,
    process::ExitStatus,
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command},
    task::JoinHandle,
    time::{sleep, timeout},
};

use crate::{destination::Destination, program::Program, ssh};

/// What a word of a script begins with.
const MARK: &str = "fleetpool:";
/// How long ssh and the host's shell may take to say the first word, and the host to take in a piece of the program.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(30);
/// Bytes of the program that are sent before it is looked whether they were taken.
const PIECE_BYTES: usize = 1 << 20;
/// Most that a login may print before the script speaks.
const NOISE_BYTES_MAX: usize = 256 << 10;
/// What is kept of what ssh, the script and the agent say on stderr: the end of it.
const STDERR_BYTES_MAX: usize = 16 << 10;
/// How long it is waited for when the connection is over: something may still hold it open.
const STDERR_TIME_MAX: Duration = Duration::from_secs(1);
/// Logins at a host that is crowded.
const LOGINS_MAX: u32 = 8;
/// Pause before the second; doubled for each that follows, and shortened at random.
const LOGIN_PAUSE: Duration = Duration::from_millis(400);
const LOGIN_PAUSE_MAX: Duration = Duration::from_secs(5);

/// Why something could not be done on a host.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HostError {
    /// There is no ssh on this machine.
    #[error(
        "cannot start ssh: {0}; install OpenSSH's client, or name another program in $FLEETPOOL_SSH"
    )]
    NoSsh(#[source] io::Error),
    /// The program to be brought cannot be read.
    #[error("cannot read the program that is to be brought: {0}")]
    Program(#[source] io::Error),
    /// ssh did not get there.
    #[error("{reason}")]
    Ssh {
        /// What it said.
        reason: String,
        /// Whether it was hung up on before it could log in.
        crowded: bool,
    },
    /// The host does not do it.
    #[error("{reason}")]
    Host {
        /// What it said.
        reason: String,
    },
    /// Nothing came.
    #[error("nothing was heard for {} s: is the host, or its login, stuck?", ANSWER_TIME_MAX.as_secs())]
    Silent,
}

/// A login that is on.
#[derive(Debug)]
pub(crate) struct Conversation {
    pub(crate) read: BufReader<ChildStdout>,
    pub(crate) write: ChildStdin,
    pub(crate) end: AgentEnd,
}

/// The end of a connection, to be waited for. Dropped before, it ends the connection.
#[derive(Debug)]
pub struct AgentEnd {
    ssh: Child,
    stderr: JoinHandle<String>,
}

/// What ended a conversation.
#[derive(Debug)]
pub(crate) enum Halt {
    Error(HostError),
    /// The script has left; its last words are on stderr.
    Over,
}

impl Conversation {
    /// Logs in and has the host run a script.
    ///
    /// # Errors
    /// When there is no ssh. That it does not get there shows with the first word.
    pub(crate) async fn open(to: &Destination, script: &str) -> Result<Self, HostError> {
        Self::with(ssh::command(to, &reads(script)), script).await
    }

    /// The same by any command that reads a script from its stdin.
    pub(crate) async fn with(mut command: Command, script: &str) -> Result<Self, HostError> {
        let mut ssh = command.spawn().map_err(HostError::NoSsh)?;
        let (stdin, stdout) = (ssh.stdin.take(), ssh.stdout.take());
        let stderr = ssh.stderr.take().expect("a pipe");
        let mut write = stdin.expect("a pipe");
        // What cannot be sent is explained by whoever does not take it.
        write.write_all(script.as_bytes()).await.ok();
        Ok(Self {
            read: BufReader::new(stdout.expect("a pipe")),
            write,
            end: AgentEnd {
                ssh,
                stderr: tokio::spawn(tail(stderr)),
            },
        })
    }

    /// The next word of the script, whatever is printed before it.
    pub(crate) async fn word(&mut self) -> Result<String, Halt> {
        let mut noise = 0;
        while noise < NOISE_BYTES_MAX {
            let line = self.line(NOISE_BYTES_MAX - noise).await?;
            if let Some(word) = line.strip_prefix(MARK) {
                return Ok(word.trim_end().to_owned());
            }
            noise += line.len();
        }
        let reason =
            "its login prints without end, and no answer comes: see what `ssh HOST true` prints";
        Err(Halt::Error(HostError::Host {
            reason: reason.to_owned(),
        }))
    }

    /// A line, with its end; of a longer one as much as may come.
    pub(crate) async fn line(&mut self, bytes_max: usize) -> Result<String, Halt> {
        let mut line = Vec::new();
        let mut source = (&mut self.read).take(bytes_max as u64);
        match timeout(ANSWER_TIME_MAX, source.read_until(b'\n', &mut line)).await {
            Err(_) => Err(Halt::Error(HostError::Silent)),
            Ok(Ok(0) | Err(_)) => Err(Halt::Over),
            Ok(Ok(_)) => Ok(String::from_utf8_lossy(&line).into_owned()),
        }
    }

    /// Sends the program.
    pub(crate) async fn send(&mut self, program: &Program) -> Result<(), Halt> {
        let bytes = program.bytes().await;
        let bytes = bytes.map_err(|error| Halt::Error(HostError::Program(error)))?;
        self.say(bytes).await
    }

    /// Sends bytes, as fast as the host takes them in.
    pub(crate) async fn say(&mut self, bytes: &[u8]) -> Result<(), Halt> {
        for piece in bytes.chunks(PIECE_BYTES) {
            match timeout(ANSWER_TIME_MAX, self.write.write_all(piece)).await {
                Err(_) => return Err(Halt::Error(HostError::Silent)),
                Ok(Err(_)) => return Err(Halt::Over),
                Ok(Ok(())) => {}
            }
        }
        Ok(())
    }

    /// Why the conversation did not come to its end.
    pub(crate) async fn explain(self, halt: Halt) -> HostError {
        match halt {
            Halt::Error(error) => error,
            Halt::Over => {
                drop(self.write);
                self.end.why().await
            }
        }
    }

    /// Waits until the script has left by itself.
    pub(crate) async fn close(self) {
        let Self {
            read,
            write,
            mut end,
        } = self;
        drop((read, write));
        timeout(ANSWER_TIME_MAX, end.ssh.wait()).await.ok();
    }
}

impl AgentEnd {
    /// Waits until the connection is over, and says why it is: what the host, or ssh, said at last.
    pub async fn why(mut self) -> HostError {
        let status = self.ssh.wait().await.ok();
        let stderr = timeout(STDERR_TIME_MAX, &mut self.stderr).await;
        let stderr = stderr.ok().and_then(Result::ok).unwrap_or_default();
        explain(status, &stderr)
    }
}

/// Tries again where the host is crowded.
pub(crate) async fn patiently<T, F: Future<Output = Result<T, HostError>>>(
    to: impl fmt::Display,
    log_in: impl Fn() -> F,
) -> Result<T, HostError> {
    for login in 1.. {
        match log_in().await {
            Err(HostError::Ssh {
                crowded: true,
                reason,
            }) if login < LOGINS_MAX => {
                tracing::debug!(%to, reason, login, "hung up on; trying again");
                sleep(pause(login)).await;
            }
            ended => return ended,
        }
    }
    unreachable!("the last login ends it")
}

fn explain(status: Option<ExitStatus>, stderr: &str) -> HostError {
    let code = status.and_then(|status| status.code());
    if code == Some(ssh::FAILED) {
        return HostError::Ssh {
            reason: ssh::reason(stderr),
            crowded: ssh::is_crowded(stderr),
        };
    }
    let lines = stderr.lines().map(str::trim);
    let said: Vec<&str> = lines.filter(|line| !line.is_empty()).collect();
    let ours: Vec<&str> = said
        .iter()
        .filter_map(|line| line.strip_prefix("fleetpool: "))
        .collect();
    let reason = match (ours.last(), said.last()) {
        // What a program of the host said before it says why.
        (Some(ours), Some(_)) if said.len() > 1 && said[said.len() - 2] != *ours => {
            let before = said[said.len() - 2];
            match before.strip_prefix("fleetpool: ") {
                Some(_) => (*ours).to_owned(),
                None => format!("{ours} ({before})"),
            }
        }
        (Some(ours), _) => (*ours).to_owned(),
        (None, Some(last)) if last.contains("GLIBC") => format!(
            "{last}: the program needs a newer C library than this host has; build it on the oldest system of the fleet, or static"
        ),
        (None, Some(last)) => (*last).to_owned(),
        (None, None) => match status {
            Some(status) => format!("it ended ({status}) and did not say why"),
            None => "it ended and did not say why".to_owned(),
        },
    };
    HostError::Host { reason }
}

/// What the host's login shell, of whatever kind, is told: to have a plain one read the script from stdin. `dd` of single
/// bytes takes not one too many.
pub(crate) fn reads(script: &str) -> String {
    let length = script.len();
    format!("exec sh -c 'eval \"$(dd bs=1 count={length} 2>/dev/null)\"'")
}

/// Between single quotes nothing means anything to a shell but the quote itself.
pub(crate) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// The end of what is said on stderr.
async fn tail(mut stderr: ChildStderr) -> String {
    let mut tail = Vec::new();
    let mut piece = [0; 4096];
    while let Ok(read @ 1..) = stderr.read(&mut piece).await {
        tail.extend_from_slice(&piece[..read]);
        let surplus = tail.len().saturating_sub(STDERR_BYTES_MAX);
        tail.drain(..surplus);
    }
    String::from_utf8_lossy(&tail).into_owned()
}

/// A random part of a bound that doubles, so that those who were hung up on do not come back together.
fn pause(login: u32) -> Duration {
    let bound = (LOGIN_PAUSE * 2_u32.saturating_pow(login - 1)).min(LOGIN_PAUSE_MAX);
    let chance = u32::try_from(RandomState::new().hash_one(login) % 1000).unwrap_or(0);
    bound / 2 + bound * chance / 2000
}
