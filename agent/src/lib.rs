//! The fleetpool agent: link, spawner, keepers, workers and output around its core.
