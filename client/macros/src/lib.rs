//! The #[fleetpool::task] attribute.
