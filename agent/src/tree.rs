//! Process trees, as `/proc` tells them.
//!
//! A subreaper inherits every orphan below it, so "below this process" is everything a task has ever started,
//! `setsid` and double forks included. Used by the spawner and its keepers alone: they are the subreapers.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
    fs,
    os::unix::fs::MetadataExt as _,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// Most rounds of stopping. Each finds what was forked during the one before, by ever fewer processes.
const STOP_ROUNDS_MAX: usize = 16;

/// Every process below this one, parents first, except `spared` and what is below those.
pub(crate) fn descendants(spared: &BTreeSet<Pid>) -> Vec<Pid> {
    let children = Children::look();
    let mut found = children.of(Pid::this());
    found.retain(|pid| !spared.contains(pid));
    let mut next = 0;
    while next < found.len() {
        found.extend(children.of(found[next]));
        next += 1;
    }
    found
}

/// This process's own children, ended ones that were not waited for included.
pub(crate) fn own_children() -> Vec<Pid> {
    Children::look().of(Pid::this())
}

/// Signals every process below this one, and tells which of them were not yet dead.
pub(crate) fn signal_all(signal: Signal, spared: &BTreeSet<Pid>) -> Vec<Pid> {
    signal_these(signal, descendants(spared))
}

/// Signals these, and tells which of them were not yet dead.
pub(crate) fn signal_these(signal: Signal, mut these: Vec<Pid>) -> Vec<Pid> {
    these.retain(|&pid| is_alive(pid) && kill(pid, signal).is_ok());
    these
}

/// TERM to every process below this one; those that are stopped are continued, or they would not hear it.
pub(crate) fn terminate_all(spared: &BTreeSet<Pid>) {
    for pid in signal_all(Signal::SIGTERM, spared) {
        // It may be gone by now, which is what was wanted.
        let _ = kill(pid, Signal::SIGCONT);
    }
}

/// KILL to every process below this one, and tells which those were. Call it again until none are left: what
/// they fork meanwhile is found by the next call.
pub(crate) fn kill_all(spared: &BTreeSet<Pid>) -> Vec<Pid> {
    signal_all(Signal::SIGKILL, spared)
}

/// STOP to every process below this one, until none is found that was not stopped before: what forks faster than it
/// can be killed does so no longer. Each is stopped before its children are looked for, so that they are all there.
pub(crate) fn stop_all(spared: &BTreeSet<Pid>) {
    let mut stopped = BTreeSet::new();
    for _ in 0..STOP_ROUNDS_MAX {
        let children = Children::look();
        let mut found = children.of(Pid::this());
        found.retain(|pid| !spared.contains(pid));
        let before = stopped.len();
        while let Some(pid) = found.pop() {
            if stopped.insert(pid) {
                // It may be dead by now.
                let _ = kill(pid, Signal::SIGSTOP);
            }
            found.extend(children.of(pid));
        }
        if stopped.len() == before {
            return;
        }
    }
}

/// Whether a process is one of this binary, as keepers are.
pub(crate) fn runs_our_program(pid: Pid) -> bool {
    let program = |pid: &dyn Display| {
        let program = fs::metadata(format!("/proc/{pid}/exe")).ok()?;
        Some((program.dev(), program.ino()))
    };
    program(&pid).is_some_and(|theirs| program(&"self") == Some(theirs))
}

/// Whether a process runs: ended ones that wait to be reaped do not count.
fn is_alive(pid: Pid) -> bool {
    let Ok(stat) = fs::read(format!("/proc/{pid}/stat")) else {
        return false;
    };
    !matches!(fields_after_name(&stat).first(), Some(&b"Z") | Some(&b"X"))
}

/// Whether a process has ended or is about to: it has been sent SIGKILL, which takes a while when it has much memory.
pub(crate) fn is_dying(pid: Pid) -> bool {
    // Fields 9, 31 and 52 of proc(5): PF_EXITING and PF_SIGNALED of linux/sched.h, SIGKILL among the pending signals, and as what is to
    // end the process. Between the first two there is a moment in which neither shows; older kernels do not have the third before the end.
    const GOING: u64 = 0x4 | 0x400;
    const KILL: u64 = libc::SIGKILL as u64;
    let Ok(stat) = fs::read(format!("/proc/{pid}/stat")) else {
        return true;
    };
    let fields = fields_after_name(&stat);
    let number = |field: usize| {
        let text = fields
            .get(field)
            .and_then(|bytes| std::str::from_utf8(bytes).ok());
        text.and_then(|text| text.parse::<u64>().ok()).unwrap_or(0)
    };
    number(6) & GOING != 0 || number(28) & 1 << (KILL - 1) != 0 || number(49) == KILL
}

/// Where the parent-child relation is read.
enum Children {
    /// `/proc/PID/task/TID/children`: a short file a process.
    Files,
    /// Kernels without it: every process's parent, read at once.
    Table(BTreeMap<i32, Vec<Pid>>),
}

impl Children {
    fn look() -> Self {
        let own = format!("/proc/self/task/{}/children", nix::unistd::gettid());
        if fs::exists(own).unwrap_or(false) {
            Self::Files
        } else {
            Self::Table(parents())
        }
    }

    fn of(&self, parent: Pid) -> Vec<Pid> {
        match self {
            Self::Files => children_file(parent),
            Self::Table(table) => table.get(&parent.as_raw()).cloned().unwrap_or_default(),
        }
    }
}

fn children_file(parent: Pid) -> Vec<Pid> {
    let Ok(threads) = fs::read_dir(format!("/proc/{parent}/task")) else {
        return Vec::new();
    };
    threads
        .flatten()
        .filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok())
        .flat_map(|pids| {
            pids.split_whitespace()
                .filter_map(parse_pid)
                .collect::<Vec<_>>()
        })
        .collect()
}

fn parents() -> BTreeMap<i32, Vec<Pid>> {
    let mut table: BTreeMap<i32, Vec<Pid>> = BTreeMap::new();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    for pid in entries.filter_map(|entry| parse_pid(entry.file_name().to_str()?)) {
        let Ok(stat) = fs::read(format!("/proc/{pid}/stat")) else {
            continue;
        };
        let parent = fields_after_name(&stat).get(1).copied().unwrap_or_default();
        if let Some(parent) = std::str::from_utf8(parent).ok().and_then(parse_pid) {
            table.entry(parent.as_raw()).or_default().push(pid);
        }
    }
    table
}

/// The fields of a `stat` file behind the process's name, which may itself hold spaces and parentheses.
fn fields_after_name(stat: &[u8]) -> Vec<&[u8]> {
    let end = stat.iter().rposition(|&byte| byte == b')').unwrap_or(0);
    stat[end..].split(|&byte| byte == b' ').skip(1).collect()
}

fn parse_pid(text: &str) -> Option<Pid> {
    text.parse().ok().map(Pid::from_raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_of_a_name_with_spaces_and_parentheses() {
        let stat = b"42 (a) b (c) S 7 42 42 0";
        assert_eq!(fields_after_name(stat)[..2], [b"S", b"7"]);
    }

    #[test]
    fn what_was_killed_is_dying_until_it_is_gone() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let pid = Pid::from_raw(child.id().try_into().unwrap());
        assert!(!is_dying(pid));
        child.kill().unwrap();
        assert!(is_dying(pid));
        child.wait().unwrap();
        assert!(is_dying(pid));
    }

    #[test]
    fn both_ways_to_find_a_child_agree() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
        assert!(children_file(Pid::this()).contains(&pid));
        assert!(parents()[&Pid::this().as_raw()].contains(&pid));
        assert!(is_alive(pid));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!is_alive(pid));
    }
}
