//! Tasks of a pool that wait for a slot.
//!
//! A submitted batch stays one block: a waiting task costs its payload's handle and nothing else, and submitting
//! costs the same for one task as for four thousand. Tasks that come back (retracted, lost, to be retried) are kept
//! apart by index and go first, so that tasks start in the order of their submission (G2).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use fleetpool_proto::{Attempt, HostId, SpecId, Timestamp};

/// How often a task has been tried, and what its tries came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tries {
    /// The last attempt's number; 0 before the first.
    pub(crate) attempt: Attempt,
    pub(crate) host_lost: u32,
    pub(crate) worker_lost: u32,
    pub(crate) failed: u32,
    /// An attempt has begun, or may have: its host was lost before it said so.
    pub(crate) may_have_begun: bool,
}

/// A task that waits.
#[derive(Clone, Debug)]
pub(crate) struct Pending {
    pub(crate) index: u64,
    pub(crate) spec: SpecId,
    pub(crate) tries: Tries,
    pub(crate) since: Timestamp,
    /// The only host it may run on.
    pub(crate) pin: Option<HostId>,
    pub(crate) payload: Bytes,
}

impl Pending {
    /// Bytes of an argument that has been waiting ever since it came.
    pub(crate) fn new_bytes(&self) -> u64 {
        if self.tries.attempt == Attempt::default() {
            self.payload.len() as u64
        } else {
            0
        }
    }
}

/// Tasks `next`, `next + 1`, … as they were submitted.
#[derive(Debug)]
struct Block {
    next: u64,
    spec: SpecId,
    since: Timestamp,
    payloads: std::vec::IntoIter<Bytes>,
}

impl Block {
    fn end(&self) -> u64 {
        self.next + self.payloads.len() as u64
    }
}

/// The waiting tasks of a pool.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    returned: BTreeMap<u64, Pending>,
    blocks: VecDeque<Block>,
    /// Indexes inside blocks that have been cancelled: skipped when their turn comes.
    cancelled: BTreeSet<u64>,
    pinned: BTreeMap<HostId, BTreeMap<u64, Pending>>,
    len: u64,
    len_pinned: u64,
}

impl Queue {
    /// Tasks that wait and may run anywhere.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Tasks that wait, bound to a host or not.
    pub(crate) fn len_all(&self) -> u64 {
        self.len + self.len_pinned
    }

    /// Tasks that wait for this host alone.
    pub(crate) fn len_pinned(&self, host: HostId) -> u64 {
        self.pinned.get(&host).map_or(0, |tasks| tasks.len() as u64)
    }

