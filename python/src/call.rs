//! A call whose results are wanted together: of `apply_async` one, of `map_async` many.

use std::task::{Context, Poll};

use bytes::Bytes;
use fleetpool::{
    Error,
    raw::{Arrived, RawCall},
};
use fleetpool_proto::Outcome;
use pyo3::{PyTraverseError, PyVisit, prelude::*, types::PyList};

use crate::{
    errors, payload,
    pool::Pool,
    wait::{block, deadline},
};

/// Some tasks, and what has become of them. The base of `AsyncResult`.
#[pyclass(subclass, frozen, module = "fleetpool._core")]
pub(crate) struct Call {
    call: RawCall,
    count: u64,
    /// Whether each task is a chunk of inputs; `None`: there is one task.
    chunks: Option<bool>,
    /// Lives as long as somebody may ask for results.
    keep: Py<PyAny>,
}

/// What a task ended with.
pub(crate) enum Ended<'py> {
    Value(Bound<'py, PyAny>),
    Error(PyErr),
}

impl Call {
    pub(crate) fn poll_complete(&self, context: &Context<'_>) -> Poll<Result<(), Error>> {
        self.call.poll_complete(context, self.count)
    }
}

/// What became of a task, in Python's terms.
pub(crate) fn ended<'py>(py: Python<'py>, call: &RawCall, arrived: &Arrived) -> Ended<'py> {
    let value = match arrived.outcome {
        Outcome::Done => payload::unpack(py, &arrived.payload),
        Outcome::Failed => {
            let host = call.host_name(arrived.host);
            let error = errors::of_failure(py, &arrived.payload, &host, arrived.pid);
            return Ended::Error(error);
        }
        _ => Err(errors::of_task(py, &call.error(arrived))),
    };
    match value {
        Ok(value) => Ended::Value(value),
        Err(error) => Ended::Error(error),
    }
}

#[pymethods]
impl Call {
    /// Submits a task with the argument `input`; with `chunks`, one for each of its items, which are chunks of inputs when
    /// it is true. `caller` packs them, and has the specification as `spec`.
    #[new]
    #[pyo3(signature = (pool, mode, caller, input, keep, chunks = None))]
    fn new(
        py: Python<'_>,
        pool: &Bound<'_, Pool>,
        mode: u8,
        caller: &Bound<'_, PyAny>,
        input: &Bound<'_, PyAny>,
        keep: Py<PyAny>,
        chunks: Option<bool>,
    ) -> PyResult<Self> {
        let pool = pool.get();
        let (call, count) = match chunks {
            None => (pool.submit(py, mode, caller, input)?, 1),
            Some(chunks) => pool.submit_all(py, mode, caller, input, chunks)?,
        };
        Ok(Self {
            call,
            count,
            chunks,
            keep,
        })
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.keep)
    }

    /// The result of the one task, or all results in the order of the inputs; or raises why there is none, of many the
    /// error of the lowest input.
    fn _get(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Py<PyAny>> {
        if !self._wait(py, timeout)? {
            return Err(errors::timed_out(py));
        }
        match self.chunks {
            None => self.one(py),
            Some(chunks) => Ok(self.all(py, chunks)?.into_any()),
        }
    }

    /// Waits until all tasks have ended; whether they have.
    #[pyo3(signature = (timeout = None))]
    fn _wait(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<bool> {
        let ended = block(py, deadline(timeout), |context| self.poll_complete(context))?;
        Ok(ended.is_some())
    }

    /// Whether all tasks have ended.
    fn _is_complete(&self) -> bool {
        let context = Context::from_waker(std::task::Waker::noop());
        self.poll_complete(&context).is_ready()
    }

    /// Ends the tasks, running or not; whether there were any.
    fn _cancel(&self, py: Python<'_>) -> bool {
        let ended = self._is_complete();
        py.detach(|| self.call.cancel());
        !ended
    }
}

impl Call {
    fn one(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        match self
            .arrived(py)?
            .first()
            .map(|arrived| ended(py, &self.call, arrived))
        {
            Some(Ended::Value(value)) => Ok(value.unbind()),
            Some(Ended::Error(error)) => Err(error),
            None => Err(errors::of_pool(py, &Error::Closed)),
        }
    }

    fn all(&self, py: Python<'_>, chunks: bool) -> PyResult<Py<PyList>> {
        let mut arrived = self.arrived(py)?;
        arrived.sort_unstable_by_key(|arrived| arrived.position);
        let results = PyList::empty(py);
        for arrived in &mut arrived {
            // What ends a chunk is said of its first input.
            arrived.position = self.call.first_input(arrived.position);
            match ended(py, &self.call, arrived) {
                Ended::Error(error) => return Err(error),
                Ended::Value(value) if !chunks => results.append(value)?,
                Ended::Value(value) => extend(&results, &value)?,
            }
        }
        Ok(results.unbind())
    }

    /// What has arrived; or raises why nothing more will.
    fn arrived(&self, py: Python<'_>) -> PyResult<Vec<Arrived>> {
        let context = Context::from_waker(std::task::Waker::noop());
        if let Poll::Ready(Err(error)) = self.poll_complete(&context) {
            return Err(errors::of_pool(py, &error));
        }
        Ok(self.call.with_arrived(<[Arrived]>::to_vec))
    }
}

/// Appends a chunk's results.
pub(crate) fn extend(results: &Bound<'_, PyList>, chunk: &Bound<'_, PyAny>) -> PyResult<()> {
    let end = results.len();
    results.set_slice(end, end, chunk)
}

/// What cannot be sent has ended before it began.
pub(crate) type Packed = Result<Bytes, PyErr>;
