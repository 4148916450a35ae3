//! What strangers show: certificates, which have passed no check when they are first read, and signing requests.

use std::{sync::OnceLock, time::Duration};

use fleetpool_net::identity::{ClusterCa, Facts, KeyRequest};
use fleetpool_proto::Role;

const DAY: Duration = Duration::from_secs(24 * 3600);

fn ca() -> &'static ClusterCa {
    static CA: OnceLock<ClusterCa> = OnceLock::new();
    CA.get_or_init(|| ClusterCa::create("fuzz").expect("a name"))
}

pub(crate) fn certificate(bytes: &[u8]) {
    match Facts::read(bytes) {
        Ok(facts) => assert!(!facts.name.to_string().is_empty()),
        Err(problem) => assert!(!problem.to_string().is_empty()),
    }
}

pub(crate) fn certificates() -> Vec<Vec<u8>> {
    let issued = |role| {
        let csr = KeyRequest::new().csr();
        ca().issue(role, "web1", &csr, DAY).expect("a request").cert
    };
    let mut certificates: Vec<Vec<u8>> = [Role::Agent, Role::User, Role::Coordinator]
        .into_iter()
        .map(|role| issued(role).to_vec())
        .collect();
    certificates.push(ca().certificate().to_vec());
    certificates
}

/// Whoever has a token gets this far.
pub(crate) fn csr(bytes: &[u8]) {
    if let Ok(issued) = ca().issue(Role::Agent, "web1", bytes, DAY) {
        let facts = Facts::read(&issued.cert).expect("its own certificate");
        assert_eq!(facts.name.role, Role::Agent);
        assert_eq!(facts.name.id, "web1");
    }
}

pub(crate) fn csrs() -> Vec<Vec<u8>> {
    vec![KeyRequest::new().csr(), KeyRequest::new().csr()]
}
