//! Questions of clients: who may ask what, and the answers.
//!
//! What is about the fleet is answered here and now; what is about tokens and identities goes to disk, and is
//! answered by a task beside the owner.

use fleetpool_coordinator_core::Event;
use fleetpool_proto::{
    ClientId, Message as _, PoolId, Role,
    message::ToClient,
    selector::Selector,
    view::{Answer, HostView, JobView, Query, StatusView},
};

use tokio::task::spawn_blocking;

use super::{
    clock,
    full::FULL,
    owner::{Input, Owner},
};

impl Owner {
    /// Answers a client's question.
    pub(super) fn on_ask(&mut self, client: ClientId, question: u64, query: Query) {
        let Some(live) = self.sessions.client(client) else {
            return;
        };
        let (role, user) = (live.peer.role, live.peer.id.clone());
        let answer = match authorise(role, &query) {
            Err(reason) => Answer::Refused { reason },
            Ok(()) => match query {
                Query::Hosts { on } => self.hosts(&on),
                Query::Jobs => Answer::Jobs(self.all_jobs()),
                Query::Explain { pool } => self.explain(pool),
                Query::Status => Answer::Status(self.status()),
                Query::CancelJob { pool } => {
                    let answer = self.cancel_job(role, &user, pool);
                    return self.send_when_kept(client, ToClient::Answer { question, answer });
                }
                Query::Cordon { host, on } => {
                    let answer = self.cordon(&host, on);
                    return self.send_when_kept(client, ToClient::Answer { question, answer });
                }
                Query::TokenCreate { .. }
                | Query::TokenList
                | Query::TokenRevoke { .. }
                | Query::IdentityIssue { .. }
                | Query::TunnelAdd { .. }
                | Query::TunnelRemove { .. }
                | Query::TunnelList
                | Query::IdentityList
                | Query::IdentityRevoke { .. } => return self.ask_access(client, question, query),
            },
        };
        self.send_client(client, ToClient::Answer { question, answer });
    }

    fn hosts(&self, on: &str) -> Answer {
        match Selector::parse(on) {
            Err(error) => refused(error.to_string()),
            Ok(selector) => {
                let mut hosts = self.core.hosts(&selector, self.now);
                hosts.sort_by(|a: &HostView, b| a.name.cmp(&b.name));
                Answer::Hosts(hosts)
            }
        }
    }

    /// Pools that live, and those that are kept.
    fn all_jobs(&self) -> Vec<JobView> {
        let kept = self.durable.as_ref().map(|durable| durable.jobs.ended());
        let mut jobs = kept.unwrap_or_default();
        jobs.extend(self.core.jobs());
        jobs.sort_by_key(|job| job.id);
        jobs
    }

    fn explain(&self, pool: PoolId) -> Answer {
        match self.core.explain(pool) {
            Some(mut lines) => {
                if self.is_disk_full() {
                    lines.insert(0, format!("{FULL}; new tasks wait until then"));
                }
                Answer::Lines(lines)
            }
            None => refused(format!(
                "there is no job {pool}, or it has ended: `fleetpool jobs` lists what there is"
            )),
        }
    }

    fn status(&self) -> StatusView {
        StatusView {
            cluster: self.options.cluster.clone(),
            build: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_s: self.now.since(self.started).as_secs(),
            epoch: self.options.epoch,
            disk_full: self.is_disk_full(),
            ..self.core.status()
        }
    }

    fn cancel_job(&mut self, role: Role, user: &str, pool: PoolId) -> Answer {
        let Some((_, owner)) = self.core.owner(pool) else {
            if let Some(durable) = &self.durable
                && let Some(about) = durable.jobs.about(pool)
                && (role == Role::Admin || about.user == user)
            {
                // It has ended: what is kept of it goes.
                durable.jobs.remove(pool);
                return Answer::Ok;
            }
            return refused(format!(
                "there is no job {pool}: `fleetpool jobs` lists what there is"
            ));
        };
        if role != Role::Admin && owner != user {
            return refused(format!(
                "job {pool} is {owner}'s: only {owner} and admins may cancel it"
            ));
        }
        let reason = format!("cancelled by {user}");
        self.tell_core(Event::EndPool { pool, reason });
        Answer::Ok
    }

    fn cordon(&mut self, name: &str, on: bool) -> Answer {
        let Some(host) = self.names.get(name) else {
            return refused(format!(
                "there is no host {name}: `fleetpool hosts` lists what there is"
            ));
        };
        self.tell_core(Event::Cordon { host, on });
        Answer::Ok
    }

