//! A worker as its keeper tells of it: one of the `command` runtime; and one that stays, where a relay is between it and this
//! agent, which speaks as a keeper does.

use std::{io, os::unix::net::UnixStream, sync::Arc};

use fleetpool_agent_core::{EndedTask, Event, WorkerEnd};
use fleetpool_proto::{AttemptId, DecodeError, Payloads, PoolId, SlotNo, TaskId, worker::DoneRow};
use tokio::sync::mpsc;

use super::{
    Beginning, Heard, Order, Printed, Program, Shared, Start,
    outlet::Outlet,
    relay,
    warm::{Parts, row},
};
use crate::{
    keeper::message::{Attached, FromKeeper, ToKeeper, one, only},
    wire::{self, Incoming, Outgoing},
};

/// Is the worker from its start until it and everything below it are gone, and has told so. With a program, it is one that stays.
pub(crate) async fn run(
    mut start: Start,
    program: Option<Program>,
    shared: Shared,
    orders: mpsc::UnboundedReceiver<Order>,
) {
    let (slot, generation) = (start.slot, start.generation);
    let mut outlet = Outlet::new(shared.inbox.clone(), Arc::clone(&start.room));
    let found = start.found.take();
    let stays = found
        .as_ref()
        .map_or(program.is_some(), |found| found.stays);
    let was_there = found.is_some();
    let (socket, heard, missing) = match found {
        Some(found) => (Ok(found.socket), found.heard, found.handed),
        None => (ask(&start, program.as_ref(), &shared).await, 0, Vec::new()),
    };
    // The template is to live as long.
    let (beginning, _template) = program.map(Program::split).unzip();
    let reason = match socket.and_then(wire::split) {
        Ok((incoming, mut outgoing)) => {
            let pool = PoolId(start.place.pool);
            outgoing.put(ToKeeper::Place(start.place));
            if let Some(beginning) = beginning {
                outgoing.put(whole(generation, beginning));
            }
            let worker = Worker {
                slot,
                generation,
                pool,
                stays,
                pid: 0,
                incoming,
                outgoing,
                outlet,
                orders,
                keeps: shared.keeps,
                counted: 0,
                heard,
                missing,
                attached: Attached::default(),
                was_there,
                unfit: None,
                end: None,
                was_given_up: false,
            };
            return worker.serve().await;
        }
        Err(error) => format!("no process could be started for it: {error}"),
    };
    outlet.event(Event::WorkerUnfit {
        slot,
        generation,
        reason,
    });
    outlet.flush();
}

/// Asks for a keeper; or for one that starts the program, and a relay. The socket to what this agent talks to.
async fn ask(start: &Start, program: Option<&Program>, shared: &Shared) -> io::Result<UnixStream> {
    let name = start.name();
    if let Some(program) = program {
        let parts = Parts::make(start, program, shared).await?;
        return relay::start(shared, name, &parts).await;
    }
    let ask = |given: &[_]| match shared.keeps {
        true => shared.spawner.start_kept(name, given),
        false => shared.spawner.start_keeper(given),
    };
    super::keeper(start.fence.as_ref(), &[], ask).await
}

/// What a relay is told first of the worker.
fn whole(generation: u64, beginning: Beginning) -> ToKeeper {
    let (program, initializer) = match beginning {
        Beginning::Native { path, initializer } => (Some(path), initializer),
        Beginning::Python => (None, None),
    };
    let (initializer, argument) = initializer
        .map(|initializer| (initializer.function, initializer.argument))
        .unzip();
    ToKeeper::Relay {
        generation,
        program,
        initializer,
        payloads: argument.map_or_else(Payloads::default, one),
    }
}

struct Worker {
    slot: SlotNo,
    generation: u64,
    pool: PoolId,
    /// There is a relay.
    stays: bool,
    pid: u32,
    incoming: Incoming,
    outgoing: Outgoing,
    outlet: Outlet,
    orders: mpsc::UnboundedReceiver<Order>,
    /// Another agent may come after this one.
    keeps: bool,
    /// Messages that have come, or that another agent has heard.
    counted: u64,
    /// How many of them are known from another agent.
    heard: u64,
    /// What another agent handed to the keeper and it has not mentioned.
    missing: Vec<AttemptId>,
    /// How it was found.
    attached: Attached,
    /// It has been ready, if only for another agent.
    was_there: bool,
    /// Why it is of no use, as a relay has told.
    unfit: Option<String>,
    /// How it has ended, as a relay has told.
    end: Option<WorkerEnd>,
    was_given_up: bool,
}

