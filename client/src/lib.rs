//! A multiprocessing pool for a whole fleet.
#![deny(unsafe_code)]

extern crate self as fleetpool;

mod builder;
mod call;
pub mod cluster;
mod codec;
mod command;
mod config;
mod error;
mod handle;
mod iter;
mod output;
mod park;
mod pool;
mod program;
mod task;
mod worker;

pub use builder::{Builder, Retries};
pub use command::{CommandBuilder, CommandOutput};
pub use error::{Error, TaskError};
pub use fleetpool_macros::task;
pub use handle::TaskHandle;
pub use iter::{Results, Stream};
pub use output::{Printed, Stream as OutputStream};
pub use pool::{HostView, Pool};
pub use task::Task;
pub use worker::{TaskContext, current, init};

/// For the code that [`task`](macro@task) writes.
#[doc(hidden)]
pub mod __private {
    pub use inventory;

    pub use crate::task::Entry;
}
