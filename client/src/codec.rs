//! How arguments and results are written: MessagePack, structs by position, since both sides are the same program.

use std::io::{self, Write};

use fleetpool_proto::limits::PAYLOAD_BYTES_MAX;
use serde::{Serialize, de::DeserializeOwned};

/// Why a value cannot travel.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Its type refuses to be written.
    #[error("cannot be encoded: {0}")]
    Encode(#[from] rmp_serde::encode::Error),
    /// Its type cannot be read back from what it wrote.
    #[error("cannot be decoded: {0}")]
    Decode(#[from] rmp_serde::decode::Error),
    /// It is larger than messages are.
    #[error("is over the limit of {PAYLOAD_BYTES_MAX} bytes: pass a path or cut it into parts")]
    TooLarge,
}

/// Appends `value` to `out`. What is too large to travel is copied no further than it could.
pub(crate) fn encode<T: Serialize>(value: &T, out: &mut impl Write) -> Result<(), Error> {
    let room = PAYLOAD_BYTES_MAX;
    let mut bounded = Bounded {
        out,
        room,
        full: false,
    };
    let written = rmp_serde::encode::write(&mut bounded, value);
    if bounded.full {
        return Err(Error::TooLarge);
    }
    Ok(written?)
}

/// Takes so many bytes and no more.
struct Bounded<'w, W> {
    out: &'w mut W,
    room: usize,
    full: bool,
}

impl<W: Write> Write for Bounded<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.full |= bytes.len() > self.room;
        if self.full {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let written = self.out.write(bytes)?;
        self.room -= written;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    Ok(rmp_serde::from_slice(bytes)?)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, path::PathBuf, time::Duration};

    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    enum Shape {
        Unit,
        One(Option<i64>),
        Two(f64, String),
        Named { path: PathBuf, wait: Duration },
    }

    #[track_caller]
    fn survives<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(value: T) {
        let mut bytes = Vec::new();
        encode(&value, &mut bytes).unwrap();
        assert_eq!(decode::<T>(&bytes).unwrap(), value);
    }

    #[test]
    fn values_come_back_as_they_were() {
        survives(());
        survives((1u8, "two".to_owned(), [3.0, 4.0]));
        survives(vec![Shape::Unit, Shape::One(None), Shape::One(Some(-1))]);
        survives(Shape::Two(f64::INFINITY, String::new()));
        let (path, wait) = ("/a".into(), Duration::from_nanos(7));
        survives(Ok::<Shape, String>(Shape::Named { path, wait }));
        survives(BTreeMap::from([(Some('x'), vec![u128::MAX])]));
    }

    #[test]
    fn g7_what_is_too_large_to_travel_is_not_copied() {
        let zeros = vec![0_u8; PAYLOAD_BYTES_MAX];
        let mut out = Vec::new();
        let error = encode(&serde_bytes::Bytes::new(&zeros), &mut out).unwrap_err();
        assert!(matches!(error, Error::TooLarge), "{error}");
        assert!(out.capacity() < 1024, "{} bytes", out.capacity());
    }

    #[test]
    fn what_is_cut_short_is_an_error() {
        let mut bytes = Vec::new();
        encode(&"hello", &mut bytes).unwrap();
        assert!(decode::<String>(&bytes[..3]).is_err());
    }

    proptest! {
        #[test]
        fn bytes_from_anywhere_never_panic(bytes: Vec<u8>) {
            let _ = decode::<Vec<(u64, Option<String>)>>(&bytes);
        }
    }
}