impl Worker {
    async fn serve(mut self) {
        while !self.was_given_up {
            self.outgoing.flush();
            self.outlet.flush();
            tokio::select! {
                biased;
                order = self.orders.recv() => match order {
                    Some(order) => self.on_order(order),
                    // The shell is gone: so is this end of the socket, and with it the keeper.
                    None => return,
                },
                () = self.outlet.flush_when_there_is_room(), if self.outlet.is_behind() => {}
                () = self.outgoing.writable(), if self.outgoing.is_behind() => {}
                filled = self.incoming.fill(), if !self.outlet.is_behind() => {
                    if !filled.unwrap_or(false) {
                        break;
                    }
                    if let Err(error) = self.hear() {
                        tracing::error!(%error, "a keeper cannot be understood");
                        // It counts that message, too.
                        self.is_news();
                        self.outgoing.put(ToKeeper::End { grace_ms: 0 });
                    }
                }
            }
        }
        let event = self.last_event();
        self.outlet.event(event);
        self.outlet.finish(&mut self.orders).await;
    }

    /// Everything below is gone.
    fn last_event(&mut self) -> Event {
        let (slot, generation) = (self.slot, self.generation);
        if let Some(reason) = self.unfit.take() {
            return Event::WorkerUnfit {
                slot,
                generation,
                reason,
            };
        }
        match self.end.take() {
            // Its relay was killed, and what that knew of its tasks is lost.
            None if self.stays && self.was_there => Event::WorkerVanished { slot, generation },
            end => Event::WorkerEnded {
                slot,
                generation,
                end: end.unwrap_or_else(|| WorkerEnd {
                    pid: self.pid,
                    ..WorkerEnd::default()
                }),
            },
        }
    }

    fn on_order(&mut self, order: Order) {
        match order {
            Order::Define(spec, mut body, file) => {
                let bytes = match self.stays {
                    true => &mut body.code,
                    false => &mut body.stdin,
                };
                let message = ToKeeper::Define {
                    spec,
                    payloads: one(std::mem::take(bytes)),
                    body,
                    by_descriptor: file.is_some(),
                };
                match file {
                    Some(file) => self.outgoing.put_with(message, file),
                    None => self.outgoing.put(message),
                }
            }
            // It is gone, and nobody has been told yet.
            Order::Run(tasks) if self.end.is_some() || self.unfit.is_some() => {
                let attempts = tasks.iter().map(|task| task.attempt).collect();
                let (slot, generation) = (self.slot, self.generation);
                self.outlet.event(Event::GivenBack {
                    slot,
                    generation,
                    attempts,
                });
            }
            Order::Run(tasks) if self.stays => {
                let (rows, payloads): (Vec<_>, Vec<_>) = tasks.into_iter().map(row).unzip();
                let payloads = Payloads::from(payloads);
                self.outgoing.put(ToKeeper::Hand { rows, payloads });
            }
            Order::Run(tasks) => {
                self.outlet.take_time();
                for task in tasks {
                    self.outgoing.put(ToKeeper::Run {
                        attempt: task.attempt,
                        spec: task.spec,
                        payloads: one(task.payload),
                    });
                }
            }
            Order::GiveBack(count) => self.outgoing.put(ToKeeper::GiveBack { count }),
            Order::KillTask { attempt, grace_ms } => {
                self.outlet.hurry();
                self.outgoing.put(ToKeeper::Kill { attempt, grace_ms });
            }
            Order::Kill { grace_ms } => {
                self.outlet.hurry();
                self.outgoing.put(ToKeeper::End { grace_ms });
            }
            Order::Stop => self.outgoing.put(ToKeeper::Stop),
            Order::Heard(number) => self.outgoing.put(ToKeeper::Heard { number }),
        }
    }

    fn hear(&mut self) -> Result<(), DecodeError> {
        while let Some(message) = self.incoming.take()? {
            match message {
                FromKeeper::Attached(attached) => self.on_attached(attached),
                FromKeeper::Resumed => self.on_resumed(),
                message if self.is_news() => self.on_message(message),
                _ => {}
            }
        }
        Ok(())
    }

    /// Counts a message; whether it is not known from another agent.
    fn is_news(&mut self) -> bool {
        self.counted += 1;
        if self.keeps {
            self.outlet.heard(Heard {
                slot: self.slot,
                generation: self.generation,
                number: self.counted,
            });
        }
        self.counted > self.heard
    }

