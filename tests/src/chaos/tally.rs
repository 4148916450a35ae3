//! Many small tasks, each of which is counted where it runs and where its result comes.

use std::{
    fs::File,
    io::{self, Write as _},
    path::Path,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread::sleep,
    time::Duration,
};

use fleetpool::Pool;

/// How often the client says how far it is.
const TOLD_EVERY: u64 = 1000;
/// Between two looks whether the first task is still held.
const PAUSE: Duration = Duration::from_millis(10);

/// Adds a byte to a file, so that its length tells how often this ran. The first one goes on while there is a file `hold`
/// beside it.
#[fleetpool::task]
fn count(path: String, number: u64) -> u64 {
    let hold = Path::new(&path).with_file_name("hold");
    while number == 0 && hold.exists() {
        sleep(PAUSE);
    }
    static FILE: OnceLock<File> = OnceLock::new();
    let open = || {
        let file = File::options().create(true).append(true).open(path);
        file.expect("the folder is writable")
    };
    let mut file = FILE.get_or_init(open);
    file.write_all(b".").expect("it is written");
    number
}

/// Runs so many tasks, or fewer when there is a file `enough` in the folder, and says every thousand results how many have
/// come, and how many it was in all. What ran is counted in `ran` in the folder, on each host.
///
/// # Errors
/// When a result comes twice, or none comes.
pub fn run(folder: &Path, tasks: u64, cluster: &str, identity: &Path) -> Result<(), String> {
    let pool = Pool::builder().cluster(cluster).identity(identity).build();
    let pool = pool.map_err(|error| error.to_string())?;
    let path = folder.join("ran").to_string_lossy().into_owned();
    let enough = folder.join("enough");
    let asked = Arc::new(AtomicU64::new(0));
    let asking = Arc::clone(&asked);
    let inputs = (0..tasks).take_while(move |_| !enough.exists());
    let inputs = inputs.map(move |number| {
        asking.fetch_add(1, Relaxed);
        (path.clone(), number)
    });
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
    let asked = asked.load(Relaxed);
    if results < asked {
        return Err(format!("{results} results of {asked} tasks"));
    }
    writeln!(io::stdout(), "{results}").map_err(|error| error.to_string())?;
    pool.close();
    pool.join().map_err(|error| error.to_string())
}
