//! What `put` and `get` have in common: a task on every host that is one end of an archive.

use std::{ffi::OsString, time::Duration};

use clap::Args;
use fleetpool_proto::pool::{Retries, Spec};

use super::exec::{Errand, HostArgs, Offer, place::Place};
use crate::{
    archive::PROGRAM,
    duration,
    failure::{Exit, Failure, count, say},
    halt::Halt,
    output::{Style, TagStyle},
    results::Results,
    run::{Explain, Keep, Recorder},
    template::{Syntax, Template},
};

/// Options of both.
#[derive(Args, Debug)]
pub(crate) struct CopyArgs {
    #[command(flatten)]
    pub(super) hosts: HostArgs,
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

/// One copy.
pub(super) struct Copy {
    /// For people: `put` or `get`, and what.
    pub(super) name: String,
    /// What this program is told at the hosts' end.
    pub(super) words: Vec<OsString>,
    /// What the hosts read.
    pub(super) offer: Option<Offer>,
    /// Where what they write goes.
    pub(super) results: Option<Results>,
    /// Said when all is well, behind "copied" and before the hosts: `to`, `from`.
    pub(super) way: &'static str,
}

impl CopyArgs {
    /// The last of the paths, and those before it.
    ///
    /// # Errors
    /// When there is one alone.
    pub(super) fn ends(&self) -> Result<(&OsString, &[OsString]), Failure> {
        match &self.paths[..] {
            [sources @ .., dest] if !sources.is_empty() => Ok((dest, sources)),
            _ => Err(Failure::usage(
                "what is to be copied, and where to: write both, SRC and then DEST",
            )),
        }
    }

    /// Runs it on every host.
    ///
    /// # Errors
    /// When fleetpool itself fails; hosts that fail are an exit status.
    pub(super) async fn run(&self, place: Place, copy: Copy) -> Result<Exit, Failure> {
        let total = place.names().len() as u64;
        let words: Vec<_> = std::iter::once(PROGRAM.into()).chain(copy.words).collect();
        let errand = Errand {
            name: copy.name,
            template: Template::parse(&words, false, &Syntax::Host).map_err(Failure::usage)?,
            spec: Spec {
                timeout_ms: self.timeout.map_or(0, duration::millis),
                ..Spec::default()
            },
            offer: copy.offer,
            retries: Retries::default(),
            past: None,
            gate: self.hosts.gate(&Halt::Never, total),
            halt: self.hosts.halt(Halt::Never, total),
            deadline: None,
            progress: false,
            recorder: self.recorder(copy.results),
            detach: None,
        };
        let exit = errand.run(place, self.hosts.jobs).await?;
        if !self.quiet && exit == Exit::Success {
            say(&format!("copied {} {}", copy.way, count(total, "host")));
        }
        Ok(exit)
    }

    /// What a copy prints is trouble.
    fn recorder(&self, results: Option<Results>) -> Recorder {
        let keep = Keep {
            joblog: None,
            results,
            explain: Explain::Failures,
            quiet: self.quiet,
        };
        Recorder::new(Style::Grouped, TagStyle::Host, false, keep)
    }
}
