//! A pool: its tasks, its shares of hosts, and what its client has been told.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;
use fleetpool_proto::{
    Attempt, ClientId, HostId, PoolId, SpecId,
    journal::ReturnedRow,
    limits::{JOB_ARGUMENT_BYTES_MAX, JOB_TASKS_MAX},
    message::ResultRow,
    pool::{PoolOptions, Spec},
    selector::Selector,
};

use crate::{
    credit::Credit,
    host::Host,
    options::Options,
    queue::{Pending, Queue},
    ranges::Ranges,
    recovery::returned_row,
    retained::{Farewell, Retained},
    share::Share,
};

/// Time's worth of tasks that an agent has ahead of its slots besides the round trip: covers batching.
const AHEAD_SLACK_US: u64 = 2_000;
/// Most tasks ahead of one slot.
const AHEAD_MAX: u64 = 4_096;
/// A round trip this many times shorter than a task is not worth hiding: less than half a percent is lost.
const AHEAD_NOT_WORTH: u64 = 200;

/// One pool.
#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) id: PoolId,
    pub(crate) client: ClientId,
    pub(crate) user: String,
    pub(crate) options: PoolOptions,
    pub(crate) selector: Selector,
    pub(crate) specs: BTreeMap<SpecId, Box<Spec>>,

    pub(crate) queue: Queue,
    pub(crate) shares: BTreeMap<HostId, Share>,
    /// Indexes that have been submitted.
    pub(crate) seen: Ranges,
    /// Indexes that were cancelled before they came.
    pub(crate) cancelled_early: BTreeSet<u64>,

    /// Sum of the shares' `allot`, `ceiling` and tasks.
    pub(crate) allotted: u64,
    pub(crate) ceilings: u64,
    pub(crate) granted: u64,
    /// Connected hosts where slots have no task.
    pub(crate) idle: BTreeSet<HostId>,
    /// Connected hosts that have few tasks ahead.
    pub(crate) refill: BTreeSet<HostId>,
    /// Connected hosts with tasks beyond their slots that have not been asked for them, by how many.
    pub(crate) surplus: BTreeSet<(u32, HostId)>,
    /// Tasks at connected hosts beyond those that may run there.
    pub(crate) stock: u64,
    /// Slots and hosts it could use if it were alone.
    pub(crate) eligible_slots: u64,
    pub(crate) eligible_hosts: u32,
    /// The supply of slots and the demand at which it last asked in vain.
    pub(crate) asked_in_vain: Option<(u64, u64)>,

    pub(crate) ended: u64,
    pub(crate) failed: u64,
    /// Tasks there will be in all, once closed.
    pub(crate) closed: Option<u64>,
    /// It is being ended: nothing more is granted or delivered.
    pub(crate) farewell: Option<Farewell>,
    pub(crate) credit: Credit,
    /// Moving mean of run times, in nanoseconds.
    pub(crate) run_ns: Option<u64>,
    /// Moving mean of results' sizes, in bytes.
    pub(crate) result_bytes: u64,
    pub(crate) out_rows: Vec<ResultRow>,
    pub(crate) out_payloads: Vec<Bytes>,
    /// Results are kept until the client has consumed them: it may come back and ask.
    pub(crate) keeps: bool,
    /// Its client wants to know which tasks are safe.
    pub(crate) tells_safe: bool,
    pub(crate) retained: Retained,
    /// Results from a predecessor whose output may still come again: who has it, and of which attempt it is.
    pub(crate) unprinted: BTreeMap<u64, (HostId, Attempt)>,
    /// Its client is back and waits for results, which wait for their output.
    pub(crate) results_wait: bool,
    /// Its client is away: its tasks wait before they print more than agents can keep.
    pub(crate) muted: bool,
    /// Facts are wanted.
    pub(crate) durable: bool,
    /// Tasks that wait again, and have not been written down as such.
    pub(crate) returned: Vec<ReturnedRow>,
    /// Attempts are numbered above this: a predecessor may have granted some that nobody knows of.
    pub(crate) attempts_after: Attempt,
    /// Tasks that the client was told are safe, and whether they are all.
    pub(crate) submitted_told: Option<(u64, bool)>,
    pub(crate) slots_told: Option<(u32, u32, u32)>,
    pub(crate) unfit_reason: Option<String>,
    /// No host matched when it was opened; some that do were away.
    pub(crate) unmatched: bool,
}

