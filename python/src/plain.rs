//! Pickles of numbers, texts, booleans and `None`, written and read without asking `pickle`: they are a few bytes each,
//! and most of what a short task would cost its caller is to ask.

use pyo3::{
    prelude::*,
    types::{PyBool, PyDict, PyFloat, PyInt, PyString, PyTuple},
};

/// What every pickle of protocol 4 begins with; `pickle` reads that whatever protocol it writes.
const PROTOCOL: [u8; 2] = [0x80, 4];
const FRAME: u8 = 0x95;
const NONE: u8 = b'N';
const TRUE: u8 = 0x88;
const FALSE: u8 = 0x89;
/// Integers of one and two bytes without a sign, and of four with one.
const BININT1: u8 = b'K';
const BININT2: u8 = b'M';
const BININT: u8 = b'J';
const BINFLOAT: u8 = b'G';
/// Texts, with lengths of one byte and of four.
const SHORT_BINUNICODE: u8 = 0x8c;
const BINUNICODE: u8 = b'X';
const MEMOIZE: u8 = 0x94;
const MARK: u8 = b'(';
/// Everything behind the mark, two values, and no names.
const TUPLE: u8 = b't';
const TUPLE2: u8 = 0x86;
const EMPTY_DICT: u8 = b'}';
const STOP: u8 = b'.';

/// Texts from this size on are left to `pickle`.
const TEXT_BYTES_MAX: usize = 64 << 10;

/// Writes the pickle of a plain value; of anything else nothing, and says so.
pub(crate) fn write(out: &mut Vec<u8>, value: &Bound<'_, PyAny>) -> bool {
    whole(out, |out| write_value(out, value))
}

/// The same for positional and named arguments, in a tuple, when they are all plain and none is named.
pub(crate) fn write_call(out: &mut Vec<u8>, call: &Bound<'_, PyAny>) -> bool {
    whole(out, |out| {
        let call = call.cast_exact::<PyTuple>().ok()?;
        let args = call.get_borrowed_item(0).ok()?;
        let kwds = call.get_borrowed_item(1).ok()?;
        if !kwds.cast_exact::<PyDict>().ok()?.is_empty() {
            return None;
        }
        out.push(MARK);
        for value in args.cast_exact::<PyTuple>().ok()?.iter_borrowed() {
            write_value(out, &value)?;
        }
        out.extend([TUPLE, EMPTY_DICT, TUPLE2]);
        Some(())
    })
}

fn whole(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>) -> Option<()>) -> bool {
    out.clear();
    out.extend(PROTOCOL);
    let is_plain = write(out).is_some();
    out.push(STOP);
    is_plain
}

fn write_value(out: &mut Vec<u8>, value: &Bound<'_, PyAny>) -> Option<()> {
    if value.is_exact_instance_of::<PyInt>() {
        // Larger ones are left to `pickle`.
        let number: i64 = value.extract().ok()?;
        out.push(BININT);
        out.extend(i32::try_from(number).ok()?.to_le_bytes());
    } else if let Ok(text) = value.cast_exact::<PyString>() {
        let text = text.to_str().ok()?;
        match u8::try_from(text.len()) {
            Ok(len) => out.extend([SHORT_BINUNICODE, len]),
            Err(_) if text.len() > TEXT_BYTES_MAX => return None,
            Err(_) => {
                out.push(BINUNICODE);
                out.extend(u32::try_from(text.len()).ok()?.to_le_bytes());
            }
        }
        out.extend_from_slice(text.as_bytes());
    } else if let Ok(number) = value.cast_exact::<PyFloat>() {
        out.push(BINFLOAT);
        out.extend(number.value().to_be_bytes());
    } else if value.is_none() {
        out.push(NONE);
    } else {
        let truth = value.cast_exact::<PyBool>().ok()?.is_true();
        out.push(if truth { TRUE } else { FALSE });
    }
    Some(())
}

/// The value of a pickle of a plain one; `None` for all others.
pub(crate) fn read<'py>(py: Python<'py>, pickled: &[u8]) -> Option<Bound<'py, PyAny>> {
    let [0x80, 2..=5, rest @ ..] = pickled else {
        return None;
    };
    // A frame is for those who read from files.
    let rest = match rest {
        [FRAME, framed @ ..] => framed.get(8..)?,
        _ => rest,
    };
    let number = match *rest {
        [BININT1, a, STOP] => i64::from(a),
        [BININT2, a, b, STOP] => i64::from(u16::from_le_bytes([a, b])),
        [BININT, a, b, c, d, STOP] => i64::from(i32::from_le_bytes([a, b, c, d])),
        [BINFLOAT, ref float @ .., STOP] => {
            let number = f64::from_be_bytes(float.try_into().ok()?);
            return Some(PyFloat::new(py, number).into_any());
        }
        [SHORT_BINUNICODE, len, ref text @ .., MEMOIZE, STOP] if text.len() == usize::from(len) => {
            let text = std::str::from_utf8(text).ok()?;
            return Some(PyString::new(py, text).into_any());
        }
        [NONE, STOP] => return Some(py.None().into_bound(py)),
        [truth @ (TRUE | FALSE), STOP] => {
            return Some(PyBool::new(py, truth == TRUE).to_owned().into_any());
        }
        _ => return None,
    };
    number.into_pyobject(py).ok().map(Bound::into_any)
}
