//! The fleetpool coordinator: sessions, registry and timers around the scheduler.
