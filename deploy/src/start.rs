//! An agent for one run, started over ssh: the program is brought to the host where it is not there yet.

use tokio::{
    io::BufReader,
    process::{ChildStdin, ChildStdout},
};

use crate::{
    conversation::{AgentEnd, Conversation, Halt, HostError, patiently, quoted},
    destination::Destination,
    program::Program,
};

/// What becomes the agent, on the host.
const SCRIPT: &str = include_str!("../scripts/agent.sh");
/// The words of the script.
const NEED: &str = "need";
const READY: &str = "ready";

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

/// Starts an agent at `to`, which is called by the destination's name; `program` becomes one when it is started with `verb`, the
/// name and its own hash. Logs in again where a host is crowded.
///
/// # Errors
/// When ssh does not get there, or the host cannot run it; each says what to do.
pub async fn start_agent(
    to: &Destination,
    program: &Program,
    verb: &str,
) -> Result<Agent, HostError> {
    let script = script(to.name(), program, verb);
    patiently(to, || async {
        become_agent(Conversation::open(to, &script).await?, program).await
    })
    .await
}

/// Brings the script the program if it needs it, and leaves the line to the agent.
async fn become_agent(mut talk: Conversation, program: &Program) -> Result<Agent, HostError> {
    match ready(&mut talk, program).await {
        Ok(()) => Ok(Agent {
            read: talk.read,
            write: talk.write,
            end: talk.end,
        }),
        Err(halt) => Err(talk.explain(halt).await),
    }
}

async fn ready(talk: &mut Conversation, program: &Program) -> Result<(), Halt> {
    loop {
        match talk.word().await?.as_str() {
            NEED => talk.send(program).await?,
            READY => return Ok(()),
            _ => {}
        }
    }
}

/// The script with what it is to know.
fn script(name: &str, program: &Program, verb: &str) -> String {
    let (hash, size, platform) = (program.hex(), program.size(), Program::platform());
    let name = quoted(name);
    format!("name={name} program={hash} size={size} platform='{platform}' verb={verb}\n{SCRIPT}")
}

#[cfg(test)]
mod tests {
    use std::{
        fs, io,
        os::unix::fs::{MetadataExt as _, PermissionsExt as _},
        path::{Path, PathBuf},
        process::Stdio,
    };

    use tempfile::TempDir;
    use tokio::{
        io::{AsyncBufReadExt as _, AsyncWriteExt as _},
        process::Command,
    };

    use super::*;
    use crate::conversation::reads;

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

        async fn start(&self) -> Result<Agent, HostError> {
            let script = self.script();
            become_agent(
                Conversation::with(self.ssh(&script), &script).await?,
                &self.program,
            )
            .await
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
        // Not the same file: what was started from it may still run.
        fs::remove_file(&file).unwrap();
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
        let talk = Conversation::with(host.ssh(&other), &other).await.unwrap();
        let error = become_agent(talk, &host.program).await.unwrap_err();
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
        let talk = Conversation::with(command, "").await.unwrap();
        let error = become_agent(talk, &host.program).await.unwrap_err();
        assert_eq!(error.to_string(), "no such luck");
    }
}
