//! The `fleetpool` command: every part of fleetpool in one binary.
//!
//! `main` reads the command line and turns the outcome into an exit status; each verb is a file in `commands/`. What
//! `map` and `exec` share is `run/`, which talks to a cluster through `fleetpool::cluster` and knows no wire. It must
//! never write to stdout what no task has printed, unless it was asked a question.
#![forbid(unsafe_code)]

mod archive;
mod args;
mod commands;
mod duration;
mod failure;
mod halt;
mod input;
mod joblog;
mod other_user;
mod output;
mod results;
mod run;
mod size;
mod target;
mod template;

use std::process::ExitCode;

use clap::Parser as _;

use crate::{
    args::Cli,
    failure::{Exit, Failure, say},
};

fn main() -> ExitCode {
    // Before anything else, and before there is any thread: this process may be meant to be an agent's spawner.
    fleetpool_agent::run_if_asked();
    archive::run_if_asked();
    other_user::run_if_asked();
    let exit = match start(Cli::parse()) {
        Ok(exit) => exit,
        Err(failure) => {
            if !failure.message.is_empty() {
                say(&failure.message);
            }
            failure.exit
        }
    };
    ExitCode::from(exit.code())
}

fn start(cli: Cli) -> Result<Exit, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(Failure::fleetpool)?;
    // As a task: every waking of what `block_on` is given goes through the kernel, also from this very thread.
    let ended = runtime.block_on(runtime.spawn(commands::run(cli)));
    // A thread that waits for input cannot be waited for.
    runtime.shutdown_background();
    ended.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}
