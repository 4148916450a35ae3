//! Cgroups: how many processes and how much memory tasks may take, where the host lets this process say so.
//!
//! ```text
//! the spawner's own cgroup
//!  └─ fleetpool-1a2b3c4d      all tasks together: memory
//!      ├─ 1                   a keeper, and what it runs: processes, memory
//!      ├─ 2
//!      └─ 3                   the spawner: whoever it forks next is born there
//! ```
//! To enter a cgroup waits for the kernel, 5 to 17 ms when nobody has done so just before. So no keeper ever does: the spawner sits in
//! the next leaf, and moves on when it has forked. A task costs nothing; its keeper is where it is to be. Workers that a template
//! forks are put into a leaf by their keeper before they run anything of the user's.
//!
//! The kernel's first interface is one tree a controller, the second one tree in all. Who makes a leaf, and who has seen a process
//! end, removes leaves that are empty; the spawner removes the rest at its end, or its successor in the same cgroup does. Only empty
//! ones can be removed, so nobody has to know whose they are.

mod groups;
mod leaf;
mod limits;
mod place;

use serde::{Deserialize, Serialize};

pub(super) use groups::Groups;
pub(crate) use leaf::Leaf;

use crate::TaskLimits;
use limits::gib;

/// What holds tasks back on this host, as its spawner knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Contained {
    /// Of the kernel's interface; 0: there are no cgroups.
    pub(crate) version: u8,
    /// Processes and threads of one task.
    pub(crate) pids: Option<u64>,
    /// Bytes of one task.
    pub(crate) memory: Option<u64>,
    /// Bytes of all tasks together.
    pub(crate) memory_of_all: Option<u64>,
    /// Why something is not held.
    pub(crate) reasons: Vec<String>,
}

impl Contained {
    /// Nothing is, and why.
    pub(crate) fn not(reason: impl Into<String>) -> Self {
        Self {
            reasons: vec![reason.into()],
            ..Self::default()
        }
    }

    /// What holds process trees together.
    pub(crate) fn name(&self) -> &'static str {
        match self.version {
            0 => "subreaper",
            1 => "cgroup v1",
            _ => "cgroup v2",
        }
    }

    /// The limits, and why there are no others: for people.
    pub(crate) fn limits(&self) -> String {
        let pids = self.pids.map(|pids| format!("{pids} processes a task"));
        let memory = self.memory.map(|bytes| format!("{} a task", gib(bytes)));
        let all = self.memory_of_all;
        let all = all.map(|bytes| format!("{} for all tasks", gib(bytes)));
        let limits: Vec<String> = [pids, memory, all].into_iter().flatten().collect();
        let parts = [limits.join(", "), self.reasons.join("; ")];
        let parts: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        parts.join("; ")
    }

    /// The options that were given and are not held.
    pub(crate) fn missed(&self, asked: &TaskLimits) -> Vec<&'static str> {
        let pids = asked.pids.is_some() && self.pids.is_none();
        let memory = asked.memory.is_some() && self.memory.is_none();
        let options = [(pids, "--task-pids"), (memory, "--task-memory")];
        let missed = options.into_iter().filter(|(missed, _)| *missed);
        missed.map(|(_, option)| option).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_told_with_what_is_not() {
        let told = |contained: &Contained| (contained.name(), contained.limits());
        let all = Contained {
            version: 2,
            pids: Some(300),
            memory: Some(512 << 20),
            memory_of_all: Some(31 << 30),
            reasons: Vec::new(),
        };
        let limits = "300 processes a task, 0.5 GiB a task, 31.0 GiB for all tasks";
        assert_eq!(told(&all), ("cgroup v2", limits.to_owned()));
        let some = Contained {
            version: 1,
            pids: Some(300),
            reasons: vec!["memory: no".to_owned()],
            ..Contained::default()
        };
        let limits = "300 processes a task; memory: no";
        assert_eq!(told(&some), ("cgroup v1", limits.to_owned()));
        let none = Contained::not("there are none");
        assert_eq!(told(&none), ("subreaper", "there are none".to_owned()));
        let asked = TaskLimits {
            pids: Some(300),
            memory: Some(1 << 30),
        };
        assert_eq!(all.missed(&asked), [""; 0]);
        assert_eq!(some.missed(&asked), ["--task-memory"]);
        assert_eq!(none.missed(&asked), ["--task-pids", "--task-memory"]);
        assert_eq!(none.missed(&TaskLimits::default()), [""; 0]);
    }
}
