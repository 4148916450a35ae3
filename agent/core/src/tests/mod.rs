//! The core alone, driven by hand and by chance.

mod chance;
mod host;
mod lease;
mod pipeline;
mod tasks;
mod workers;
