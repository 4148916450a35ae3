//! The shell around an agent's core: its link, its timer, and what it asks of the host.

use std::collections::{BTreeMap, VecDeque};

use fleetpool_agent_core::{Action, AgentCore, Event, Options};
use fleetpool_coordinator_core::SessionNo;
use fleetpool_proto::{SlotNo, Timestamp, message::Registration};

use super::{
    engine::{Engine, ToCoordinator, What},
    plan::{Bug, HostPlan},
    wire::{Parcel, Session, decode, encode},
    workers::{Order, ToWorker, Worker},
};
use crate::chance::Chance;

/// The agent's share of leases, in milliseconds.
const LEASE_MS: u64 = 30_000;
/// Longest time for a program to be fetched, in microseconds.
const FETCH_US_MAX: u64 = 100_000;

/// A host, its agent and its workers.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) number: usize,
    pub(super) plan: HostPlan,
    /// `None`: it is off, or its agent is.
    pub(super) core: Option<AgentCore>,
    /// Lives of its agent so far.
    pub(super) life: u64,
    /// Its agent is stopped; what comes for it waits here.
    pub(super) paused: bool,
    mail: VecDeque<Mail>,
    /// When its keepers end what may run again, by its own clock.
    fence: Option<Timestamp>,
    pub(super) session: Option<SessionNo>,
    /// The newest session, which the agent may not know yet.
    pub(super) newest: Option<SessionNo>,
    pub(super) workers: BTreeMap<SlotNo, Worker>,
    timer: Option<u64>,
    /// Something has come, which it takes in at its next turn.
    pub(super) awaits_turn: bool,
    /// Until when nothing passes to the coordinator, and from it.
    pub(super) cut_up_until: u64,
    pub(super) cut_down_until: u64,
    clock_base: u64,
    bug: Option<Bug>,
}

/// What comes to an agent.
#[derive(Debug)]
pub(super) enum Mail {
    Up(SessionNo),
    Down(SessionNo),
    Frame(SessionNo, u64, Parcel),
    Told(Event),
    Tick,
}

impl Host {
    pub(super) fn new(
        number: usize,
        plan: HostPlan,
        chance: &mut Chance,
        bug: Option<Bug>,
    ) -> Self {
        let mut host = Self {
            number,
            plan,
            core: None,
            life: 0,
            paused: false,
            mail: VecDeque::new(),
            fence: None,
            session: None,
            newest: None,
            workers: BTreeMap::new(),
            timer: None,
            awaits_turn: false,
            cut_up_until: 0,
            cut_down_until: 0,
            clock_base: chance.within(1..1 << 40),
            bug,
        };
        host.boot();
        host
    }

    /// A new life of the agent.
    pub(super) fn boot(&mut self) {
        let mut options = Options::new(self.plan.slots);
        if let Some(Bug::Agent(bug)) = self.bug {
            options.planted = Some(bug);
        }
        self.core = Some(AgentCore::new(options));
        self.timer = None;
    }

    /// The end of this life.
    pub(super) fn fall(&mut self) {
        self.core = None;
        self.life += 1;
        self.paused = false;
        self.fence = None;
        self.mail.clear();
        self.session = None;
    }

    /// The host's own clock.
    fn clock(&self, now: u64) -> Timestamp {
        let drifted = i128::from(now) * i128::from(1000 + self.plan.drift) / 1000;
        Timestamp(self.clock_base + u64::try_from(drifted).unwrap_or_default())
    }

    /// When its clock will show that time.
    fn when(&self, time: Timestamp) -> u64 {
        let drifted = i128::from(time.0.saturating_sub(self.clock_base));
        let rate = i128::from(1000 + self.plan.drift);
        u64::try_from((drifted * 1000 + rate - 1) / rate).unwrap_or(u64::MAX)
    }

    fn registration(&self) -> Registration {
        Registration {
            name: format!("h{}", self.number),
            slots: self.plan.slots,
            incarnation: self.life + 1,
            ..Registration::default()
        }
    }

    /// Nothing is kept of what is over.
    pub(super) fn look_at_what_is_left(&self) -> Result<(), String> {
        let Some(core) = &self.core else {
            return Ok(());
        };
        let busy = core.slots().find(|slot| slot.running.is_some());
        if busy.is_some() || core.queued() > 0 || core.unacknowledged() > 0 {
            let number = self.number;
            return Err(format!(
                "G6: host {number} still has {busy:?}, {} queued, {} reports",
                core.queued(),
                core.unacknowledged()
            ));
        }
        if let Some(pool) = core.pools().next() {
            return Err(format!("G6: host {} still knows {pool}", self.number));
        }
        Ok(())
    }
}

