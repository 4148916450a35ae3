//! What tasks print, on its way to the program's own output.

use std::io::{self, Write as _};

use fleetpool::{OutputStream, Printed};
use pyo3::{prelude::*, types::PyBytes};

/// Gives what tasks print to `sink(is_stderr, bytes)`, which gives back whether the bytes are to be written as they are
/// to the file descriptor: then that is done here, without the interpreter's lock.
pub(crate) fn to(sink: Py<PyAny>) -> impl Fn(Printed) + Send + Sync + 'static {
    move |printed| {
        let is_stderr = printed.stream == OutputStream::Stderr;
        let plain = Python::try_attach(|py| {
            let bytes = PyBytes::new(py, &printed.bytes);
            let plain = sink.bind(py).call1((is_stderr, bytes));
            plain
                .and_then(|plain| plain.is_truthy())
                .unwrap_or_else(|error| {
                    error.write_unraisable(py, None);
                    false
                })
        });
        // Without an interpreter, which is at its end: as the C library would.
        if plain.unwrap_or(true) {
            write(is_stderr, &printed.bytes);
        }
    }
}

/// Gives what is to be known of the pool to `note(text)`.
pub(crate) fn note_to(note: Py<PyAny>) -> impl Fn(String) + Send + Sync + 'static {
    move |text| {
        // Without an interpreter nobody is there to know it.
        Python::try_attach(|py| {
            if let Err(error) = note.bind(py).call1((text,)) {
                error.write_unraisable(py, None);
            }
        });
    }
}

/// An output that is closed or full is the program's own affair.
fn write(is_stderr: bool, bytes: &[u8]) {
    let _ = match is_stderr {
        true => io::stderr().lock().write_all(bytes),
        false => {
            let mut stdout = io::stdout().lock();
            stdout.write_all(bytes).and_then(|()| stdout.flush())
        }
    };
}
