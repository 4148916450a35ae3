//! Runs the built binary.

use std::{
    fs,
    io::Write as _,
    path::Path,
    process::{Child, Command, Output, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

/// How long anything may take that is waited for.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks at what is waited for.
const PAUSE: Duration = Duration::from_millis(10);

/// `fleetpool`, with the words of `line` and no configuration but its own.
pub(crate) fn fleetpool<S: AsRef<std::ffi::OsStr>>(words: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fleetpool"));
    command
        .args(words)
        .env("HOME", "/nonexistent")
        .env_remove("FLEETPOOL_CLUSTER")
        .env_remove("FLEETPOOL_HOSTS")
        .env_remove("FLEETPOOL_IDENTITY")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// What a run came to.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Ran {
    /// The lines of stdout, sorted.
    pub(crate) fn sorted(&self) -> Vec<&str> {
        let mut lines: Vec<_> = self.stdout.lines().collect();
        lines.sort_unstable();
        lines
    }

    /// It said all of this on stderr, in one paragraph, and ended so.
    #[track_caller]
    pub(crate) fn refuses(&self, code: i32, says: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:?}");
        for word in says {
            assert!(self.stderr.contains(word), "no `{word}` in {self:?}");
        }
        assert_eq!(self.stdout, "", "{self:?}");
    }
}

/// Runs with nothing on stdin.
pub(crate) fn run(words: &[&str]) -> Ran {
    fleetpool(words).output().expect("it starts").into()
}

/// Runs in a folder.
pub(crate) fn run_in(dir: &Path, words: &[&str]) -> Ran {
    fleetpool(words)
        .current_dir(dir)
        .output()
        .expect("it starts")
        .into()
}

/// Runs with this on stdin.
pub(crate) fn run_with(input: &[u8], words: &[&str]) -> Ran {
    let mut child = fleetpool(words)
        .stdin(Stdio::piped())
        .spawn()
        .expect("it starts");
    child
        .stdin
        .take()
        .expect("piped")
        .write_all(input)
        .expect("it reads");
    child.wait_with_output().expect("it ends").into()
}

/// Waits for a condition.
#[track_caller]
pub(crate) fn until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "waited in vain: {what}");
        sleep(PAUSE);
    }
}

/// Processes, zombies aside, that have this word in their command line.
pub(crate) fn processes_with(word: &str) -> Vec<String> {
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    let command = |entry: fs::DirEntry| {
        let line = fs::read(entry.path().join("cmdline")).ok()?;
        let mut words = line.split(|byte| *byte == 0);
        words
            .any(|found| found == word.as_bytes())
            .then(|| String::from_utf8_lossy(&line).into_owned())
    };
    entries
        .filter_map(command)
        .filter(|line| !line.contains("fleetpool\0map"))
        .collect()
}

/// A number of seconds that no other test sleeps.
pub(crate) fn own_sleep() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!(
        "9{}.{}",
        NEXT.fetch_add(1, Ordering::Relaxed) + 100,
        std::process::id()
    )
}

/// Sends a signal.
pub(crate) fn signal(child: &Child, signal: nix::sys::signal::Signal) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
    nix::sys::signal::kill(pid, signal).expect("it lives");
}

/// A JSON value a line.
pub(crate) fn json_lines(text: &str) -> Vec<serde_json::Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).expect(line))
        .collect()
}
