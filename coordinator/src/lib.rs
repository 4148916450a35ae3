//! The fleetpool coordinator: sessions, registry and timers around the scheduler.
//!
//! One task, behind [`Handle`], owns the scheduler ([`fleetpool_coordinator_core::CoordinatorCore`]) and every
//! session; a reader task per session decodes what its peer says. [`start`] runs it inside any tokio runtime, for
//! sessions that are brought to it ([`Handle::attach`]: embedded clusters); a [`Server`] adds a listener, the registry of
//! identities and join tokens.
//!
//! The coordinator never talks to a worker, never decides in a shell what the core should, and never lets one
//! session wait for another.
#![forbid(unsafe_code)]

pub mod access;
mod journal;
mod serve;
mod shell;
mod state;

#[cfg(feature = "planted-bugs")]
pub use fleetpool_coordinator_core::PlantedBug;
pub use journal::JournalError;
pub use serve::{ServeError, ServeOptions, Server};

pub use shell::{Handle, Options, Refused, Ticket, start};
pub use state::{Founded, StateError, init_cluster};
