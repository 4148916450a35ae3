//! Programs that pools bring: looked for on this host, asked for, stored.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use bytes::Bytes;
use fleetpool_agent_core::Event;
use fleetpool_proto::{
    PeerPin, PoolId,
    limits::BULK_BYTES_MIN,
    message::FromAgent,
    pool::{ContentHash, Runtime},
};

use super::Shell;
use crate::{
    content::{self, Held, Need},
    passing::{self, Passed},
};

/// Why an agent without a cache folder cannot have a program.
const NO_CACHE: &str = "this agent keeps no programs; start it with a cache folder";

/// What content is kept as.
enum Form {
    /// A file to be executed.
    Program(PathBuf),
    /// A file to be read by commands.
    Input,
    /// Bytes.
    Memory,
}

/// Content that was looked for in the cache, or stored there.
pub(super) struct Checked {
    hash: ContentHash,
    outcome: Outcome,
    /// What came, if anything did, for other agents that are to get it here; and how large it is.
    held: Option<(Held, usize)>,
}

enum Outcome {
    Here(PathBuf),
    InMemory(Held),
    Missing,
    Failed(String),
}

/// Keeps content. Bytes are checked first; a file was, as it came. Not for the runtime's thread.
fn keep(hash: ContentHash, came: Held, len: usize, form: Form) -> Result<(Outcome, Held), String> {
    if let Held::Bytes(bytes) = &came {
        content::check(hash, bytes)?;
    }
    let bytes = |came: &Held| match came {
        Held::Bytes(bytes) => Ok(bytes.clone()),
        Held::File(file) => content::bytes_of(file, len),
    };
    let unread = |error| format!("cannot keep content in memory: {error}");
    match form {
        Form::Program(path) => {
            content::store(&path, &bytes(&came).map_err(unread)?)?;
            Ok((Outcome::Here(path), came))
        }
        Form::Memory => {
            let held = Held::Bytes(bytes(&came).map_err(unread)?);
            Ok((Outcome::InMemory(held.clone()), held))
        }
        Form::Input => {
            let file = match came {
                Held::File(file) => file,
                Held::Bytes(bytes) => Arc::new(content::file_of(&bytes).map_err(unread)?),
            };
            let held = Held::File(file);
            Ok((Outcome::InMemory(held.clone()), held))
        }
    }
}

impl Shell {
    pub(super) fn fetch_program(&mut self, pool: PoolId) {
        match self.core.pool_options(pool).map(|options| &options.runtime) {
            None | Some(Runtime::Command) => {}
            Some(&Runtime::Python { context, .. }) => self.fetch_blob(pool, context),
            Some(&Runtime::Native { program, .. }) => self.fetch_file(pool, program),
        }
    }

    /// Content that goes into workers as it is.
    pub(super) fn fetch_blob(&mut self, pool: PoolId, hash: ContentHash) {
        let options = self.core.pool_options(pool);
        let for_commands = options.is_some_and(|options| options.runtime == Runtime::Command);
        match self.store.need_blob(pool, hash, for_commands) {
            Need::Here => self.content_is_here(pool, hash),
            Need::Wait => {}
            Need::Check => self.ask_for(hash, pool),
        }
    }

    fn fetch_file(&mut self, pool: PoolId, hash: ContentHash) {
        match (self.store.need(pool, hash), self.store.place(hash)) {
            (Need::Here, _) => self.tell(Event::Content { pool, error: None }),
            (Need::Wait, _) => {}
            (Need::Check, Some(path)) => {
                let outcome = move || match content::is_sound(&path, hash) {
                    true => Outcome::Here(path),
                    false => Outcome::Missing,
                };
                self.checks.spawn_blocking(move || Checked {
                    hash,
                    outcome: outcome(),
                    held: None,
                });
            }
            (Need::Check, None) => self.content_failed(hash, NO_CACHE),
        }
    }

    /// Content that came from the coordinator.
    pub(super) fn on_content(&mut self, hash: ContentHash, bytes: Bytes) {
        if bytes.is_empty() {
            self.content_failed(hash, "nobody has it any more; start the program again");
            return;
        }
        let len = bytes.len();
        self.take(hash, Held::Bytes(bytes), len);
    }

