//! What is written down, and what waits for the disk.
//!
//! Facts are written before anything that follows from them is done. What promises that they last is done when they are on
//! disk: acknowledgements, and grants of tasks that may not run twice.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    path::{Path, PathBuf},
};

use fleetpool_coordinator_core::{Action, Event};
use fleetpool_net::{KeyId, Peer};
use fleetpool_proto::{
    ClientId, PoolId, Role,
    journal::Fact,
    message::{Refusal, ToAgent, ToClient},
    view::JobView,
};

use super::{
    full::Parked,
    jobs::{self, Jobs},
    outbound::AbortOnDrop,
    owner::Owner,
};
use crate::journal::{Folder, Journal, JournalError, Told, is_full};

/// The journal, and what waits for it.
#[derive(Debug)]
pub(super) struct Durable {
    pub(super) journal: Journal,
    /// What is done when the disk has what comes before that position.
    gated: VecDeque<(u64, Action)>,
    /// What is done when it has been written: the disk is so full that it could not be.
    pub(super) unwritten: VecDeque<Action>,
    pub(super) parked: Parked,
    /// Up to where it is on disk.
    synced: u64,
    /// Clients that may come back.
    clients: BTreeMap<ClientId, Familiar>,
    pub(super) jobs: Jobs,
}

/// A client that has been here: who it is, however it comes.
#[derive(Debug)]
pub(super) struct Familiar {
    id: String,
    key: Option<KeyId>,
    /// Connections whose end says that its process has ended, while it has no session.
    pub(super) lifelines: Vec<AbortOnDrop>,
    /// Whether the journal knows it.
    is_written: bool,
    /// It has no pools, and watches detached ones: nothing of it can be lost.
    watches: bool,
}

impl Familiar {
    pub(super) fn of(peer: &Peer) -> Self {
        Self {
            id: peer.id.clone(),
            key: peer.key,
            lifelines: Vec::new(),
            is_written: false,
            watches: false,
        }
    }

    fn fact(&self, client: ClientId) -> Fact {
        Fact::Client {
            client,
            id: self.id.clone(),
            key: self.key.map(|key| key.0.to_vec()).unwrap_or_default(),
            watches: self.watches,
        }
    }
}

impl Durable {
    /// Writes what detached jobs are to keep, then the facts that say so.
    fn write(&mut self) -> io::Result<()> {
        while let Err(error) = self.jobs.write() {
            if !self.journal.use_reserve() {
                return Err(error);
            }
        }
        self.journal.write()
    }

    /// Whether the disk has all of the journal up to there.
    pub(super) fn is_on_disk(&self, position: u64) -> bool {
        position <= self.synced
    }

    pub(super) fn familiar(&mut self, client: ClientId) -> Option<&mut Familiar> {
        self.clients.get_mut(&client)
    }

    pub(super) fn meet(&mut self, client: ClientId, peer: &Peer) {
        let familiar = || Familiar::of(peer);
        self.clients.entry(client).or_insert_with(familiar);
    }

    /// Whether that client has nothing that could be lost.
    pub(super) fn watches(&self, client: ClientId) -> bool {
        let familiar = self.clients.get(&client);
        familiar.is_some_and(|known| known.watches)
    }

    /// It is gone.
    pub(super) fn forget(&mut self, client: ClientId) {
        self.clients.remove(&client);
    }

    /// Whether that client has been here.
    pub(super) fn has_met(&self, client: ClientId) -> bool {
        self.clients.contains_key(&client)
    }

    /// Whether that client has been here, as the same identity.
    pub(super) fn knows(&self, client: ClientId, peer: &Peer) -> bool {
        let familiar = self.clients.get(&client);
        familiar.is_some_and(|known| known.id == peer.id && known.key == peer.key)
    }
}

impl Owner {
    /// Becomes what a predecessor was, as far as it wrote that down, and begins a journal of its own. `told` hears what is on
    /// disk.
    pub(crate) fn recover(
        &mut self,
        folder: Folder,
        jobs_dir: PathBuf,
        told: Told,
    ) -> Result<(), JournalError> {
        let mut clients = BTreeMap::new();
        let mut booted = None;
        let mut names = Vec::new();
        let mut was_stopped = false;
        let now = self.now;
        let facts = folder.read(|fact| match fact {
            Fact::Begin { boot_id, .. } => booted = Some(boot_id),
            Fact::Name { .. } => names.push(fact),
            Fact::Client {
                client,
                id,
                key,
                watches,
            } => {
                let familiar = Familiar {
                    id,
                    key: key.as_slice().try_into().ok().map(KeyId),
                    lifelines: Vec::new(),
                    is_written: true,
                    watches,
                };
                clients.insert(client, familiar);
            }
            fact => {
                if let Fact::Lease { stopping, .. } = fact {
                    was_stopped = stopping;
                }
                self.core.recover(now, fact);
            }
        })?;
        let known: Vec<ClientId> = clients.keys().copied().collect();
        // What a process wrote survives it; a machine that went down, or a disk that refused, may have lost the last of it. One that
        // was stopped on purpose granted nothing behind that.
        let boot = booted.is_some_and(|boot| boot != super::clock::boot_id());
        let gap = boot && !was_stopped || folder.is_doubted();
        if gap {
            folder.doubt()?;
        }
        self.core.recovered(now, &known, gap);
        for name in &names {
            let reserved = |host| self.core.fenced_at(host).unwrap_or(now);
            self.names.restore(reserved, name);
        }
        clients.retain(|client, known| known.watches || self.core.knows(*client));
        let took = super::clock::now().since(now);
        tracing::info!(facts, ?took, "the journal is read");
        let mut jobs = Jobs::open(jobs_dir)
            .map_err(|error| JournalError::io("opening", Path::new("jobs"), &error))?;
        let views = self.core.jobs();
        for (pool, user) in self.core.detached() {
            let view = views.iter().find(|view| view.id == pool);
            jobs.begin(pool, &user, view.cloned().unwrap_or_default());
        }
        let journal = folder.begin(self.all_facts(&clients), told)?;
        self.durable = Some(Durable {
            journal,
            gated: VecDeque::new(),
            unwritten: VecDeque::new(),
            parked: Parked::default(),
            synced: 0,
            clients,
            jobs,
        });
        Ok(())
    }

