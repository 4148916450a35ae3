//! A multiprocessing pool for a whole fleet.
#![forbid(unsafe_code)]

pub mod cluster;
