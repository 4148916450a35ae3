//! `fleetpool init`: a new cluster.

use std::path::{Path, PathBuf};

use clap::Args;
use fleetpool_coordinator::init_cluster;

use crate::{failure::Failure, output::table, target::ClusterArgs};

/// Make a new cluster: its CA, the coordinator's identity and the first admin's
///
/// Run it on the machine that will run the coordinator. It refuses to overwrite a cluster that is there.
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  fleetpool init --name lab\n  fleetpool coordinator &\n  fleetpool --cluster localhost:7700 status"
)]
pub(crate) struct InitArgs {
    /// Name of the cluster
    #[arg(long, value_name = "NAME", default_value = "fleet")]
    name: String,
    /// The coordinator's folder: CA, registry, tokens [default: coordinator/ within the identity's]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
}

/// Makes the files.
///
/// # Errors
/// When there is a cluster or an identity already, or the disk refuses.
pub(crate) fn run(args: &InitArgs, cluster: &ClusterArgs) -> Result<(), Failure> {
    let dir = cluster.identity_dir()?;
    let state = cluster.state_dir(args.state.as_deref())?;
    if dir.join("cert.pem").exists() {
        return Err(Failure::fleetpool(format!(
            "there is an identity in {} already, and it would be lost: name another folder with --identity DIR, or move it away",
            dir.display()
        )));
    }
    let founded = init_cluster(&state, &args.name).map_err(Failure::fleetpool)?;
    founded.admin.save(&dir).map_err(Failure::fleetpool)?;
    table::print(&next(args, &dir, &state, cluster.names_identity()))
}

fn next(args: &InitArgs, dir: &Path, state: &Path, named: bool) -> String {
    let mut options = String::new();
    if named {
        options += &format!(" --identity {}", dir.display());
    }
    let state_option = args
        .state
        .as_ref()
        .map_or_else(String::new, |state| format!(" --state {}", state.display()));
    format!(
        "cluster `{}` is made: its CA and registry are in {}, its admin's identity is in {}

start the coordinator on this machine (port 7700, udp and tcp):
  fleetpool{options} coordinator{state_option}
invite a host; HEAD is this machine's name:
  fleetpool{options} --cluster HEAD:7700 token create > token
and on that host:
  fleetpool agent --coordinator HEAD:7700 --token-file token
then:
  fleetpool{options} --cluster HEAD:7700 hosts",
        args.name,
        state.display(),
        dir.display(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_to_do_next_names_the_folders_that_were_chosen() {
        let args = InitArgs {
            name: "lab".into(),
            state: Some("/srv/lab".into()),
        };
        insta::assert_snapshot!(next(&args, Path::new("/id"), Path::new("/srv/lab"), true), @r"
        cluster `lab` is made: its CA and registry are in /srv/lab, its admin's identity is in /id

        start the coordinator on this machine (port 7700, udp and tcp):
          fleetpool --identity /id coordinator --state /srv/lab
        invite a host; HEAD is this machine's name:
          fleetpool --identity /id --cluster HEAD:7700 token create > token
        and on that host:
          fleetpool agent --coordinator HEAD:7700 --token-file token
        then:
          fleetpool --identity /id --cluster HEAD:7700 hosts
        ");
    }
}
