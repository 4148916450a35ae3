//! The fleetpool scheduler, pure: events in, actions out.
//!
//! The shell owns one [`CoordinatorCore`], hands it everything that happens with `handle`, then takes actions with
//! `poll_action` until there are none, and keeps one timer at `poll_timeout`. The core never waits, never fails and
//! knows no clock.

mod event;
mod selector;

pub use event::{Action, Event, SessionNo};
pub use selector::{Selector, SelectorError};
