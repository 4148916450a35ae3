//! The shell that all hosts are in, as its owner sees it.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::Mutex,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

/// What a yard and its hosts need of the machine, and the Debian package that has it.
const NEEDED: &[(&str, &str)] = &[
    ("/usr/sbin/sshd", "openssh-server"),
    ("/usr/bin/ssh", "openssh-client"),
    ("/usr/bin/sudo", "sudo"),
    ("/usr/sbin/nft", "nftables"),
    ("/usr/sbin/ip", "iproute2"),
    ("/usr/bin/unshare", "util-linux"),
];

/// A host has systemd, the machine two cores, and other tests are hungry.
const BOOT_MAX: Duration = Duration::from_secs(60);

/// The scripts are read from where they were when this was built, as all tests read their files.
fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(name)
}

/// A yard; ends, with all that is in it, when it is dropped.
#[derive(Debug)]
pub(crate) struct Yard {
    shell: Child,
    talk: Mutex<Talk>,
}

#[derive(Debug)]
struct Talk {
    /// Until the yard is to end.
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Yard {
    pub(crate) fn start() -> Result<Self> {
        check_machine()?;
        let mut shell = Command::new("unshare")
            .args(["--net", "--mount", "--propagation", "private"])
            .args(["--pid", "--fork", "--kill-child=KILL", "bash"])
            .arg(script("yard.sh"))
            .arg(script("host.sh"))
            // Signals to the owner's group, as Ctrl-C, are not for hosts: they end with the pipe, all at once.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start unshare")?;
        let talk = Talk {
            requests: shell.stdin.take(),
            answers: BufReader::new(shell.stdout.take().context("no pipe")?),
        };
        let yard = Self {
            shell,
            talk: Mutex::new(talk),
        };
        yard.talk
            .lock()
            .expect("nobody panics with it")
            .answer(".ready")?;
        Ok(yard)
    }

    /// Has the yard do something: what it printed.
    pub(crate) fn ask(&self, request: &str) -> Result<String> {
        let mut talk = self.talk.lock().expect("nobody panics with it");
        let pipe = talk.requests.as_mut().context("the yard has ended")?;
        writeln!(pipe, "{request}").context("the yard is gone")?;
        let (said, end) = talk.answer(".end ")?;
        ensure!(end == "0", "the yard failed at `{request}`: {said}");
        Ok(said)
    }

    /// Waits until a host can be logged in to.
    pub(crate) fn wait_for(&self, host: &str) -> Result<()> {
        let start = Instant::now();
        loop {
            match self.ask(&format!("state {host}"))?.trim() {
                "up" => return Ok(()),
                "starting" => {}
                dead => bail!("{host} does not come up: {dead}"),
            }
            ensure!(
                start.elapsed() < BOOT_MAX,
                "{host} does not come up in {BOOT_MAX:?}"
            );
            sleep(Duration::from_millis(10));
        }
    }
}

impl Talk {
    /// All lines before the one that begins so, and the rest of that one.
    fn answer(&mut self, end: &str) -> Result<(String, String)> {
        let mut said = String::new();
        loop {
            let mut line = String::new();
            if self.answers.read_line(&mut line)? == 0 {
                bail!("the yard is gone: {said}");
            }
            match line.strip_prefix(end) {
                Some(rest) => return Ok((said, rest.trim_end().to_owned())),
                None => said.push_str(&line),
            }
        }
    }
}

impl Drop for Yard {
    fn drop(&mut self) {
        // The end of its pipe is the end of the yard, and all its processes are gone before `unshare` is.
        if let Ok(talk) = self.talk.get_mut() {
            talk.requests = None;
        } else {
            let _ = self.shell.kill();
        }
        let _ = self.shell.wait();
    }
}

/// As one word of a request, which is one line.
pub(crate) fn quoted(text: &str) -> String {
    let text = text.replace('\\', "\\\\").replace('\'', "\\'");
    format!("$'{}'", text.replace('\n', "\\n"))
}

/// Whether a fleet can be had here, and what to do where it cannot.
fn check_machine() -> Result<()> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "a fleet of hosts in namespaces needs root: run this as root, in a container if you like"
    );
    let missing: Vec<&str> = NEEDED
        .iter()
        .filter(|(file, _)| !Path::new(file).exists())
        .map(|(_, package)| *package)
        .collect();
    ensure!(
        missing.is_empty(),
        "a fleet of hosts needs {}: `make fleet-packages` installs what is missing",
        missing.join(", ")
    );
    Ok(())
}
