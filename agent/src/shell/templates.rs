//! The templates of Python pools: started when what their workers begin with is here, and again when they die.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use fleetpool_agent_core::Event;
use fleetpool_proto::{
    PoolId,
    pool::{ContentHash, Runtime, Spec},
};
use tokio::task::JoinSet;

use super::Shell;
use crate::workers::{Template, TemplateOutcome};

/// Templates in a row that died before they were ready after which a pool is unfit.
const DEATHS_MAX: u32 = 3;

#[derive(Debug, Default)]
pub(super) struct Templates {
    pools: BTreeMap<PoolId, Entry>,
    starting: JoinSet<Started>,
}

/// What became of a template.
pub(super) type Started = (PoolId, TemplateOutcome);

#[derive(Debug)]
struct Entry {
    template: Arc<Template>,
    /// Of its Python, once one was ready.
    version: Option<(u8, u8)>,
    deaths: u32,
    /// Whether none has died: what is imported can kill, and is then left to the workers.
    may_import: bool,
}

impl Templates {
    /// The next one that is ready, or is not to be. Cancel-safe.
    pub(super) async fn started(&mut self) -> Option<Started> {
        self.starting.join_next().await?.ok()
    }

    pub(super) fn forget(&mut self, pool: PoolId) {
        self.pools.remove(&pool);
    }
}

impl Shell {
    /// Content has come that a pool has waited for.
    pub(super) fn content_is_here(&mut self, pool: PoolId, hash: ContentHash) {
        let options = self.core.pool_options(pool);
        let is_context = options.is_some_and(
            |options| matches!(options.runtime, Runtime::Python { context, .. } if context == hash),
        );
        if is_context && !self.templates.pools.contains_key(&pool) {
            self.start_template(pool);
        } else {
            self.tell(Event::Content { pool, error: None });
        }
    }

    pub(super) fn start_template(&mut self, pool: PoolId) {
        let Some(options) = self.core.pool_options(pool) else {
            return;
        };
        let Runtime::Python {
            interpreter,
            context,
        } = &options.runtime
        else {
            return;
        };
        let context = self.store.blob(*context).cloned().unwrap_or_default();
        let place = self.place(fleetpool_proto::SlotNo(0), pool, options);
        let interpreter = PathBuf::from(interpreter);
        let (template, outcome) = match Template::start(&self.shared, place, interpreter, context) {
            Ok((template, outcome)) => (Arc::new(template), outcome),
            Err(error) => {
                let reason = format!("no process could be started for it: {error}");
                return self.tell(Event::PoolUnfit { pool, reason });
            }
        };
        match self.templates.pools.get_mut(&pool) {
            Some(entry) => {
                entry.template = template;
                entry.may_import = false;
            }
            None => {
                let entry = Entry {
                    template,
                    version: None,
                    deaths: 0,
                    may_import: true,
                };
                self.templates.pools.insert(pool, entry);
            }
        }
        let started = async move { (pool, outcome.await.unwrap_or(Err(None))) };
        self.templates.starting.spawn(started);
    }

    /// A template of a pool that may still be there is ready, or is not to be.
    pub(super) fn on_template(&mut self, (pool, outcome): Started) {
        let Some(entry) = self.templates.pools.get_mut(&pool) else {
            return;
        };
        match outcome {
            Ok(version) => {
                entry.deaths = 0;
                if entry.version.replace(version).is_none() {
                    self.check_versions(pool);
                    self.tell(Event::Content { pool, error: None });
                }
            }
            Err(None) if entry.deaths + 1 < DEATHS_MAX => {
                entry.deaths += 1;
                self.start_template(pool);
            }
            Err(reason) => {
                let reason = reason.unwrap_or("its template died before it was ready".to_owned());
                self.tell(Event::PoolUnfit { pool, reason });
            }
        }
    }

    /// The template that a worker is to be forked from, with the modules that the pool's functions need.
    pub(super) fn template(&mut self, pool: PoolId) -> Option<Arc<Template>> {
        if self.templates.pools.get(&pool)?.template.is_over() {
            self.start_template(pool);
        }
        let entry = self.templates.pools.get(&pool)?;
        if entry.may_import {
            let specs = self.core.specs(pool);
            entry.template.import(specs.flat_map(|spec| &spec.modules));
        }
        Some(Arc::clone(&entry.template))
    }

    /// Functions that were pickled by value can be read by one version of Python alone (G12).
    pub(super) fn check_versions(&mut self, pool: PoolId) {
        let Some(here) = self
            .templates
            .pools
            .get(&pool)
            .and_then(|entry| entry.version)
        else {
            return;
        };
        let unreadable = |spec: &&Spec| spec.python.is_some_and(|version| version != here);
        let reason = self.core.specs(pool).find(unreadable).map(|spec| {
            let there = dotted(spec.python.unwrap_or_default());
            let function = &spec.function;
            format!(
                "it has Python {}, and `{function}` was pickled by value under {there}, which no other version can \
                 read: put Python {there} on the host, name another interpreter with python=, or move the function \
                 into a module that the hosts can import",
                dotted(here)
            )
        });
        if let Some(reason) = reason {
            self.tell(Event::PoolUnfit { pool, reason });
        }
    }
}

fn dotted((major, minor): (u8, u8)) -> String {
    format!("{major}.{minor}")
}
