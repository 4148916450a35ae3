//! A cluster and a pool on it.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use fleetpool::{
    Error,
    config::Place,
    raw::{self, RawCall, RawPool},
};
use fleetpool_proto::{
    SpecId,
    pool::{ContentHash, Initializer, PoolOptions, Retries, Runtime, Spec},
};
use pyo3::{
    exceptions::PyValueError,
    intern,
    prelude::*,
    types::{PyDict, PyList},
};

use crate::{
    errors, output,
    payload::Packer,
    wait::{block, deadline},
};

/// A function up to this many bytes goes with its specification; a larger one once a host, by its hash.
const INLINE_BYTES_MAX: usize = 32 << 10;

/// A cluster: elsewhere, or embedded in this process.
#[pyclass(frozen, module = "fleetpool._core")]
pub(crate) struct Hub(raw::Hub);

#[pymethods]
impl Hub {
    #[new]
    #[pyo3(signature = (address, hosts, slots, program, note))]
    fn new(
        py: Python<'_>,
        address: Option<String>,
        hosts: Option<String>,
        slots: Option<u32>,
        program: PathBuf,
        note: Py<PyAny>,
    ) -> PyResult<Self> {
        let note = output::note_to(note);
        let open = || {
            let place = Place::choose(address.as_deref(), hosts.as_deref())?;
            raw::Hub::open(&place, None, slots, program, note)
        };
        let hub = py
            .detach(open)
            .map_err(|error| errors::of_cluster(py, address.as_deref(), &error))?;
        Ok(Self(hub))
    }

    /// Whether it is in this process.
    #[getter]
    fn embedded(&self) -> bool {
        self.0.is_embedded()
    }

    /// Opens a pool of Python workers.
    #[pyo3(signature = (options, context, sink, note))]
    fn open(
        &self,
        py: Python<'_>,
        options: &Bound<'_, PyDict>,
        context: Vec<u8>,
        sink: Py<PyAny>,
        note: Py<PyAny>,
    ) -> PyResult<Pool> {
        let options = Options::extract(options)?;
        let context = self.0.offer(Bytes::from(context));
        let (sink, note) = (output::to(sink), output::note_to(note));
        // It may ask a command for the hosts of a group.
        let opened = py.detach(|| self.0.pool(options.pool(context), sink, note));
        let pool = opened.map_err(|error| errors::of_pool(py, &error))?;
        let pool = Mutex::new(Some(Arc::new(pool)));
        Ok(Pool {
            pool,
            packer: Mutex::default(),
        })
    }
}

/// What a pool is to be, as the package says it.
struct Options(PoolOptions, String);

impl Options {
    fn extract(given: &Bound<'_, PyDict>) -> PyResult<Self> {
        let mut options = PoolOptions::default();
        set(given, "name", &mut options.name)?;
        set(given, "on", &mut options.on)?;
        set(given, "priority", &mut options.priority)?;
        set(given, "maxtasksperchild", &mut options.tasks_per_worker_max)?;
        set(given, "env", &mut options.env)?;
        set(given, "kill_grace_ms", &mut options.kill_grace_ms)?;
        // It goes with the context; named here for what is said of it.
        options.initializer = optional(given, "initializer")?.map(|function| Initializer {
            function,
            ..Initializer::default()
        });
        options.slots = optional(given, "slots")?;
        options.cwd = optional(given, "cwd")?;
        let Retries {
            host_lost,
            worker_lost,
            failed,
        } = &mut options.retries;
        set(given, "retries_host_lost", host_lost)?;
        set(given, "retries_worker_lost", worker_lost)?;
        set(given, "retries_failed", failed)?;
        let mut interpreter = String::from("python3");
        set(given, "interpreter", &mut interpreter)?;
        Ok(Self(options, interpreter))
    }

    fn pool(self, context: ContentHash) -> PoolOptions {
        let Self(options, interpreter) = self;
        let runtime = Runtime::Python {
            interpreter,
            context,
        };
        PoolOptions { runtime, ..options }
    }
}

fn optional<T: for<'a, 'py> FromPyObject<'a, 'py, Error: Into<PyErr>>>(
    given: &Bound<'_, PyDict>,
    name: &str,
) -> PyResult<Option<T>> {
    match given.get_item(name)? {
        Some(value) if !value.is_none() => value.extract().map(Some).map_err(Into::into),
        _ => Ok(None),
    }
}

