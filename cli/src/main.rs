//! The `fleetpool` command.

fn main() {}
