//! The command line as a whole. Each verb's own options stand with it in `commands/`.

use clap::{Parser, Subcommand};

use crate::{commands, target::ClusterArgs};

const EXAMPLES: &str = "\
Examples:
  fleetpool map -j 4 gzip ::: *.log                  four at a time, on this machine
  fleetpool map 'convert {} {.}.png' ::: *.jpg       a line with blanks goes to a shell
  fleetpool --cluster head:7700 map ./simulate {} :::: seeds.txt
  fleetpool exec --on 'web[01-40]' --gather -- uname -r
  fleetpool hosts

Without --cluster, $FLEETPOOL_CLUSTER or a configuration file, everything runs on a cluster of this machine's cores that lives as long as the command.

Exit status:
  0      all succeeded                     124  a timeout stopped the run
  1-100  so many tasks failed              125  fleetpool itself failed
  101    more than 100 did                 126  the selector matches no host
  2      the command line makes no sense   130  interrupted";

/// A pool of worker slots across many hosts: run commands, maps and programs on all of them
#[derive(Debug, Parser)]
#[command(name = "fleetpool", version, after_help = EXAMPLES, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    Map(Box<commands::map::MapArgs>),
    Exec(Box<commands::exec::ExecArgs>),
    Put(commands::put::PutArgs),
    Get(commands::get::GetArgs),
    Run(commands::run::RunArgs),
    Hosts(commands::hosts::HostsArgs),
    Jobs(commands::jobs::JobsArgs),
    Status(commands::status::StatusArgs),
    Explain(commands::explain::ExplainArgs),
    Attach(commands::attach::AttachArgs),
    /// Print what a detached job's tasks have printed so far
    Logs(commands::attach::LogsArgs),
    Top(commands::top::TopArgs),
    Cancel(commands::cancel::CancelArgs),
    /// Keep new tasks away from hosts; those that run go on
    Cordon(commands::cordon::CordonArgs),
    /// Let new tasks come to hosts again
    Uncordon(commands::cordon::CordonArgs),
    Drain(commands::drain::DrainArgs),
    Deploy(commands::deploy::DeployArgs),
    Upgrade(commands::upgrade::UpgradeArgs),
    Undeploy(commands::undeploy::UndeployArgs),
    Init(commands::init::InitArgs),
    #[command(subcommand)]
    Token(commands::token::TokenVerb),
    #[command(subcommand)]
    Identity(commands::identity::IdentityVerb),
    Coordinator(commands::coordinator::CoordinatorArgs),
    Agent(commands::agent::AgentArgs),
    Spawner(commands::spawner::SpawnerArgs),
    Completions(commands::completions::CompletionsArgs),
}
