//! Brings fleetpool agents up on hosts.
