//! Tells one Python thread of calls as they complete: for callbacks, and for futures.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    task::{Context, Wake, Waker},
    time::Duration,
};

use pyo3::prelude::*;

use crate::call::Call;

/// How long a signal may go unheard.
const SLICE: Duration = Duration::from_millis(500);

/// Calls that somebody wants to hear of.
#[pyclass(frozen, module = "fleetpool._core")]
#[derive(Default)]
pub(crate) struct Watch {
    board: Arc<Board>,
    watched: Mutex<Watched>,
}

#[derive(Default)]
struct Watched {
    calls: BTreeMap<u64, Py<Call>>,
    next: u64,
}

/// Numbers of calls about which something has changed.
#[derive(Default)]
struct Board {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    numbers: VecDeque<u64>,
    closed: bool,
}

struct Bell {
    board: Arc<Board>,
    number: u64,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        lock(&self.board.state).numbers.push_back(self.number);
        self.board.changed.notify_one();
    }
}

#[pymethods]
impl Watch {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    /// Watches a call; [`Self::next`] gives it back once it is complete, or never will be.
    fn add(&self, call: Bound<'_, Call>) {
        let number = {
            let mut watched = lock(&self.watched);
            let number = watched.next;
            watched.next += 1;
            watched.calls.insert(number, call.clone().unbind());
            number
        };
        self.look(number, call.get());
    }

    /// The calls that have completed; waits while there are none. `None` when the watch is closed.
    fn next(&self, py: Python<'_>) -> PyResult<Option<Vec<Py<Call>>>> {
        loop {
            py.check_signals()?;
            let Some(numbers) = py.detach(|| self.board.wait()) else {
                return Ok(None);
            };
            let mut complete = Vec::new();
            for number in numbers {
                let call = lock(&self.watched)
                    .calls
                    .get(&number)
                    .map(|call| call.clone_ref(py));
                if let Some(call) = call
                    && self.is_complete(number, call.get())
                {
                    lock(&self.watched).calls.remove(&number);
                    complete.push(call);
                }
            }
            if !complete.is_empty() {
                return Ok(Some(complete));
            }
        }
    }

    /// How many calls are watched.
    fn __len__(&self) -> usize {
        lock(&self.watched).calls.len()
    }

    /// Lets go whoever waits.
    fn close(&self) {
        lock(&self.board.state).closed = true;
        self.board.changed.notify_all();
    }
}

impl Watch {
    /// Notes the call if it is complete; else it will ring.
    fn look(&self, number: u64, call: &Call) {
        if self.is_complete(number, call) {
            lock(&self.board.state).numbers.push_back(number);
            self.board.changed.notify_one();
        }
    }

    fn is_complete(&self, number: u64, call: &Call) -> bool {
        let board = Arc::clone(&self.board);
        let waker = Waker::from(Arc::new(Bell { board, number }));
        call.poll_complete(&Context::from_waker(&waker)).is_ready()
    }
}

impl Board {
    /// What has changed; empty after a while, `None` when nothing more will.
    fn wait(&self) -> Option<VecDeque<u64>> {
        let state = lock(&self.state);
        let idle = |state: &mut State| state.numbers.is_empty() && !state.closed;
        let waited = self.changed.wait_timeout_while(state, SLICE, idle);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if state.numbers.is_empty() && state.closed {
            return None;
        }
        Some(std::mem::take(&mut state.numbers))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
