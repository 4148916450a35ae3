//! Sessions as their users see them: every carrier, every way in, every way out.

mod abuse;
mod admission;
mod cluster;
mod conformance;
mod raw;
