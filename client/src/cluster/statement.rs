//! What a pool has told the coordinator and would have to say again to one that does not remember: all that is not
//! acknowledged, and what the rest stands on. Pure.

use std::collections::VecDeque;

use fleetpool_proto::{
    PoolId, SpecId,
    message::FromClient,
    pool::{PoolOptions, Spec},
};

/// A pool in its client's words. Each word may be said twice.
#[derive(Debug, Default)]
pub(crate) struct Statement {
    options: Option<Box<PoolOptions>>,
    /// Another client's pool, and whether what is to come is waited for.
    attached: Option<bool>,
    specs: Vec<(SpecId, Box<Spec>)>,
    /// Submitted tasks that are not safe yet, with the index after their last.
    tasks: VecDeque<(u64, FromClient)>,
    slots: Option<Option<u32>>,
    cancelled: Vec<u64>,
    consumed: Option<u64>,
    closed: Option<u64>,
    terminated: bool,
}

impl Statement {
    /// Something is said.
    pub(crate) fn note(&mut self, message: &FromClient) {
        match message {
            FromClient::OpenPool { options, .. } => self.options = Some(options.clone()),
            FromClient::Attach { follow, .. } => self.attached = Some(*follow),
            FromClient::Define { spec, body, .. } => self.specs.push((*spec, body.clone())),
            FromClient::Submit {
                first, payloads, ..
            } => {
                let end = first + payloads.items().len() as u64;
                self.tasks.push_back((end, message.clone()));
            }
            FromClient::Resize { slots, .. } => self.slots = Some(*slots),
            FromClient::Cancel { tasks, .. } => self.cancelled.extend(tasks),
            FromClient::Consumed { tasks, .. } => self.consumed = Some(*tasks),
            FromClient::Close { submitted, .. } => self.closed = Some(*submitted),
            FromClient::Terminate { .. } => self.terminated = true,
            FromClient::Content { .. }
            | FromClient::Ask { .. }
            | FromClient::Resume { .. }
            | FromClient::Done { .. }
            | FromClient::HeardOutput { .. }
            | FromClient::HeardResults { .. } => {}
        }
    }

    /// Whether the pool is another client's.
    pub(crate) fn is_attached(&self) -> bool {
        self.attached.is_some()
    }

    /// Tasks before this one need not be said again.
    pub(crate) fn safe(&mut self, tasks: u64) {
        while self.tasks.pop_front_if(|(end, _)| *end <= tasks).is_some() {}
    }

    /// All of it, in an order in which it makes sense.
    pub(crate) fn messages(&self, pool: PoolId) -> Vec<FromClient> {
        let options = self.options.clone();
        let mut messages: Vec<_> = options
            .map(|options| FromClient::OpenPool { pool, options })
            .into_iter()
            .collect();
        messages.extend(
            self.attached
                .map(|follow| FromClient::Attach { pool, follow }),
        );
        messages.extend(self.specs.iter().map(|(spec, body)| FromClient::Define {
            pool,
            spec: *spec,
            body: body.clone(),
        }));
        messages.extend(self.tasks.iter().map(|(_, submit)| submit.clone()));
        messages.extend(self.slots.map(|slots| FromClient::Resize { pool, slots }));
        if !self.cancelled.is_empty() {
            let tasks = self.cancelled.clone();
            messages.push(FromClient::Cancel { pool, tasks });
        }
        messages.extend(
            self.consumed
                .map(|tasks| FromClient::Consumed { pool, tasks }),
        );
        messages.extend(
            self.closed
                .map(|submitted| FromClient::Close { pool, submitted }),
        );
        messages.extend(self.terminated.then_some(FromClient::Terminate { pool }));
        messages
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    const POOL: PoolId = PoolId(7);

    fn submit(first: u64, count: usize) -> FromClient {
        FromClient::Submit {
            pool: POOL,
            spec: SpecId(0),
            first,
            hosts: Vec::new(),
            payloads: vec![Bytes::new(); count].into(),
        }
    }

    #[test]
    fn g10_what_is_not_safe_is_said_again_behind_what_it_stands_on() {
        let mut statement = Statement::default();
        let open = FromClient::OpenPool {
            pool: POOL,
            options: Box::default(),
        };
        let define = FromClient::Define {
            pool: POOL,
            spec: SpecId(0),
            body: Box::default(),
        };
        let close = FromClient::Close {
            pool: POOL,
            submitted: 6,
        };
        let said = [
            &open,
            &define,
            &submit(0, 2),
            &submit(2, 3),
            &submit(5, 1),
            &close,
        ];
        said.into_iter().for_each(|message| statement.note(message));
        statement.safe(4);
        let again = statement.messages(POOL);
        assert_eq!(again, [open, define, submit(2, 3), submit(5, 1), close]);
    }
}
