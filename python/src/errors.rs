//! What goes wrong in Rust, as the package's exceptions.

use fleetpool::{Error, TaskError, cluster};
use pyo3::{prelude::*, sync::PyOnceLock, types::PyDict};

/// The module `fleetpool._errors`.
static ERRORS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

pub(crate) fn setup(py: Python<'_>, errors: Py<PyAny>) {
    ERRORS.get_or_init(py, || errors);
}

/// An exception of one of the module's makers.
fn make<'py>(py: Python<'py>, maker: &str, args: impl pyo3::call::PyCallArgs<'py>) -> PyErr {
    let made = match ERRORS.get(py) {
        Some(errors) => errors.bind(py).call_method1(maker, args),
        None => return pyo3::exceptions::PyRuntimeError::new_err("fleetpool is not imported"),
    };
    made.map_or_else(|error| error, PyErr::from_value)
}

/// A call on a pool that failed.
pub(crate) fn of_pool(py: Python<'_>, error: &Error) -> PyErr {
    let kind = match error {
        Error::Task(task) => return of_task(py, task),
        Error::Closed => "closed",
        Error::Terminated { .. } => "terminated",
        Error::NotClosed => "not_closed",
        Error::Cluster(cluster::Error::TooLarge { .. }) => "too_large",
        Error::Cluster(_) => "cluster",
        _ => "invalid",
    };
    make(py, "of_pool", (kind, error.to_string()))
}

/// A wait that was too short.
pub(crate) fn timed_out(py: Python<'_>) -> PyErr {
    make(py, "TimeoutError", ())
}

/// A cluster that cannot be used.
pub(crate) fn of_cluster(py: Python<'_>, address: Option<&str>, error: &Error) -> PyErr {
    let said = match (address, error) {
        (Some(address), Error::Invalid(why)) => {
            format!("cannot use the cluster at {address}: {why}")
        }
        _ => error.to_string(),
    };
    make(py, "of_pool", ("cluster", said))
}

/// A task without a result, and without an exception of its own.
pub(crate) fn of_task(py: Python<'_>, error: &TaskError) -> PyErr {
    let fields = PyDict::new(py);
    let kind = fill(&fields, error);
    match kind {
        Ok(kind) => make(py, "of_task", (kind, error.to_string(), fields.unbind())),
        Err(error) => error,
    }
}

fn fill(fields: &Bound<'_, PyDict>, error: &TaskError) -> PyResult<&'static str> {
    fields.set_item("index", error.index())?;
    Ok(match error {
        TaskError::WorkerLost {
            host,
            pid,
            signal,
            exit,
            memory,
            stderr_tail,
            ..
        } => {
            fields.set_item("host", host)?;
            fields.set_item("pid", pid)?;
            fields.set_item("signal", signal)?;
            fields.set_item("exit", exit)?;
            fields.set_item("memory", memory)?;
            fields.set_item("stderr_tail", stderr_tail)?;
            "worker_lost"
        }
        TaskError::OutOfMemory {
            host, pid, memory, ..
        } => {
            fields.set_item("host", host)?;
            fields.set_item("pid", pid)?;
            fields.set_item("memory", memory)?;
            fields.set_item("signal", 9)?;
            "worker_lost"
        }
        TaskError::HostLost { host, .. } | TaskError::Unknown { host, .. } => {
            fields.set_item("host", host)?;
            "host_lost"
        }
        TaskError::TimedOut { host, .. } => {
            fields.set_item("host", host)?;
            "timed_out"
        }
        TaskError::Cancelled { .. } => "cancelled",
        _ => "not_started",
    })
}

/// An exception that a task raised, as its worker has packed it.
pub(crate) fn of_failure(py: Python<'_>, payload: &[u8], host: &str, pid: u32) -> PyErr {
    let payload = pyo3::types::PyBytes::new(py, payload);
    make(py, "of_failure", (payload, host, pid))
}
