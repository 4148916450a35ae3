//! `fleetpool run`: a program whose pools are pointed at the chosen cluster.

use std::{
    convert::Infallible, ffi::OsString, os::unix::process::CommandExt as _, path::Path,
    process::Command,
};

use clap::Args;

use fleetpool::config::{CLUSTER_ENV, HOSTS_ENV, LOCAL};
use fleetpool_deploy::Destination;

use crate::{failure::Failure, target::ClusterArgs};

/// Start a program with its pools pointed at the chosen cluster
///
/// The program replaces this process; it finds the cluster in FLEETPOOL_CLUSTER and FLEETPOOL_IDENTITY, or the hosts in
/// FLEETPOOL_HOSTS. A script that ends in .py is started with python3.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  fleetpool --cluster head:7700 run ./target/release/squares\n  fleetpool run sums.py --n 1000"
)]
pub(crate) struct RunArgs {
    /// A Rust program; says so where its name ends in .py
    #[arg(long)]
    native: bool,
    /// The program and its arguments
    #[arg(value_name = "PROG", required = true, trailing_var_arg = true)]
    program: Vec<OsString>,
}

/// Becomes the program.
///
/// # Errors
/// When it cannot be started.
pub(crate) fn run(args: &RunArgs, cluster: &ClusterArgs) -> Result<Infallible, Failure> {
    let target = cluster.target()?;
    let mut command = command(args);
    command.env_remove(CLUSTER_ENV).env_remove(HOSTS_ENV);
    if let Some(address) = &target.address {
        command.env(CLUSTER_ENV, address.to_string());
    } else if !target.hosts.is_empty() {
        let hosts: Vec<_> = target.hosts.iter().map(Destination::target).collect();
        command.env(HOSTS_ENV, hosts.join(","));
    } else {
        command.env(CLUSTER_ENV, LOCAL);
    }
    if let Ok(identity) = std::path::absolute(&target.identity) {
        command.env("FLEETPOOL_IDENTITY", identity);
    }
    let error = command.exec();
    Err(Failure::fleetpool(format!(
        "cannot start {}: {error}: name a program that is there, or a path to it",
        command.get_program().display()
    )))
}

fn command(args: &RunArgs) -> Command {
    let [program, arguments @ ..] = &args.program[..] else {
        unreachable!("clap asks for a program");
    };
    let is_script = Path::new(program)
        .extension()
        .is_some_and(|extension| extension == "py");
    let mut command = if is_script && !args.native {
        let mut python = Command::new("python3");
        python.arg(program);
        python
    } else {
        Command::new(program)
    };
    command.args(arguments);
    command
}
