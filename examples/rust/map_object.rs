//! `map` of a function that an object holds. Functions travel by name and arguments by value, so the object goes along
//! with each call as an argument: here it is two words.

#![expect(clippy::print_stdout, reason = "an example shows what happens")]

use serde::{Deserialize, Serialize};

/// Writes log lines in one style.
#[derive(Clone, Serialize, Deserialize)]
struct CreateLogger {
    name: String,
    level: String,
}

impl CreateLogger {
    fn line(&self, message: &str) -> String {
        format!("{} {}: {message}", self.level, self.name)
    }

    /// Runs `line` for each message in a pool of processes.
    fn lines(
        &self,
        pool: &fleetpool::Pool,
        messages: &[&str],
    ) -> Result<Vec<String>, fleetpool::Error> {
        let calls = messages
            .iter()
            .map(|message| (self.clone(), (*message).to_owned()));
        pool.starmap(log_line, calls)
    }
}

#[fleetpool::task]
fn log_line(logger: CreateLogger, message: String) -> String {
    logger.line(&message)
}

fn main() -> Result<(), fleetpool::Error> {
    fleetpool::init();
    let pool = fleetpool::Pool::builder().processes(2).build()?;
    let logger = CreateLogger {
        name: "fleet".to_owned(),
        level: "INFO".to_owned(),
    };
    for line in logger.lines(&pool, &["one", "two", "three"])? {
        println!("{line}");
    }
    pool.close();
    pool.join()
}
