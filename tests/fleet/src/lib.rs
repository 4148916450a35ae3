//! A fleet of hosts on one machine: each with namespaces, files and an sshd of its own, on a network that leads nowhere else.
//!
//! [`Fleet`] starts a *yard*, a shell in a network and mounts of its own (`yard.sh`), and asks it, a line at a time, to make
//! hosts (`host.sh` is their first process), to cut them off, or to turn off their power. A [`Command`] enters a host without
//! ssh. Nothing here may change the machine outside the yard, or outlive the owner: the yard ends with the pipe from it, and
//! the kernel ends every process of the yard with the yard. Packets can be lost, and not delayed: that needs netem.
//!
//! ```no_run
//! let fleet = fleetpool_test_fleet::Fleet::of(3)?;
//! assert_eq!(fleet.head().sh("ssh h2 hostname"), "h2\n");
//! fleet.host("h2").power_off();
//! # anyhow::Ok(())
//! ```
#![forbid(unsafe_code)]

mod command;
mod fleet;
mod host;
mod running;
mod yard;

pub use command::Command;
pub use fleet::{Fleet, Plan};
pub use host::Host;
pub use running::Running;
