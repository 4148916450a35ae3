//! A worker of the `command` runtime: its keeper.

use fleetpool_agent_core::{EndedTask, Event, WorkerEnd};
use fleetpool_proto::{AttemptId, DecodeError, SlotNo};
use tokio::sync::mpsc;

use super::{Heard, Order, Printed, Shared, Start, outlet::Outlet};
use crate::{
    keeper::message::{Attached, FromKeeper, ToKeeper, one, only},
    spawner::Name,
    wire::{self, Incoming, Outgoing},
};

/// Is the worker from its start until it and everything below it are gone, and has told so.
pub(crate) async fn run(start: Start, shared: Shared, orders: mpsc::UnboundedReceiver<Order>) {
    let (slot, generation) = (start.slot, start.generation);
    let mut outlet = Outlet::new(&shared, &start.room);
    let name = Name {
        slot: slot.0,
        generation,
    };
    let (mut heard, mut missing) = (0, Vec::new());
    let socket = match start.found {
        Some(found) => {
            (heard, missing) = (found.heard, found.handed);
            Ok(found.socket)
        }
        None => super::keeper(&shared, Some(name), start.fence.as_ref(), &[]).await,
    };
    let reason = match socket.and_then(wire::split) {
        Ok((incoming, outgoing)) => {
            let command = Command {
                slot,
                generation,
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
            };
            return command.serve(ToKeeper::Place(start.place)).await;
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

struct Command {
    slot: SlotNo,
    generation: u64,
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
}

impl Command {
    async fn serve(mut self, first: ToKeeper) {
        self.outgoing.put(first);
        loop {
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
                        self.outgoing.put(ToKeeper::End { grace_ms: 0 });
                    }
                }
            }
        }
        let (slot, generation) = (self.slot, self.generation);
        let end = WorkerEnd {
            pid: self.pid,
            ..WorkerEnd::default()
        };
        self.outlet.event(Event::WorkerEnded {
            slot,
            generation,
            end,
        });
        self.outlet.finish(&mut self.orders).await;
    }

    fn on_order(&mut self, order: Order) {
        match order {
            Order::Define(spec, mut body, file) => {
                let message = ToKeeper::Define {
                    spec,
                    payloads: one(std::mem::take(&mut body.stdin)),
                    body,
                    by_descriptor: file.is_some(),
                };
                match file {
                    Some(file) => self.outgoing.put_with(message, file),
                    None => self.outgoing.put(message),
                }
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
            ..
        } = std::mem::take(&mut self.attached);
        self.outlet.event(Event::WorkerReady {
            slot,
            generation,
            pid,
        });
        if let Some((attempt, pid)) = running {
            self.mention(attempt);
            self.outlet.event(Event::TaskPid {
                slot,
                generation,
                attempt,
                pid,
            });
        }
        waiting
            .into_iter()
            .for_each(|attempt| self.mention(attempt));
        if is_ending {
            self.outlet.event(Event::WorkerEnding { slot, generation });
        }
        // The other agent ended before it could hand them over.
        let attempts = std::mem::take(&mut self.missing);
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

    fn on_message(&mut self, message: FromKeeper) {
        let (slot, generation) = (self.slot, self.generation);
        let event = match message {
            FromKeeper::Ready { pid } => {
                self.pid = pid;
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
            FromKeeper::Fenced => Event::WorkerFenced { slot, generation },
            FromKeeper::GivenBack { attempts } => {
                attempts.iter().for_each(|attempt| self.mention(*attempt));
                Event::GivenBack {
                    slot,
                    generation,
                    attempts,
                }
            }
            // Of workers, whose keepers are another's.
            FromKeeper::Attached(_)
            | FromKeeper::Resumed
            | FromKeeper::WorkerStarted { .. }
            | FromKeeper::WorkerNotStarted { .. }
            | FromKeeper::WorkerEnded { .. } => return,
        };
        self.outlet.event(event);
    }
}
