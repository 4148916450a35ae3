//! The names of hosts, as the coordinator told them.

use std::{
    collections::BTreeMap,
    sync::{PoisonError, RwLock},
};

use fleetpool_proto::HostId;

/// Written by the router, read by everybody.
#[derive(Debug, Default)]
pub(crate) struct Hosts(RwLock<BTreeMap<HostId, String>>);

impl Hosts {
    pub(crate) fn insert(&self, host: HostId, name: String) {
        let mut names = self.0.write().unwrap_or_else(PoisonError::into_inner);
        names.insert(host, name);
    }

    pub(crate) fn name(&self, host: HostId) -> Option<String> {
        let names = self.0.read().unwrap_or_else(PoisonError::into_inner);
        names.get(&host).cloned()
    }
}