    /// Hosts that tasks wait for by name.
    pub(crate) fn pinned_hosts(&self) -> impl Iterator<Item = HostId> + '_ {
        self.pinned.keys().copied()
    }

    /// Adds tasks as a client submitted them: each for a host of its own, or (no hosts) all for any.
    pub(crate) fn submit(
        &mut self,
        first: u64,
        spec: SpecId,
        since: Timestamp,
        hosts: &[HostId],
        payloads: Vec<Bytes>,
    ) {
        if hosts.is_empty() {
            return self.push_block(first, spec, since, payloads);
        }
        for ((index, payload), &host) in (first..).zip(payloads).zip(hosts) {
            self.push(Pending {
                index,
                spec,
                tries: Tries::default(),
                since,
                pin: Some(host),
                payload,
            });
        }
    }

    /// Adds a batch as it was submitted. Batches rarely come late; then they are put in their place.
    fn push_block(&mut self, first: u64, spec: SpecId, since: Timestamp, payloads: Vec<Bytes>) {
        if payloads.is_empty() {
            return;
        }
        self.len += payloads.len() as u64;
        let at = self.blocks.partition_point(|block| block.next < first);
        let block = Block {
            next: first,
            spec,
            since,
            payloads: payloads.into_iter(),
        };
        self.blocks.insert(at, block);
    }

    /// Adds or puts back one task.
    pub(crate) fn push(&mut self, task: Pending) {
        if let Some(host) = task.pin {
            self.len_pinned += 1;
            self.pinned
                .entry(host)
                .or_default()
                .insert(task.index, task);
        } else {
            self.len += 1;
            self.returned.insert(task.index, task);
        }
    }

    /// The next task that may run anywhere.
    pub(crate) fn pop(&mut self) -> Option<Pending> {
        if let Some((_, task)) = self.returned.pop_first() {
            self.len -= 1;
            return Some(task);
        }
        loop {
            let block = self.blocks.front_mut()?;
            let payload = block.payloads.next()?;
            let (index, spec, since) = (block.next, block.spec, block.since);
            block.next += 1;
            // Blocks are never empty: an index is looked for in the block that begins last before it.
            if block.payloads.len() == 0 {
                self.blocks.pop_front();
            }
            if !self.cancelled.is_empty() && self.cancelled.remove(&index) {
                continue;
            }
            self.len -= 1;
            return Some(Pending {
                index,
                spec,
                tries: Tries::default(),
                since,
                pin: None,
                payload,
            });
        }
    }

    /// The next task that waits for `host` alone.
    /// Tasks that wait for one host alone may have begun there.
    pub(crate) fn doubt_pinned(&mut self) {
        for task in self.pinned.values_mut().flat_map(BTreeMap::values_mut) {
            task.tries.may_have_begun = true;
        }
    }

    pub(crate) fn pop_pinned(&mut self, host: HostId) -> Option<Pending> {
        let tasks = self.pinned.get_mut(&host)?;
        let (_, task) = tasks.pop_first()?;
        if tasks.is_empty() {
            self.pinned.remove(&host);
        }
        self.len_pinned -= 1;
        Some(task)
    }

    /// Takes a waiting task out; tells the bytes of its argument, if it has been waiting ever since it came.
    pub(crate) fn remove(&mut self, index: u64) -> Option<u64> {
        if let Some(task) = self.returned.remove(&index) {
            self.len -= 1;
            return Some(task.new_bytes());
        }
        let pinned = self
            .pinned
            .iter()
            .find(|(_, tasks)| tasks.contains_key(&index));
        if let Some((&host, _)) = pinned {
            return self.remove_pinned(host, index);
        }
        let after = self.blocks.partition_point(|block| block.next <= index);
        let block = self.blocks.get(after.checked_sub(1)?)?;
        if index >= block.end() || !self.cancelled.insert(index) {
            return None;
        }
        self.len -= 1;
        let at = usize::try_from(index - block.next).ok()?;
        block.payloads.as_slice().get(at).map(|p| p.len() as u64)
    }

    /// Takes a waiting task out, as if its turn had come.
    pub(crate) fn take(&mut self, index: u64) -> Option<Pending> {
        let is_next = self.blocks.front().is_some_and(|block| block.next == index);
        if is_next && self.returned.is_empty() && !self.cancelled.contains(&index) {
            return self.pop();
        }
        if let Some(task) = self.returned.remove(&index) {
            self.len -= 1;
            return Some(task);
        }
        for tasks in self.pinned.values_mut() {
            if let Some(task) = tasks.remove(&index) {
                self.len_pinned -= 1;
                self.pinned.retain(|_, tasks| !tasks.is_empty());
                return Some(task);
            }
        }
        let after = self.blocks.partition_point(|block| block.next <= index);
        let block = self.blocks.get(after.checked_sub(1)?)?;
        let at = usize::try_from(index - block.next).ok()?;
        let payload = block.payloads.as_slice().get(at)?.clone();
        let (spec, since) = (block.spec, block.since);
        if !self.cancelled.insert(index) {
            return None;
        }
        self.len -= 1;
        Some(Pending {
            index,
            spec,
            tries: Tries::default(),
            since,
            pin: None,
            payload,
        })
    }

    /// What waits as it was submitted: runs of neighbouring tasks.
    pub(crate) fn for_each_block(&self, mut tell: impl FnMut(u64, SpecId, &[Bytes])) {
        for block in &self.blocks {
            let payloads = block.payloads.as_slice();
            let mut from = 0;
            for &gap in self.cancelled.range(block.next..block.end()) {
                let at = usize::try_from(gap - block.next).unwrap_or(usize::MAX);
                if from < at {
                    tell(block.next + from as u64, block.spec, &payloads[from..at]);
                }
                from = at + 1;
            }
            if from < payloads.len() {
                tell(block.next + from as u64, block.spec, &payloads[from..]);
            }
        }
    }

    /// What waits singly: for one host, or again.
    pub(crate) fn singles(&self) -> impl Iterator<Item = &Pending> {
        let pinned = self.pinned.values().flat_map(BTreeMap::values);
        self.returned.values().chain(pinned)
    }

    fn remove_pinned(&mut self, host: HostId, index: u64) -> Option<u64> {
        let tasks = self.pinned.get_mut(&host)?;
        let task = tasks.remove(&index)?;
        if tasks.is_empty() {
            self.pinned.remove(&host);
        }
        self.len_pinned -= 1;
        Some(task.new_bytes())
    }

    /// Forgets every waiting task.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(queue: &mut Queue, first: u64, count: usize) {
        let payloads = vec![Bytes::from_static(b"x"); count];
        queue.push_block(first, SpecId(0), Timestamp(0), payloads);
    }

    fn drain(queue: &mut Queue) -> Vec<u64> {
        std::iter::from_fn(|| queue.pop())
            .map(|task| task.index)
            .collect()
    }

    #[test]
    fn tasks_leave_in_the_order_of_their_submission_also_when_a_batch_comes_late() {
        let mut queue = Queue::default();
        block(&mut queue, 0, 2);
        block(&mut queue, 4, 2);
        block(&mut queue, 2, 2);
        assert_eq!(drain(&mut queue), [0, 1, 2, 3, 4, 5]);
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn what_came_back_goes_first() {
        let mut queue = Queue::default();
        block(&mut queue, 0, 3);
        let first = queue.pop().expect("a task");
        queue.pop();
        queue.push(first);
        assert_eq!(drain(&mut queue), [0, 2]);
    }

    #[test]
    fn a_removed_task_is_skipped_and_counted_once() {
        let mut queue = Queue::default();
        block(&mut queue, 0, 4);
        assert_eq!(queue.remove(2), Some(1));
        assert_eq!(queue.remove(2), None);
        assert_eq!(queue.remove(4), None);
        assert_eq!(queue.len(), 3);
        assert_eq!(drain(&mut queue), [0, 1, 3]);
    }

    #[test]
    fn a_task_is_found_also_behind_a_batch_that_has_been_given_out_whole() {
        let mut queue = Queue::default();
        block(&mut queue, 0, 2);
        assert_eq!(queue.pop().map(|task| task.index), Some(0));
        assert_eq!(queue.pop().map(|task| task.index), Some(1));
        block(&mut queue, 2, 2);
        assert_eq!(queue.remove(2), Some(1));
        assert_eq!(drain(&mut queue), [3]);
    }

    #[test]
    fn a_pinned_task_leaves_for_its_host_only() {
        let mut queue = Queue::default();
        queue.push(Pending {
            index: 7,
            spec: SpecId(0),
            tries: Tries::default(),
            since: Timestamp(0),
            pin: Some(HostId(3)),
            payload: Bytes::new(),
        });
        assert!(queue.pop().is_none());
        assert!(queue.pop_pinned(HostId(2)).is_none());
        assert_eq!(queue.pop_pinned(HostId(3)).map(|task| task.index), Some(7));
        assert_eq!(queue.len_all(), 0);
    }
}
