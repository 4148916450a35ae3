//! Which call a task belongs to. Pure.
//!
//! Tasks are numbered as they are submitted, and a call submits many in a row: what is kept is a run of neighbours,
//! not a task.

use std::{collections::BTreeMap, sync::Arc};

/// Longest run. A run is kept until its last task has ended, so that this bounds what one straggler keeps.
const RUN_TASKS_MAX: u64 = 4096;

/// The runs that have not ended, by the index of their first task.
#[derive(Debug)]
pub(crate) struct Runs<C>(BTreeMap<u64, Run<C>>);

#[derive(Debug)]
struct Run<C> {
    call: Arc<C>,
    /// Place of the run's first task among its call's inputs.
    position: u64,
    len: u64,
    left: u64,
}

impl<C> Default for Runs<C> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<C> Runs<C> {
    /// Task `index`, the newest of all, is the `position`-th of `call`. Whether a new run begins with it.
    pub(crate) fn place(&mut self, index: u64, call: &Arc<C>, position: u64) -> bool {
        if let Some(mut last) = self.0.last_entry() {
            let first = *last.key();
            let run = last.get_mut();
            let follows = first + run.len == index && run.position + run.len == position;
            if follows && run.len < RUN_TASKS_MAX && Arc::ptr_eq(&run.call, call) {
                run.len += 1;
                run.left += 1;
                return false;
            }
        }
        let run = Run {
            call: Arc::clone(call),
            position,
            len: 1,
            left: 1,
        };
        self.0.insert(index, run);
        true
    }

    /// Task `index` has ended: its call, and its place in it. `None` when nobody waits for it any more.
    pub(crate) fn take(&mut self, index: u64) -> Option<(Arc<C>, u64)> {
        let (&first, run) = self.0.range_mut(..=index).next_back()?;
        let offset = index - first;
        if offset >= run.len {
            return None;
        }
        run.left -= 1;
        let found = (Arc::clone(&run.call), run.position + offset);
        if run.left == 0 {
            self.0.remove(&first);
        }
        Some(found)
    }

    /// Whose runs there are; one may be there several times.
    pub(crate) fn calls(&self) -> Vec<Arc<C>> {
        self.0.values().map(|run| Arc::clone(&run.call)).collect()
    }

    /// The tasks of the runs that begin at `firsts`. Some may have ended.
    pub(crate) fn indexes(&self, firsts: &[u64]) -> Vec<u64> {
        let runs = firsts
            .iter()
            .filter_map(|first| self.0.get_key_value(first));
        runs.flat_map(|(&first, run)| first..first + run.len)
            .collect()
    }

    /// Nobody waits for these runs any more.
    pub(crate) fn forget(&mut self, firsts: &[u64]) {
        for first in firsts {
            self.0.remove(first);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Everything, when nothing more will come.
    pub(crate) fn drain(&mut self) -> Vec<Arc<C>> {
        std::mem::take(&mut self.0)
            .into_values()
            .map(|run| run.call)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn neighbours_share_a_run_until_another_call_comes_between() {
        let (a, b) = (Arc::new('a'), Arc::new('b'));
        let mut runs = Runs::default();
        assert!(runs.place(0, &a, 0));
        assert!(!runs.place(1, &a, 1));
        assert!(runs.place(2, &b, 0));
        assert!(runs.place(3, &a, 2));
        assert_eq!(runs.indexes(&[0, 3]), [0, 1, 3]);
        assert_eq!(runs.take(3), Some((Arc::clone(&a), 2)));
        assert_eq!(runs.take(3), None);
        runs.forget(&[0]);
        assert_eq!(runs.take(1), None);
        assert_eq!(runs.take(2), Some((b, 0)));
        assert!(runs.0.is_empty());
    }

    proptest! {
        /// Whatever calls submit in whatever order, and in whatever order tasks end, each result finds its call and
        /// place, and nothing is kept.
        #[test]
        fn every_result_finds_its_place(
            owners in proptest::collection::vec(0usize..3, 1..300),
            order in any::<prop::sample::Index>(),
        ) {
            let calls: Vec<_> = (0..3).map(Arc::new).collect();
            let mut runs = Runs::default();
            let mut positions = [0; 3];
            let mut expected = Vec::new();
            for (index, &owner) in owners.iter().enumerate() {
                runs.place(index as u64, &calls[owner], positions[owner]);
                expected.push((index as u64, owner, positions[owner]));
                positions[owner] += 1;
            }
            let middle = order.index(expected.len());
            expected.rotate_left(middle);
            for (index, owner, position) in expected {
                let (call, found) = runs.take(index).expect("somebody waits");
                prop_assert_eq!((*call, found), (owner, position));
            }
            prop_assert!(runs.0.is_empty());
        }
    }
}
