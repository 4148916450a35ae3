//! Hosts by name: the same name has the same number, and belongs to whoever proved to be it.

use std::{collections::BTreeMap, time::Duration};

use fleetpool_net::{KeyId, Peer};
use fleetpool_proto::{HostId, Timestamp, journal::Fact};

/// Longest name of a host, in bytes: what DNS allows.
const NAME_BYTES_MAX: usize = 253;

/// Names that have been used in the coordinator's life.
#[derive(Debug, Default)]
pub(crate) struct Names {
    by_name: BTreeMap<String, Name>,
}

#[derive(Debug)]
struct Name {
    host: HostId,
    holder: Option<Holder>,
    /// Until when nobody else may have the name; `None`: while its holder is connected.
    reserved_until: Option<Timestamp>,
}

/// Who holds a name.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Holder {
    id: String,
    key: Option<KeyId>,
    address: String,
}

impl Holder {
    fn is(&self, peer: &Peer) -> bool {
        self.id == peer.id && self.key == peer.key
    }
}

impl Names {
    /// The number of the host that `peer` says it is.
    ///
    /// # Errors
    /// A sentence for the peer, when the name is no name or another's.
    pub(crate) fn check(&mut self, now: Timestamp, peer: &Peer) -> Result<HostId, String> {
        self.named(now, peer).map(|name| name.host)
    }

    /// The same, and `peer` holds the name from now on.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub(crate) fn claim(&mut self, now: Timestamp, peer: &Peer) -> Result<HostId, String> {
        let name = self.named(now, peer)?;
        name.reserved_until = None;
        name.holder = Some(Holder {
            id: peer.id.clone(),
            key: peer.key,
            address: peer.address.clone(),
        });
        Ok(name.host)
    }

    fn named(&mut self, now: Timestamp, peer: &Peer) -> Result<&mut Name, String> {
        check_form(&peer.name)?;
        // Names that nobody held are not written down: the next number follows the highest.
        let highest = self.by_name.values().map(|name| name.host.0).max();
        let next = HostId(highest.unwrap_or_default() + 1);
        let name = self.by_name.entry(peer.name.clone()).or_insert(Name {
            host: next,
            holder: None,
            reserved_until: None,
        });
        name.check_free(now, peer)?;
        Ok(name)
    }

    /// The holder of a name has left; for `reserve` longer the name waits for it.
    pub(crate) fn release(&mut self, now: Timestamp, host: &str, reserve: Duration) {
        if let Some(name) = self.by_name.get_mut(host) {
            name.reserved_until = Some(now + reserve);
        }
    }

    /// A predecessor gave this name; as long as `reserved` says of its host it waits for its holder.
    pub(crate) fn restore(&mut self, reserved: impl Fn(HostId) -> Timestamp, fact: &Fact) {
        if let Fact::Name {
            host,
            name,
            id,
            key,
            address,
        } = fact
        {
            let holder = Holder {
                id: id.clone(),
                key: key.as_slice().try_into().ok().map(KeyId),
                address: address.clone(),
            };
            let known = Name {
                host: *host,
                holder: Some(holder),
                reserved_until: Some(reserved(*host)),
            };
            self.by_name.insert(name.clone(), known);
        }
    }

    /// What a successor needs to know of a name.
    pub(crate) fn fact(&self, name: &str) -> Option<Fact> {
        let known = self.by_name.get(name)?;
        let holder = known.holder.as_ref()?;
        Some(Fact::Name {
            host: known.host,
            name: name.to_owned(),
            id: holder.id.clone(),
            key: holder.key.map(|key| key.0.to_vec()).unwrap_or_default(),
            address: holder.address.clone(),
        })
    }

    /// The same of all names.
    pub(crate) fn facts(&self) -> impl Iterator<Item = Fact> + '_ {
        self.by_name.keys().filter_map(|name| self.fact(name))
    }

    /// Nothing of its holder is left: anybody may have the name.
    pub(crate) fn free(&mut self, host: &str) {
        if let Some(name) = self.by_name.get_mut(host) {
            name.holder = None;
        }
    }

    /// The number of that name.
    pub(crate) fn get(&self, host: &str) -> Option<HostId> {
        self.by_name.get(host).map(|name| name.host)
    }
}

