//! Sessions as their users see them: every carrier, every way in, every way out.

mod cluster;
mod conformance;
