//! Who may come in: the registry of identities, join tokens, and the CA that certifies who joins.

mod gate;
mod registry;
mod store;
mod tokens;
mod tunnels;

use std::{collections::BTreeSet, time::Duration};

use fleetpool_net::{Token, identity::ClusterCa};
use fleetpool_proto::{
    Role,
    view::{Answer, IdentityView, Query},
};

pub use gate::IssueError;
pub use registry::{NotInvited, Record, Registry};
pub use store::StoreError;
pub(crate) use store::{io_error, load, save};
pub use tokens::{Invitation, TOKEN_TTL_MAX, TOKENS_MAX, TokenError, Tokens};
pub use tunnels::{TUNNELS_MAX, Tunnels};

/// Everything that decides who may come in.
#[derive(Debug)]
pub struct Access {
    /// Who is invited.
    pub registry: Registry,
    /// Who may join.
    pub tokens: Tokens,
    /// Who certifies them.
    pub ca: ClusterCa,
    /// Whom the coordinator has to reach, since they cannot reach it.
    pub tunnels: Tunnels,
}

impl Access {
    /// Answers a question about tokens or identities, which may write a file. `connected`: identities that have a
    /// session.
    pub(crate) fn answer(&self, query: Query, connected: &BTreeSet<String>, now_s: u64) -> Answer {
        match query {
            Query::TokenCreate {
                ttl_s,
                uses,
                role,
                labels,
            } => self.create_token(Invitation { role, labels }, uses, ttl_s, now_s),
            Query::TokenList => Answer::Tokens(self.tokens.list(now_s)),
            Query::TokenRevoke { id } => match self.tokens.revoke(&id, now_s) {
                Ok(true) => Answer::Ok,
                Ok(false) => refused(format!(
                    "there is no good token {id}: `fleetpool token list` lists what there is"
                )),
                Err(error) => refused(error.to_string()),
            },
            Query::IdentityIssue {
                role,
                id,
                ttl_s,
                csr,
            } => self.issue_identity(role, &id, &csr, ttl_s, now_s),
            Query::TunnelAdd { to } => self.add_tunnel(&to),
            Query::TunnelRemove { to } => match self.tunnels.remove(&to) {
                // Whether there was one or not, there is none now.
                Ok(_) => Answer::Ok,
                Err(error) => refused(error.to_string()),
            },
            Query::TunnelList => Answer::Tunnels(self.tunnels.list()),
            Query::IdentityList => Answer::Identities(self.identities(connected, now_s)),
            Query::IdentityRevoke { id, .. } => match self.registry.revoke(&id) {
                Ok(true) => Answer::Ok,
                Ok(false) => refused(format!(
                    "there is no identity {id}: `fleetpool identity list` lists what there is"
                )),
                Err(error) => refused(error.to_string()),
            },
            Query::Hosts { .. }
            | Query::Jobs
            | Query::Status
            | Query::Explain { .. }
            | Query::CancelJob { .. }
            | Query::Cordon { .. } => refused("this is not about tokens and identities".to_owned()),
        }
    }

    fn add_tunnel(&self, to: &str) -> Answer {
        if self.tunnels.is_full() {
            return refused(format!(
                "there are {TUNNELS_MAX} tunnels already, and no more are kept: let hosts reach the coordinator by themselves"
            ));
        }
        match self.tunnels.add(to) {
            Ok(_) => Answer::Ok,
            Err(error) => refused(error.to_string()),
        }
    }

    fn create_token(&self, invitation: Invitation, uses: u32, ttl_s: u64, now_s: u64) -> Answer {
        let token = Token::new(self.ca.hash());
        let ttl = Duration::from_secs(ttl_s);
        match self.tokens.create(&token, invitation, uses, ttl, now_s) {
            Ok(()) => Answer::Token {
                token: token.to_string(),
                id: token.id,
            },
            Err(error) => refused(error.to_string()),
        }
    }

    fn issue_identity(&self, role: Role, id: &str, csr: &[u8], ttl_s: u64, now_s: u64) -> Answer {
        let ttl = Duration::from_secs(ttl_s);
        match self.issue(Invitation::to(role), id, csr, ttl, now_s) {
            Ok(issued) => Answer::Identity {
                cert: issued.cert.into(),
                ca: issued.ca.into(),
            },
            Err(error) => refused(error.to_string()),
        }
    }

    fn identities(&self, connected: &BTreeSet<String>, now_s: u64) -> Vec<IdentityView> {
        let view = |record: Record| IdentityView {
            connected: connected.contains(&record.id),
            role: record.role.to_string(),
            expires_in_s: record.expires_s.saturating_sub(now_s),
            id: record.id,
        };
        self.registry.list().into_iter().map(view).collect()
    }
}

fn refused(reason: String) -> Answer {
    Answer::Refused { reason }
}