fn set<T: for<'a, 'py> FromPyObject<'a, 'py, Error: Into<PyErr>>>(
    given: &Bound<'_, PyDict>,
    name: &str,
    place: &mut T,
) -> PyResult<()> {
    if let Some(value) = optional(given, name)? {
        *place = value;
    }
    Ok(())
}

/// N slots that run Python functions.
#[pyclass(frozen, module = "fleetpool._core")]
pub(crate) struct Pool {
    /// Until it is let go: then its cluster goes too, where it has one of its own.
    pool: Mutex<Option<Arc<RawPool>>>,
    /// Packs the arguments of calls that are made one by one.
    packer: Mutex<Packer>,
}

#[pymethods]
impl Pool {
    /// Says what tasks of a function have in common; the number to submit them under.
    #[pyo3(signature = (name, code, version, modules, timeout_ms))]
    fn define(
        &self,
        py: Python<'_>,
        name: String,
        code: Vec<u8>,
        version: Option<(u8, u8)>,
        modules: Vec<String>,
        timeout_ms: u64,
    ) -> PyResult<u32> {
        let pool = self.open(py)?;
        let mut spec = Spec {
            function: name,
            python: version,
            modules,
            timeout_ms,
            ..Spec::default()
        };
        if code.len() > INLINE_BYTES_MAX {
            spec.content = Some(pool.hub().offer(Bytes::from(code)));
        } else {
            spec.code = Bytes::from(code);
        }
        Ok(pool.define(spec).0)
    }

    /// No more calls are taken.
    fn close(&self, py: Python<'_>) {
        if let Ok(pool) = self.open(py) {
            py.detach(|| pool.close());
        }
    }

    /// Waits until all tasks of the closed pool have ended and its workers are gone; whether they have by then.
    #[pyo3(signature = (timeout = None))]
    fn join(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<bool> {
        let Ok(pool) = self.open(py) else {
            return Ok(true);
        };
        let mut joined = Box::pin(pool.join());
        let joined = block(py, deadline(timeout), |context| {
            joined.as_mut().poll(context)
        })?;
        match joined {
            // What runs in a terminated pool has ended as well.
            Some(Ok(()) | Err(Error::Terminated { .. })) => Ok(true),
            Some(Err(error)) => Err(errors::of_pool(py, &error)),
            None => Ok(false),
        }
    }

    /// Ends the pool and everything in it.
    fn terminate(&self, py: Python<'_>) {
        if let Ok(pool) = self.open(py) {
            py.detach(|| pool.terminate());
        }
    }

    /// Lets the pool go, and with it its cluster, where that is embedded; waits until it is gone.
    fn release(&self, py: Python<'_>) {
        let pool = lock(&self.pool).take();
        py.detach(|| drop(pool));
    }

    /// Changes how many tasks may run at once.
    #[pyo3(signature = (slots))]
    fn resize(&self, py: Python<'_>, slots: Option<u32>) -> PyResult<()> {
        if slots == Some(0) {
            return Err(PyValueError::new_err(
                "a pool of 0 processes would never run a task",
            ));
        }
        let pool = self.open(py)?;
        py.detach(|| pool.resize(slots));
        Ok(())
    }

    /// What has ended, what of it has not succeeded, and slots that the pool may use.
    fn progress(&self, py: Python<'_>) -> PyResult<(u64, u64, u64)> {
        let pool = self.open(py)?;
        let (ended, failed) = pool.ended();
        Ok((ended, failed, pool.slots()))
    }

    /// Slots that the pool may use, as far as is known.
    #[getter]
    fn slots(&self) -> u64 {
        lock(&self.pool).as_ref().map_or(0, |pool| pool.slots())
    }

    /// The hosts that the pool may use: a dict each.
    fn hosts(&self, py: Python<'_>) -> PyResult<Py<PyList>> {
        let pool = self.open(py)?;
        let mut hosts = Box::pin(pool.hosts());
        let hosts = block(py, deadline(None), |context| hosts.as_mut().poll(context))?;
        let hosts = hosts.unwrap_or_else(|| Ok(Vec::new()));
        let hosts = hosts.map_err(|error| errors::of_pool(py, &error))?;
        let views = PyList::empty(py);
        for host in hosts {
            let view = PyDict::new(py);
            view.set_item("name", host.name)?;
            view.set_item("state", host.state)?;
            view.set_item("slots", host.slots)?;
            view.set_item("allotted", host.allotted)?;
            view.set_item("running", host.running)?;
            view.set_item("labels", host.labels)?;
            view.set_item("carrier", host.carrier)?;
            view.set_item("rtt", host.rtt_us as f64 / 1e6)?;
            view.set_item("cpus", host.cpus)?;
            view.set_item("memory", host.memory_mib << 20)?;
            views.append(view)?;
        }
        Ok(views.unbind())
    }
}

impl Pool {
    /// The pool, unless it has been let go.
    pub(crate) fn open(&self, py: Python<'_>) -> PyResult<Arc<RawPool>> {
        let pool = lock(&self.pool).clone();
        pool.ok_or_else(|| errors::of_pool(py, &Error::Closed))
    }

