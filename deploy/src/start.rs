//! An agent for one run, started over ssh: the program is brought to the host where it is not there yet.

use std::{
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

/// What becomes the agent, on the host.
const SCRIPT: &str = include_str!("../scripts/agent.sh");
/// The words of the script.
const NEED: &[u8] = b"fleetpool:need\n";
const READY: &[u8] = b"fleetpool:ready\n";

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

/// Why there is no agent on a host.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// There is no ssh on this machine.
    #[error(
        "cannot start ssh: {0}; install OpenSSH's client, or name another program in $FLEETPOOL_SSH"
    )]
    NoSsh(#[source] io::Error),
    /// The program to be brought cannot be read.
    #[error("cannot read the program that is to be the agent: {0}")]
    Program(#[source] io::Error),
    /// ssh did not get there.
    #[error("{reason}")]
    Ssh {
        /// What it said.
        reason: String,
        /// Whether it was hung up on before it could log in.
        crowded: bool,
    },
    /// The host does not become one of the fleet.
    #[error("{reason}")]
    Host {
        /// What it said.
        reason: String,
    },
    /// Nothing came.
    #[error("nothing was heard for {} s: is the host, or its login, stuck?", ANSWER_TIME_MAX.as_secs())]
    Silent,
}

/// An agent that is about to speak.
#[derive(Debug)]
pub struct Agent {
    /// What it says.
    pub read: BufReader<ChildStdout>,
    /// What it hears.
    pub write: ChildStdin,
    /// How it ends.
    pub end: AgentEnd,
}

/// The end of an agent, to be waited for. Dropped before, it ends the connection.
#[derive(Debug)]
pub struct AgentEnd {
    ssh: Child,
    stderr: JoinHandle<String>,
}

/// Starts an agent at `to`, which is called by the destination's name; `program` becomes one when it is started with `verb`, the
/// name and its own hash. Logs in again where a host is crowded.
///
/// # Errors
/// When ssh does not get there, or the host cannot run it; each says what to do.
pub async fn start_agent(
    to: &Destination,
    program: &Program,
    verb: &str,
) -> Result<Agent, StartError> {
    for login in 1.. {
        match log_in(to, program, verb).await {
            Err(StartError::Ssh {
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

async fn log_in(to: &Destination, program: &Program, verb: &str) -> Result<Agent, StartError> {
    let script = script(to.name(), program, verb);
    talk(ssh::command(to, &reads(&script)), &script, program).await
}

/// Has `command` run the script, and brings it the program if it needs it.
async fn talk(mut command: Command, script: &str, program: &Program) -> Result<Agent, StartError> {
    let mut ssh = command.spawn().map_err(StartError::NoSsh)?;
    let (stdin, stdout) = (ssh.stdin.take(), ssh.stdout.take());
    let stderr = ssh.stderr.take().expect("a pipe");
    let mut agent = Agent {
        read: BufReader::new(stdout.expect("a pipe")),
        write: stdin.expect("a pipe"),
        end: AgentEnd {
            ssh,
            stderr: tokio::spawn(tail(stderr)),
        },
    };
    match agent.become_ready(script, program).await {
        Ok(()) => Ok(agent),
        Err(Halt::Error(error)) => Err(error),
        Err(Halt::Over) => {
            drop(agent.write);
            Err(agent.end.why().await)
        }
    }
}

/// What ended the conversation with the script.
enum Halt {
    Error(StartError),
    /// It has left; its last words are on stderr.
    Over,
}

impl Agent {
    async fn become_ready(&mut self, script: &str, program: &Program) -> Result<(), Halt> {
        // What cannot be sent is explained by whoever does not take it.
        self.write.write_all(script.as_bytes()).await.ok();
        if self.word().await? == Word::Need {
            self.send(program).await?;
            self.word().await?;
        }
        Ok(())
    }

    /// The next word of the script, whatever is printed before it.
    async fn word(&mut self) -> Result<Word, Halt> {
        let mut noise = 0;
        let mut line = Vec::new();
        while noise < NOISE_BYTES_MAX {
            line.clear();
            let room = (NOISE_BYTES_MAX - noise) as u64;
            let mut source = (&mut self.read).take(room);
            let read = source.read_until(b'\n', &mut line);
            match timeout(ANSWER_TIME_MAX, read).await {
                Err(_) => return Err(Halt::Error(StartError::Silent)),
                Ok(Ok(0) | Err(_)) => return Err(Halt::Over),
                Ok(Ok(read)) => noise += read,
            }
            match &line[..] {
                NEED => return Ok(Word::Need),
                READY => return Ok(Word::Ready),
                _ => {}
            }
        }
        let reason =
            "its login prints without end, and no agent comes: see what `ssh HOST true` prints"
                .to_owned();
        Err(Halt::Error(StartError::Host { reason }))
    }

    async fn send(&mut self, program: &Program) -> Result<(), Halt> {
        let bytes = program.bytes().await;
        let bytes = bytes.map_err(|error| Halt::Error(StartError::Program(error)))?;
        for piece in bytes.chunks(PIECE_BYTES) {
            match timeout(ANSWER_TIME_MAX, self.write.write_all(piece)).await {
                Err(_) => return Err(Halt::Error(StartError::Silent)),
                Ok(Err(_)) => return Err(Halt::Over),
                Ok(Ok(())) => {}
            }
        }
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    Need,
    Ready,
}

impl AgentEnd {
    /// Waits until the connection is over, and says why it is: what the host, or ssh, said at last.
    pub async fn why(mut self) -> StartError {
        let status = self.ssh.wait().await.ok();
        let stderr = timeout(STDERR_TIME_MAX, &mut self.stderr).await;
        let stderr = stderr.ok().and_then(Result::ok).unwrap_or_default();
        explain(status, &stderr)
    }
}

fn explain(status: Option<ExitStatus>, stderr: &str) -> StartError {
    let code = status.and_then(|status| status.code());
    if code == Some(ssh::FAILED) {
        return StartError::Ssh {
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
    StartError::Host { reason }
}

/// What the host's login shell, of whatever kind, is told: to have a plain one read the script from stdin. `dd` of single
/// bytes takes not one too many.
fn reads(script: &str) -> String {
    let length = script.len();
    format!("exec sh -c 'eval \"$(dd bs=1 count={length} 2>/dev/null)\"'")
}

/// The script with what it is to know. Nothing in these values means anything to a shell between single quotes but the quote itself.
fn script(name: &str, program: &Program, verb: &str) -> String {
    let (hash, size, platform) = (program.hex(), program.size(), Program::platform());
    let name = name.replace('\'', "'\\''");
    format!("name='{name}' program={hash} size={size} platform='{platform}' verb={verb}\n{SCRIPT}")
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

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{MetadataExt as _, PermissionsExt as _},
        path::{Path, PathBuf},
        process::Stdio,
    };

    use tempfile::TempDir;

    use super::*;

    /// A host whose ssh is a shell of this machine, with a home of its own; and a program that says what it was told.
    struct Host {
        home: TempDir,
        program: Program,
    }

    impl Host {
        fn new() -> Self {
            let home = tempfile::tempdir().unwrap();
            let path = home.path().join("program");
            fs::write(&path, "#!/bin/sh\necho \"$@\"\nexec cat\n").unwrap();
            let program = Program::of(&path).unwrap();
            Self { home, program }
        }

        /// Its login prints something and then does what ssh is told to.
        fn ssh(&self, script: &str) -> Command {
            let mut command = Command::new("sh");
            let line = format!("echo welcome; {}", reads(script));
            command.args(["-c", &line]).env("HOME", self.home.path());
            command.env_remove("XDG_CACHE_HOME").kill_on_drop(true);
            command.stdin(Stdio::piped()).stdout(Stdio::piped());
            command.stderr(Stdio::piped());
            command
        }

        fn script(&self) -> String {
            script("it's", &self.program, "verb")
        }

        async fn start(&self) -> Result<Agent, StartError> {
            let script = self.script();
            talk(self.ssh(&script), &script, &self.program).await
        }

        fn cache(&self) -> PathBuf {
            self.home.path().join(".cache/fleetpool/bin")
        }

        fn cached(&self) -> Vec<String> {
            let names = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name();
            let entries = fs::read_dir(self.cache()).into_iter().flatten();
            entries
                .map(names)
                .map(|name| name.into_string().unwrap())
                .collect()
        }
    }

    /// Another number after the file was replaced.
    fn inode(path: &Path) -> u64 {
        fs::metadata(path).unwrap().ino()
    }

    #[tokio::test]
    async fn the_program_is_brought_once_and_becomes_what_it_is_asked_to() {
        let host = Host::new();
        for _ in 0..2 {
            let mut agent = host.start().await.unwrap();
            let mut line = String::new();
            agent.read.read_line(&mut line).await.unwrap();
            assert_eq!(line, format!("verb it's {}\n", host.program.hex()));
            // From here on the streams are the program's own.
            agent.write.write_all(b"hello\n").await.unwrap();
            line.clear();
            agent.read.read_line(&mut line).await.unwrap();
            assert_eq!(line, "hello\n");
            assert_eq!(host.cached(), [host.program.hex()]);
        }
    }

    #[tokio::test]
    async fn what_is_in_the_cache_is_not_sent_again_and_what_is_cut_off_there_is() {
        let host = Host::new();
        let file = host.cache().join(host.program.hex());
        drop(host.start().await.unwrap());
        let first = inode(&file);
        drop(host.start().await.unwrap());
        assert_eq!(inode(&file), first);
        fs::write(&file, "#!/bin/sh").unwrap();
        drop(host.start().await.unwrap());
        assert_eq!(fs::metadata(&file).unwrap().len(), host.program.size());
        assert_eq!(
            fs::metadata(&file).unwrap().permissions().mode() & 0o777,
            0o700
        );
    }

    #[tokio::test]
    async fn a_client_that_dies_while_it_sends_leaves_nothing() {
        let host = Host::new();
        let script = host.script();
        let mut shell = host.ssh(&script).spawn().unwrap();
        let mut stdin = shell.stdin.take().unwrap();
        stdin.write_all(script.as_bytes()).await.unwrap();
        stdin.write_all(b"#!/bin").await.unwrap();
        drop(stdin);
        assert!(!shell.wait().await.unwrap().success());
        assert!(host.cached().is_empty(), "{:?}", host.cached());
    }

    #[tokio::test]
    async fn a_host_that_cannot_be_one_says_why() {
        let host = Host::new();
        let script = host.script();
        let other = script.replace(Program::platform(), "Plan9 mips");
        let error = talk(host.ssh(&other), &other, &host.program)
            .await
            .unwrap_err();
        assert!(error.to_string().contains("made for Plan9 mips"), "{error}");
        fs::write(host.home.path().join(".cache"), "a file").unwrap();
        let error = host.start().await.unwrap_err();
        assert!(error.to_string().starts_with("cannot make "), "{error}");
        assert!(error.to_string().contains("mkdir"), "{error}");
    }

    #[tokio::test]
    async fn what_kept_the_agent_from_starting_is_told() {
        let host = Host::new();
        let mut command = Command::new("sh");
        command
            .args(["-c", "echo no such luck >&2; exit 3"])
            .kill_on_drop(true);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let error = talk(command, "", &host.program).await.unwrap_err();
        assert_eq!(error.to_string(), "no such luck");
    }
}
