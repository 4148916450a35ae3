//! How arguments and results are written: MessagePack, structs by position, since both sides are the same program.

use std::io::Write;

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
}

/// Appends `value` to `out`.
pub(crate) fn encode<T: Serialize>(value: &T, out: &mut impl Write) -> Result<(), Error> {
    Ok(rmp_serde::encode::write(out, value)?)
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
