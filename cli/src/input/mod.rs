//! Where the inputs of `map` come from: `:::` values, `::::` files, lines of stdin; several sources are combined
//! as GNU parallel does. [`split`] reads the command line, [`Rows::open`] opens what it names.

mod rows;
mod split;

pub(crate) use rows::Rows;
pub(crate) use split::{Group, Source, file_source, split};

/// One input: a value of each source. Bytes, since file names need not be UTF-8.
pub(crate) type Row = Vec<Vec<u8>>;
