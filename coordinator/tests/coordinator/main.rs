//! The coordinator from outside: scripted peers, in this process and over loopback.

mod bulk;
mod network;
mod sessions;
mod support;
