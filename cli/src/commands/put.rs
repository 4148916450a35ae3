//! `fleetpool put`: files and folders to hosts.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::Args;
use fleetpool_proto::pool::{ContentHash, Retries, Spec};
use tempfile::NamedTempFile;

use super::{
    exec::{Errand, HostArgs, Offer, place::Place},
    rollout::confirm,
};
use crate::{
    archive::{self, UNPACK_VERB},
    duration,
    failure::{Exit, Failure, say},
    halt::Halt,
    output::{Style, TagStyle},
    run::{Explain, Keep, Recorder},
    target::ClusterArgs,
    template::{Syntax, Template},
};

/// Most bytes that are put at once: what one message of the wire holds.
const BYTES_MAX: u64 = (1 << 30) - (1 << 20);
/// This very program at the other end: whoever runs commands there is made of it.
const PROGRAM: &str = "/proc/self/exe";

const HELP: &str = "\
As cp -r copies: several sources, or a DEST that ends in / or is a folder there, are copied into that folder; one source takes DEST as its name. A relative DEST is meant from the home of the user that the agent is. {host} in it becomes the host's name.

Files keep their modes and belong to the agent's user; each takes the place of the one that was there whole. Every host gets the content once, all from one that is sent to the coordinator.

Examples:
  fleetpool put app.conf --on 'web[01-40]' /etc/app/
  fleetpool put ./site --on role=web /srv/www
  fleetpool put build.tar --hosts 'ada@web[1-3]' .";

/// Copy files and folders to hosts
#[derive(Args, Debug)]
#[command(after_help = HELP, override_usage = "fleetpool put [OPTIONS] SRC... DEST")]
pub(crate) struct PutArgs {
    #[command(flatten)]
    hosts: HostArgs,
    /// Give up on a host after this time
    #[arg(long, value_name = "DUR", value_parser = duration::parse)]
    timeout: Option<Duration>,
    /// Say only what fails
    #[arg(short, long)]
    quiet: bool,
    /// What to copy, and where to, last
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<OsString>,
}

/// Copies to every host.
///
/// # Errors
/// When a source cannot be read, no host matches, or fleetpool itself fails; hosts that fail are an exit status.
pub(crate) async fn run(args: PutArgs, cluster: &ClusterArgs) -> Result<Exit, Failure> {
    let (dest, sources) = ends(&args.paths)?;
    let sources: Vec<PathBuf> = sources.iter().map(PathBuf::from).collect();
    let count = OsString::from(sources.len().to_string());
    let archive = tokio::task::spawn_blocking(move || pack(&sources)).await;
    let (archive, hash) = archive.map_err(Failure::fleetpool)??;
    let place = Place::find(args.hosts.on.as_deref(), cluster).await?;
    let names = place.names();
    confirm("copy to", &names, args.hosts.yes)?;
    let total = names.len() as u64;
    let words = [PROGRAM.into(), UNPACK_VERB.into(), count, dest.clone()];
    let errand = Errand {
        name: format!("put {}", dest.to_string_lossy()),
        template: Template::parse(&words, false, &Syntax::Host).map_err(Failure::usage)?,
        spec: Spec {
            timeout_ms: args.timeout.map_or(0, duration::millis),
            ..Spec::default()
        },
        offer: Some(Offer::File(hash, archive.path().to_owned())),
        retries: Retries::default(),
        past: None,
        gate: args.hosts.gate(&Halt::Never, total),
        halt: args.hosts.halt(Halt::Never, total),
        deadline: None,
        progress: false,
        recorder: recorder(args.quiet, None),
    };
    let exit = errand.run(place, args.hosts.jobs).await?;
    if !args.quiet && exit == Exit::Success {
        say(&format!(
            "copied to {}",
            crate::failure::count(total, "host")
        ));
    }
    Ok(exit)
}

/// The last of the paths, and those before it.
///
/// # Errors
/// When there is one alone.
pub(super) fn ends(paths: &[OsString]) -> Result<(&OsString, &[OsString]), Failure> {
    match paths {
        [sources @ .., dest] if !sources.is_empty() => Ok((dest, sources)),
        _ => Err(Failure::usage(
            "what is to be copied, and where to: write both, SRC and then DEST",
        )),
    }
}

/// What a copy prints is trouble.
pub(super) fn recorder(quiet: bool, results: Option<crate::results::Results>) -> Recorder {
    let keep = Keep {
        joblog: None,
        results,
        explain: Explain::Failures,
        quiet,
    };
    Recorder::new(Style::Grouped, TagStyle::Host, false, keep)
}

/// The archive, and what it is known by.
fn pack(sources: &[PathBuf]) -> Result<(NamedTempFile, ContentHash), Failure> {
    let file = NamedTempFile::new().map_err(Failure::fleetpool)?;
    archive::pack(file.as_file(), sources).map_err(Failure::usage)?;
    let bytes = file.as_file().metadata().map_err(Failure::fleetpool)?.len();
    if bytes > BYTES_MAX {
        return Err(Failure::usage(format!(
            "that is {} MiB, and {} MiB can be put at once: put it in parts, or let the hosts fetch it",
            bytes >> 20,
            BYTES_MAX >> 20
        )));
    }
    let mut hasher = blake3::Hasher::new();
    let mut reader = file.reopen().map_err(Failure::fleetpool)?;
    std::io::copy(&mut reader, &mut hasher).map_err(Failure::fleetpool)?;
    Ok((file, ContentHash(*hasher.finalize().as_bytes())))
}
