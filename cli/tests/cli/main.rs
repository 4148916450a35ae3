//! The real binary, on its embedded cluster and on a small fleet of its own.

mod adhoc;
mod bad_input;
mod exec;
mod fleet;
mod help;
mod keeping;
mod map;
mod stopping;
mod support;
