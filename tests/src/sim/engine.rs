//! Virtual time, and who is told what when.

use std::{collections::BTreeSet, time::Duration};

use fleetpool_coordinator_core::{Action, CoordinatorCore, Event, Options, SessionNo};
use fleetpool_proto::{
    ClientId, HostId, Timestamp,
    limits::PLANNED_STOP,
    message::{FromClient, ToClient},
};

use super::{
    agents::{Host, Mail},
    clients::{Client, Deed},
    journal::Journal,
    plan::{Bug, Failure, Fault, World},
    timeline::Timeline,
    trace::Trace,
    truth::Truth,
    wire::{Parcel, Sessions, decode, encode, lateness},
    workers::ToWorker,
};
use crate::chance::Chance;

/// How long the world goes on after its last fault and its last outcome, so that what lingers is seen.
const CALM: Duration = Duration::from_secs(90);
/// How often quiet worlds are looked at for idle slots.
const LOOK_US: u64 = 20_000;

/// How a world went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The same for the same seed.
    pub hash: u64,
    /// Things that happened.
    pub events: u64,
    /// Outcomes that reached their clients.
    pub delivered: u64,
    /// Attempts that began.
    pub begun: u64,
    /// Virtual time until all pools were over.
    pub took: Duration,
}

/// What happens at an instant.
#[derive(Debug)]
pub(super) enum What {
    /// Something reaches the coordinator.
    Coordinator(ToCoordinator),
    /// Something reaches a host's agent, unless that has a new life meanwhile.
    Agent(usize, u64, Mail),
    /// An agent tries to get a session.
    Dial(usize, u64),
    AgentTimer(usize),
    CoordinatorTimer,
    Worker(usize, u64, ToWorker),
    Client(usize, Deed),
    Fault(Fault),
    /// What a fault did is over.
    Healed(Fault),
    /// A host's keepers look whether their time has come.
    Fence(usize),
    /// That life of the coordinator stops, and has stopped.
    Stopping(u64),
    Stopped(u64),
    /// The disk of that life of the coordinator has so many facts.
    Synced(u64, usize),
    Look,
    /// A host's agent takes in what has come, or the coordinator acts for it, if they do so at turns only.
    Turn(Option<usize>),
}

#[derive(Debug)]
pub(super) enum ToCoordinator {
    Connected(usize, SessionNo),
    Disconnected(usize, SessionNo),
    FromAgent(usize, SessionNo, u64, Parcel),
    ClientConnected(usize, u64),
    FromClient(usize, u64, Parcel),
    ClientAway(usize, u64),
    ClientGone(usize, u64),
}

#[derive(Debug)]
pub(super) struct Engine {
    pub(super) world: World,
    /// Its coordinator has a journal.
    pub(super) durable: bool,
    pub(super) now: u64,
    timeline: Timeline,
    pub(super) chance: Chance,
    pub(super) coordinator: CoordinatorCore,
    pub(super) journal: Journal,
    pub(super) coordinator_stirred: bool,
    coordinator_awaits_turn: bool,
    pub(super) coordinator_timer: Option<u64>,
    pub(super) sessions: Sessions,
    pub(super) hosts: Vec<Host>,
    pub(super) stirred: BTreeSet<usize>,
    pub(super) clients: Vec<Client>,
    pub(super) clients_left: usize,
    pub(super) truth: Truth,
    pub(super) trace: Trace,
    /// The last fault is over.
    faults_end: u64,
    /// All that was submitted must be over by then.
    deadline: u64,
    /// Far more than any world needs.
    events_max: u64,
    finished_at: Option<u64>,
    pub(super) broken: Option<String>,
}

