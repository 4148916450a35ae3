//! Programs that pools bring: looked for on this host, asked for, stored.

use std::path::PathBuf;

use bytes::Bytes;
use fleetpool_agent_core::Event;
use fleetpool_proto::{
    PoolId,
    message::FromAgent,
    pool::{ContentHash, Runtime},
};

use super::Shell;
use crate::{content, content::Need};

/// Why an agent without a cache folder cannot have a program.
const NO_CACHE: &str = "this agent keeps no programs; start it with a cache folder";

/// Content that was looked for in the cache, or stored there.
pub(super) struct Checked {
    hash: ContentHash,
    outcome: Outcome,
}

enum Outcome {
    Here(PathBuf),
    InMemory(Bytes),
    Missing,
    Failed(String),
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
        match self.store.need_blob(pool, hash) {
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
                });
            }
            (Need::Check, None) => self.content_failed(hash, NO_CACHE),
        }
    }

    pub(super) fn on_content(&mut self, hash: ContentHash, bytes: Bytes) {
        let native = |pool| {
            let options = self.core.pool_options(pool);
            options.is_some_and(|options| matches!(options.runtime, Runtime::Native { .. }))
        };
        match self.store.place(hash) {
            _ if bytes.is_empty() => {
                self.content_failed(hash, "nobody has it any more; start the program again")
            }
            _ if !self.store.is_program(hash, native) => {
                self.checks.spawn_blocking(move || Checked {
                    hash,
                    outcome: match content::check(hash, &bytes) {
                        Ok(()) => Outcome::InMemory(bytes),
                        Err(error) => Outcome::Failed(error),
                    },
                });
            }
            None => self.content_failed(hash, NO_CACHE),
            Some(path) => {
                let outcome = move || match content::store(&path, hash, &bytes) {
                    Ok(()) => Outcome::Here(path),
                    Err(error) => Outcome::Failed(error),
                };
                self.checks.spawn_blocking(move || Checked {
                    hash,
                    outcome: outcome(),
                });
            }
        }
    }

    pub(super) fn on_checked(&mut self, Checked { hash, outcome }: Checked) {
        match outcome {
            Outcome::Here(path) => {
                for pool in self.store.arrived(hash, path) {
                    self.tell(Event::Content { pool, error: None });
                }
            }
            Outcome::InMemory(bytes) => {
                for pool in self.store.blob_arrived(hash, bytes) {
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
        self.say(FromAgent::NeedContent { pool, hash });
    }
}
