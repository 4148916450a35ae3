//! Large results, taken slowly by a client that keeps none.

use std::{
    io::{self, Write as _},
    path::Path,
    thread::sleep,
    time::Duration,
};

use fleetpool::Pool;
use serde_bytes::ByteBuf;

/// After each result, the client does something else for so long.
const PAUSE: Duration = Duration::from_millis(50);

/// So many bytes that say whose they are.
#[fleetpool::task]
fn many(number: u64, bytes: usize) -> ByteBuf {
    ByteBuf::from(vec![mark(number); bytes])
}

fn mark(number: u64) -> u8 {
    number.to_le_bytes()[0]
}

/// Takes so many results of so many bytes. Says a line when the first worker is there, and one at the first result; after
/// each of them it waits to be told to go on.
///
/// # Errors
/// When a result is not what it should be, or none comes.
pub fn run(results: u64, bytes: usize, cluster: &str, identity: &Path) -> Result<(), String> {
    let pool = Pool::builder().cluster(cluster).identity(identity).build();
    let pool = pool.map_err(|error| error.to_string())?;
    pool.apply(many, (0, 1))
        .map_err(|error| error.to_string())?;
    wait("ready")?;
    let mut left = results;
    for result in pool.imap(many, (0..results).map(|number| (number, bytes))) {
        let result = result.map_err(|error| error.to_string())?;
        let number = results - left;
        let is_whole = result.len() == bytes && result.iter().all(|&byte| byte == mark(number));
        if !is_whole {
            return Err(format!("result {number} is not what was sent"));
        }
        left -= 1;
        drop(result);
        match number {
            0 => wait("begun")?,
            _ => sleep(PAUSE),
        }
    }
    match left {
        0 => Ok(()),
        left => Err(format!("{left} of {results} results did not come")),
    }
}

fn wait(word: &str) -> Result<(), String> {
    let said = writeln!(io::stdout(), "{word}");
    let heard = said.and_then(|()| io::stdin().read_line(&mut String::new()));
    heard.map(drop).map_err(|error| error.to_string())
}
