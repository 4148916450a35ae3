//! A fleet in virtual time, grown from a seed.
//!
//! Both cores are the real ones and every message passes the real codec; everything else (clocks, network, hosts,
//! workers, clients) is played by this module, badly on purpose: sessions break and lose what is on its way, bulk
//! is overtaken, hosts are cut off, die, come back, stop; clocks run at different speeds; tasks take heavy-tailed
//! time, fail, kill their workers; clients cancel, terminate and vanish. After every step `truth` compares what
//! really runs with what was promised (G1-G5).
//!
//! The same seed gives the same run, to the bit. A failing one prints its seed and how to run it again.
//!
//! What it leaves out: an agent that is itself stopped (SIGSTOP) cannot kill
//! what its lease no longer covers; such a host's tasks are not held against G1 and G5 until it has had time to.
//!
//! - `plan`: what a world is made of, as a sentence: `World::new(seed).hosts(3).slots(4).submit(100).lose(host(1)).run()`;
//! - `dice`: worlds that nobody would think of;
//! - `engine`: time, and who is told what when;
//! - `timeline`: what is to happen, by its time;
//! - `wire`: sessions and how they go wrong;
//! - `agents`, `workers`, `clients`: the shells around the cores;
//! - `resuming`: clients whose sessions are lost, and who come back;
//! - `journal`: a coordinator that is killed, and its successor;
//! - `truth`: what happens in fact, and whether it may.

mod agents;
mod clients;
mod dice;
mod engine;
mod faults;
mod journal;
mod plan;
mod resuming;
mod timeline;
mod trace;
mod truth;
mod wire;
mod workers;

pub use engine::Summary;
pub use plan::{Bug, Ending, Failure, Lengths, World, host};
