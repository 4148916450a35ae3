//! The fleetpool scheduler, pure: events in, actions out.
//!
//! The shell owns one [`CoordinatorCore`], hands it everything that happens with `handle`, then takes actions with
//! `poll_action` until there are none, and keeps one timer at `poll_timeout`. The core never waits, never fails and
//! knows no clock.

mod absence;
mod adoption;
mod agents;
mod allotment;
mod clients;
mod core;
mod credit;
mod event;
mod explain;
mod fair;
mod feed;
mod held;
mod host;
mod lives;
mod options;
mod outbox;
mod placement;
mod pool;
mod queue;
mod ranges;
mod recovery;
mod retained;
mod settle;
mod share;
mod stop;
mod views;

#[cfg(feature = "planted-bugs")]
pub use crate::options::PlantedBug;
pub use crate::{core::CoordinatorCore, options::Options};
pub use event::{Action, Event, SessionNo};
