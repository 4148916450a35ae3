//! What befalls the fleet, by a seed: one thing after another, some of them at once.

use std::{
    collections::BTreeMap,
    fmt,
    thread::sleep,
    time::{Duration, Instant},
};

use fleetpool_proto::limits::CLIENT_GRACE_LEASES;
use nix::sys::signal::Signal;

use super::{
    fleet::{Fleet, LEASE, Part, send},
    notes::Note,
};
use crate::chance::Chance;

/// Between two faults.
const PAUSE_MS: std::ops::Range<u64> = 100..2500;
/// How long faults last: about as long as the lease, or several of them.
const LASTS_MS: std::ops::Range<u64> = 50..9000;
/// One in so many absences of the coordinator, or of a client, outlasts the patience of clients, or of the coordinator.
const LONG_ONE_IN: u64 = 8;
/// What is not to outlast it ends long before.
const SHORT_MS: std::ops::Range<u64> = 0..2500;

/// How long a coordinator may take to end that is told to.
const END_MAX: Duration = Duration::from_secs(10);

/// What may go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    KillCoordinator,
    EndCoordinator,
    StopCoordinator,
    KillAgent(usize),
    StopAgent(usize),
    CutPower(usize),
    CutBoth(usize),
    CutUp(usize),
    CutDown(usize),
    KillTask,
    StopTask(u32),
    KillClient(usize),
    StopClient(usize),
}

/// What a fault is about: nothing befalls the same one twice at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Coordinator,
    Host(usize),
    Task(u32),
    Client(usize),
}

impl Fault {
    fn victim(self) -> Victim {
        match self {
            Self::KillCoordinator | Self::EndCoordinator | Self::StopCoordinator => {
                Victim::Coordinator
            }
            Self::KillAgent(host)
            | Self::StopAgent(host)
            | Self::CutPower(host)
            | Self::CutBoth(host)
            | Self::CutUp(host)
            | Self::CutDown(host) => Victim::Host(host),
            Self::KillTask => Victim::Task(0),
            Self::StopTask(pid) => Victim::Task(pid),
            Self::KillClient(client) | Self::StopClient(client) => Victim::Client(client),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::KillCoordinator => "coordinator killed",
            Self::EndCoordinator => "coordinator told to end",
            Self::StopCoordinator => "coordinator stopped",
            Self::KillAgent(_) => "agent killed",
            Self::StopAgent(_) => "agent stopped",
            Self::CutPower(_) => "host's power cut",
            Self::CutBoth(_) => "host cut off",
            Self::CutUp(_) => "host not heard",
            Self::CutDown(_) => "host hears nothing",
            Self::KillTask => "task or worker killed",
            Self::StopTask(_) => "task or worker stopped",
            Self::KillClient(_) => "client killed",
            Self::StopClient(_) => "client stopped",
        }
    }
}

/// A fault that lasts.
#[derive(Debug)]
struct Lasting {
    fault: Fault,
    since: Instant,
    until: Instant,
}

/// Does harm.
#[derive(Debug)]
pub(super) struct Nemesis {
    chance: Chance,
    lasting: Vec<Lasting>,
    done: BTreeMap<&'static str, u64>,
}

