//! `fleetpool get`: files and folders from hosts.

use std::{iter::once, path::Path};

use clap::Args;

use super::{
    copy::{Copy, CopyArgs},
    exec::place::Place,
};
use crate::{
    archive::PACK_VERB,
    failure::{Exit, Failure},
    results::Results,
    target::ClusterArgs,
};

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
    copy: CopyArgs,
}

/// Copies from every host.
///
/// # Errors
/// When no host matches, or DEST cannot be written; hosts that fail are an exit status.
pub(crate) async fn run(args: GetArgs, cluster: &ClusterArgs) -> Result<Exit, Failure> {
    let GetArgs { copy: args } = args;
    let (dest, sources) = args.ends()?;
    let place = Place::find(args.hosts.on.as_deref(), cluster).await?;
    let results = Results::archives(Path::new(dest)).map_err(Failure::fleetpool)?;
    let copy = Copy {
        name: format!("get {}", sources[0].to_string_lossy()),
        words: once(PACK_VERB.into())
            .chain(sources.iter().cloned())
            .collect(),
        offer: None,
        results: Some(results),
        way: "from",
    };
    args.run(place, copy).await
}
