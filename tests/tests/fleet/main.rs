//! fleetpool on real hosts, each with an sshd and files of its own, in networks that fail as networks do.

mod adhoc;
mod carriers;
mod cluster;
mod deploy;
mod exec;
mod passing;
mod slurm;
mod support;
