//! `fleetpool put`: files and folders to hosts.

use std::{ffi::OsString, path::PathBuf};

use clap::Args;
use fleetpool_proto::{limits::PAYLOAD_BYTES_MAX, pool::ContentHash};
use tempfile::NamedTempFile;

use super::{
    copy::{Copy, CopyArgs},
    exec::{Offer, place::Place},
    rollout::confirm,
};
use crate::{
    archive::{self, UNPACK_VERB},
    failure::{Exit, Failure},
    target::ClusterArgs,
};

/// Most bytes that are put at once: what one message of the wire holds.
const BYTES_MAX: u64 = PAYLOAD_BYTES_MAX as u64;

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
    copy: CopyArgs,
}

/// Copies to every host.
///
/// # Errors
/// When a source cannot be read, no host matches, or fleetpool itself fails; hosts that fail are an exit status.
pub(crate) async fn run(args: PutArgs, cluster: &ClusterArgs) -> Result<Exit, Failure> {
    let PutArgs { copy: args } = args;
    let (dest, sources) = args.ends()?;
    let sources: Vec<PathBuf> = sources.iter().map(PathBuf::from).collect();
    let count = OsString::from(sources.len().to_string());
    let archive = tokio::task::spawn_blocking(move || pack(&sources)).await;
    let (archive, hash) = archive.map_err(Failure::fleetpool)??;
    let place = Place::find(args.hosts.on.as_deref(), cluster).await?;
    confirm("copy to", &place.names(), args.hosts.yes)?;
    let copy = Copy {
        name: format!("put {}", dest.to_string_lossy()),
        words: vec![UNPACK_VERB.into(), count, dest.clone()],
        offer: Some(Offer::File(hash, archive.path().to_owned())),
        results: None,
        way: "to",
    };
    args.run(place, copy).await
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
