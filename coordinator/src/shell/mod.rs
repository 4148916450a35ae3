//! The task that owns the scheduler and the sessions, and the ways to it.

mod clock;
mod content;
mod counters;
mod doors;
mod durable;
mod full;
mod handle;
mod jobs;
mod names;
mod outbound;
mod owner;
mod queries;
mod reader;
mod sessions;
mod supply;

pub(crate) use clock::wall_s;
pub(crate) use handle::start_durable;
pub use handle::{Handle, Options, Refused, Ticket, start};
