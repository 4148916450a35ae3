//! The pool as programs use it: a real embedded cluster, real workers. Workers are this very program, so it has a
//! `main` of its own.

#![expect(clippy::print_stdout, reason = "a test harness prints")]

mod calls;
mod runner;

fn main() {
    fleetpool::init();
    runner::run(&[calls::TESTS]);
}
