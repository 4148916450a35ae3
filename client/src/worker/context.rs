//! What a task may know about itself.

use std::sync::{
    OnceLock,
    atomic::{AtomicU32, AtomicU64, Ordering},
};

use fleetpool_proto::worker::RunRow;

/// Which task this is and where it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TaskContext {
    /// The task's place in the order in which its pool was given tasks, counted from 0.
    pub index: u64,
    /// Which try of it: 1 is the first. Larger where the task was lost with its host and is run again.
    pub attempt: u32,
    /// The host's name in the fleet.
    pub host: String,
    /// The slot on that host, counted from 1: `$FLEETPOOL_SLOT`.
    pub slot: u16,
}

/// The host and the slot of this worker.
#[derive(Debug)]
struct Place {
    host: String,
    slot: u16,
}

static PLACE: OnceLock<Place> = OnceLock::new();
static INDEX: AtomicU64 = AtomicU64::new(0);
/// 0 while no task runs.
static ATTEMPT: AtomicU32 = AtomicU32::new(0);

/// The task that runs in this process; `None` outside of a worker and between tasks.
///
/// ```
/// #[fleetpool::task]
/// fn whereabouts() -> String {
///     match fleetpool::current() {
///         Some(task) => format!("task {} on {}", task.index, task.host),
///         None => "called directly".to_owned(),
///     }
/// }
///
/// assert_eq!(whereabouts(), "called directly");
/// ```
#[must_use]
pub fn current() -> Option<TaskContext> {
    let attempt = ATTEMPT.load(Ordering::Relaxed);
    let place = PLACE.get().filter(|_| attempt > 0)?;
    Some(TaskContext {
        index: INDEX.load(Ordering::Relaxed),
        attempt,
        host: place.host.clone(),
        slot: place.slot,
    })
}

/// Whether this process is a worker.
pub(crate) fn is_worker() -> bool {
    PLACE.get().is_some()
}

/// This process is a worker from now on; its agent says where in the environment.
pub(super) fn enter_worker() {
    let variable = |name| std::env::var(name).unwrap_or_default();
    let place = || Place {
        host: variable("FLEETPOOL_HOST"),
        slot: variable("FLEETPOOL_SLOT").parse().unwrap_or(0),
    };
    PLACE.get_or_init(place);
}

pub(super) fn enter_task(row: &RunRow) {
    INDEX.store(row.index, Ordering::Relaxed);
    ATTEMPT.store(row.attempt.0, Ordering::Relaxed);
}

pub(super) fn leave_task() {
    ATTEMPT.store(0, Ordering::Relaxed);
}
