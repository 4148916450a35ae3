//! `fleetpool get`: files and folders from hosts.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::Args;
use fleetpool_proto::pool::{Retries, Spec};

use super::{
    exec::{Errand, HostArgs, place::Place},
    put::{ends, recorder},
};
use crate::{
    archive::PACK_VERB,
    duration,
    failure::{Exit, Failure, count, say},
    halt::Halt,
    results::Results,
    target::ClusterArgs,
    template::{Syntax, Template},
};

const PROGRAM: &str = "/proc/self/exe";

const HELP: &str = "\
Writes DEST/HOST/NAME for each host and source. A relative source is meant from the home of the user that the agent is. {host} in it becomes the host's name.

Examples:
  fleetpool get --on 'web[01-40]' /etc/nginx/nginx.conf ./conf
  fleetpool get --on @db /var/log/app ./logs && diff -r logs/db1 logs/db2";

/// Copy files and folders from hosts
#[derive(Args, Debug)]
#[command(after_help = HELP, override_usage = "fleetpool get [OPTIONS] SRC... DEST")]
pub(crate) struct GetArgs {
    #[command(flatten)]
    hosts: HostArgs,
    /// Give up on a host after this time
    #[arg(long, value_name = "DUR", value_parser = duration::parse)]
    timeout: Option<Duration>,
    /// Say only what fails
    #[arg(short, long)]
    quiet: bool,
    /// What to copy, and the folder here to copy to, last
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<OsString>,
}

/// Copies from every host.
///
/// # Errors
/// When no host matches, or DEST cannot be written; hosts that fail are an exit status.
pub(crate) async fn run(args: GetArgs, cluster: &ClusterArgs) -> Result<Exit, Failure> {
    let (dest, sources) = ends(&args.paths)?;
    let place = Place::find(args.hosts.on.as_deref(), cluster).await?;
    let total = place.names().len() as u64;
    let dest = PathBuf::from(dest);
    let words = [PROGRAM.into(), PACK_VERB.into()];
    let words: Vec<OsString> = words.into_iter().chain(sources.iter().cloned()).collect();
    let results = Results::archives(&dest).map_err(Failure::fleetpool)?;
    let errand = Errand {
        name: format!("get {}", sources[0].to_string_lossy()),
        template: Template::parse(&words, false, &Syntax::Host).map_err(Failure::usage)?,
        spec: Spec {
            timeout_ms: args.timeout.map_or(0, duration::millis),
            ..Spec::default()
        },
        offer: None,
        retries: Retries::default(),
        past: None,
        gate: args.hosts.gate(&Halt::Never, total),
        halt: args.hosts.halt(Halt::Never, total),
        deadline: None,
        progress: false,
        recorder: recorder(args.quiet, Some(results)),
    };
    let exit = errand.run(place, args.hosts.jobs).await?;
    if !args.quiet && exit == Exit::Success {
        let hosts = count(total, "host");
        say(&format!("copied from {hosts} to {}", dest.display()));
    }
    Ok(exit)
}
