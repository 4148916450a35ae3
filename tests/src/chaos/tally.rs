//! Many small tasks, each of which is counted where it runs and where its result comes.

use std::{
    fs::File,
    io::{self, Write as _},
    path::Path,
    sync::OnceLock,
};

use fleetpool::Pool;

/// How often the client says how far it is.
const TOLD_EVERY: u64 = 1000;

/// Adds a byte to a file, so that its length tells how often this ran.
#[fleetpool::task]
fn count(path: String, number: u64) -> u64 {
    static FILE: OnceLock<File> = OnceLock::new();
    let open = || {
        let file = File::options().create(true).append(true).open(path);
        file.expect("the folder is writable")
    };
    let mut file = FILE.get_or_init(open);
    file.write_all(b".").expect("it is written");
    number
}

/// Runs so many tasks, and says every thousand results how many have come. What ran is counted in `ran` in the folder.
///
/// # Errors
/// When a result comes twice, or none comes.
pub fn run(folder: &Path, tasks: u64, cluster: &str, identity: &Path) -> Result<(), String> {
    let pool = Pool::builder().cluster(cluster).identity(identity).build();
    let pool = pool.map_err(|error| error.to_string())?;
    let path = folder.join("ran").to_string_lossy().into_owned();
    let inputs = (0..tasks).map(|number| (path.clone(), number));
    let mut seen = vec![false; usize::try_from(tasks).map_err(|error| error.to_string())?];
    let mut results: u64 = 0;
    for result in pool.imap_unordered(count, inputs) {
        let number = result.map_err(|error| error.to_string())?;
        let place = usize::try_from(number).ok().and_then(|at| seen.get_mut(at));
        let place = place.ok_or_else(|| format!("a result of {number}, which nobody asked for"))?;
        if std::mem::replace(place, true) {
            return Err(format!("two results of {number}"));
        }
        results += 1;
        if results.is_multiple_of(TOLD_EVERY) {
            writeln!(io::stdout(), "{results}").map_err(|error| error.to_string())?;
        }
    }
    if results < tasks {
        return Err(format!("{results} results of {tasks} tasks"));
    }
    pool.close();
    pool.join().map_err(|error| error.to_string())
}
