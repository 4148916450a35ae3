//! Sessions between fleetpool's parts: carriers and identities.
