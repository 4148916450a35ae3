//! `fleetpool token`: invitations to join the cluster.

use std::time::Duration;

use clap::Subcommand;
use fleetpool_proto::{
    Role,
    view::{Answer, Query, TokenView},
};

use super::{ask, odd};
use crate::{
    duration,
    failure::Failure,
    output::table::{self, Listed},
    target::ClusterArgs,
};

/// Invite agents and users: create, list and revoke join tokens
#[derive(Debug, Subcommand)]
pub(crate) enum TokenVerb {
    /// Make a token and print it: it is shown this once
    ///
    /// Put it into a file that only its owner can read, and start the agent with --token-file. The token names the
    /// cluster's CA, so that a joiner trusts no other coordinator.
    Create {
        /// How long it may be used
        #[arg(long, value_name = "DUR", default_value = "1h", value_parser = duration::parse)]
        ttl: Duration,
        /// How many may join with it
        #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
        uses: u32,
        /// What those who join become: agent, user or admin
        #[arg(long, default_value = "agent", value_parser = role)]
        role: Role,
        /// Label that the joining hosts get (repeatable)
        #[arg(long = "label", value_name = "K=V", value_parser = label)]
        labels: Vec<(String, String)>,
        /// An object with `token` and `id`
        #[arg(long)]
        json: bool,
    },
    /// List the tokens that are still good
    List {
        /// An array of objects
        #[arg(long)]
        json: bool,
    },
    /// Make tokens useless
    Revoke {
        /// As `fleetpool token list` lists them
        #[arg(value_name = "ID", required = true)]
        ids: Vec<String>,
    },
}

/// Creates, lists or revokes.
///
/// # Errors
/// When this client is no admin, or there is no such token.
pub(crate) async fn run(verb: TokenVerb, cluster: &ClusterArgs) -> Result<(), Failure> {
    let cluster = cluster.target()?.connect_remote("a token").await?;
    match verb {
        TokenVerb::Create {
            ttl,
            uses,
            role,
            labels,
            json,
        } => {
            let query = Query::TokenCreate {
                ttl_s: ttl.as_secs().max(1),
                uses,
                role,
                labels,
            };
            match ask(&cluster, query).await? {
                Answer::Token { token, id } if json => {
                    table::print_json(&serde_json::json!({ "token": token, "id": id }))
                }
                Answer::Token { token, .. } => table::print(&token),
                answer => Err(odd(&answer)),
            }
        }
        TokenVerb::List { json } => match ask(&cluster, Query::TokenList).await? {
            Answer::Tokens(tokens) => table::list(&tokens, json),
            answer => Err(odd(&answer)),
        },
        TokenVerb::Revoke { ids } => {
            for id in ids {
                ask(&cluster, Query::TokenRevoke { id }).await?;
            }
            Ok(())
        }
    }
}

/// A role that one can join as.
pub(super) fn role(text: &str) -> Result<Role, String> {
    Role::from_name(text)
        .filter(|role| *role != Role::Coordinator)
        .ok_or_else(|| "there are the roles agent, user and admin".to_owned())
}

/// `key=value`.
pub(super) fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("a label is written key=value".to_owned()),
    }
}

impl Listed for TokenView {
    const COLUMNS: &'static [&'static str] = &["ID", "ROLE", "USES LEFT", "EXPIRES IN", "LABELS"];

    fn row(&self) -> Vec<String> {
        vec![
            self.id.clone(),
            self.role.clone(),
            self.uses_left.to_string(),
            table::age(self.expires_in_s),
            table::labels(&self.labels),
        ]
    }
}
