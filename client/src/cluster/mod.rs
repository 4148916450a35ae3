//! Low-level, asynchronous access to a cluster: what the command line and [`crate::Pool`] both stand on.
//!
//! A [`Cluster`] is one session with a coordinator, somewhere else or embedded in this process. A pool opened on it
//! is a pair: a [`Submitter`] that sends tasks as far as the coordinator's credit goes, and [`Events`] that brings
//! back what becomes of them. Everything here may be awaited on any executor; the session itself lives on a thread
//! of the cluster's own, unless it was asked to live where it is used.
//!
//! ```text
//!  Submitter ─▶ Outbox (credit, batches) ─▶ flusher ─▶ Session ─▶ coordinator
//!  Events ◀─ bounded queue ◀──────────────── router ◀─ Session ◀─
//! ```
//! It must never hold more than a bounded number of messages for a consumer that is slow: then it stops reading
//! the session.

mod adhoc;
mod embedded;
mod error;
mod events;
mod handle;
mod hosts;
mod line;
mod outbox;
mod remote;
mod router;
mod statement;
mod submitter;
mod taken;
mod thread;
mod window;

pub use adhoc::{Arrival, Arrivals};
pub use embedded::Farewell;
pub use error::Error;
pub use events::{Events, PoolEvent};
pub use handle::Cluster;
pub use submitter::Submitter;

pub(crate) use events::Delivery;
pub(crate) use hosts::Hosts;
