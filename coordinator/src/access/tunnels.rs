//! Hosts that cannot reach the coordinator, and that it keeps a tunnel to: where ssh is to go, and how each tunnel fares.
//!
//! Only the list is kept here. Whoever runs the coordinator watches it, starts ssh, and tells what becomes of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use fleetpool_proto::view::TunnelView;
use tokio::sync::watch;

use super::store::{self, StoreError};

/// Most tunnels of a coordinator; each is a process of ssh. More are refused.
pub const TUNNELS_MAX: usize = 500;

/// The tunnels' file, and what is known of each.
#[derive(Debug)]
pub struct Tunnels {
    path: PathBuf,
    wanted: watch::Sender<BTreeSet<String>>,
    states: Mutex<BTreeMap<String, String>>,
}

impl Tunnels {
    /// The tunnels of that directory.
    ///
    /// # Errors
    /// When there is a file that cannot be read.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join("tunnels.json");
        let wanted = watch::Sender::new(store::load(&path)?);
        Ok(Self {
            path,
            wanted,
            states: Mutex::default(),
        })
    }

    /// One is wanted to this host, as ssh is told it; whether there was none.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn add(&self, to: &str) -> Result<bool, StoreError> {
        self.change(|wanted| wanted.insert(to.to_owned()))
    }

    /// None is wanted any more; whether there was one.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn remove(&self, to: &str) -> Result<bool, StoreError> {
        self.states().remove(to);
        self.change(|wanted| wanted.remove(to))
    }

    /// Whether there is room for another.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.wanted.borrow().len() >= TUNNELS_MAX
    }

    /// Those that are wanted, and how they fare.
    #[must_use]
    pub fn list(&self) -> Vec<TunnelView> {
        let states = self.states();
        let view = |to: &String| TunnelView {
            to: to.clone(),
            state: states.get(to).cloned().unwrap_or_default(),
        };
        self.wanted.borrow().iter().map(view).collect()
    }

    /// What is wanted, and every change of it.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<BTreeSet<String>> {
        self.wanted.subscribe()
    }

    /// How one fares: `up`, or why it is not.
    pub fn tell(&self, to: &str, state: &str) {
        self.states().insert(to.to_owned(), state.to_owned());
    }

    fn change(
        &self,
        change: impl FnOnce(&mut BTreeSet<String>) -> bool,
    ) -> Result<bool, StoreError> {
        let mut wanted = self.wanted.borrow().clone();
        if !change(&mut wanted) {
            return Ok(false);
        }
        store::save(&self.path, &wanted)?;
        self.wanted.send_replace(wanted);
        Ok(true)
    }

    fn states(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        // A panic cannot leave the map half changed.
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted_outlives_the_coordinator_and_is_told_once() {
        let dir = tempfile::tempdir().unwrap();
        let tunnels = Tunnels::open(dir.path()).unwrap();
        let mut watch = tunnels.watch();
        assert!(tunnels.add("ada@h5").unwrap());
        assert!(!tunnels.add("ada@h5").unwrap());
        assert!(watch.has_changed().unwrap());
        assert!(watch.borrow_and_update().contains("ada@h5"));
        tunnels.tell("ada@h5", "up");
        let view = TunnelView {
            to: "ada@h5".to_owned(),
            state: "up".to_owned(),
        };
        assert_eq!(tunnels.list(), [view]);
        assert_eq!(Tunnels::open(dir.path()).unwrap().list()[0].to, "ada@h5");
        assert!(tunnels.remove("ada@h5").unwrap());
        assert!(Tunnels::open(dir.path()).unwrap().list().is_empty());
    }
}
