//! A fleet by hand: runs a command on the head of one, and ends it with that.

use std::{os::unix::process::ExitStatusExt as _, path::PathBuf};

use anyhow::Result;
use clap::Parser;
use fleetpool_test_fleet::Fleet;

/// Starts hosts in namespaces, runs a command on their head, and ends them with it
#[derive(Debug, Parser)]
#[command(
    after_help = "Example:\n  test-fleet --hosts 4 --program target/debug/fleetpool -- fleetpool exec --hosts 'h[1-4]' -- hostname"
)]
struct Args {
    /// How many, h1 and on
    #[arg(long, default_value_t = 4)]
    hosts: usize,
    /// A host that is reached through another, called jump (repeatable)
    #[arg(long, value_name = "HOST")]
    behind_jump: Vec<String>,
    /// With systemd as their first process
    #[arg(long)]
    systemd: bool,
    /// A file of this machine that the head has as a program (repeatable)
    #[arg(long, value_name = "FILE")]
    program: Vec<PathBuf>,
    /// The command on the head
    #[arg(default_value = "bash", trailing_var_arg = true)]
    command: Vec<String>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let mut plan = Fleet::plan(args.hosts);
    for host in &args.behind_jump {
        plan = plan.behind_jump(host);
    }
    if args.systemd {
        plan = plan.systemd();
    }
    for file in args.program {
        let name = file
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        plan = plan.program(&name, file);
    }
    let fleet = plan.start()?;
    let [program, arguments @ ..] = &args.command[..] else {
        unreachable!("it has a default");
    };
    let mut command = fleet.head().command(program);
    command.args(arguments);
    if let Some(term) = std::env::var_os("TERM") {
        command.env("TERM", term);
    }
    let status = command.status()?;
    drop(fleet);
    // As shells tell of a signal.
    let code = status.code().or(status.signal().map(|signal| 128 + signal));
    std::process::exit(code.unwrap_or(1));
}
