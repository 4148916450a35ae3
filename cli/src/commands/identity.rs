//! `fleetpool identity`: who is in the registry.

use std::{
    io::Read as _,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Subcommand;
use fleetpool::cluster::Cluster;
use fleetpool_net::identity::{Issued, KeyRequest, csr_from_pem};
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
        #[arg(long, value_name = "DIR", required_unless_present = "csr")]
        out: Option<PathBuf>,
        /// Certify the key of this request (`-`: stdin) in place of making one, and print the certificate
        #[arg(long, value_name = "FILE", conflicts_with = "out")]
        csr: Option<PathBuf>,
    },
    /// Make a key that stays here, and print the request to have it certified (see issue --csr)
    Request {
        /// Folder of the identity to be
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// Take the certificate for such a key, as issue --csr prints it, from standard input
    Accept {
        /// Folder of the identity
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
    match verb {
        IdentityVerb::Request { out } => request(&out),
        IdentityVerb::Accept { out } => accept(&out),
        verb => {
            let target = cluster.target()?;
            let cluster = target.connect_remote("an identity").await?;
            run_on(verb, &cluster).await
        }
    }
}

async fn run_on(verb: IdentityVerb, cluster: &Cluster) -> Result<(), Failure> {
    match verb {
        IdentityVerb::Issue {
            name,
            role,
            ttl,
            out,
            csr,
        } => match (out, csr) {
            (_, Some(file)) => {
                let csr = csr_from_pem(&read(&file)?).map_err(Failure::usage)?;
                let issued = certify(cluster, name, role, ttl, csr).await?;
                table::print(issued.pem().trim_end())
            }
            (out, None) => issue(cluster, name, role, ttl, &out.unwrap_or_default()).await,
        },
        IdentityVerb::List { json } => match ask(cluster, Query::IdentityList).await? {
            Answer::Identities(identities) => table::list(&identities, json),
            answer => Err(odd(&answer)),
        },
        IdentityVerb::Revoke { ids } => {
            for id in ids {
                ask(cluster, Query::IdentityRevoke { id, ended: false }).await?;
            }
            Ok(())
        }
        IdentityVerb::Request { .. } | IdentityVerb::Accept { .. } => Ok(()),
    }
}

/// Has a key certified that was made here: the coordinator never sees it.
async fn issue(
    cluster: &Cluster,
    id: String,
    role: Role,
    ttl: Duration,
    out: &Path,
) -> Result<(), Failure> {
    if out.join("cert.pem").exists() {
        return Err(Failure::usage(format!(
            "there is an identity in {} already: name another folder with --out",
            out.display()
        )));
    }
    let request = KeyRequest::new();
    let issued = certify(cluster, id, role, ttl, request.csr()).await?;
    let identity = request.into_identity(issued).map_err(Failure::fleetpool)?;
    identity.save(out).map_err(Failure::fleetpool)?;
    table::print(&format!(
        "{} is in {}: give the folder to its holder, for --identity",
        identity.name(),
        out.display()
    ))
}

/// Has the coordinator certify the key of a request.
///
/// # Errors
/// When it refuses.
pub(crate) async fn certify(
    cluster: &Cluster,
    id: String,
    role: Role,
    ttl: Duration,
    csr: Vec<u8>,
) -> Result<Issued, Failure> {
    let query = Query::IdentityIssue {
        role,
        id,
        ttl_s: ttl.as_secs(),
        csr: csr.into(),
    };
    match ask(cluster, query).await? {
        Answer::Identity { cert, ca } => Ok(Issued {
            cert: cert.into(),
            ca: ca.into(),
        }),
        answer => Err(odd(&answer)),
    }
}

fn request(out: &Path) -> Result<(), Failure> {
    let request = KeyRequest::new();
    request.save(out).map_err(Failure::fleetpool)?;
    table::print(request.csr_pem().trim_end())
}

fn accept(out: &Path) -> Result<(), Failure> {
    let issued = Issued::from_pem(&read(Path::new("-"))?).map_err(Failure::usage)?;
    let request = KeyRequest::load(out).map_err(Failure::fleetpool)?;
    let identity = request.into_identity(issued).map_err(Failure::usage)?;
    identity.save(out).map_err(Failure::fleetpool)
}

/// A file, or stdin for `-`.
fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let read = match file == Path::new("-") {
        true => std::io::stdin()
            .lock()
            .read_to_end(&mut bytes)
            .map(|_| bytes),
        false => std::fs::read(file),
    };
    read.map_err(|error| Failure::usage(format!("cannot read {}: {error}", file.display())))
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
