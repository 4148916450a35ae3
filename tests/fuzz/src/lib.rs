//! Every decoder of the house as a function of bytes, with what real ones look like to begin from.
//!
//! A target takes any bytes and must come back: no panic, nothing written where it must not be, and what was understood
//! means the same when it is said again. Who brings the bytes is another matter: `tests/decoders.rs` changes the seeds in
//! a fixed way, some thousand times in each run of the tests; `guided/` lets libFuzzer look for new ways through the code,
//! for as long as `make fuzz` says. What either finds goes into `found/TARGET/`, which every run tries.
#![forbid(unsafe_code)]

mod borrowed;
mod cores;
mod messages;
mod mutate;
mod seeds;
mod text;
mod tls;
mod trees;
#[path = "../../../agent/src/wire.rs"]
#[expect(dead_code, reason = "it belongs to what is borrowed")]
mod wire;

pub use mutate::Mutations;

/// A decoder.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// What `make fuzz TARGET=…` and the folders call it.
    pub name: &'static str,
    /// Decodes, and checks what came of it.
    pub run: fn(&[u8]),
    /// Inputs that are as they should be.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// How many changed inputs a run of the tests tries: some take longer than others.
    pub tries: u32,
}

const fn target(
    name: &'static str,
    run: fn(&[u8]),
    seeds: fn() -> Vec<Vec<u8>>,
    tries: u32,
) -> Target {
    Target {
        name,
        run,
        seeds,
        tries,
    }
}

/// All of them; those first that anybody can reach who finds the port.
pub const TARGETS: &[Target] = &[
    target("frame", messages::frame, seeds::frames, 30_000),
    target("hello", messages::hello, seeds::hello, 30_000),
    target("join", messages::join, seeds::join, 30_000),
    target("certificate", tls::certificate, tls::certificates, 10_000),
    target("csr", tls::csr, tls::csrs, 300),
    target(
        "hello_reply",
        messages::hello_reply,
        seeds::hello_reply,
        20_000,
    ),
    target(
        "from_agent",
        messages::from_agent,
        seeds::from_agent,
        30_000,
    ),
    target("to_agent", messages::to_agent, seeds::to_agent, 30_000),
    target(
        "from_client",
        messages::from_client,
        seeds::from_client,
        30_000,
    ),
    target("to_client", messages::to_client, seeds::to_client, 30_000),
    target("to_worker", messages::to_worker, seeds::to_worker, 20_000),
    target(
        "from_worker",
        messages::from_worker,
        seeds::from_worker,
        20_000,
    ),
    target(
        "python_worker",
        borrowed::python_worker,
        borrowed::python_frames,
        30_000,
    ),
    target("keeper", borrowed::keeper, borrowed::keeper_frames, 30_000),
    target(
        "coordinator",
        cores::coordinator,
        cores::coordinator_scripts,
        5_000,
    ),
    target("agent", cores::agent, cores::agent_scripts, 5_000),
    target("journal", borrowed::journal, borrowed::facts, 20_000),
    target("token", text::token, text::tokens, 20_000),
    target("address", text::address, text::addresses, 20_000),
    target("selector", text::selector, text::selectors, 20_000),
    target("archive", trees::archive, trees::archives, 150),
];