    /// Submits one task. Waits only while there is no room for it.
    pub(crate) fn submit(
        &self,
        py: Python<'_>,
        mode: u8,
        caller: &Bound<'_, PyAny>,
        input: &Bound<'_, PyAny>,
    ) -> PyResult<RawCall> {
        // Not held while Python code runs: another thread begins with a packer of its own.
        let mut packer = std::mem::take(&mut *lock(&self.packer));
        let payload = packer.argument(mode, input, caller);
        *lock(&self.packer) = packer;
        let payload = payload?;
        let spec = spec_of(caller)?;
        let call = self.begin(py, 1)?;
        while !self.push(py, &call, spec, 0, &payload)? {
            let credit = block(py, deadline(None), |context| call.poll_credit(context))?;
            credit
                .unwrap_or(Ok(()))
                .map_err(|error| errors::of_pool(py, &error))?;
        }
        Ok(call)
    }

    /// Submits a task for each of `inputs`, which may be chunks of them: at once as far as there is room, the others beside
    /// the caller. Tells how many tasks there are.
    pub(crate) fn submit_all(
        &self,
        py: Python<'_>,
        mode: u8,
        caller: &Bound<'_, PyAny>,
        inputs: &Bound<'_, PyAny>,
        chunks: bool,
    ) -> PyResult<(RawCall, u64)> {
        // Packed first, all of them: one that cannot be packed is no half of a call.
        let mut packer = Packer::default();
        let (mut packed, mut sizes) = (Vec::new(), Vec::new());
        for input in inputs.try_iter()? {
            let input = input?;
            if chunks {
                sizes.push(input.len()?);
            }
            packed.push(packer.argument(mode, &input, caller)?);
        }
        let spec = spec_of(caller)?;
        let call = self.begin(py, u64::from(!chunks))?;
        sizes
            .into_iter()
            .for_each(|size| call.add_chunk(size as u64));
        let count = packed.len() as u64;
        let mut sent = 0;
        for payload in &packed {
            if !self.push(py, &call, spec, sent, payload)? {
                break;
            }
            sent += 1;
        }
        if sent < count {
            packed.drain(..usize::try_from(sent).unwrap_or(usize::MAX));
            call.feed(spec, sent, packed);
        }
        Ok((call, count))
    }

    fn begin(&self, py: Python<'_>, weight: u64) -> PyResult<RawCall> {
        let call = self.open(py)?.begin(weight);
        call.map_err(|error| errors::of_pool(py, &error))
    }

    fn push(
        &self,
        py: Python<'_>,
        call: &RawCall,
        spec: SpecId,
        position: u64,
        payload: &Bytes,
    ) -> PyResult<bool> {
        let pushed = call.push(spec, position, payload.clone());
        pushed.map_err(|error| errors::of_pool(py, &error))
    }
}

/// The specification under which a caller's calls go.
fn spec_of(caller: &Bound<'_, PyAny>) -> PyResult<SpecId> {
    Ok(SpecId(
        caller.getattr(intern!(caller.py(), "spec"))?.extract()?,
    ))
}

/// The end of a cluster is waited for, and may wait itself for the interpreter's lock, which is held here.
impl Drop for Pool {
    fn drop(&mut self) {
        if let Some(pool) = lock(&self.pool).take() {
            std::thread::spawn(move || drop(pool));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
