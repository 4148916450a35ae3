//! Brings fleetpool agents up on hosts, over the operator's own OpenSSH.
//!
//! Who may log in where, by which key and through which jump host, and whom a host's key belongs to, is for the
//! operator's `ssh` and its configuration to say. Nothing here weakens it, and nothing asks for a password: what cannot
//! be done without one fails with ssh's own reason.
#![forbid(unsafe_code)]

mod conversation;
mod destination;
mod install;
mod program;
mod ssh;
mod start;
mod tunnel;

pub use conversation::{AgentEnd, HostError};
pub use destination::{Destination, DestinationError};
pub use install::{Authority, Did, Manner, Wanted, go_back, install, uninstall, upgrade};
pub use program::Program;
pub use start::{Agent, start_agent};
pub use tunnel::tunnel;
