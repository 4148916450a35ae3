//! What fleetpool's parts say to each other: ids, messages, frames, versions and limits.
//!
//! No IO, no async, no clock: everything here is data and its encoding. The two cores depend on this
//! crate alone; `fleetpool-net` carries its [`Frame`]s.
#![forbid(unsafe_code)]

pub mod command;
pub mod frame;
pub mod ids;
pub mod join;
pub mod journal;
pub mod limits;
pub mod message;
pub mod outcome;
pub mod pool;
pub mod rows;
pub mod selector;
pub mod time;
pub mod version;
pub mod view;
pub mod worker;

pub use frame::{DecodeError, Frame, Message};
pub use ids::{
    Attempt, AttemptId, ClientId, HostId, PeerPin, PoolId, Role, SlotNo, SpecId, TaskId,
};
pub use outcome::Outcome;
pub use rows::Payloads;
pub use time::Timestamp;
