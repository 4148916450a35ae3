//! When a host's memory runs out: whom the kernel takes, and whether it has taken a process. Nobody is told; a counter grows.

use std::fs;

/// What decides whom the kernel takes first, of those who use as much: from -1000, never, to 1000.
const SCORE: &str = "/proc/self/oom_score_adj";
/// How much sooner a task is taken than a process that said nothing; as if it used a fifth of the memory more.
const SOONER: i32 = 200;

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

/// The host's count of such kills, as last seen.
pub(crate) struct MemoryWatch {
    kills: u64,
}

impl MemoryWatch {
    pub(crate) fn new() -> Self {
        Self { kills: kills() }
    }

    /// Looks, so that kills up to now are nobody's that is still alive.
    pub(crate) fn look(&mut self) {
        self.kills = kills();
    }

    /// Whether there was one since it last looked. A process that was killed by nobody known is then taken for
    /// its victim: the kernel's count does not say whose memory it took.
    pub(crate) fn was_taken(&mut self) -> bool {
        let before = std::mem::replace(&mut self.kills, kills());
        self.kills > before
    }
}

fn kills() -> u64 {
    let stat = fs::read_to_string("/proc/vmstat").unwrap_or_default();
    parse(&stat).unwrap_or(0)
}

fn parse(vmstat: &str) -> Option<u64> {
    vmstat
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
