//! Slots and worker lifecycles of one host, pure: events in, actions out.
//!
//! The shell owns one [`AgentCore`], hands it everything that happens with [`AgentCore::handle`], then takes
//! actions with [`AgentCore::poll_action`] until there are none, and keeps one timer at
//! [`AgentCore::poll_timeout`]. The core never waits, never fails and knows no clock.
//!
//! Who owns what:
//! - `link`: the session with the coordinator and the lease (G1): the right to start tasks, and what is killed
//!   when it ends;
//! - `pools`: what a pool is, how many slots it has here, and its queue of granted attempts;
//! - `slots`: the workers, one at most a slot, and the tasks handed to each;
//! - `dispatch`: which waiting task goes to which worker, and which workers are started, replaced and let go;
//! - `ends`: tasks that end, by themselves, by their worker's death or because they are killed;
//! - `reports`: what the coordinator has not acknowledged yet (G3);
//! - `facts`, `resume`: what a successor is to know, and how it goes on with that (G10).
//!
//! A task is never in two places: it waits in its pool's queue, or is handed to one worker, or is in the reports.

mod core;
mod dispatch;
mod ends;
mod event;
mod facts;
mod link;
mod pace;
mod pools;
mod reports;
mod resume;
mod slots;
mod timers;
mod view;

#[cfg(test)]
mod tests;

#[cfg(feature = "planted-bugs")]
pub use core::PlantedBug;
pub use core::{AgentCore, Options};
pub use event::{Action, EndedTask, Event, TaskStart, WorkerEnd};
pub use facts::{Fact, Inventory};
pub use resume::Heir;
pub use view::SlotView;
