//! What people and programs read.
//!
//! [`Printer`] decides which bytes come next and holds back what is not due (pure but for its spool); [`Stdio`] writes
//! them without ever blocking the program; [`Progress`] is drawn between them on a terminal.

mod diff;
pub(crate) mod fold;
mod gather;
mod hold;
mod printer;
pub(crate) mod progress;
pub(crate) mod record;
mod stdio;
pub(crate) mod table;
mod tag;

pub(crate) use gather::{Gather, GatherOptions};
pub(crate) use hold::Full;
pub(crate) use printer::{Printer, Style};
pub(crate) use progress::Progress;
pub(crate) use stdio::Stdio;
pub(crate) use tag::TagStyle;
