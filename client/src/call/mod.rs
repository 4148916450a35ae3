//! How calls on a pool become tasks, and how results find their way back to them.
//!
//! ```text
//!  caller ─▶ Feed (flow, encoded inputs) ─▶ Core::push ─▶ Submitter
//!  caller ◀─ Call (what has arrived) ◀───── Runs ◀─────── dispatcher ◀─ Events
//! ```
//! A call's inputs are pulled by whoever waits for it, on its own thread; nothing here pulls the input of a call that
//! nobody waits for, except of those whose inputs were taken whole. The dispatcher never waits for a consumer: a call
//! that is not consumed holds what it asked for, which its flow bounds, and its neighbours go on.

mod arrived;
mod collect;
mod core;
mod dispatch;
mod encode;
mod feed;
mod flow;
mod items;
mod runs;

pub use arrived::Arrived;
pub(crate) use arrived::Call;
pub(crate) use collect::Collect;
pub(crate) use core::Core;
pub(crate) use dispatch::dispatch;
pub(crate) use encode::{Encoded, Encoder, encode_one};
pub(crate) use feed::Feed;
pub(crate) use flow::Flow;
pub(crate) use items::{Items, Order};
