//! Tables on the wire. In memory a table is a `Vec` of rows; encoded it is one named array a column, so that a
//! row costs no field names, and a peer of another version may lack a column or have one more.

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::frame::{BodyReader, DecodeError};

/// Declares a row type that is encoded by columns. A column that the sender lacks is filled with defaults.
macro_rules! rows {
    ($(#[$doc:meta])* pub struct $row:ident, $columns:ident { $($(#[$fdoc:meta])* pub $field:ident: $ty:ty,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct $row { $($(#[$fdoc])* pub $field: $ty,)+ }

        #[derive(Default, serde::Serialize, serde::Deserialize)]
        #[serde(default)]
        struct $columns { $($field: Vec<$ty>,)+ }

        impl $crate::rows::Row for $row {
            fn serialize_all<S: serde::Serializer>(rows: &[Self], serializer: S) -> Result<S::Ok, S::Error> {
                let mut columns = $columns::default();
                $(columns.$field = rows.iter().map(|row| row.$field.clone()).collect();)+
                serde::Serialize::serialize(&columns, serializer)
            }

            fn deserialize_all<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<Self>, D::Error> {
                let columns: $columns = serde::Deserialize::deserialize(deserializer)?;
                let len = 0usize$(.max(columns.$field.len()))+;
                let mut rows: Vec<Self> = std::iter::repeat_with(Self::default).take(len).collect();
                $(
                    if !columns.$field.is_empty() && columns.$field.len() != len {
                        return Err(serde::de::Error::custom(concat!("column ", stringify!($field), " has another length than its table")));
                    }
                    for (row, value) in rows.iter_mut().zip(columns.$field) {
                        row.$field = value;
                    }
                )+
                Ok(rows)
            }
        }
    };
}
pub(crate) use rows;

/// A row type made by `rows!`.
pub trait Row: Sized {
    /// Encodes `rows` as columns.
    #[expect(clippy::missing_errors_doc, reason = "the serializer's own")]
    fn serialize_all<S: Serializer>(rows: &[Self], serializer: S) -> Result<S::Ok, S::Error>;
    /// Decodes columns; fails when their lengths differ.
    #[expect(clippy::missing_errors_doc, reason = "the deserializer's own")]
    fn deserialize_all<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Self>, D::Error>;
}

/// For `#[serde(with = "table")]` on a `Vec` of rows.
pub mod table {
    use super::{Deserializer, Row, Serializer};

    /// Encodes by columns.
    #[expect(clippy::missing_errors_doc, reason = "the serializer's own")]
    pub fn serialize<R: Row, S: Serializer>(rows: &[R], serializer: S) -> Result<S::Ok, S::Error> {
        R::serialize_all(rows, serializer)
    }

    /// Decodes from columns.
    #[expect(clippy::missing_errors_doc, reason = "the deserializer's own")]
    pub fn deserialize<'de, R: Row, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<R>, D::Error> {
        R::deserialize_all(deserializer)
    }
}

/// Opaque bytes that belong to a message, one item a row. The header holds their lengths, the frame's body the
/// bytes; an item is a slice of the body and is never copied on its way through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Payloads {
    lens: Vec<u32>,
    items: Vec<Bytes>,
}

impl Payloads {
    /// The items.
    #[must_use]
    pub fn items(&self) -> &[Bytes] {
        &self.items
    }

    /// Takes the items out.
    #[must_use]
    pub fn into_items(self) -> Vec<Bytes> {
        self.items
    }

    /// Checks that there are as many as the rows that they belong to.
    pub(crate) fn are(&self, rows: usize) -> Result<(), DecodeError> {
        if rows == self.items.len() {
            return Ok(());
        }
        let why = "rows and payloads differ in number";
        Err(DecodeError::Inconsistent(why))
    }

    pub(crate) fn fill(&mut self, body: &mut BodyReader) -> Result<(), DecodeError> {
        let lens = std::mem::take(&mut self.lens);
        self.items = lens
            .into_iter()
            .map(|len| body.take(len as usize))
            .collect::<Result<_, _>>()?;
        Ok(())
    }
}

impl From<Vec<Bytes>> for Payloads {
    fn from(items: Vec<Bytes>) -> Self {
        Self {
            lens: Vec::new(),
            items,
        }
    }
}

impl FromIterator<Bytes> for Payloads {
    fn from_iter<I: IntoIterator<Item = Bytes>>(iter: I) -> Self {
        Self::from(iter.into_iter().collect::<Vec<_>>())
    }
}

impl Serialize for Payloads {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.items.iter().map(Bytes::len))
    }
}

impl<'de> Deserialize<'de> for Payloads {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self {
            lens: Vec::deserialize(deserializer)?,
            items: Vec::new(),
        })
    }
}
