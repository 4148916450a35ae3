//! The messages of the four directions. Which role may say what is the type: an agent's session decodes
//! [`FromAgent`] only, a client's [`FromClient`] only.

mod agent;
mod client;

pub use agent::{
    FromAgent, GrantRow, HeldRow, HeldState, OutputRow, Registration, ReportRow, StartedRow,
    Stream, TaskRow, ToAgent,
};
pub use client::{FromClient, Refusal, ResultRow, ToClient};
