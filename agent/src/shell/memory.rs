//! What the shell of an agent writes down for its successor, and how it goes on where another has ended (G10). Only where the
//! spawner is a service of its own.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use fleetpool_agent_core::{AgentCore, Event, Heir, Inventory};
use fleetpool_proto::SlotNo;
use tokio::{net::UnixStream, time::Instant};

use super::{Shell, crew::contain};
use crate::{
    clock, facts,
    fence::Fence,
    journal::{Entry, Journal, Left, Pieces},
    keeper::message::Place,
    options::{Error, Options},
    output::Output,
    spawner::{Greeting, Name, Spawner, VERSION},
    workers::{Found, Heard, Order, Start, Told, Worker, when_it_listens},
};

/// How long a spawner is waited for: it may be about to start, or to bury what another has left.
const SPAWNER_TIME_MAX: Duration = Duration::from_secs(60);
/// Pause between two looks whether it is there.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// How long keepers that were found may take to say how they are, before the coordinator is dialled without.
const KEEPERS_TIME_MAX: Duration = Duration::from_secs(5);

/// What is written down, and what of it is to be confirmed.
pub(super) struct Memory {
    journal: Journal,
    /// How much of what keepers say is in the journal, or will be with the next record.
    heard: BTreeMap<SlotNo, (u64, u64)>,
    /// What keepers are to know when it is written.
    unconfirmed: Vec<Heard>,
    output_acked: u64,
    /// Keepers and relays that were found and have not said yet how they are.
    silent: BTreeSet<SlotNo>,
    /// Until when they are waited for.
    wait_until: Instant,
}

impl Shell {
    /// An agent whose spawner is a service: it goes on with what another agent has left there, if it can know what that is.
    pub(super) async fn take_over(options: Options, lock: File) -> Result<Self, Error> {
        let folder = options.state_dir.clone().unwrap_or_default();
        let no_spawner = |source| Error::NoSpawner {
            folder: folder.clone(),
            source,
        };
        let (spawner, greeting, fence) = visit(&folder).await?;
        let mut facts = facts::registration(&options);
        let left = match greeting.incarnation {
            0 => None,
            life => Journal::read(&folder, life, &facts.boot_id),
        };
        let goes_on = left.is_some();
        if goes_on {
            facts.incarnation = greeting.incarnation;
        }
        contain(&mut facts, &options, &spawner, greeting.contains).await;
        let Left {
            inventory,
            output,
            heard,
        } = left.unwrap_or_default();
        let (core, heirs) = core(&options, goes_on.then_some(inventory));
        let found = find(&spawner, heirs, &heard).await.map_err(no_spawner)?;
        let begun = begin(&spawner, facts.incarnation).await;
        let gone = begun.map_err(no_spawner)?;
        if !goes_on {
            // What it was set to was for what another has left, which is gone now.
            fence.set(None);
        }
        tracing::info!(workers = found.len(), goes_on, "the spawner is there");
        let mut shell = Self::of(options, facts, Some(lock), core, Arc::new(spawner), gone);
        shell.shared.relays = greeting.relays;
        (shell.fence, shell.output) = (Some(fence), Output::resume(output));
        let silent = found.iter().map(|(heir, _)| heir.slot).collect();
        shell.memory = Some(shell.begin_journal(&folder, heard, silent)?);
        for (heir, found) in found {
            shell.go_on_with(&heir, found);
        }
        Ok(shell)
    }

    fn begin_journal(
        &self,
        folder: &Path,
        heard: BTreeMap<SlotNo, (u64, u64)>,
        silent: BTreeSet<SlotNo>,
    ) -> Result<Memory, Error> {
        let (life, boot_id) = (self.facts.incarnation, &self.facts.boot_id);
        let whole = self.left(heard.clone());
        let journal = Journal::begin(folder, life, boot_id, whole);
        let journal = journal.map_err(|source| Error::Journal {
            folder: folder.to_owned(),
            source,
        })?;
        Ok(Memory {
            journal,
            heard,
            unconfirmed: Vec::new(),
            output_acked: 0,
            silent,
            wait_until: Instant::now() + KEEPERS_TIME_MAX,
        })
    }

    fn go_on_with(&mut self, heir: &Heir, found: Found) {
        let Some(options) = self.core.pool_options(heir.pool) else {
            return;
        };
        // In case that the other ended before it could tell.
        let place = Place {
            fenced: options.retries.host_lost > 0,
            ..self.place(heir.slot, heir.pool, options)
        };
        let start = Start {
            slot: heir.slot,
            generation: heir.generation,
            place,
            fence: None,
            program: None,
            found: Some(found),
            room: self.output.room(heir.pool),
        };
        self.workers
            .insert(heir.slot, Worker::start(start, &self.shared));
    }

    /// Whether all keepers that were found have said how they are, so that the coordinator can be told.
    pub(super) fn knows_its_workers(&self) -> bool {
        let waits =
            |memory: &Memory| !memory.silent.is_empty() && Instant::now() < memory.wait_until;
        !self.memory.as_ref().is_some_and(waits)
    }

    pub(super) fn remember_told(&mut self, told: &Told) {
        let Some(memory) = &mut self.memory else {
            return;
        };
        for pieces in Pieces::of(&told.output) {
            memory.journal.note(Entry::Printed(pieces));
        }
        if let Some(heard) = told.heard {
            memory.hear(heard);
        }
        for event in &told.events {
            if let Event::WorkerFound { slot, .. }
            | Event::WorkerEnded { slot, .. }
            | Event::WorkerVanished { slot, .. }
            | Event::WorkerUnfit { slot, .. } = event
            {
                memory.silent.remove(slot);
            }
        }
    }

