//! The extension behind the Python package: pools, calls and streams of results over the Rust client.
//!
//! The Python half (`fleetpool/`) has the API and everything that is said in Python's terms; here is what runs once a
//! task. Whatever waits does so without the interpreter's lock, and looks now and then whether Ctrl-C was pressed.
//!
//! It must never take the interpreter's lock on the cluster's thread: what tasks print is passed on by a thread beside
//! it, and results are unpickled by whoever asks for them.

mod call;
mod errors;
mod memory;
mod output;
mod payload;
mod plain;
mod pool;
mod stream;
mod wait;
mod watch;

use pyo3::prelude::*;

/// The compiled half of fleetpool.
#[pymodule]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<pool::Hub>()?;
    module.add_class::<pool::Pool>()?;
    module.add_class::<call::Call>()?;
    module.add_class::<stream::Stream>()?;
    module.add_class::<watch::Watch>()?;
    module.add_function(wrap_pyfunction!(payload::setup, module)?)?;
    module.add("__version__", env!("CARGO_PKG_VERSION"))
}
