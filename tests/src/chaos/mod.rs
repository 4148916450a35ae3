//! A real cluster under real faults, and what became of its work.
//!
//! Everything is a process of its own: the coordinator with its journal, the agents behind lines that can be cut, with and without
//! a spawner, the clients, and the tasks. While the clients work, `nemesis` kills, stops and cuts, by a seed. Clients write down
//! what they are told, and tasks what they do, in one file each, by one clock. Afterwards `verdict` compares the two: nothing
//! may be lost, come twice, be made up, run twice at once, or run again after its result; nothing may hang, and no process may be
//! left over.
//!
//! - `notes`: what is written down;
//! - `task`: what a task does;
//! - `tally`: a client of many small tasks, for what is about numbers;
//! - `bulk`: one of large results, for what is about memory;
//! - `client`: who submits tasks and hears of them;
//! - `fleet`: the processes;
//! - `nemesis`: what befalls them;
//! - `verdict`: whether what happened may.

mod bulk;
mod client;
mod fleet;
mod nemesis;
mod notes;
mod tally;
mod task;
mod verdict;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

pub use bulk::run as run_bulk;
pub use client::{ClientOptions, run as run_client};
pub use tally::run as run_tally;
pub use task::run as run_task;

use tokio::signal::unix::{SignalKind, signal};

use self::{fleet::Fleet, nemesis::Nemesis};

/// How long clients may take to be done when nothing goes wrong any more.
const DONE_MAX: Duration = Duration::from_secs(120);
/// How long the cluster may take to have nothing left of clients that are gone.
const QUIET_MAX: Duration = Duration::from_secs(60);
/// How long processes may outlive their agent, their client or their keeper.
const GONE_MAX: Duration = Duration::from_secs(15);

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// What goes wrong, and when.
    pub seed: u64,
    /// For how long.
    pub lasts: Duration,
    /// Where its files go.
    pub folder: PathBuf,
    /// `fleetpool`.
    pub program: PathBuf,
    /// The coordinator gives a silent host's tasks to others too early. That must be found.
    pub without_margin: bool,
}

/// What clients work for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Kind {
    /// Commands that run again when their host is lost.
    Again,
    /// Commands that run once, or nobody knows.
    Once,
    /// Functions of a Rust program, that run again.
    Native,
}

impl std::str::FromStr for Kind {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "again" => Ok(Self::Again),
            "once" => Ok(Self::Once),
            "native" => Ok(Self::Native),
            _ => Err("again, once or native".to_owned()),
        }
    }
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Again => "again",
            Self::Once => "once",
            Self::Native => "native",
        }
    }
}

/// Lets everything happen; tells what was seen, as a table, and what should not have been.
///
/// # Errors
/// What is wrong, a line each.
pub fn run(options: &Options) -> Result<String, String> {
    let told = end_when_told()?;
    let mut fleet = Fleet::start(options)?;
    let mut nemesis = Nemesis::new(options.seed);
    let until = Instant::now() + options.lasts;
    while Instant::now() < until && !told.load(Relaxed) {
        nemesis.step(&mut fleet);
        fleet.look()?;
    }
    nemesis.heal(&mut fleet);
    let healed = notes::now_us();
    let mut wrong = Vec::new();
    fleet.tell_clients_to_end();
    wrong.extend(fleet.await_clients(DONE_MAX).err());
    wrong.extend(fleet.await_quiet(QUIET_MAX).err());
    wrong.extend(fleet.stop(GONE_MAX).err());
    let history = notes::read_all(&options.folder)?;
    let verdict = verdict::of(&history, healed);
    wrong.extend(verdict.wrong.iter().cloned());
    let table = format!("{verdict}{nemesis}");
    if wrong.is_empty() {
        return Ok(table);
    }
    let logs = options.folder.display();
    Err(format!(
        "{}\n{table}seed {}, logs and histories in {logs}",
        wrong.join("\n"),
        options.seed
    ))
}

/// Set by SIGINT and SIGTERM, which would leave all that was started: what has happened until then is judged. (Ctrl-C at a terminal
/// ends the others as well; then that is what is told, and nothing is left either.)
fn end_when_told() -> Result<Arc<AtomicBool>, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let guard = runtime.enter();
    let signals = [SignalKind::interrupt(), SignalKind::terminate()].map(signal);
    drop(guard);
    let [interrupt, terminate] = signals.map(|signal| signal.map_err(|error| error.to_string()));
    let (mut interrupt, mut terminate) = (interrupt?, terminate?);
    let told = Arc::new(AtomicBool::new(false));
    let telling = Arc::clone(&told);
    std::thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => (),
                _ = terminate.recv() => (),
            }
        });
        telling.store(true, Relaxed);
    });
    Ok(told)
}

/// The file that tells clients to submit nothing more.
fn end_file(folder: &Path) -> PathBuf {
    folder.join("end")
}
