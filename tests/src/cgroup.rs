//! Cgroups of the kernel's first interface, as tests look at them and make them. Needs root.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// Where the hierarchies are mounted.
const MOUNTS: &str = "/sys/fs/cgroup";
/// How long what was killed may take to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// A cgroup of the test's own, which holds some processes to a limit. What is in it is killed at its end.
#[derive(Debug)]
pub struct Group(PathBuf);

impl Group {
    /// One of that controller, with what its files are to say.
    ///
    /// # Panics
    /// Where it cannot be made.
    #[must_use]
    pub fn new(controller: &str, name: &str, limits: &[(&str, u64)]) -> Self {
        let name = format!("test-of-fleetpool-{name}-{}", std::process::id());
        let folder = Path::new(MOUNTS).join(controller).join(name);
        fs::create_dir(&folder).expect("a cgroup of the first version: these tests run as root");
        let group = Self(folder);
        for (file, limit) in limits {
            fs::write(group.0.join(file), limit.to_string()).expect("a limit");
        }
        group
    }

    /// Where it is.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.0
    }

    /// Takes in a process and all that is below it.
    ///
    /// # Panics
    /// When it has ended.
    pub fn take(&self, pid: u32) {
        fs::write(self.0.join("cgroup.procs"), pid.to_string()).expect("it runs");
        children(pid).for_each(|pid| self.take(pid));
    }

    /// Who is in it.
    #[must_use]
    pub fn processes(&self) -> Vec<u32> {
        processes(&self.0)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let until = Instant::now() + PATIENCE;
        while fs::remove_dir(&self.0).is_err() && Instant::now() < until {
            for pid in self.processes() {
                let pid = Pid::from_raw(i32::try_from(pid).expect("a pid"));
                // It may have ended.
                kill(pid, Signal::SIGKILL).ok();
            }
            sleep(Duration::from_millis(20));
        }
    }
}

/// Who is in a cgroup, itself.
#[must_use]
pub fn processes(cgroup: &Path) -> Vec<u32> {
    let text = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|pid| pid.parse().ok()).collect()
}

/// The cgroup of a process, of that controller.
///
/// # Panics
/// When there is no such process, or this is another interface.
#[must_use]
pub fn cgroup_of(pid: u32, controller: &str) -> PathBuf {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("it runs");
    let mut lines = text.lines().filter_map(|line| line.split_once(':'));
    let found = lines.find_map(|(_, line)| line.strip_prefix(controller)?.strip_prefix(":/"));
    let found = found.expect("a cgroup of the first version: these tests need root");
    Path::new(MOUNTS).join(controller).join(found)
}

/// The cgroup in which the tasks of a spawner have their leaves, of that controller.
///
/// # Panics
/// When it has none.
#[must_use]
pub fn tasks_of(spawner: u32, controller: &str) -> PathBuf {
    let seat = cgroup_of(spawner, controller);
    let all = seat.parent().expect("it is below another").to_owned();
    let name = all.file_name().expect("a name").to_string_lossy();
    assert!(name.starts_with("fleetpool-"), "{}", all.display());
    all
}

/// The leaves of all tasks' cgroup.
#[must_use]
pub fn leaves(all: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(all).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    folders.map(|entry| entry.path()).collect()
}

/// The spawner of an agent that has one to itself.
///
/// # Panics
/// When it has none.
#[must_use]
pub fn spawner_of(agent: u32) -> u32 {
    children(agent).next().expect("an agent has a spawner")
}

fn children(pid: u32) -> impl Iterator<Item = u32> {
    let below = Command::new("pgrep")
        .args(["-P", &pid.to_string()])
        .output();
    let below = String::from_utf8(below.expect("it starts").stdout).expect("text");
    let pids: Vec<u32> = below
        .lines()
        .map(|pid| pid.parse().expect("a pid"))
        .collect();
    pids.into_iter()
}
