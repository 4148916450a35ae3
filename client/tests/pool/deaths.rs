//! Workers that are killed again and again, by somebody whom their pool does not know: no call hangs, what fails is what a killed
//! worker ran, and the next worker is there at once.
//!
//! `FLEETPOOL_DEATH_SECONDS=60` goes on for longer. Times are read from one clock, by the workers and here.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    io::Write as _,
    os::unix::net::UnixDatagram,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use fleetpool::{Error, Pool, TaskError};
use nix::{
    sys::signal::{Signal, kill},
    time::{ClockId, clock_gettime},
    unistd::Pid,
};

use crate::{pool, runner::tests};

tests! {
    g5_twenty_kills_a_second_cost_the_tasks_that_ran_and_no_other
}

/// Of what they run for, workers do this at a time.
const TASK: Duration = Duration::from_millis(5);
/// Between two kills.
const PAUSE: Duration = Duration::from_millis(50);
/// What two slots do of such tasks, about, while one of them is killed that often.
const TASKS_A_SECOND: u64 = 300;

/// How long it goes on, about.
pub(crate) fn seconds() -> u64 {
    let asked = env::var("FLEETPOOL_DEATH_SECONDS").ok();
    asked.map_or(2, |asked| asked.parse().expect("seconds"))
}

/// Says where it runs, works for a while, and squares.
#[fleetpool::task]
fn square_noted(x: u64, notes: String) -> (u64, u64) {
    let slot = fleetpool::current().unwrap().slot;
    let note = [u64::from(slot), std::process::id().into(), nanos(now())];
    let note = note.map(u64::to_le_bytes).concat();
    let socket = UnixDatagram::unbound().unwrap();
    socket.send_to(&note, notes).unwrap();
    thread::sleep(TASK);
    (x, x * x)
}

fn now() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap().into()
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap()
}

/// Hears which worker each slot has, and kills them in turn.
struct Killer {
    notes: UnixDatagram,
    /// The worker of each slot.
    workers: BTreeMap<u64, u64>,
    /// When each was killed.
    killed: BTreeMap<u64, Duration>,
    /// From the death of a worker until its slot ran a task again.
    replaced: Vec<Duration>,
    last: u64,
}

impl Killer {
    fn listening_at(path: &Path) -> Self {
        let notes = UnixDatagram::bind(path).unwrap();
        notes.set_read_timeout(Some(TASK)).unwrap();
        Self {
            notes,
            workers: BTreeMap::new(),
            killed: BTreeMap::new(),
            replaced: Vec::new(),
            last: 0,
        }
    }

    fn work(mut self, over: &AtomicBool) -> Self {
        let mut next = now();
        while !over.load(Ordering::Relaxed) {
            self.listen();
            if now() >= next && self.kill_one() {
                next = now() + PAUSE;
            }
        }
        self
    }

    fn listen(&mut self) {
        let mut note = [0; 24];
        if self.notes.recv(&mut note).is_err() {
            return;
        }
        let number = |at: usize| u64::from_le_bytes(note[at..at + 8].try_into().unwrap());
        let (slot, pid, began) = (number(0), number(8), Duration::from_nanos(number(16)));
        let before = self
            .workers
            .insert(slot, pid)
            .filter(|&before| before != pid);
        if let Some(killed) = before.and_then(|before| self.killed.get(&before)) {
            self.replaced.push(began - *killed);
        }
    }

    /// The worker of the slot behind the last one, if it lives.
    fn kill_one(&mut self) -> bool {
        let behind = self.workers.range(self.last + 1..).next();
        let Some((&slot, &pid)) = behind.or_else(|| self.workers.first_key_value()) else {
            return false;
        };
        self.last = slot;
        if self.killed.contains_key(&pid) {
            return false;
        }
        self.killed.insert(pid, now());
        let pid = Pid::from_raw(i32::try_from(pid).unwrap());
        kill(pid, Signal::SIGKILL).unwrap();
        true
    }
}

fn g5_twenty_kills_a_second_cost_the_tasks_that_ran_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let notes = folder.path().join("notes");
    let killer = Killer::listening_at(&notes);
    let pool = pool(2);
    let tasks = TASKS_A_SECOND * seconds();
    let over = AtomicBool::new(false);
    let (killer, lost) = thread::scope(|scope| {
        let killer = scope.spawn(|| killer.work(&over));
        let lost = squares(&pool, tasks, notes.to_str().unwrap());
        over.store(true, Ordering::Relaxed);
        (killer.join().unwrap(), lost)
    });
    let mut seen = Vec::new();
    for (pid, at) in &lost {
        let killed = killer.killed.get(pid);
        let killed = killed.unwrap_or_else(|| panic!("{pid} was lost, and not killed"));
        seen.push(*at - *killed);
    }
    let kills = killer.killed.len();
    assert!(kills as u64 >= 5 * seconds(), "only {kills} kills");
    assert!(!lost.is_empty() && killer.replaced.len() > kills / 2);
    let figures = [
        ("told after", seen),
        ("the next begins after", killer.replaced),
    ];
    let figures = figures.map(|(what, times)| format!("{what} {}", figure(times)));
    writeln!(
        std::io::stderr(),
        "{kills} kills among {tasks} tasks, {} lost: {}",
        lost.len(),
        figures.join(", ")
    )
    .ok();
}

/// Runs so many tasks, whose results are right; by their workers, when those were heard of that were lost.
fn squares(pool: &Pool, tasks: u64, notes: &str) -> BTreeMap<u64, Duration> {
    let inputs = (0..tasks).map(|x| (x, notes.to_owned()));
    let (mut done, mut lost) = (BTreeSet::new(), BTreeMap::new());
    for result in pool.imap_unordered(square_noted, inputs) {
        let index = match result {
            Ok((x, square)) => {
                assert_eq!(square, x * x);
                x
            }
            Err(Error::Task(TaskError::WorkerLost {
                index, pid, signal, ..
            })) => {
                assert_eq!(signal, Some(9));
                let again = lost.insert(pid.into(), now());
                assert_eq!(again, None, "worker {pid} cost more than one task");
                index
            }
            Err(error) => panic!("{error}"),
        };
        assert!(done.insert(index), "two results of {index}");
    }
    assert!(done.into_iter().eq(0..tasks), "one result each");
    lost
}

/// The middle one of some times, and the one that a hundredth is above.
fn figure(mut times: Vec<Duration>) -> String {
    times.sort();
    let at = |percent| times[(times.len() - 1) * percent / 100];
    format!("{:.1?} (p50), {:.1?} (p99)", at(50), at(99))
}