    /// Puts content where whoever waits for it finds it.
    fn take(&mut self, hash: ContentHash, came: Held, len: usize) {
        let form = match self.form(hash, len, self.store.place(hash)) {
            Ok(form) => form,
            Err(error) => return self.content_failed(hash, error),
        };
        self.checks.spawn_blocking(move || {
            let (outcome, held) = match keep(hash, came, len, form) {
                Ok((outcome, held)) => (outcome, Some((held, len))),
                Err(error) => (Outcome::Failed(error), None),
            };
            Checked {
                hash,
                outcome,
                held,
            }
        });
    }

    /// What those that wait for content need it as; `place` is for programs.
    fn form(
        &self,
        hash: ContentHash,
        len: usize,
        place: Option<PathBuf>,
    ) -> Result<Form, &'static str> {
        let runtime = |pool| self.core.pool_options(pool).map(|options| &options.runtime);
        let mut waiting = self.store.waiting_for(hash).map(runtime);
        if waiting
            .clone()
            .any(|runtime| matches!(runtime, Some(Runtime::Native { .. })))
        {
            return place.map(Form::Program).ok_or(NO_CACHE);
        }
        let commands = waiting.all(|runtime| matches!(runtime, Some(Runtime::Command)));
        Ok(match commands && len >= BULK_BYTES_MIN {
            true => Form::Input,
            false => Form::Memory,
        })
    }

    /// Others are to get content here.
    pub(super) fn pass_on(&mut self, hash: ContentHash, bytes: u64, peers: Vec<PeerPin>) {
        let here = self.store.held_whole(hash);
        if here.is_some() || self.store.is_waited_for(hash) || self.passing.is_flowing(hash) {
            self.passing.pass_on(hash, bytes, peers, here);
        } else {
            self.on_passed(Passed::Port(hash, 0, peers));
        }
    }

    /// Another agent has what is needed here.
    pub(super) fn fetch_from(
        &mut self,
        hash: ContentHash,
        bytes: u64,
        addresses: Vec<SocketAddr>,
        pin: PeerPin,
    ) {
        if self.store.is_waited_for(hash) {
            self.passing.fetch(hash, bytes, addresses, pin);
        }
    }

    pub(super) fn on_passed(&mut self, passed: Passed) {
        match passed {
            Passed::Came(hash, file, len) => self.take(hash, Held::File(file), len),
            Passed::Port(hash, port, peers) => {
                let addresses = match port {
                    0 => Vec::new(),
                    _ => passing::addresses(),
                };
                self.say(FromAgent::PassingOn {
                    hash,
                    port,
                    addresses,
                    peers,
                });
            }
            Passed::Failed(hash, why) => {
                let waiting = self.store.waiting().find(|(wanted, _)| *wanted == hash);
                if let Some((hash, pool)) = waiting {
                    tracing::info!(%hash, why, "another agent did not deliver: the coordinator is asked");
                    self.say(FromAgent::NeedContent {
                        pool,
                        hash,
                        again: true,
                    });
                }
            }
        }
    }

    pub(super) fn on_checked(&mut self, checked: Checked) {
        let Checked {
            hash,
            outcome,
            held,
        } = checked;
        let len = held.as_ref().map_or(0, |(_, len)| *len);
        if let Some((held, len)) = held {
            self.passing.is_here(hash, held, len);
        }
        match outcome {
            Outcome::Here(path) => {
                for pool in self.store.arrived(hash, path) {
                    self.tell(Event::Content { pool, error: None });
                }
            }
            Outcome::InMemory(held) => {
                for pool in self.store.blob_arrived(hash, held, len) {
                    self.content_is_here(pool, hash);
                }
            }
            Outcome::Missing => {
                let waiting = self.store.waiting().find(|(wanted, _)| *wanted == hash);
                if let Some((hash, pool)) = waiting {
                    self.ask_for(hash, pool);
                }
            }
            Outcome::Failed(error) => self.content_failed(hash, &error),
        }
    }

    pub(super) fn content_failed(&mut self, hash: ContentHash, error: &str) {
        for pool in self.store.failed(hash) {
            let error = Some(error.to_owned());
            self.tell(Event::Content { pool, error });
        }
    }

    pub(super) fn ask_for(&mut self, hash: ContentHash, pool: PoolId) {
        self.say(FromAgent::NeedContent {
            pool,
            hash,
            again: false,
        });
    }
}