    fn all_facts(&self, clients: &BTreeMap<ClientId, Familiar>) -> Vec<Fact> {
        let begin = Fact::Begin {
            epoch: self.options.epoch,
            boot_id: super::clock::boot_id(),
            build: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let clients = clients.iter().filter(|(_, known)| known.is_written);
        let clients = clients.map(|(&client, known)| known.fact(client));
        let mut facts = vec![begin];
        facts.extend(self.names.facts());
        facts.extend(clients);
        facts.extend(self.core.snapshot());
        facts
    }

    /// Does what the scheduler wants, after writing down what it wants written.
    pub(super) fn act(&mut self) {
        loop {
            let mut actions = VecDeque::new();
            while let Some(action) = self.core.poll_action() {
                self.counters.on_action(&action);
                match action {
                    Action::Record(fact) => self.record(fact),
                    Action::ToClient { client, message } if self.is_kept(&message) => {
                        self.keep(client, message);
                    }
                    action if self.durable.is_some() => actions.push_back(action),
                    action => self.on_action(action),
                }
            }
            let Some(durable) = self.durable.as_mut() else {
                return;
            };
            for (pool, reason) in durable.jobs.take_failed() {
                tracing::warn!(%pool, reason, "a detached job is ended");
                self.core.handle(self.now, Event::EndPool { pool, reason });
            }
            if actions.is_empty() && durable.unwritten.is_empty() && !durable.journal.is_pending() {
                return;
            }
            durable.unwritten.append(&mut actions);
            if !self.write() {
                return;
            }
        }
    }

    /// Writes what was recorded, and does what waited for that; `false` when it could not be written.
    pub(super) fn write(&mut self) -> bool {
        let Some(durable) = self.durable.as_mut() else {
            return true;
        };
        match durable.write() {
            Ok(()) => {}
            // The loop tries again, and does nothing else until then.
            Err(error) if is_full(&error) => return false,
            Err(error) => {
                self.fail(&error);
                return false;
            }
        }
        let position = durable.journal.position();
        let actions = std::mem::take(&mut durable.unwritten);
        for action in actions {
            if self.waits_for_disk(&action, position) {
                let gated = self.durable.as_mut().map(|durable| &mut durable.gated);
                gated
                    .into_iter()
                    .for_each(|gated| gated.push_back((position, action.clone())));
            } else {
                self.on_action(action);
            }
        }
        self.renew_journal();
        if let Some(durable) = self.durable.as_mut() {
            let others = durable.jobs.take_dirty();
            durable.journal.sync(others);
        }
        true
    }

    fn waits_for_disk(&self, action: &Action, position: u64) -> bool {
        let synced = self.durable.as_ref().map_or(0, |durable| durable.synced);
        if position <= synced {
            return false;
        }
        match action {
            Action::ToAgent { message, .. } => match message {
                ToAgent::Ack { .. } | ToAgent::Stopping { .. } => true,
                ToAgent::Grant { pool, .. } => !self.core.may_rerun(*pool),
                _ => false,
            },
            Action::ToClient { message, .. } => matches!(
                message,
                ToClient::Submitted { .. } | ToClient::Answer { .. }
            ),
            _ => false,
        }
    }

    fn renew_journal(&mut self) {
        let Some(mut durable) = self.durable.take_if(|durable| durable.journal.is_long()) else {
            return;
        };
        durable
            .clients
            .retain(|client, known| known.watches || self.core.knows(*client));
        let facts = self.all_facts(&durable.clients);
        durable.journal.renew(facts);
        self.durable = Some(durable);
    }

    fn record(&mut self, fact: Fact) {
        let Some(durable) = self.durable.as_mut() else {
            return;
        };
        if let Fact::Opened { client, .. } = &fact
            && let Some(known) = durable.clients.get_mut(client)
            && (!known.is_written || known.watches)
        {
            (known.is_written, known.watches) = (true, false);
            durable.journal.add(known.fact(*client));
        }
        if let Fact::Opened {
            pool,
            user,
            options,
            ..
        } = &fact
            && options.detached
        {
            let view = JobView {
                id: *pool,
                name: options.name.clone(),
                user: user.clone(),
                runtime: options.runtime.name().to_owned(),
                slots: options.slots,
                detached: true,
                ..JobView::default()
            };
            durable.jobs.begin(*pool, user, view);
        }
        durable.journal.add(fact);
    }

    /// Whether a message is kept instead of sent.
    fn is_kept(&self, message: &ToClient) -> bool {
        let durable = self.durable.as_ref();
        let pool = jobs::kept_pool(message);
        durable
            .zip(pool)
            .is_some_and(|(durable, pool)| durable.jobs.has(pool))
    }

    /// Keeps what a detached pool's tasks returned or printed.
    fn keep(&mut self, client: ClientId, message: ToClient) {
        if let ToClient::Refused { .. } | ToClient::Notice { .. } | ToClient::PoolEnded { .. } =
            &message
        {
            // It may not have brought all of its tasks.
            self.send_when_kept(client, message.clone());
        }
        let (Some(durable), Some(pool)) = (self.durable.as_mut(), jobs::kept_pool(&message)) else {
            return;
        };
        let core = &self.core;
        let kept = durable
            .jobs
            .keep(pool, message, |host| core.host_name(host));
        if let Some(bytes) = kept {
            durable.journal.add(Fact::Kept { pool, bytes });
        }
    }

    /// Has a client sent what a job's tasks returned and printed.
    pub(super) fn on_attach(&mut self, client: ClientId, pool: PoolId, follow: bool) {
        let Some(live) = self.sessions.client(client) else {
            return;
        };
        let (role, user, to) = (live.peer.role, live.peer.id.clone(), live.out.sender());
        let jobs = self.durable.as_ref().map(|durable| &durable.jobs);
        let about = jobs.and_then(|jobs| jobs.about(pool));
        let reason = match &about {
            None => format!(
                "there is no job {pool} to attach to: `fleetpool jobs` lists what there is, and only those started with --detach can be"
            ),
            Some(about) if role != Role::Admin && about.user != user => {
                format!(
                    "job {pool} is {0}'s: only {0} and admins may see what it printed",
                    about.user
                )
            }
            Some(_) => String::new(),
        };
        if let Some(jobs) = jobs.filter(|_| reason.is_empty()) {
            let sending = AbortOnDrop::spawn(jobs::send(pool, jobs.source(pool), follow, to));
            self.watch(client);
            if let Some(session) = self.sessions.clients.get_mut(&client) {
                session.attached.push(sending);
            }
            return;
        }
        let kind = Refusal::Invalid;
        self.send_client(client, ToClient::Refused { pool, reason, kind });
        self.send_client(client, ToClient::PoolEnded { pool });
    }

    /// A client that has nothing else is known by what it watches.
    fn watch(&mut self, client: ClientId) {
        let has_pools = self.core.has_pools(client);
        let Some(durable) = self.durable.as_mut().filter(|_| !has_pools) else {
            return;
        };
        if let Some(known) = durable.clients.get_mut(&client) {
            (known.is_written, known.watches) = (true, true);
            let fact = known.fact(client);
            durable.journal.add(fact);
        }
    }

    /// Tells a client that something is done, when the disk has it.
    pub(super) fn send_when_kept(&mut self, client: ClientId, message: ToClient) {
        match self.durable.as_mut() {
            Some(durable) => {
                let action = Action::ToClient { client, message };
                durable.unwritten.push_back(action);
            }
            None => self.send_client(client, message),
        }
    }

    /// Writes down who has a name.
    pub(super) fn record_name(&mut self, name: &str) {
        if let Some(fact) = self.names.fact(name) {
            self.record(fact);
        }
    }

    /// When all that a predecessor may not have written down is over, a successor need not wait for that again.
    pub(super) fn trust_the_journal(&mut self) {
        if let Some(durable) = self.durable.as_mut()
            && self.failed.is_none()
            && !self.core.is_settling()
        {
            durable.journal.trust();
        }
    }

    /// The disk has all up to that position.
    pub(super) fn on_synced(&mut self, synced: io::Result<u64>) {
        let position = match synced {
            Ok(position) => position,
            Err(error) => return self.fail(&error),
        };
        if let Some(durable) = self.durable.as_mut() {
            durable.synced = position;
        }
        while let Some(durable) = self.durable.as_mut()
            && let Some((_, action)) = durable.gated.pop_front_if(|(at, _)| *at <= position)
        {
            self.on_action(action);
        }
    }

    /// The disk has refused: nothing that is said from now on could be held. A successor reads what was held.
    fn fail(&mut self, error: &io::Error) {
        tracing::error!(%error, "the journal cannot be written: this coordinator ends");
        if let Some(durable) = self.durable.as_ref().filter(|_| self.failed.is_none()) {
            durable.journal.doubt();
        }
        self.failed.get_or_insert_with(|| {
            format!("the journal cannot be written: {error}; look at the disk where `--state` is, then start again")
        });
    }
}
