//! A worker of the `command` runtime: its keeper.

use fleetpool_agent_core::{EndedTask, Event, WorkerEnd};
use fleetpool_proto::{DecodeError, SlotNo};
use tokio::sync::mpsc;

use super::{Order, Printed, Shared, Start, outlet::Outlet};
use crate::{
    keeper::message::{FromKeeper, ToKeeper, one, only},
    wire::{self, Incoming, Outgoing},
};

/// Is the worker from its start until it and everything below it are gone, and has told so.
pub(crate) async fn run(start: Start, shared: Shared, orders: mpsc::UnboundedReceiver<Order>) {
    let (slot, generation) = (start.slot, start.generation);
    let mut outlet = Outlet::new(&shared, &start.room);
    let reason = match super::keeper(&shared, start.fence.as_ref(), &[])
        .await
        .and_then(wire::split)
    {
        Ok((incoming, outgoing)) => {
            let command = Command {
                slot,
                generation,
                pid: 0,
                incoming,
                outgoing,
                outlet,
                orders,
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
            Order::Define(spec, mut body) => {
                let payloads = one(std::mem::take(&mut body.stdin));
                self.outgoing.put(ToKeeper::Define {
                    spec,
                    body,
                    payloads,
                });
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
        }
    }

    fn hear(&mut self) -> Result<(), DecodeError> {
        while let Some(message) = self.incoming.take()? {
            self.on_message(message);
        }
        Ok(())
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
            FromKeeper::GivenBack { attempts } => Event::GivenBack {
                slot,
                generation,
                attempts,
            },
            // Of workers, whose keepers are another's.
            FromKeeper::WorkerStarted { .. }
            | FromKeeper::WorkerNotStarted { .. }
            | FromKeeper::WorkerEnded { .. } => return,
        };
        self.outlet.event(event);
    }
}
