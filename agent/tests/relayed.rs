//! What is promised of workers that stay holds behind a relay, too: the same tests, of agents whose spawner is a service.

#![allow(clippy::duplicate_mod, reason = "each of the two has what it needs")]

#[path = "native.rs"]
mod native;
#[path = "python.rs"]
mod python;
