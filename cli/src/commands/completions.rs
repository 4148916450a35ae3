//! `fleetpool completions`.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use crate::{args::Cli, failure::Failure, output::table};

/// Print a script that completes fleetpool's verbs and options in a shell
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  fleetpool completions bash > ~/.local/share/bash-completion/completions/fleetpool"
)]
pub(crate) struct CompletionsArgs {
    /// For which shell
    shell: Shell,
}

/// Prints the script.
///
/// # Errors
/// When nobody reads.
pub(crate) fn run(args: &CompletionsArgs) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "fleetpool", &mut script);
    table::print(String::from_utf8_lossy(&script).trim_end())
}
