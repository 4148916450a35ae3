//! Sessions between fleetpool's parts: carriers and identities.
//!
//! Agents and clients dial ([`connect()`]), the coordinator listens ([`Listener`]); in one process the two ends come
//! from [`local_pair`]. Whatever carries it, a [`Session`] delivers each [`Frame`](fleetpool_proto::Frame) at most
//! once, in order, except that frames with segments of [`BULK_BYTES_MIN`](fleetpool_proto::limits::BULK_BYTES_MIN)
//! and more may be overtaken by later ones.
//!
//! This crate owns every socket, key and certificate. It must never look inside a frame once a session is
//! welcomed, never buffer without a bound, and never talk to a peer it has not authenticated about anything but
//! joining.
#![forbid(unsafe_code)]

mod address;
mod connect;
mod hello;
pub mod identity;
mod join;
mod listener;
mod peer;
pub mod pinned;
mod session;
mod stdio;
mod tls;
pub mod token;
mod transport;

pub use address::{Address, AddressError, DEFAULT_PORT};
pub use connect::{ConnectError, connect, connect_by, connect_tcp};
pub use fleetpool_proto::join::JoinRequest;
pub use hello::Incoming;
pub use identity::{Identity, ServerIdentity};
pub use join::{JoinError, join};
pub use listener::{BindError, Gatekeeper, Listener};
pub use peer::{Carrier, KeyId, Peer};
pub use session::{Cause, Closed, Receiver, Sender, Session, TrySendError, local_pair};
pub use stdio::{Inward, Outward, accept_over, dial_over, take_stdio};
pub use token::Token;
