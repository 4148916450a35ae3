//! Values as bytes, and back. The other side is `agent/src/python/calls.py`, which says what the first bytes mean.

use bytes::{BufMut as _, Bytes, BytesMut};
use fleetpool::{Error, cluster};
use fleetpool_proto::limits::PAYLOAD_BYTES_MAX;
use pyo3::{
    exceptions::PyValueError,
    intern,
    prelude::*,
    sync::PyOnceLock,
    types::{PyByteArray, PyBytes, PyDict, PyList, PyString, PyTuple},
};

use crate::{errors, memory, plain};

/// The way to call a function with positional and named arguments.
const CALL: u8 = 0;
const OUT_OF_BAND: u8 = 1;
const RAW: u8 = 2;
const ALIGNMENT: usize = 16;
/// Bytes from this size on are not worth a pickle.
const RAW_BYTES_MIN: usize = 4096;
/// Payloads share blocks of this size.
const BLOCK_BYTES: usize = 64 << 10;
/// What must be left of a block for another payload to begin in it.
const ROOM_BYTES_MIN: usize = 512;
/// Values in a list or tuple whose sizes are looked at before they are packed.
const WEIGHED_MAX: usize = 64;
/// Lists and tuples within each other where that is done: an argument of a call is in two.
const WEIGHED_DEEP: usize = 3;

static LOADS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// Gives the extension `pickle.loads`, and the module of error classes.
#[pyfunction]
pub(crate) fn setup(py: Python<'_>, loads: Py<PyAny>, errors: Py<PyAny>) {
    LOADS.get_or_init(py, || loads);
    crate::errors::setup(py, errors);
}

fn loads(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    let loads = LOADS.get(py).ok_or_else(|| {
        PyValueError::new_err("fleetpool._core is used before fleetpool is imported")
    })?;
    Ok(loads.bind(py))
}

/// Makes payloads, of which small ones share memory.
#[derive(Default)]
pub(crate) struct Packer {
    block: BytesMut,
    scratch: Vec<u8>,
}

impl Packer {
    /// An argument: how the function is to be called, then the value. `other` packs what is not plain: it gives bytes, or
    /// a list of bytes-like pieces.
    pub(crate) fn argument(
        &mut self,
        mode: u8,
        value: &Bound<'_, PyAny>,
        other: &Bound<'_, PyAny>,
    ) -> PyResult<Bytes> {
        if let Ok(bytes) = value.cast_exact::<PyBytes>()
            && bytes.as_bytes().len() >= RAW_BYTES_MIN
        {
            fits(value.py(), bytes.as_bytes().len())?;
            return Ok(self.join(mode, &[&[RAW], bytes.as_bytes()]));
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        let is_plain = match mode {
            CALL => plain::write_call(&mut scratch, value),
            _ => plain::write(&mut scratch, value),
        };
        let plain = is_plain.then(|| self.join(mode, &[&scratch]));
        self.scratch = scratch;
        match plain {
            Some(payload) => Ok(payload),
            None => {
                // To pack it is to copy it, which would be in vain.
                fits(value.py(), weight(value, WEIGHED_DEEP))?;
                self.packed(mode, &other.call1((value,))?)
            }
        }
    }

    fn packed(&mut self, mode: u8, packed: &Bound<'_, PyAny>) -> PyResult<Bytes> {
        if let Ok(bytes) = packed.cast::<PyBytes>() {
            fits(packed.py(), bytes.as_bytes().len())?;
            return Ok(self.join(mode, &[bytes.as_bytes()]));
        }
        let sizes = packed.cast::<PyList>()?.iter().map(|piece| piece.len());
        fits(packed.py(), sizes.sum::<PyResult<usize>>()?)?;
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

/// Refuses what is larger than messages are.
fn fits(py: Python<'_>, bytes: usize) -> PyResult<()> {
    if bytes <= PAYLOAD_BYTES_MAX {
        return Ok(());
    }
    let error = Error::Cluster(cluster::Error::TooLarge { bytes });
    Err(errors::of_pool(py, &error))
}

/// A size that the value is not smaller than when it is packed: of bytes and texts in it, as far as they are easily found.
fn weight(value: &Bound<'_, PyAny>, deep: usize) -> usize {
    if let Ok(bytes) = value.cast_exact::<PyBytes>() {
        bytes.as_bytes().len()
    } else if let Ok(bytes) = value.cast_exact::<PyByteArray>() {
        bytes.len()
    } else if value.is_exact_instance_of::<PyString>() {
        value.len().unwrap_or_default()
    } else if deep == 0 {
        0
    } else if let Ok(values) = value.cast_exact::<PyTuple>() {
        let values = values.iter_borrowed().take(WEIGHED_MAX);
        values.map(|value| weight(&value, deep - 1)).sum()
    } else if let Ok(values) = value.cast_exact::<PyList>() {
        let values = values.iter().take(WEIGHED_MAX);
        values.map(|value| weight(&value, deep - 1)).sum()
    } else {
        0
    }
}

fn write(out: &mut BytesMut, mode: u8, pieces: &[&[u8]]) {
    out.put_u8(mode);
    pieces.iter().for_each(|piece| out.put_slice(piece));
}

/// The value of a result.
pub(crate) fn unpack<'py>(py: Python<'py>, payload: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    if let Some(value) = plain::read(py, payload) {
        return Ok(value);
    }
    match payload.first() {
        Some(&RAW) => Ok(memory::bytes(py, &payload[1..])?.into_any()),
        Some(&OUT_OF_BAND) => unpack_buffers(py, payload),
        _ => loads(py)?.call1((memory::bytes(py, payload)?,)),
    }
}

/// A pickle whose buffers lie behind it: each is given memory of its own, which can be written to.
fn unpack_buffers<'py>(py: Python<'py>, payload: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    let (pickled, buffers) = split_buffers(payload)
        .ok_or_else(|| PyValueError::new_err("a result is shorter than it says"))?;
    let made = PyList::empty(py);
    for buffer in buffers {
        made.append(memory::bytearray(py, buffer)?)?;
    }
    let options = PyDict::new(py);
    options.set_item(intern!(py, "buffers"), made)?;
    loads(py)?.call((PyBytes::new(py, pickled),), Some(&options))
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