impl Pool {
    pub(crate) fn new(
        id: PoolId,
        client: ClientId,
        user: String,
        options: PoolOptions,
        selector: Selector,
        settings: &Options,
    ) -> Self {
        let credit = if options.detached {
            Credit::new(JOB_TASKS_MAX, JOB_ARGUMENT_BYTES_MAX)
        } else {
            Credit::new(settings.window_tasks, settings.window_bytes)
        };
        Self {
            id,
            client,
            user,
            options,
            selector,
            specs: BTreeMap::new(),
            queue: Queue::default(),
            shares: BTreeMap::new(),
            seen: Ranges::default(),
            cancelled_early: BTreeSet::new(),
            allotted: 0,
            ceilings: 0,
            granted: 0,
            idle: BTreeSet::new(),
            refill: BTreeSet::new(),
            surplus: BTreeSet::new(),
            stock: 0,
            eligible_slots: 0,
            eligible_hosts: 0,
            asked_in_vain: None,
            ended: 0,
            failed: 0,
            closed: None,
            farewell: None,
            credit,
            run_ns: None,
            result_bytes: 0,
            out_rows: Vec::new(),
            out_payloads: Vec::new(),
            keeps: false,
            tells_safe: false,
            retained: Retained::default(),
            unprinted: BTreeMap::new(),
            results_wait: false,
            muted: false,
            durable: settings.durable,
            returned: Vec::new(),
            attempts_after: Attempt::default(),
            submitted_told: None,
            slots_told: None,
            unfit_reason: None,
            unmatched: false,
        }
    }

    /// Its client may not have heard how it is.
    pub(crate) fn tell_again(&mut self) {
        self.slots_told = None;
        self.submitted_told = None;
        self.credit.tell_again();
    }

    /// N, as far as there are slots.
    pub(crate) fn limit(&self) -> u64 {
        self.options.slots.map_or(u64::MAX, u64::from)
    }

    /// Sets what it may run on a host, and what counts until the agent has confirmed it.
    pub(crate) fn set_slots(&mut self, id: HostId, host: &mut Host, allot: u16, ceiling: u16) {
        let share = self.shares.entry(id).or_default();
        self.allotted = self.allotted - u64::from(share.allot) + u64::from(allot);
        host.allotted = host.allotted - u32::from(share.allot) + u32::from(allot);
        self.ceilings = self.ceilings - u64::from(share.ceiling) + u64::from(ceiling);
        host.ceilings = host.ceilings - u32::from(share.ceiling) + u32::from(ceiling);
        (share.allot, share.ceiling) = (allot, ceiling);
    }

    /// A task waits again.
    pub(crate) fn put_back(&mut self, task: Pending) {
        if self.durable {
            self.returned.push(returned_row(&task));
        }
        self.queue.push(task);
    }

    /// Whether it has tasks that more slots anywhere would start: in the queue, or at hosts ahead of theirs.
    pub(crate) fn is_hungry(&self) -> bool {
        let waiting = self.queue.len() + self.stock;
        waiting > 0 && !self.is_ending() && !self.credit.is_exhausted()
    }

    /// Slots that it could use now.
    pub(crate) fn demand(&self) -> u64 {
        if self.is_ending() {
            return 0;
        }
        let tasks = self.queue.len_all() + self.granted;
        tasks.min(self.limit()).min(self.eligible_slots)
    }

    /// Slots by which its allotments may grow without more than N tasks ever running (G1).
    pub(crate) fn room(&self, settings: &Options) -> u64 {
        let counted = if settings.waits_for_confirmation() {
            self.ceilings
        } else {
            self.allotted
        };
        self.limit().saturating_sub(counted)
    }

    /// Whether its tasks may run a second time after their host was lost.
    pub(crate) fn reruns(&self) -> bool {
        self.options.retries.host_lost > 0
    }

    /// Whether it goes on without its client.
    pub(crate) fn is_detached(&self) -> bool {
        self.options.detached
    }

    /// Whether its client has nothing more to say about it, and may leave it to itself.
    pub(crate) fn is_left(&self) -> bool {
        let complete = |total| self.seen.gap() >= total;
        self.is_detached() && self.closed.is_some_and(complete)
    }

    pub(crate) fn matches(&self, host: &Host) -> bool {
        self.selector.matches(&host.facts.name, &host.facts.labels)
    }

    /// Whether new tasks of this pool may be sent there.
    pub(crate) fn may_use(&self, id: HostId, host: &Host) -> bool {
        host.is_open()
            && self.matches(host)
            && self.shares.get(&id).is_none_or(|share| !share.unfit)
    }

    pub(crate) fn no_host_matches(&self) -> String {
        format!(
            "no connected host matches `{}`: `fleetpool hosts` lists what there is",
            self.options.on
        )
    }

    /// Whether new tasks may be sent there if it comes back before its lease has run out.
    pub(crate) fn may_use_again(&self, id: HostId, host: &Host) -> bool {
        host.may_come_back()
            && self.matches(host)
            && self.shares.get(&id).is_none_or(|share| !share.unfit)
    }

