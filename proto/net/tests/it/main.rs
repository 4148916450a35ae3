//! Sessions as their users see them: every carrier, every way in, every way out.

mod abuse;
mod addresses;
mod admission;
mod blocked;
mod cluster;
mod conformance;
mod files;
mod joining;
mod outages;
mod raw;
