//! Who may come in: the registry of identities, join tokens, and the CA that certifies who joins.

mod registry;
mod store;
mod tokens;

use std::{collections::BTreeSet, time::Duration};

use fleetpool_net::token::{CaHash, Token};
use fleetpool_proto::view::{Answer, IdentityView, Query};

pub use registry::{NotInvited, Record, Registry};
pub use store::StoreError;
pub use tokens::{Invitation, TOKEN_TTL_MAX, TOKENS_MAX, TokenError, Tokens};

/// Everything that decides who may come in.
#[derive(Debug)]
pub struct Access {
    /// Who is invited.
    pub registry: Registry,
    /// Who may join.
    pub tokens: Tokens,
    /// What join tokens pin.
    pub ca_hash: CaHash,
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
            Query::IdentityList => Answer::Identities(self.identities(connected, now_s)),
            Query::IdentityRevoke { id } => match self.registry.revoke(&id) {
                Ok(true) => Answer::Ok,
                Ok(false) => refused(format!(
                    "there is no identity {id}: `fleetpool identity list` lists what there is"
                )),
                Err(error) => refused(error.to_string()),
            },
            Query::Hosts { .. }
            | Query::Jobs
            | Query::Status
            | Query::CancelJob { .. }
            | Query::Cordon { .. } => refused("this is not about tokens and identities".to_owned()),
        }
    }

    fn create_token(&self, invitation: Invitation, uses: u32, ttl_s: u64, now_s: u64) -> Answer {
        let token = Token::new(self.ca_hash);
        let ttl = Duration::from_secs(ttl_s);
        match self.tokens.create(&token, invitation, uses, ttl, now_s) {
            Ok(()) => Answer::Token {
                token: token.to_string(),
                id: token.id,
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