    /// Has a question about tokens or identities answered, beside this task: the answer may wait for a disk.
    fn ask_access(&mut self, client: ClientId, question: u64, query: Query) {
        let Some(access) = self.access.clone() else {
            let answer =
                refused("a cluster inside one program has no tokens and identities".to_owned());
            return self.send_client(client, ToClient::Answer { question, answer });
        };
        let Some(sender) = self.sessions.client(client).map(|live| live.out.sender()) else {
            return;
        };
        let connected = self.sessions.identities();
        let inbox = self.inbox.clone();
        tokio::spawn(async move {
            let revoked = match &query {
                Query::IdentityRevoke { id, ended } => Some((id.clone(), *ended)),
                _ => None,
            };
            let answered =
                spawn_blocking(move || access.answer(query, &connected, clock::wall_s()));
            let failed = |_| refused("the coordinator failed to answer: see its log".to_owned());
            let answer = answered.await.unwrap_or_else(failed);
            if let (Answer::Ok, Some((identity, ended)), Some(inbox)) =
                (&answer, revoked, inbox.upgrade())
            {
                let reason = "this identity was revoked: ask an admin for a new one".to_owned();
                let retire = Input::Retire {
                    identity: identity.clone(),
                    ended,
                };
                inbox.send(Input::Expel { identity, reason }).await.ok();
                inbox.send(retire).await.ok();
            }
            // A client that has left needs no answer.
            let answer = ToClient::Answer { question, answer };
            sender.send(answer.into_frame()).await.ok();
        });
    }
}

/// Whether a peer of that role may ask that.
///
/// # Errors
/// A sentence that says who may.
pub(crate) fn authorise(role: Role, query: &Query) -> Result<(), String> {
    let allowed = match role {
        Role::Admin => true,
        Role::User => !query.needs_admin(),
        Role::Agent | Role::Coordinator => false,
    };
    if allowed {
        return Ok(());
    }
    let act = act(query);
    Err(format!(
        "only admins may {act}, and this identity is a {role}'s: use an admin's with `--identity`"
    ))
}

/// What a query does, in words that follow "may".
fn act(query: &Query) -> &'static str {
    match query {
        Query::Hosts { .. } => "list hosts",
        Query::Jobs => "list jobs",
        Query::Status => "ask for the status",
        Query::Explain { .. } => "ask what jobs wait for",
        Query::CancelJob { .. } => "cancel jobs",
        Query::Cordon { .. } => "cordon hosts",
        Query::TokenCreate { .. } => "create join tokens",
        Query::TokenList => "list join tokens",
        Query::TokenRevoke { .. } => "revoke join tokens",
        Query::IdentityIssue { .. } => "issue identities",
        Query::TunnelAdd { .. } => "add tunnels",
        Query::TunnelRemove { .. } => "remove tunnels",
        Query::TunnelList => "list tunnels",
        Query::IdentityList => "list identities",
        Query::IdentityRevoke { .. } => "revoke identities",
    }
}

fn refused(reason: String) -> Answer {
    Answer::Refused { reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One of each, and whether a user may ask it.
    fn queries() -> Vec<(Query, bool)> {
        let (id, host, on) = (String::new(), String::new(), String::new());
        let all = vec![
            (Query::Hosts { on }, true),
            (Query::Jobs, true),
            (Query::Status, true),
            (Query::Explain { pool: PoolId(1) }, true),
            (Query::CancelJob { pool: PoolId(1) }, true),
            (Query::Cordon { host, on: true }, false),
            (
                Query::TokenCreate {
                    ttl_s: 1,
                    uses: 1,
                    role: Role::Agent,
                    labels: Vec::new(),
                },
                false,
            ),
            (Query::TokenList, false),
            (Query::TokenRevoke { id: id.clone() }, false),
            (
                Query::IdentityIssue {
                    role: Role::User,
                    id: id.clone(),
                    ttl_s: 1,
                    csr: bytes::Bytes::new(),
                },
                false,
            ),
            (Query::TunnelAdd { to: id.clone() }, false),
            (Query::TunnelRemove { to: id.clone() }, false),
            (Query::TunnelList, false),
            (Query::IdentityList, false),
            (Query::IdentityRevoke { id, ended: false }, false),
        ];
        let acts: std::collections::BTreeSet<_> = all.iter().map(|(query, _)| act(query)).collect();
        assert_eq!(acts.len(), all.len(), "one of each");
        all
    }

    #[test]
    fn role_by_query() {
        for (query, for_users) in queries() {
            for role in Role::ALL {
                let expected = match role {
                    Role::Admin => true,
                    Role::User => for_users,
                    Role::Agent | Role::Coordinator => false,
                };
                assert_eq!(
                    authorise(role, &query).is_ok(),
                    expected,
                    "{role} asks {query:?}"
                );
            }
        }
    }

    #[test]
    fn the_refusal_says_who_may() {
        assert_eq!(
            authorise(Role::User, &Query::TokenList).expect_err("refused"),
            "only admins may list join tokens, and this identity is a user's: use an admin's with `--identity`"
        );
    }
}
