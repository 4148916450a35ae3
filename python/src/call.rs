//! A call whose results are wanted together: of `apply_async` one, of `map_async` many.

use std::task::{Context, Poll};

use bytes::Bytes;
use fleetpool::{
    Error,
    raw::{Arrived, RawCall},
};
use fleetpool_proto::Outcome;
use pyo3::{prelude::*, types::PyList};

use crate::{
    errors, payload,
    wait::{block, deadline},
};

/// Some tasks, and what has become of them. The base of `AsyncResult`.
#[pyclass(subclass, frozen, module = "fleetpool._core")]
pub(crate) struct Call {
    pub(crate) call: RawCall,
    pub(crate) count: u64,
    /// Inputs in each task but the last; 0: the task has no chunk, but one call.
    pub(crate) chunk: u64,
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
    #[new]
    #[pyo3(signature = (other, *_args, **_kwargs))]
    fn new(
        other: &Bound<'_, Call>,
        _args: &Bound<'_, pyo3::types::PyTuple>,
        _kwargs: Option<&Bound<'_, pyo3::types::PyDict>>,
    ) -> Self {
        let other = other.get();
        Self {
            call: other.call.clone(),
            count: other.count,
            chunk: other.chunk,
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

    /// The one result, or raises why there is none. The call must be complete.
    fn _one(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
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

    /// All results in the order of the inputs, or raises the error of the lowest input. The call must be complete.
    fn _all(&self, py: Python<'_>) -> PyResult<Py<PyList>> {
        let mut arrived = self.arrived(py)?;
        arrived.sort_unstable_by_key(|arrived| arrived.position);
        let results = PyList::empty(py);
        for arrived in &mut arrived {
            // What ends a chunk is said of its first input.
            arrived.position *= self.chunk.max(1);
            match ended(py, &self.call, arrived) {
                Ended::Error(error) => return Err(error),
                Ended::Value(value) if self.chunk == 0 => results.append(value)?,
                Ended::Value(value) => extend(&results, &value)?,
            }
        }
        Ok(results.unbind())
    }

    /// How many tasks have ended.
    fn _ended(&self) -> u64 {
        self.call.received().0
    }

    /// Ends the tasks, running or not; whether there were any.
    fn _cancel(&self, py: Python<'_>) -> bool {
        let ended = self._is_complete();
        py.detach(|| self.call.cancel());
        !ended
    }
}

impl Call {
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