    /// Counts a host among those that it may use, or takes it out again, if it is one.
    pub(crate) fn count_host(&mut self, id: HostId, host: &Host, add: bool) {
        if !self.may_use(id, host) {
            return;
        }
        if add {
            self.eligible_slots += u64::from(host.usable());
            self.eligible_hosts += 1;
        } else {
            self.eligible_slots -= u64::from(host.usable());
            self.eligible_hosts -= 1;
        }
    }

    /// Tasks that an agent should have for each of its slots besides the one that runs: enough to hide the round
    /// trip, none where it is not worth hiding.
    pub(crate) fn ahead(&self, rtt: Duration) -> u64 {
        let Some(run_ns) = self.run_ns else { return 0 };
        let rtt_ns = u64::try_from(rtt.as_nanos()).unwrap_or(u64::MAX);
        let hide_ns = rtt_ns
            .saturating_mul(2)
            .saturating_add(AHEAD_SLACK_US * 1_000);
        if hide_ns.saturating_mul(AHEAD_NOT_WORTH) < run_ns {
            return 0;
        }
        hide_ns.div_ceil(run_ns.max(1)).min(AHEAD_MAX)
    }

    /// Tasks that the share should have when it has been filled.
    pub(crate) fn depth(&self, share: &Share, rtt: Duration) -> usize {
        let slots = u64::from(share.allot);
        usize::try_from(slots * (1 + self.ahead(rtt))).unwrap_or(usize::MAX)
    }

    /// Brings the sets of hosts up to date after the share of `id` changed.
    pub(crate) fn reindex(&mut self, id: HostId, host: &Host) {
        let Some(share) = self.shares.get(&id) else {
            self.idle.remove(&id);
            self.refill.remove(&id);
            return;
        };
        let up = host.is_up() && !share.unfit;
        let stock = if up { share.excess() } else { 0 };
        let stock = u32::try_from(stock).unwrap_or(u32::MAX);
        let surplus = if share.retraction.is_none() { stock } else { 0 };
        let idle = up && share.idle() > 0;
        let depth = self.depth(share, host.rtt);
        let refill = up && share.tasks.len() < depth && share.tasks.len() <= depth - depth / 4;
        put(&mut self.idle, id, idle);
        put(&mut self.refill, id, refill);
        self.count_stock(id, stock, surplus);
    }

    /// Takes what the share has in stock out of the sums, before it goes.
    pub(crate) fn forget_stock(&mut self, id: HostId) {
        self.count_stock(id, 0, 0);
    }

    fn count_stock(&mut self, id: HostId, stock: u32, surplus: u32) {
        let Some(share) = self.shares.get_mut(&id) else {
            return;
        };
        self.stock = self.stock - u64::from(share.stock) + u64::from(stock);
        share.stock = stock;
        if share.surplus == surplus {
            return;
        }
        self.surplus.remove(&(share.surplus, id));
        share.surplus = surplus;
        if surplus > 0 {
            self.surplus.insert((surplus, id));
        }
    }

    /// Takes run times and result sizes of finished tasks into the moving means.
    pub(crate) fn learn(&mut self, total_us: u64, total_bytes: u64, tasks: u64) {
        if tasks == 0 {
            return;
        }
        // A task always costs something; below this the figures are noise.
        let mean_ns = (total_us.saturating_mul(1_000) / tasks).max(500);
        let mean_bytes = total_bytes / tasks;
        (self.run_ns, self.result_bytes) = match self.run_ns {
            None => (Some(mean_ns), mean_bytes),
            Some(before) => (
                Some((before * 3 + mean_ns) / 4),
                (self.result_bytes * 3 + mean_bytes) / 4,
            ),
        };
    }

    /// How many more tasks may be sent ahead of slots before their results, and those of the tasks that are out, would
    /// be more than the client may be behind with (G7).
    pub(crate) fn room_for_results(&self) -> usize {
        let out = self.granted.saturating_mul(self.result_bytes);
        let left = self.credit.room_for_results().saturating_sub(out);
        let tasks = left.checked_div(self.result_bytes).unwrap_or(u64::MAX);
        usize::try_from(tasks).unwrap_or(usize::MAX)
    }

    /// Whether it is being ended before all of its tasks have.
    pub(crate) fn is_ending(&self) -> bool {
        self.farewell.is_some()
    }

    /// Whether every task that will ever come has ended.
    pub(crate) fn is_complete(&self) -> bool {
        self.closed.is_some_and(|total| self.ended >= total)
    }

    /// Whether nothing of it can be running anywhere.
    pub(crate) fn is_drained(&self) -> bool {
        self.granted == 0 && self.ceilings == 0
    }
}

/// Makes `id` a member of the set, or none.
pub(crate) fn put(set: &mut BTreeSet<HostId>, id: HostId, is_in: bool) {
    if is_in {
        set.insert(id);
    } else {
        set.remove(&id);
    }
}