impl Nemesis {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            chance: Chance::of(&[seed, 1]),
            lasting: Vec::new(),
            done: BTreeMap::new(),
        }
    }

    /// Waits a while, ends what has lasted long enough, and does the next thing.
    pub(super) fn step(&mut self, fleet: &mut Fleet) {
        let next = Instant::now() + Duration::from_millis(self.chance.within(PAUSE_MS));
        loop {
            let now = Instant::now();
            let over = |one: &mut Lasting| one.until <= now;
            let ended: Vec<_> = self.lasting.extract_if(.., over).collect();
            ended.iter().for_each(|one| undo(fleet, one));
            let first = self.lasting.iter().map(|one| one.until).min();
            let wake = first.map_or(next, |first| first.min(next));
            if wake <= now {
                break;
            }
            sleep(wake - now);
        }
        if let Some(fault) = self.choose(fleet) {
            self.strike(fleet, fault);
        }
    }

    /// Ends everything that lasts.
    pub(super) fn heal(&mut self, fleet: &mut Fleet) {
        for one in std::mem::take(&mut self.lasting) {
            undo(fleet, &one);
        }
    }

    fn choose(&mut self, fleet: &Fleet) -> Option<Fault> {
        let hosts = fleet.hosts.len() as u64;
        let host = usize::try_from(self.chance.within(0..hosts)).unwrap_or_default();
        let clients = fleet.clients.len() as u64;
        let client = usize::try_from(self.chance.within(0..clients)).unwrap_or_default();
        let tasks = fleet.tasks();
        let task = (!tasks.is_empty()).then(|| self.chance.pick(&tasks));
        let fault = match self.chance.within(0..21) {
            0 | 1 => Fault::KillCoordinator,
            20 => Fault::EndCoordinator,
            2 => Fault::StopCoordinator,
            3 | 4 => Fault::KillAgent(host),
            5 | 6 => Fault::StopAgent(host),
            7 => Fault::CutPower(host),
            8..11 => Fault::CutBoth(host),
            11 => Fault::CutUp(host),
            12 => Fault::CutDown(host),
            13 | 14 => Fault::KillTask,
            15 | 16 => Fault::StopTask(task?),
            17 => Fault::KillClient(client),
            _ => Fault::StopClient(client),
        };
        let victim = fault.victim();
        let mut suffering = self.lasting.iter();
        let busy = suffering.any(|one| one.fault.victim() == victim);
        (!busy).then_some(fault)
    }

    fn strike(&mut self, fleet: &mut Fleet, fault: Fault) {
        *self.done.entry(fault.name()).or_default() += 1;
        let mut lasts = self.chance.within(LASTS_MS);
        match fault {
            Fault::KillCoordinator => {
                lasts = self.absence();
                fleet.note(Note::CoordinatorDown);
                fleet.coordinator.take().into_iter().for_each(Part::kill);
            }
            Fault::EndCoordinator => {
                lasts = self.absence();
                fleet.note(Note::CoordinatorDown);
                let ended = fleet.coordinator.take().map(|part| part.stop(END_MAX));
                ended
                    .into_iter()
                    .for_each(|ended| ended.expect("it ends when it is told to"));
            }
            Fault::StopCoordinator => {
                lasts = self.absence();
                stop(fleet.coordinator.as_ref());
            }
            Fault::KillAgent(host) => {
                fleet.note_host_down(host);
                let agent = fleet.hosts[host].agent.take();
                agent.into_iter().for_each(Part::kill);
            }
            Fault::StopAgent(host) => stop(fleet.hosts[host].agent.as_ref()),
            Fault::CutPower(host) => {
                fleet.note_host_down(host);
                fleet.cut_power(host);
            }
            Fault::CutBoth(host) => fleet.hosts[host].line.cut(true),
            Fault::CutUp(host) => fleet.hosts[host].line.cut_up(true),
            Fault::CutDown(host) => fleet.hosts[host].line.cut_down(true),
            Fault::KillTask => {
                let tasks = fleet.tasks();
                if !tasks.is_empty() {
                    let pid = self.chance.pick(&tasks);
                    fleet.note(Note::Killed { pid });
                    send(pid, Signal::SIGKILL);
                }
                return;
            }
            Fault::StopTask(pid) => send(pid, Signal::SIGSTOP),
            Fault::KillClient(client) => {
                let number = fleet.client_number(client);
                fleet.note(Note::ClientKilled { client: number });
                let part = fleet.clients[client].part.take();
                part.into_iter().for_each(Part::kill);
            }
            Fault::StopClient(client) => {
                lasts = self.absence();
                stop(fleet.clients[client].part.as_ref());
            }
        }
        let since = Instant::now();
        let until = since + Duration::from_millis(lasts);
        self.lasting.push(Lasting {
            fault,
            since,
            until,
        });
    }

    /// How long the coordinator or a client is away: rarely longer than it is waited for.
    fn absence(&mut self) -> u64 {
        if self.chance.once_in(LONG_ONE_IN) {
            return self.chance.within(LASTS_MS) * 3;
        }
        self.chance.within(SHORT_MS)
    }
}

fn stop(part: Option<&Part>) {
    part.into_iter()
        .for_each(|part| part.signal(Signal::SIGSTOP));
}

fn go_on(part: Option<&Part>) {
    part.into_iter()
        .for_each(|part| part.signal(Signal::SIGCONT));
}

fn undo(fleet: &mut Fleet, one: &Lasting) {
    // Absences are noted when they are over, with some room for what follows: sessions have to come back, too.
    let lasted = one.since.elapsed();
    let long = lasted + LEASE / 2 >= LEASE * CLIENT_GRACE_LEASES;
    let away = |client| Note::Away {
        client,
        us: u64::try_from(lasted.as_micros()).unwrap_or(u64::MAX),
    };
    let started = match one.fault {
        Fault::KillCoordinator | Fault::EndCoordinator => fleet.start_coordinator(),
        Fault::KillAgent(host) | Fault::CutPower(host) => fleet.start_host(host),
        Fault::KillClient(client) => fleet.start_client(client),
        _ => Ok(()),
    };
    started.expect("what has started before starts again");
    match one.fault {
        Fault::StopCoordinator => go_on(fleet.coordinator.as_ref()),
        Fault::StopAgent(host) => go_on(fleet.hosts[host].agent.as_ref()),
        Fault::CutBoth(host) => fleet.hosts[host].line.cut(false),
        Fault::CutUp(host) => fleet.hosts[host].line.cut_up(false),
        Fault::CutDown(host) => fleet.hosts[host].line.cut_down(false),
        Fault::StopTask(pid) => send(pid, Signal::SIGCONT),
        Fault::StopClient(client) => go_on(fleet.clients[client].part.as_ref()),
        _ => {}
    }
    match one.fault {
        Fault::KillCoordinator | Fault::EndCoordinator | Fault::StopCoordinator if long => {
            fleet.note(away(None));
        }
        Fault::StopClient(client) if long => {
            let number = fleet.client_number(client);
            fleet.note(away(Some(number)));
        }
        _ => {}
    }
}

impl fmt::Display for Nemesis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, times) in &self.done {
            writeln!(f, "{times:>8}  {what}")?;
        }
        Ok(())
    }
}
