//! Who may say what, as a whole table: a session decodes the one enum of its peer's role, so a message of another
//! role must not be readable as one of that.

use fleetpool_proto::{
    Frame, Message, Role,
    join::FromStranger,
    message::{FromAgent, FromClient},
    version::Hello,
    view::Query,
};

use crate::{golden::kept, samples};

fn reads<M: Message>(frame: &Frame) -> bool {
    M::from_frame(frame.clone()).is_ok()
}

/// What a coordinator's session with a peer of `role` decodes; `None`: there is no such session.
fn hears(role: Option<Role>) -> Option<fn(&Frame) -> bool> {
    match role {
        None => Some(reads::<FromStranger>),
        Some(Role::Coordinator) => None,
        Some(Role::Agent) => Some(reads::<FromAgent>),
        Some(Role::User | Role::Admin) => Some(reads::<FromClient>),
    }
}

#[test]
fn every_role_says_its_own_messages_and_no_other() {
    let roles = Role::ALL.into_iter().map(Some).chain([None]);
    for role in roles {
        let Some(hears) = hears(role) else {
            continue;
        };
        for (file, speaks) in [
            ("from_agent", role == Some(Role::Agent)),
            ("from_client", role.is_some_and(Role::is_client)),
            ("from_stranger", role.is_none()),
        ] {
            for (_, frame) in kept(file) {
                let name = String::from_utf8_lossy(&frame.header).into_owned();
                assert_eq!(hears(&frame), speaks, "{role:?} and {file} {name:?}");
            }
        }
        for answer in ["hello_reply", "to_stranger", "to_worker", "from_worker"] {
            for (_, frame) in kept(answer) {
                assert!(!hears(&frame), "{role:?} may not say {answer}");
            }
        }
    }
}

/// Every version reads every Hello, so it must not take anything else for one that a peer could mean.
#[test]
fn no_message_asks_for_a_role_by_accident() {
    for file in ["from_agent", "from_client", "from_stranger"] {
        for (_, frame) in kept(file) {
            let role = Hello::from_frame(frame).ok().and_then(|hello| hello.role);
            assert_eq!(role, None, "{file}");
        }
    }
}

#[test]
fn every_question_is_for_everybody_or_for_admins() {
    for query in samples::queries() {
        let expect = match query {
            Query::Hosts { .. }
            | Query::Jobs
            | Query::Status
            | Query::Explain { .. }
            | Query::CancelJob { .. } => false,
            Query::Cordon { .. }
            | Query::TokenCreate { .. }
            | Query::TokenList
            | Query::TokenRevoke { .. }
            | Query::IdentityIssue { .. }
            | Query::TunnelAdd { .. }
            | Query::TunnelRemove { .. }
            | Query::TunnelList
            | Query::IdentityList
            | Query::IdentityRevoke { .. } => true,
        };
        assert_eq!(query.needs_admin(), expect, "{query:?}");
    }
}

#[test]
fn roles_survive_their_names() {
    for role in Role::ALL {
        assert_eq!(Role::from_name(role.name()), Some(role));
        assert_eq!(role.is_client(), matches!(role, Role::User | Role::Admin));
    }
    assert_eq!(Role::from_name("root"), None);
}
