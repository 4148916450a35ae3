//! Runs tasks on a cluster and records what becomes of them: what `map` and `exec` have in common.
//!
//! ```text
//!  Feeder ─ submits within the Gate ─▶ cluster ─ events ─▶ Engine ─▶ Recorder ─▶ output, joblog, results
//!         ──── which task is which ──────────────────────▶
//! ```
//! Feeder and engine take turns on one thread; neither ever waits for the other.

mod detached;
pub(crate) mod ended;
mod engine;
mod feeder;
mod gate;
mod recorder;
mod signals;
mod verdict;

pub(crate) use detached::{Detached, detach};
pub(crate) use engine::{Attached, Hosts, Job, attach, run};
pub(crate) use feeder::{Inputs, Item};
pub(crate) use gate::Gate;
pub(crate) use recorder::{Explain, Keep, Recorder};
pub(crate) use signals::Signals;
