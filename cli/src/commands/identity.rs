//! `fleetpool identity`: who is in the registry.

use std::{path::PathBuf, time::Duration};

use clap::Subcommand;
use fleetpool::cluster::Cluster;
use fleetpool_net::{
    Identity,
    identity::{Issued, KeyRequest},
};
use fleetpool_proto::{
    Role,
    view::{Answer, IdentityView, Query},
};

use super::{ask, odd, token};
use crate::{
    duration,
    failure::Failure,
    output::table::{self, Listed},
    target::ClusterArgs,
};

/// Say who is who: issue, list and revoke identities
#[derive(Debug, Subcommand)]
pub(crate) enum IdentityVerb {
    /// Make an identity and write it to a folder, to be given to its holder
    Issue {
        /// Its name
        #[arg(value_name = "NAME")]
        name: String,
        /// What it may be: user, admin or agent
        #[arg(long, default_value = "user", value_parser = token::role)]
        role: Role,
        /// How long it is valid
        #[arg(long, value_name = "DUR", default_value = "365d", value_parser = duration::parse)]
        ttl: Duration,
        /// Folder to write it to
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// List everybody who is in the registry
    List {
        /// An array of objects
        #[arg(long)]
        json: bool,
    },
    /// Take identities out of the registry; their sessions are closed at once
    Revoke {
        /// As `fleetpool identity list` lists them
        #[arg(value_name = "ID", required = true)]
        ids: Vec<String>,
    },
}

/// Issues, lists or revokes.
///
/// # Errors
/// When this client is no admin, or there is no such identity.
pub(crate) async fn run(verb: IdentityVerb, cluster: &ClusterArgs) -> Result<(), Failure> {
    let target = cluster.target()?;
    let cluster = target.connect_remote("an identity").await?;
    match verb {
        IdentityVerb::Issue {
            name,
            role,
            ttl,
            out,
        } => {
            if out.join("cert.pem").exists() {
                return Err(Failure::usage(format!(
                    "there is an identity in {} already: name another folder with --out",
                    out.display()
                )));
            }
            let identity = issue(&cluster, name, role, ttl).await?;
            identity.save(&out).map_err(Failure::fleetpool)?;
            table::print(&format!(
                "{} is in {}: give the folder to its holder, for --identity",
                identity.name(),
                out.display()
            ))
        }
        IdentityVerb::List { json } => match ask(&cluster, Query::IdentityList).await? {
            Answer::Identities(identities) => table::list(&identities, json),
            answer => Err(odd(&answer)),
        },
        IdentityVerb::Revoke { ids } => {
            for id in ids {
                ask(&cluster, Query::IdentityRevoke { id }).await?;
            }
            Ok(())
        }
    }
}

/// Has a key certified that was made here: the coordinator never sees it.
async fn issue(
    cluster: &Cluster,
    id: String,
    role: Role,
    ttl: Duration,
) -> Result<Identity, Failure> {
    let request = KeyRequest::new();
    let csr = request.csr().into();
    let query = Query::IdentityIssue {
        role,
        id,
        ttl_s: ttl.as_secs(),
        csr,
    };
    match ask(cluster, query).await? {
        Answer::Identity { cert, ca } => {
            let issued = Issued {
                cert: cert.into(),
                ca: ca.into(),
            };
            request.into_identity(issued).map_err(Failure::fleetpool)
        }
        answer => Err(odd(&answer)),
    }
}

impl Listed for IdentityView {
    const COLUMNS: &'static [&'static str] = &["ID", "ROLE", "CONNECTED", "EXPIRES IN"];

    fn row(&self) -> Vec<String> {
        let connected = if self.connected { "yes" } else { "no" };
        vec![
            self.id.clone(),
            self.role.clone(),
            connected.to_owned(),
            table::age(self.expires_in_s),
        ]
    }
}
