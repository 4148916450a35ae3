//! What clients, tasks and the nemesis write down, and when.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::Path,
};

use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use super::Kind;

/// Where tasks write.
pub(super) const TASKS: &str = "tasks";
/// Where the nemesis does.
pub(super) const NEMESIS: &str = "nemesis";

/// A pool of a client: the client's number and the pool's, in one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Job(pub(super) u64);

impl Job {
    pub(super) fn new(client: u32, pool: u32) -> Self {
        Self(u64::from(client) << 24 | u64::from(pool))
    }
}

/// A thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Note {
    /// A client opens a pool and submits so many tasks.
    Opened { job: Job, kind: Kind, tasks: u64 },
    /// A client was told how a task ended: by which attempt, as far as it is told, and what came with it.
    Delivered {
        job: Job,
        index: u64,
        attempt: Option<u32>,
        outcome: String,
        said: Said,
    },
    /// All of a pool was delivered, and it has ended.
    Over { job: Job },
    /// A client was told that its pool is lost.
    Lost { job: Job, why: String },
    /// A task begins.
    Began {
        job: Job,
        index: u64,
        attempt: u32,
        host: String,
        pid: u32,
    },
    /// It ends by itself.
    Ended { job: Job, index: u64, attempt: u32 },
    /// Another attempt of the task runs.
    Overlapped { job: Job, index: u64, attempt: u32 },
    /// A task's process was killed by the nemesis.
    Killed { pid: u32 },
    /// A host's agent was killed, or its power cut.
    HostDown { host: String },
    /// The coordinator was killed.
    CoordinatorDown,
    /// A client was killed.
    ClientKilled { client: u32 },
    /// The coordinator, or the client, was out of reach for longer than clients are waited for. It began so long ago, in
    /// microseconds.
    Away { client: Option<u32>, us: u64 },
}

/// What a task returned, or printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Said {
    /// Exactly what it should.
    Right,
    Nothing,
    /// Something else.
    Wrong,
}

impl Said {
    pub(super) fn of(right: bool) -> Self {
        if right { Self::Right } else { Self::Wrong }
    }
}

/// A note and its time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Dated {
    /// Microseconds of the machine's monotonic clock.
    pub(super) at_us: u64,
    pub(super) note: Note,
}

pub(super) fn now_us() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("Linux has this clock");
    let time = std::time::Duration::from(time);
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// A file that several processes may add to: each note is one write.
#[derive(Debug)]
pub(super) struct Notes(File);

impl Notes {
    pub(super) fn open(folder: &Path, name: &str) -> io::Result<Self> {
        let path = folder.join(format!("{name}.notes"));
        let file = File::options().create(true).append(true).open(path)?;
        Ok(Self(file))
    }

    pub(super) fn add(&self, note: Note) -> io::Result<()> {
        let at_us = now_us();
        let mut line = serde_json::to_vec(&Dated { at_us, note })?;
        line.push(b'\n');
        (&self.0).write_all(&line)
    }
}

/// All that was written down, in the order of time.
pub(super) fn read_all(folder: &Path) -> Result<Vec<Dated>, String> {
    let read = |error: io::Error| format!("cannot read {}: {error}", folder.display());
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).map_err(read)? {
        let path = entry.map_err(read)?.path();
        if path.extension().is_some_and(|found| found == "notes") {
            for line in fs::read_to_string(&path).map_err(read)?.lines() {
                let dated = serde_json::from_str::<Dated>(line);
                all.push(dated.map_err(|error| format!("{}: {error}: {line}", path.display()))?);
            }
        }
    }
    all.sort_by_key(|dated| dated.at_us);
    Ok(all)
}
