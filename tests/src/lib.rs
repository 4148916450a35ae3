//! Simulator, real local clusters and programs that misbehave on purpose.

pub mod cgroup;
mod chance;
pub mod chaos;
pub mod client;
pub mod cluster;
pub mod line;
pub mod memory;
mod port;
pub mod sim;
pub mod strangers;
pub mod way;