pub(super) fn us(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

impl Engine {
    pub(super) fn new(world: World, tells: bool) -> Self {
        let faults_end = world
            .faults
            .iter()
            .map(|(at, fault)| us(*at) + us(fault.lasts()));
        let faults_end = faults_end.max().unwrap_or_default();
        let mut engine = Self {
            durable: world.is_durable(),
            now: 0,
            timeline: Timeline::default(),
            chance: Chance::new(world.seed),
            coordinator: CoordinatorCore::new(Options::default()),
            journal: Journal::default(),
            coordinator_stirred: false,
            coordinator_awaits_turn: false,
            coordinator_timer: None,
            sessions: Sessions::default(),
            hosts: Vec::new(),
            stirred: BTreeSet::new(),
            clients: Vec::new(),
            clients_left: world.pools.len(),
            truth: Truth::new(&world),
            trace: Trace::new(tells),
            faults_end,
            deadline: 0,
            events_max: 0,
            finished_at: None,
            broken: None,
            world,
        };
        engine.coordinator = CoordinatorCore::new(engine.coordinator_options());
        engine.deadline = faults_end + engine.work_us() + us(Duration::from_secs(600));
        engine.deadline += engine.world.stops() * us(PLANNED_STOP * 6 / 5);
        let tasks: u64 = engine.world.pools.iter().map(|plan| plan.tasks).sum();
        engine.events_max = 300_000 + 300 * tasks + 1000 * engine.world.hosts.len() as u64;
        engine.populate();
        engine
    }

    pub(super) fn coordinator_options(&self) -> Options {
        let mut options = Options {
            lost_after: self.world.lost_after,
            window_tasks: self.world.window_tasks,
            durable: self.durable,
            epoch: 1 + self.journal.lives,
            ..Options::default()
        };
        if let Some(Bug::Coordinator(bug)) = self.world.bug {
            options.planted = Some(bug);
        }
        options
    }

    fn populate(&mut self) {
        for (number, plan) in self.world.hosts.clone().into_iter().enumerate() {
            let mut chance = Chance::of(&[self.world.seed, 1, number as u64]);
            self.hosts
                .push(Host::new(number, plan, &mut chance, self.world.bug));
            let wait = self.chance.within(0..20_000);
            self.after(wait, What::Dial(number, 0));
        }
        for (number, plan) in self.world.pools.clone().into_iter().enumerate() {
            let opened_at = us(plan.opened_at);
            self.clients.push(Client::new(number, plan));
            self.after(opened_at, What::Client(number, Deed::Open));
        }
        for (at, fault) in self.world.faults.clone() {
            self.after(us(at), What::Fault(fault));
        }
        if self.world.quiet {
            self.after(0, What::Look);
        }
    }

    /// All work of the world, one after another and tried a few times over.
    fn work_us(&self) -> u64 {
        let all = self.world.pools.iter().enumerate();
        all.map(|(number, plan)| {
            let of = |index| self.length_us(number, index).saturating_mul(6);
            us(plan.opened_at) + (0..plan.tasks).map(of).sum::<u64>()
        })
        .sum()
    }

    pub(super) fn run(mut self) -> Result<Summary, Failure> {
        while let Some((at, what)) = self.timeline.pop() {
            self.now = at;
            self.happen(what);
            if self.timeline.is_instant_over() {
                self.drain();
            }
            if self.broken.is_some() || self.is_over() {
                break;
            }
        }
        match self.broken.take() {
            None => Ok(Summary {
                hash: self.trace.hash(),
                events: self.trace.events(),
                delivered: self.truth.delivered(),
                begun: self.truth.begun,
                took: Duration::from_micros(self.finished_at.unwrap_or_default()),
            }),
            Some(what) => Err(Failure {
                seed: self.world.seed,
                at: Duration::from_micros(self.now),
                what,
                story: self.trace.into_story(),
            }),
        }
    }

    fn is_over(&mut self) -> bool {
        if self.clients_left == 0 {
            let now = self.now;
            let finished_at = *self.finished_at.get_or_insert(now);
            let calm = finished_at.max(self.faults_end) + us(CALM);
            if now < calm && !self.world.faults.is_empty() || now < finished_at + 10_000_000 {
                return false;
            }
            let broken = self
                .truth
                .look_at_the_end()
                .and_then(|()| self.look_at_what_is_left());
            self.check(broken);
            return true;
        }
        if self.trace.events() > self.events_max {
            self.broken = Some("G4: much happens and nothing ends".to_owned());
            return true;
        }
        if self.now > self.deadline {
            let left: Vec<String> = self.clients.iter().filter_map(Client::wish).collect();
            let jobs = self.coordinator.jobs();
            self.broken = Some(format!(
                "G4: it never ends: {left:?}; the coordinator has {jobs:?}"
            ));
            return true;
        }
        false
    }

    /// Nobody keeps anything for pools that are over.
    fn look_at_what_is_left(&self) -> Result<(), String> {
        if let Some(job) = self.coordinator.jobs().first() {
            return Err(format!("G6: the coordinator still has {job:?}"));
        }
        self.hosts.iter().try_for_each(Host::look_at_what_is_left)
    }

    pub(super) fn check(&mut self, broken: Result<(), String>) {
        if let Err(what) = broken {
            self.broken.get_or_insert(what);
        }
    }

    pub(super) fn after(&mut self, us: u64, what: What) {
        self.at(self.now + us, what);
    }

    pub(super) fn at(&mut self, at: u64, what: What) {
        self.timeline.insert(at.max(self.now), what);
    }

    /// Time that a message takes.
    pub(super) fn delay(&mut self) -> u64 {
        let (least, most) = self.world.delay_us;
        self.chance.within(least..most + 1)
    }

    pub(super) fn late(&mut self, has_body: bool) -> Option<u64> {
        lateness(&mut self.chance, self.world.bulk_one_in, has_body)
    }

    fn happen(&mut self, what: What) {
        match what {
            What::Coordinator(message) => self.reach_coordinator(message),
            What::Agent(host, life, mail) => self.reach_agent(host, life, mail),
            What::Dial(host, life) => self.dial(host, life),
            What::AgentTimer(host) => self.agent_timer(host),
            What::CoordinatorTimer => {
                self.coordinator_timer = None;
                self.tell_coordinator(Event::Tick);
            }
            What::Worker(host, life, message) => self.reach_worker(host, life, message),
            What::Client(client, deed) => self.client_does(client, deed),
            What::Fault(fault) => self.strike(fault),
            What::Healed(fault) => self.heal(fault),
            What::Fence(host) => self.fence(host),
            What::Synced(life, upto) => self.synced(life, upto),
            What::Stopping(life) => self.stops(life),
            What::Stopped(life) => self.stopped(life),
            What::Look => {
                let broken = self.truth.look_for_idleness(self.now);
                self.check(broken);
                self.after(LOOK_US, What::Look);
            }
            What::Turn(Some(host)) => self.take_turn(host),
            What::Turn(None) => {
                self.coordinator_awaits_turn = false;
                self.coordinator_stirred = true;
            }
        }
    }

    fn stir_coordinator(&mut self) {
        let Some(next) = self.next_turn(0) else {
            self.coordinator_stirred = true;
            return;
        };
        if !std::mem::replace(&mut self.coordinator_awaits_turn, true) {
            self.at(next, What::Turn(None));
        }
    }

    /// When the next turn comes; not everybody's at once.
    pub(super) fn next_turn(&self, who: u64) -> Option<u64> {
        let turn = self.world.turn_us;
        (turn > 0).then(|| self.now + turn - (self.now + who) % turn)
    }

    fn reach_coordinator(&mut self, message: ToCoordinator) {
        if self.journal.down {
            return;
        }
        match message {
            ToCoordinator::Connected(host, session) => {
                let host = host_id(host);
                self.tell_coordinator(Event::AgentConnected { host, session });
            }
            ToCoordinator::Disconnected(host, session) => {
                let host = host_id(host);
                self.tell_coordinator(Event::AgentDisconnected { host, session });
            }
            ToCoordinator::FromAgent(host, session, number, parcel) => {
                let Some(entry) = self.sessions.get_mut(session) else {
                    return;
                };
                if !entry.up.arrives(number) {
                    return;
                }
                match decode(parcel) {
                    Ok(message) => self.tell_coordinator(Event::FromAgent {
                        host: host_id(host),
                        session,
                        message,
                    }),
                    Err(error) => {
                        self.check(Err(format!("host {host} is not understood: {error}")))
                    }
                }
            }
            ToCoordinator::ClientConnected(client, session) => {
                self.client_is_here(client, session);
            }
            ToCoordinator::ClientAway(client, session) => self.client_is_away(client, session),
            ToCoordinator::FromClient(client, session, _)
            | ToCoordinator::ClientGone(client, session)
                if !self.clients[client].is_heard(session, self.now) => {}
            ToCoordinator::FromClient(client, _, parcel) => match decode(parcel) {
                Ok(message) => {
                    if let FromClient::Submit { pool, payloads, .. } = &message {
                        let count = payloads.items().len() as u64;
                        self.truth.arrive(self.now, *pool, count);
                    }
                    let client = client_id(client);
                    self.tell_coordinator(Event::FromClient { client, message });
                }
                Err(error) => {
                    self.check(Err(format!("client {client} is not understood: {error}")))
                }
            },
            ToCoordinator::ClientGone(client, _) => {
                let client = client_id(client);
                self.tell_coordinator(Event::ClientGone { client });
            }
        }
    }

    pub(super) fn tell_coordinator(&mut self, event: Event) {
        if self.journal.down {
            return;
        }
        self.trace.note(self.now, 0, event.name(), 0);
        self.trace
            .tell(self.now, || format!("coordinator <- {event:?}"));
        self.coordinator.handle(Timestamp(self.now), event);
        self.stir_coordinator();
    }

    /// Lets everybody who was told something act.
    fn drain(&mut self) {
        while let Some(host) = self.stirred.pop_first() {
            self.drain_agent(host);
        }
        if !std::mem::take(&mut self.coordinator_stirred) {
            return;
        }
        let mut actions = Vec::new();
        while let Some(action) = self.coordinator.poll_action() {
            self.trace.note(self.now, 1, action.name(), 0);
            self.trace
                .tell(self.now, || format!("coordinator -> {action:?}"));
            match action {
                // Written before anything that follows is done.
                Action::Record(fact) => self.record(fact),
                action => actions.push(action),
            }
        }
        for action in actions {
            self.act_durably(action);
        }
        self.renew_journal_sometimes();
        let Some(Timestamp(due)) = self.coordinator.poll_timeout() else {
            return;
        };
        let due = due.max(self.now + 1);
        if self.coordinator_timer.is_none_or(|timer| due < timer) {
            self.coordinator_timer = Some(due);
            self.at(due, What::CoordinatorTimer);
        }
    }

    pub(super) fn act(&mut self, action: Action) {
        match action {
            Action::Record(_) => {}
            Action::ToAgent {
                host,
                session,
                message,
            } => {
                let (parcel, has_body) = encode(message);
                self.send_down(host.0 as usize, session, parcel, has_body);
            }
            Action::ToClient { client, message } => self.tell_client(client, message),
            Action::DropAgent { session, .. } => self.coordinator_hangs_up(session),
            Action::FetchContent { .. } => {}
        }
    }

    fn tell_client(&mut self, client: ClientId, message: ToClient) {
        let number = usize::try_from(client.0).unwrap_or_default();
        let (parcel, has_body) = encode(message);
        let (delay, late) = (self.delay(), self.late(has_body));
        let Some(client) = self.clients.get_mut(number) else {
            return;
        };
        let Some(session) = client.line.heard else {
            return;
        };
        if let Some((_, at)) = client.down.send(self.now, delay, late) {
            self.at(at, What::Client(number, Deed::Hear(session, parcel)));
        }
    }
}

pub(super) fn host_id(number: usize) -> HostId {
    HostId(u32::try_from(number).unwrap_or(u32::MAX))
}

pub(super) fn client_id(number: usize) -> ClientId {
    ClientId(number as u64)
}
