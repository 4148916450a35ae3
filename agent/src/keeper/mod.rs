//! Keepers: one process a slot in use, forked by the spawner, that starts and ends what runs there.

mod channel;
mod ending;
mod environment;
mod launch;
mod memory;
pub(crate) mod message;
mod pipe;
mod process;
mod task;
pub(crate) mod unheard;
mod worker;

pub(crate) use process::{STATUS_LEFT_CHILDREN, adopt, run};