impl Name {
    fn check_free(&self, now: Timestamp, peer: &Peer) -> Result<(), String> {
        let Some(holder) = self.holder.as_ref().filter(|holder| !holder.is(peer)) else {
            return Ok(());
        };
        let (name, Holder { id, address, .. }) = (&peer.name, holder);
        match self.reserved_until {
            None => Err(format!(
                "a host named {name} is connected from {address} as identity {id}: give this one another name with \
                 `--name`, or stop that agent"
            )),
            Some(until) if now < until => Err(format!(
                "the name {name} is kept for identity {id} ({address}), whose tasks may still run, for {} s more: wait, \
                 or give this host another name with `--name`",
                until.since(now).as_secs() + 1
            )),
            Some(_) => Ok(()),
        }
    }
}

fn check_form(name: &str) -> Result<(), String> {
    let is_plain = |c: char| c.is_alphanumeric() || "._-:".contains(c);
    if !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.chars().all(is_plain) {
        return Ok(());
    }
    let shown: String = name.chars().take(40).collect();
    Err(format!(
        "`{}` cannot be a host's name: 1-{NAME_BYTES_MAX} letters, digits, `.`, `-`, `_` or `:` can",
        shown.escape_debug()
    ))
}

#[cfg(test)]
mod tests {
    use fleetpool_proto::Role;

    use super::*;

    const RESERVE: Duration = Duration::from_secs(35);

    fn agent(name: &str, key: u8) -> Peer {
        Peer {
            id: format!("identity-{key}"),
            key: Some(KeyId([key; 32])),
            address: "10.0.0.1:7700".to_owned(),
            ..Peer::local(Role::Agent, name)
        }
    }

    #[test]
    fn a_name_keeps_its_number() {
        let mut names = Names::default();
        let web = names.claim(Timestamp(0), &agent("web1", 1));
        let db = names.claim(Timestamp(0), &agent("db1", 2));
        assert_ne!(web, db);
        names.release(Timestamp(1), "web1", RESERVE);
        assert_eq!(names.claim(Timestamp(2), &agent("web1", 1)), web);
        assert_eq!(
            names.claim(Timestamp(2), &agent("web1", 1)),
            web,
            "takes over from itself"
        );
        assert_eq!(names.get("web1"), web.ok());
    }

    #[test]
    fn looking_at_a_name_does_not_take_it() {
        let mut names = Names::default();
        let web = names.check(Timestamp(0), &agent("web1", 1));
        assert_eq!(names.claim(Timestamp(0), &agent("web1", 2)), web);
    }

    #[test]
    fn a_name_in_use_is_refused_to_others_until_its_tasks_are_fenced() {
        let mut names = Names::default();
        let web = names.claim(Timestamp(0), &agent("web1", 1));
        assert_eq!(
            names
                .claim(Timestamp(0), &agent("web1", 2))
                .expect_err("in use"),
            "a host named web1 is connected from 10.0.0.1:7700 as identity identity-1: give this one another name with \
             `--name`, or stop that agent"
        );
        names.release(Timestamp(0), "web1", RESERVE);
        assert_eq!(
            names
                .claim(Timestamp(10_000_000), &agent("web1", 2))
                .expect_err("reserved"),
            "the name web1 is kept for identity identity-1 (10.0.0.1:7700), whose tasks may still run, for 26 s more: \
             wait, or give this host another name with `--name`"
        );
        assert_eq!(names.claim(Timestamp(35_000_000), &agent("web1", 2)), web);
    }

    #[test]
    fn what_cannot_be_a_name_is_refused() {
        for name in ["", "a b", "web,1", "../x", "a\n", &"x".repeat(254)] {
            let error = Names::default().claim(Timestamp(0), &agent(name, 1));
            assert!(
                error.is_err_and(|reason| reason.contains("cannot be a host's name")),
                "{name:?}"
            );
        }
        assert!(check_form("Wéb-1.example_x:22").is_ok());
    }
}