impl Engine {
    pub(super) fn reach_agent(&mut self, number: usize, life: u64, mail: Mail) {
        let host = &mut self.hosts[number];
        if host.life != life || host.core.is_none() {
            return;
        }
        if host.paused {
            host.mail.push_back(mail);
            return;
        }
        let Some(next) = self.next_turn(number as u64) else {
            return self.open_mail(number, mail);
        };
        let host = &mut self.hosts[number];
        host.mail.push_back(mail);
        if !std::mem::replace(&mut host.awaits_turn, true) {
            self.at(next, What::Turn(Some(number)));
        }
    }

    /// The agent takes in all that has come since it last did, and acts.
    pub(super) fn take_turn(&mut self, number: usize) {
        self.hosts[number].awaits_turn = false;
        while !self.hosts[number].paused
            && let Some(mail) = self.hosts[number].mail.pop_front()
        {
            self.open_mail(number, mail);
        }
    }

    fn open_mail(&mut self, number: usize, mail: Mail) {
        let host = &mut self.hosts[number];
        let event = match mail {
            Mail::Up(session) => {
                if self.sessions.get(session).is_none_or(|entry| entry.over) {
                    return self.dial_later(number);
                }
                host.session = Some(session);
                Event::LinkUp {
                    registration: Box::new(host.registration()),
                    lease_ms: LEASE_MS,
                    now_us: 1 + self.now,
                }
            }
            Mail::Down(session) => {
                if host.session != Some(session) {
                    return;
                }
                host.session = None;
                self.dial_later(number);
                Event::LinkDown
            }
            Mail::Frame(session, frame, parcel) => {
                let Some(entry) = self.sessions.get_mut(session) else {
                    return;
                };
                if !entry.down.arrives(frame) || host.session != Some(session) {
                    return;
                }
                match decode(parcel) {
                    Ok(message) => Event::Message(message),
                    Err(error) => {
                        let what = format!("host {number} does not understand: {error}");
                        return self.check(Err(what));
                    }
                }
            }
            Mail::Told(event) => event,
            Mail::Tick => Event::Tick,
        };
        self.tell_agent(number, event);
    }

    fn tell_agent(&mut self, number: usize, event: Event) {
        let now = self.now;
        self.trace.note(now, 2 + number as u64, event.name(), 0);
        self.trace
            .tell(now, || format!("host {number} <- {event:?}"));
        let host = &mut self.hosts[number];
        let clock = host.clock(now);
        if let Some(core) = &mut host.core {
            core.handle(clock, event);
            self.stirred.insert(number);
        }
    }

    /// The agent goes on, and finds what has come meanwhile.
    pub(super) fn resume(&mut self, number: usize) {
        self.hosts[number].paused = false;
        while let Some(mail) = self.hosts[number].mail.pop_front() {
            self.open_mail(number, mail);
        }
        self.tell_agent(number, Event::Tick);
    }

    /// The kernel's timer, which keepers wait for whether their agent is stopped or not.
    pub(super) fn fence(&mut self, number: usize) {
        let host = &self.hosts[number];
        if host.fence.is_some_and(|time| host.when(time) <= self.now) {
            self.hosts[number].fence = None;
            self.keepers_fence(number);
        }
    }

    fn set_fence(&mut self, number: usize, time: Option<Timestamp>) {
        let host = &mut self.hosts[number];
        host.fence = time;
        if let Some(time) = time {
            let at = host.when(time);
            self.at(at, What::Fence(number));
        }
    }

    pub(super) fn agent_timer(&mut self, number: usize) {
        let host = &mut self.hosts[number];
        host.timer = None;
        if host.core.is_some() {
            let life = host.life;
            self.reach_agent(number, life, Mail::Tick);
        }
    }

    pub(super) fn drain_agent(&mut self, number: usize) {
        while let Some(core) = &mut self.hosts[number].core
            && let Some(action) = core.poll_action()
        {
            let now = self.now;
            self.trace.note(now, 2 + number as u64, action.name(), 1);
            self.trace
                .tell(now, || format!("host {number} -> {action:?}"));
            self.agent_acts(number, action);
        }
        let host = &self.hosts[number];
        let due = host.core.as_ref().and_then(AgentCore::poll_timeout);
        if let Some(due) = due.map(|due| host.when(due).max(self.now + 1))
            && host.timer.is_none_or(|timer| due < timer)
        {
            self.hosts[number].timer = Some(due);
            self.at(due, What::AgentTimer(number));
        }
    }

