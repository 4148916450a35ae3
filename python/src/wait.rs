//! Waiting without the interpreter's lock, and with an ear for Ctrl-C.

use std::{
    future::poll_fn,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use fleetpool::raw;
use pyo3::prelude::*;

/// How long a signal may go unheard.
const SLICE: Duration = Duration::from_millis(50);
/// Longest wait that is taken at its word; about thirty years.
const TIMEOUT_S_MAX: f64 = 1e9;

/// When a wait of so many seconds is over; `None`: never.
pub(crate) fn deadline(timeout_s: Option<f64>) -> Option<Instant> {
    let seconds = timeout_s?.clamp(0.0, TIMEOUT_S_MAX);
    Some(Instant::now() + Duration::from_secs_f64(if seconds.is_nan() { 0.0 } else { seconds }))
}

/// Waits until `poll` is ready; `None` at the deadline. Raises what a signal's handler raises.
pub(crate) fn block<T: Send>(
    py: Python<'_>,
    deadline: Option<Instant>,
    mut poll: impl FnMut(&mut Context<'_>) -> Poll<T> + Send,
) -> PyResult<Option<T>> {
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let slice = left.map_or(SLICE, |left| left.min(SLICE));
        if let Some(ready) = py.detach(|| raw::wait(poll_fn(&mut poll), Some(slice))) {
            return Ok(Some(ready));
        }
        py.check_signals()?;
        if left.is_some_and(|left| left <= slice) {
            return Ok(None);
        }
    }
}
