//! When memory runs out: whom the kernel takes, and whether it has taken a process. Nobody is told; a counter grows.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
};

use nix::unistd::Pid;

use crate::{spawner::Leaf, tree::is_dying};

/// What decides whom the kernel takes first, of those who use as much: from -1000, never, to 1000.
const SCORE: &str = "/proc/self/oom_score_adj";
/// How much sooner a task is taken than a process that said nothing; as if it used a fifth of the memory more.
const SOONER: i32 = 200;
/// What shells add to a signal's number to make it a status.
const SHELL_SIGNAL: i32 = 128;

/// Has the kernel take this process before its agent, and what it will start, which inherits it. An agent or spawner may have
/// been started as one that is to be spared: its tasks are not.
pub(crate) fn offer() {
    let now = fs::read_to_string(SCORE);
    let now: i32 = now
        .ok()
        .and_then(|now| now.trim().parse().ok())
        .unwrap_or(0);
    let score = (now.max(0) + SOONER).min(1000);
    // Everybody may raise it. Without /proc the largest is taken, which is seldom an agent.
    fs::write(SCORE, score.to_string()).ok();
}

/// Such a count is a few lines of a cgroup's.
const COUNT_BYTES_MAX: usize = 1024;

/// A count of such kills, as last seen.
pub(crate) struct MemoryWatch {
    /// The count of this keeper's own cgroup. `None`: the host's.
    own: Option<File>,
    kills: u64,
}

impl MemoryWatch {
    pub(crate) fn new(leaf: &Leaf) -> Self {
        // A kernel's of before there was a count has none.
        let own = leaf.kills().filter(|file| count(file).is_some());
        let mut watch = Self { own, kills: 0 };
        watch.kills = watch.kills();
        watch
    }

    /// Looks while a task runs, so that kills up to now are nobody's that is still alive: `main` may be the next, and on its way
    /// already, since where memory is short this look itself may take as long. Those of its own cgroup may be its children.
    pub(crate) fn look_within(&mut self, main: Pid) {
        if self.own.is_none() {
            let kills = self.kills();
            if !is_dying(main) {
                self.kills = kills;
            }
        }
    }

    /// Looks when a task has ended well, so that what the kernel took of it is not the next one's.
    pub(crate) fn look_behind(&mut self) {
        if self.own.is_some() {
            self.kills = self.kills();
        }
    }

    /// Whether the kernel took the memory of what has ended like this since it last looked. Where it is the host's count, a process
    /// that was killed by nobody known is taken for the victim: that count does not say whose memory it took. In a cgroup of its
    /// own a task is a victim, too, whose child was killed, if it passes on what it was told of that, as shells do.
    pub(crate) fn was_taken(&mut self, signal: Option<i32>, exit: Option<i32>) -> bool {
        let is_killed = signal == Some(libc::SIGKILL)
            || self.own.is_some() && exit == Some(SHELL_SIGNAL + libc::SIGKILL);
        if !is_killed {
            self.look_behind();
            return false;
        }
        let before = self.kills;
        self.kills = self.kills();
        self.kills > before
    }

    fn kills(&self) -> u64 {
        let kills = match &self.own {
            Some(file) => count(file),
            None => parse(&fs::read_to_string("/proc/vmstat").unwrap_or_default()),
        };
        kills.unwrap_or(0)
    }
}

/// The count in a file that stays open.
fn count(file: &File) -> Option<u64> {
    let mut bytes = [0; COUNT_BYTES_MAX];
    let len = file.read_at(&mut bytes, 0).ok()?;
    parse(std::str::from_utf8(&bytes[..len]).ok()?)
}

fn parse(counts: &str) -> Option<u64> {
    counts
        .lines()
        .find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_found() {
        assert_eq!(parse("nr_free 1\noom_kill 42\noom_kill_x 3\n"), Some(42));
        assert_eq!(parse("nr_free 1\n"), None);
        assert!(parse(&fs::read_to_string("/proc/vmstat").unwrap()).is_some());
    }
}