    pub(super) fn remember_acknowledged(&mut self, number: u64) {
        if let Some(memory) = self.memory.as_mut()
            && number > memory.output_acked
        {
            memory.output_acked = number;
            memory.journal.note(Entry::OutputAcked { number });
        }
    }

    pub(super) fn remember_numbered(&mut self, before: u64) {
        if let Some(memory) = &mut self.memory {
            for (number, pieces) in self.output.numbered_after(before) {
                memory.journal.note(Entry::Framed { number, pieces });
            }
        }
    }

    /// Does what the core wants done, and writes down before what it follows from.
    pub(super) fn act_and_remember(&mut self) {
        loop {
            let actions: Vec<_> = std::iter::from_fn(|| self.core.poll_action()).collect();
            self.remember();
            if actions.is_empty() {
                return;
            }
            for action in actions {
                self.perform(action);
            }
            self.send_output();
        }
    }

    /// Writes down what has come in. Keepers may forget it then.
    fn remember(&mut self) {
        let Some(memory) = &mut self.memory else {
            return;
        };
        for fact in self.core.take_facts() {
            memory.journal.note(Entry::Fact(fact));
        }
        if memory.journal.write() {
            let heard = std::mem::take(&mut memory.heard);
            let whole = self.left(heard);
            if let Some(memory) = &mut self.memory {
                memory.heard.clone_from(&whole.heard);
                memory.journal.compact(whole);
            }
        }
        let unconfirmed = self
            .memory
            .as_mut()
            .map(|memory| std::mem::take(&mut memory.unconfirmed));
        for heard in unconfirmed.into_iter().flatten() {
            self.order(heard.slot, heard.generation, Order::Heard(heard.number));
        }
    }

    /// All that a successor has to know.
    fn left(&self, mut heard: BTreeMap<SlotNo, (u64, u64)>) -> Left {
        let slots = self.core.slots().filter(|slot| slot.pool.is_some());
        let lives: BTreeMap<SlotNo, u64> = slots.map(|slot| (slot.slot, slot.generation)).collect();
        heard.retain(|slot, (generation, _)| lives.get(slot) == Some(generation));
        Left {
            inventory: self.core.inventory(),
            output: self.output.left(),
            heard,
        }
    }
}

impl Memory {
    fn hear(&mut self, heard: Heard) {
        let Heard {
            slot,
            generation,
            number,
        } = heard;
        self.heard.insert(slot, (generation, number));
        self.unconfirmed.push(heard);
        self.journal.note(Entry::Heard {
            slot,
            generation,
            number,
        });
    }
}

/// A core that tells facts, and goes on with what there is.
fn core(options: &Options, left: Option<Inventory>) -> (AgentCore, Vec<Heir>) {
    let options = fleetpool_agent_core::Options {
        tells_facts: true,
        ..fleetpool_agent_core::Options::new(options.slots)
    };
    match left {
        Some(left) => AgentCore::resume(options, clock::now(), left),
        None => (AgentCore::new(options), Vec::new()),
    }
}

/// Waits for a spawner of this build's kind.
async fn visit(folder: &Path) -> Result<(Spawner, Greeting, Fence), Error> {
    let patience = Instant::now() + SPAWNER_TIME_MAX;
    loop {
        let place: PathBuf = folder.to_owned();
        let visit = tokio::task::spawn_blocking(move || Spawner::visit(&place)).await;
        match visit.unwrap_or_else(|error| Err(io::Error::other(error))) {
            Ok((_, greeting, _)) if greeting.version != VERSION => {
                return Err(Error::SpawnerVersion {
                    folder: folder.to_owned(),
                    theirs: greeting.version,
                    ours: VERSION,
                });
            }
            Ok(visited) => return Ok(visited),
            Err(source) if Instant::now() >= patience => {
                return Err(Error::NoSpawner {
                    folder: folder.to_owned(),
                    source,
                });
            }
            Err(_) => tokio::time::sleep(LOOK_AGAIN).await,
        }
    }
}

/// Asks for the keepers of the workers that are to be taken over. Of those that are gone the socket ends at once.
async fn find(
    spawner: &Spawner,
    heirs: Vec<Heir>,
    heard: &BTreeMap<SlotNo, (u64, u64)>,
) -> io::Result<Vec<(Heir, Found)>> {
    let mut all = Vec::new();
    for heir in heirs {
        let name = Name {
            slot: heir.slot.0,
            generation: heir.generation,
        };
        let known = heard.get(&heir.slot);
        let known = known.filter(|(generation, _)| *generation == heir.generation);
        let found = Found {
            stays: heir.stays,
            socket: when_it_listens(|| spawner.attach(name)).await?,
            heard: known.map_or(0, |(_, number)| *number),
            handed: heir.handed.clone(),
        };
        all.push((heir, found));
    }
    Ok(all)
}

/// Begins the life of that number, when nothing is left of what was not asked for. What is readable when the spawner is gone.
async fn begin(spawner: &Spawner, incarnation: u64) -> io::Result<UnixStream> {
    when_it_listens(|| spawner.begin(incarnation)).await?;
    let gone = spawner.watch()?;
    let mut answered = false;
    loop {
        gone.readable().await?;
        match gone.try_read(&mut [0]) {
            Ok(1..) => answered = true,
            Ok(0) => return Err(io::ErrorKind::ConnectionReset.into()),
            // From here on it is readable only when the spawner is gone.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && answered => return Ok(gone),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}
