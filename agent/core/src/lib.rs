//! Slots and worker lifecycles of one host, pure: events in, actions out.
//!
//! The shell owns one [`AgentCore`], hands it everything that happens with [`AgentCore::handle`], then takes
//! actions with [`AgentCore::poll_action`] until there are none, and keeps one timer at
//! [`AgentCore::poll_timeout`]. The core never waits, never fails and knows no clock.

mod event;

pub use event::{Action, EndedTask, Event, TaskStart, WorkerEnd};
