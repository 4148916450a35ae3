//! Values as bytes, and back. The other side is `agent/src/python/calls.py`, which says what the first bytes mean.

use bytes::{BufMut as _, Bytes, BytesMut};
use memchr::memmem;
use pyo3::{
    exceptions::PyValueError,
    intern,
    prelude::*,
    sync::PyOnceLock,
    types::{PyBool, PyByteArray, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString},
};

const OUT_OF_BAND: u8 = 1;
const RAW: u8 = 2;
const ALIGNMENT: usize = 16;
/// Bytes from this size on are not worth a pickle.
const RAW_BYTES_MIN: usize = 4096;
/// Payloads share blocks of this size.
const BLOCK_BYTES: usize = 64 << 10;
/// What must be left of a block for another payload to begin in it.
const ROOM_BYTES_MIN: usize = 512;

/// What is done in Python.
struct Tools {
    dumps: Py<PyAny>,
    loads: Py<PyAny>,
}

static TOOLS: PyOnceLock<Tools> = PyOnceLock::new();

/// Gives the extension `pickle`'s `dumps` (with the protocol bound) and `loads`, and the module of error classes.
#[pyfunction]
pub(crate) fn setup(py: Python<'_>, dumps: Py<PyAny>, loads: Py<PyAny>, errors: Py<PyAny>) {
    TOOLS.get_or_init(py, || Tools { dumps, loads });
    crate::errors::setup(py, errors);
}

fn tools(py: Python<'_>) -> PyResult<&Tools> {
    TOOLS.get(py).ok_or_else(|| {
        PyValueError::new_err("fleetpool._core is used before fleetpool is imported")
    })
}

/// Makes payloads, of which small ones share memory.
#[derive(Default)]
pub(crate) struct Packer {
    block: BytesMut,
}

impl Packer {
    /// An argument: how the function is to be called, then the value. `other` packs what is not one of the plain types
    /// or belongs to the main program; it gives bytes, or a list of bytes-like pieces.
    pub(crate) fn argument(
        &mut self,
        mode: u8,
        value: &Bound<'_, PyAny>,
        other: &Bound<'_, PyAny>,
    ) -> PyResult<Bytes> {
        if let Ok(bytes) = value.cast_exact::<PyBytes>()
            && bytes.as_bytes().len() >= RAW_BYTES_MIN
        {
            return Ok(self.join(mode, &[&[RAW], bytes.as_bytes()]));
        }
        if is_plain(value) {
            let pickled = tools(value.py())?.dumps.bind(value.py()).call1((value,))?;
            return Ok(self.join(mode, &[pickled.cast::<PyBytes>()?.as_bytes()]));
        }
        let packed = other.call1((value,))?;
        self.packed(mode, &packed)
    }

    /// An argument that has been packed in Python.
    pub(crate) fn packed(&mut self, mode: u8, packed: &Bound<'_, PyAny>) -> PyResult<Bytes> {
        if let Ok(bytes) = packed.cast::<PyBytes>() {
            return Ok(self.join(mode, &[bytes.as_bytes()]));
        }
        let joined = intern!(packed.py(), "join");
        let joined = PyBytes::new(packed.py(), b"").call_method1(joined, (packed,))?;
        Ok(self.join(mode, &[joined.cast::<PyBytes>()?.as_bytes()]))
    }

    fn join(&mut self, mode: u8, pieces: &[&[u8]]) -> Bytes {
        let len = 1 + pieces.iter().map(|piece| piece.len()).sum::<usize>();
        if len > BLOCK_BYTES / 4 {
            let mut alone = BytesMut::with_capacity(len);
            write(&mut alone, mode, pieces);
            return alone.freeze();
        }
        if self.block.capacity() < len.max(ROOM_BYTES_MIN) {
            self.block.reserve(BLOCK_BYTES);
        }
        write(&mut self.block, mode, pieces);
        self.block.split().freeze()
    }
}

fn write(out: &mut BytesMut, mode: u8, pieces: &[&[u8]]) {
    out.put_u8(mode);
    pieces.iter().for_each(|piece| out.put_slice(piece));
}

fn is_plain(value: &Bound<'_, PyAny>) -> bool {
    value.is_exact_instance_of::<PyInt>()
        || value.is_none()
        || value.is_exact_instance_of::<PyFloat>()
        || value.is_exact_instance_of::<PyBool>()
        // A text that names the main program is no reference to it, and may be looked at for one in vain.
        || value
            .cast_exact::<PyString>()
            .is_ok_and(|text| text.to_str().is_ok_and(|text| memmem::find(text.as_bytes(), b"__main__").is_none()))
}

/// The value of a result.
pub(crate) fn unpack<'py>(py: Python<'py>, payload: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    match payload.first() {
        Some(&RAW) => Ok(PyBytes::new(py, &payload[1..]).into_any()),
        Some(&OUT_OF_BAND) => unpack_buffers(py, payload),
        _ => tools(py)?
            .loads
            .bind(py)
            .call1((PyBytes::new(py, payload),)),
    }
}

/// A pickle whose buffers lie behind it: each is given memory of its own, which can be written to.
fn unpack_buffers<'py>(py: Python<'py>, payload: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    let (pickled, buffers) = split_buffers(payload)
        .ok_or_else(|| PyValueError::new_err("a result is shorter than it says"))?;
    let buffers = buffers
        .into_iter()
        .map(|buffer| PyByteArray::new(py, buffer));
    let options = PyDict::new(py);
    options.set_item(
        intern!(py, "buffers"),
        PyList::new(py, buffers.collect::<Vec<_>>())?,
    )?;
    let loads = tools(py)?.loads.bind(py);
    loads.call((PyBytes::new(py, pickled),), Some(&options))
}

fn split_buffers(payload: &[u8]) -> Option<(&[u8], Vec<&[u8]>)> {
    let count = u32::from_le_bytes(payload.get(1..5)?.try_into().ok()?) as usize;
    let length = |number: usize| -> Option<usize> {
        let at = 8 + 8 * number;
        usize::try_from(u64::from_le_bytes(
            payload.get(at..at + 8)?.try_into().ok()?,
        ))
        .ok()
    };
    let mut at = 8_usize.checked_add(count.checked_add(1)?.checked_mul(8)?)?;
    let pickled = payload.get(at..at.checked_add(length(0)?)?)?;
    at += pickled.len();
    let mut buffers = Vec::new();
    for number in 1..=count {
        at = at.checked_next_multiple_of(ALIGNMENT)?;
        let buffer = payload.get(at..at.checked_add(length(number)?)?)?;
        at += buffer.len();
        buffers.push(buffer);
    }
    Some((pickled, buffers))
}
