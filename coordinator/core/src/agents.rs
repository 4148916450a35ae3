//! What agents say of pools and tasks. What becomes of the hosts themselves is in `lives`.

use bytes::Bytes;
use fleetpool_proto::{
    HostId, Payloads, PoolId,
    message::{FromAgent, OutputRow, ReportRow, StartedRow, TaskRow, ToAgent, ToClient},
};

use crate::{
    core::CoordinatorCore,
    event::{Action, SessionNo},
    host::{HostState, Printed},
    pool::Pool,
    settle,
};

impl CoordinatorCore {
    pub(crate) fn on_agent_message(&mut self, id: HostId, session: SessionNo, message: FromAgent) {
        let Some(host) = self.hosts.get_mut(&id) else {
            return;
        };
        if host.session != Some(session) {
            return;
        }
        if host.state != HostState::Up && !matches!(message, FromAgent::Register(_)) {
            // Before it registers nothing else can be meant for the hosts it stands for.
            return;
        }
        match message {
            FromAgent::Register(registration) => {
                self.change_host(id, |core| core.on_register(id, *registration));
            }
            FromAgent::Renew { renewal, rtt_us } => self.on_renew(id, renewal, rtt_us),
            FromAgent::Allotted {
                pool,
                slots,
                allotment,
            } => self.on_allotted(id, pool, slots, allotment),
            FromAgent::Started { pool, rows } => self.on_started(id, pool, &rows),
            FromAgent::Reports {
                pool,
                rows,
                payloads,
            } => self.on_reports(id, pool, rows, payloads.into_items()),
            FromAgent::Output {
                pool,
                number,
                rows,
                payloads,
            } => {
                if self.is_news(id, pool, number) {
                    self.on_output(id, pool, number, rows, payloads);
                    self.print_retained(id);
                }
            }
            FromAgent::Retracted {
                pool,
                retraction,
                rows,
            } => self.on_retracted(id, pool, Some(retraction), &rows),
            FromAgent::PoolUnfit { pool, reason, rows } => {
                self.on_pool_unfit(id, pool, reason, &rows);
            }
            FromAgent::NeedContent { pool, hash, again } => {
                if let Some(client) = self.pools.get(&pool).map(|pool| pool.client) {
                    self.outbox.actions.push_back(Action::FetchContent {
                        host: id,
                        session,
                        client,
                        hash,
                        again,
                    });
                }
            }
            // The shell's affair, as content is.
            FromAgent::PassingOn { .. } => {}
        }
    }

    fn on_allotted(&mut self, id: HostId, pool: PoolId, slots: u16, allotment: u64) {
        self.with(pool, id, |pool, host, _| {
            let Some(share) = pool.shares.get(&id) else {
                return;
            };
            if share.allotment == allotment {
                let ceiling = share.ceiling.min(slots).max(share.allot);
                pool.set_slots(id, host, share.allot, ceiling);
                pool.reindex(id, host);
            }
        });
        self.supply += 1;
        self.touched.insert(pool);
    }

    fn on_started(&mut self, id: HostId, pool: PoolId, rows: &[StartedRow]) {
        self.with(pool, id, |pool, _, _| {
            let Some(share) = pool.shares.get_mut(&id) else {
                return;
            };
            for row in rows {
                if let Some(task) = share.tasks.get_mut(row.index)
                    && task.tries.attempt == row.attempt
                {
                    task.running = Some((row.slot, row.pid));
                }
            }
        });
    }

    fn on_reports(&mut self, id: HostId, pool: PoolId, rows: Vec<ReportRow>, payloads: Vec<Bytes>) {
        let acked = rows.iter().map(|row| TaskRow {
            index: row.index,
            attempt: row.attempt,
        });
        let rows_acked = acked.collect();
        let (now, checks) = (self.now, self.options.checks_attempts());
        self.with(pool, id, |pool, host, _| {
            settle::settle_reports(pool, id, rows, payloads, now, checks);
            pool.reindex(id, host);
        });
        self.acknowledge(id, pool, rows_acked);
        self.touched.insert(pool);
    }