    fn agent_acts(&mut self, number: usize, action: Action) {
        let life = self.hosts[number].life;
        match action {
            Action::Send(message) => {
                let (parcel, has_body) = encode(message);
                self.send_up(number, parcel, has_body);
            }
            Action::FenceAt { time } => self.set_fence(number, time),
            Action::StartWorker {
                slot,
                generation,
                pool,
            } => self.start_worker(number, slot, generation, pool),
            Action::Run { slot, tasks, .. } => self.order(number, slot, Order::Run(tasks)),
            Action::GiveBack { slot, count, .. } => {
                self.order(number, slot, Order::GiveBack(count))
            }
            Action::KillTask {
                slot,
                attempt,
                grace_ms,
                ..
            } => self.order(number, slot, Order::KillTask(attempt, grace_ms)),
            Action::KillWorker { slot, grace_ms, .. } => {
                self.order(number, slot, Order::Kill(grace_ms));
            }
            Action::StopWorker { slot, .. } => self.order(number, slot, Order::Stop),
            Action::FetchProgram { pool } | Action::FetchContent { pool, .. } => {
                let wait = self.chance.within(0..FETCH_US_MAX);
                let told = Mail::Told(Event::Content { pool, error: None });
                self.after(wait, What::Agent(number, life, told));
            }
            Action::DropLink { .. } => self.agent_hangs_up(number),
            Action::PoolClosed { .. } => {}
        }
    }

    fn order(&mut self, number: usize, slot: SlotNo, order: Order) {
        let hop = self.chance.within(10..80);
        let now = self.now;
        let Some(worker) = self.hosts[number].workers.get_mut(&slot) else {
            return;
        };
        let (id, at) = (worker.id, worker.order_at(now + hop));
        self.at(at, What::Worker(number, id, ToWorker::Order(slot, order)));
    }

    pub(super) fn dial_later(&mut self, number: usize) {
        let wait = self.chance.within(10_000..1_000_000);
        let life = self.hosts[number].life;
        self.after(wait, What::Dial(number, life));
    }

    pub(super) fn dial(&mut self, number: usize, life: u64) {
        let host = &self.hosts[number];
        if host.life != life || host.core.is_none() || host.session.is_some() {
            return;
        }
        let cut = self.now < host.cut_up_until.max(host.cut_down_until);
        if cut || host.paused || self.journal.down {
            return self.dial_later(number);
        }
        let session = self.sessions.add(Session {
            host: number,
            up: Default::default(),
            down: Default::default(),
            over: false,
        });
        self.hosts[number].newest = Some(session);
        let (there, back) = (self.delay(), self.delay());
        let connected = ToCoordinator::Connected(number, session);
        self.after(there, What::Coordinator(connected));
        self.after(there + back, What::Agent(number, life, Mail::Up(session)));
    }

    pub(super) fn send_up(&mut self, number: usize, parcel: Parcel, has_body: bool) {
        let Some(session) = self.hosts[number].session else {
            return;
        };
        let (delay, late) = (self.delay(), self.late(has_body));
        // While the line is cut for a moment what is sent is repeated until it gets through.
        let from = self.now.max(self.hosts[number].cut_up_until);
        let entry = self.sessions.get_mut(session);
        if let Some((frame, at)) = entry.and_then(|entry| entry.up.send(from, delay, late)) {
            let message = ToCoordinator::FromAgent(number, session, frame, parcel);
            self.at(at, What::Coordinator(message));
        }
    }

    pub(super) fn send_down(
        &mut self,
        number: usize,
        session: SessionNo,
        parcel: Parcel,
        has_body: bool,
    ) {
        let (delay, late) = (self.delay(), self.late(has_body));
        let Some(host) = self.hosts.get(number) else {
            return;
        };
        let (from, life) = (self.now.max(host.cut_down_until), host.life);
        let entry = self.sessions.get_mut(session);
        if let Some((frame, at)) = entry.and_then(|entry| entry.down.send(from, delay, late)) {
            let mail = Mail::Frame(session, frame, parcel);
            self.at(at, What::Agent(number, life, mail));
        }
    }
}