    fn on_attached(&mut self, attached: Attached) {
        self.counted = attached.next.saturating_sub(1);
        self.pid = attached.pid;
        self.attached = attached;
        let number = self.heard;
        self.outgoing.put(ToKeeper::Heard { number });
    }

    /// All is known now that the keeper could say of what it had in hand before.
    fn on_resumed(&mut self) {
        let (slot, generation) = (self.slot, self.generation);
        let Attached {
            pid,
            running,
            waiting,
            is_ending,
            is_starting,
            taken,
            ..
        } = std::mem::take(&mut self.attached);
        let running_too = running.map(|(attempt, _)| attempt);
        for attempt in waiting.into_iter().chain(running_too) {
            self.mention(attempt);
        }
        // The other agent ended before it could hand them over.
        let attempts = std::mem::take(&mut self.missing);
        let missing = u32::try_from(attempts.len()).unwrap_or(u32::MAX);
        self.outlet.event(Event::WorkerFound {
            slot,
            generation,
            pid: if is_starting { 0 } else { pid },
            ending: is_ending,
            // What is given back does not count any more.
            taken: taken.saturating_add(missing),
        });
        if let Some((attempt, pid)) = running {
            self.outlet.event(Event::TaskPid {
                slot,
                generation,
                attempt,
                pid,
            });
        }
        if !attempts.is_empty() {
            self.outlet.event(Event::GivenBack {
                slot,
                generation,
                attempts,
            });
        }
    }

    fn mention(&mut self, attempt: AttemptId) {
        self.missing.retain(|missing| *missing != attempt);
    }

    fn on_done(&mut self, pid: u32, rows: Vec<DoneRow>, payloads: Payloads) {
        let (slot, generation) = (self.slot, self.generation);
        for (row, payload) in rows.into_iter().zip(payloads.into_items()) {
            let attempt = AttemptId {
                task: TaskId::new(self.pool, row.index),
                attempt: row.attempt,
            };
            self.mention(attempt);
            let task = EndedTask {
                attempt,
                outcome: row.outcome,
                payload,
                pid,
                started_us: row.started_us,
                run_us: row.run_us,
            };
            self.outlet.event(Event::TaskEnded {
                slot,
                generation,
                task,
            });
        }
    }

    fn on_message(&mut self, message: FromKeeper) {
        let (slot, generation) = (self.slot, self.generation);
        let event = match message {
            FromKeeper::Ready { pid } => {
                (self.pid, self.was_there) = (pid, true);
                Event::WorkerReady {
                    slot,
                    generation,
                    pid,
                }
            }
            FromKeeper::Running { attempt, pid } => Event::TaskPid {
                slot,
                generation,
                attempt,
                pid,
            },
            FromKeeper::Printed {
                attempt,
                pid,
                stream,
                payloads,
            } => {
                let bytes = only(payloads);
                return self.outlet.print(Printed {
                    attempt,
                    pid,
                    stream,
                    bytes,
                });
            }
            FromKeeper::Ended { end, payloads } => {
                self.mention(end.attempt);
                let task = EndedTask {
                    attempt: end.attempt,
                    outcome: end.outcome,
                    payload: only(payloads),
                    pid: end.pid,
                    started_us: end.started_us,
                    run_us: end.run_us,
                };
                Event::TaskEnded {
                    slot,
                    generation,
                    task,
                }
            }
            FromKeeper::Done {
                pid,
                rows,
                payloads,
            } => return self.on_done(pid, rows, payloads),
            FromKeeper::Fenced => Event::WorkerFenced { slot, generation },
            FromKeeper::GivenBack { attempts } => {
                attempts.iter().for_each(|attempt| self.mention(*attempt));
                Event::GivenBack {
                    slot,
                    generation,
                    attempts,
                }
            }
            FromKeeper::WorkerNotStarted { reason } => {
                self.unfit = Some(reason);
                return;
            }
            FromKeeper::WorkerEnded {
                exit,
                signal,
                out_of_memory,
                memory_kib_peak,
                pid,
                stderr_tail,
                was_given_up,
            } => {
                self.was_given_up = was_given_up;
                self.end = Some(WorkerEnd {
                    exit,
                    signal,
                    out_of_memory,
                    memory_kib_peak,
                    stderr_tail,
                    pid,
                });
                return;
            }
            FromKeeper::Attached(_) | FromKeeper::Resumed | FromKeeper::WorkerStarted { .. } => {
                return;
            }
        };
        self.outlet.event(event);
    }
}