    fn acknowledge(&mut self, id: HostId, pool: PoolId, rows: Vec<TaskRow>) {
        self.outputs_owed.remove(&id);
        if let Some(host) = self.hosts.get(&id) {
            let output = host.output_safe();
            self.outbox
                .agent(id, host, ToAgent::Ack { pool, output, rows });
        }
    }

    /// Acknowledges output that came without reports, once for all that came together.
    pub(crate) fn acknowledge_output(&mut self) {
        while let Some((id, pool)) = self.outputs_owed.pop_first() {
            self.acknowledge(id, pool, Vec::new());
        }
    }

    /// Whether output comes for the first time (G8): an agent says again what was not acknowledged when a session broke.
    fn is_news(&mut self, id: HostId, pool: PoolId, number: u64) -> bool {
        let Some(host) = self.hosts.get_mut(&id).filter(|_| number > 0) else {
            return true;
        };
        self.outputs_owed.insert(id, pool);
        let is_news = number > host.output_heard;
        host.output_heard = host.output_heard.max(number);
        is_news
    }

    fn on_output(
        &mut self,
        id: HostId,
        pool: PoolId,
        number: u64,
        mut rows: Vec<OutputRow>,
        mut payloads: Payloads,
    ) {
        let Some(entry) = self.pools.get(&pool).filter(|pool| !pool.is_ending()) else {
            return;
        };
        // A host that comes back may still have lines of what was granted to another one meanwhile.
        let is_current = |row: &OutputRow| {
            let task = entry
                .shares
                .get(&id)
                .and_then(|share| share.tasks.get(row.index));
            task.is_some_and(|task| task.tries.attempt == row.attempt)
                || entry.unprinted.get(&row.index) == Some(&(id, row.attempt))
        };
        if !rows.iter().all(is_current) {
            let all = rows.into_iter().zip(payloads.into_items());
            let (current, items): (_, Vec<_>) = all.filter(|(row, _)| is_current(row)).unzip();
            (rows, payloads) = (current, items.into());
        }
        let client = entry.client;
        if rows.is_empty() {
            return;
        }
        for row in &mut rows {
            row.host = id;
        }
        let detached = self.pools.get(&pool).is_some_and(Pool::is_detached);
        let keeps = self.keeps_for(client) && number > 0 && !detached;
        let Some(host) = self.hosts.get_mut(&id) else {
            return;
        };
        let life = host.facts.incarnation;
        if keeps {
            let (rows, payloads) = (rows.clone(), payloads.clone());
            host.in_flight.push_back(Printed {
                client,
                pool,
                life,
                number,
                rows,
                payloads,
            });
        }
        self.name_host(client, id);
        let number = if keeps || detached { number } else { 0 };
        let output = ToClient::Output {
            pool,
            life,
            number,
            rows,
            payloads,
        };
        self.outbox.client(client, output);
    }

    fn on_retracted(
        &mut self,
        id: HostId,
        pool: PoolId,
        retraction: Option<u64>,
        rows: &[TaskRow],
    ) {
        let now = self.now;
        self.with(pool, id, |pool, host, _| {
            if let Some(share) = pool.shares.get_mut(&id)
                && share.retraction == retraction
            {
                share.retraction = None;
            }
            for row in rows {
                settle::take_back(pool, id, row, now);
            }
            pool.reindex(id, host);
        });
        self.touched.insert(pool);
    }

    fn on_pool_unfit(&mut self, id: HostId, pool: PoolId, reason: String, rows: &[TaskRow]) {
        let name = self.hosts.get(&id).map(|host| host.facts.name.clone());
        let name = name.unwrap_or_default();
        self.on_retracted(id, pool, None, rows);
        self.change_host(id, |core| {
            core.with(pool, id, |pool, _, _| {
                if let Some(share) = pool.shares.get_mut(&id) {
                    share.unfit = true;
                }
            });
        });
        self.with(pool, id, |pool, _, outbox| {
            let text = format!("host {name} cannot work for this pool: {reason}");
            pool.unfit_reason = Some(text.clone());
            settle::refuse_pinned(pool, id, &text);
            let pool_id = pool.id;
            outbox.client(
                pool.client,
                ToClient::Notice {
                    pool: pool_id,
                    text,
                },
            );
        });
        self.shrink(pool, id, 0);
    }
}
