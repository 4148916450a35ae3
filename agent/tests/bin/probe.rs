//! What the agent's tests start: a spawner, as any program of fleetpool can be.

fn main() {
    fleetpool_agent::spawner::run_if_asked();
    eprintln!("this program is for the agent's tests");
}
