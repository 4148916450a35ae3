//! Some thousand changed inputs for each decoder, the same in every run; and all that was ever found.

use std::{
    any::Any,
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    time::{Duration, Instant},
};

use fleetpool_fuzz::{Mutations, TARGETS, Target};

/// Longer than any decoder may take for a few KiB, on a busy machine.
const SLOW: Duration = Duration::from_secs(5);

/// Where inputs are kept that once did harm.
fn found(target: &Target) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("found")
        .join(target.name)
}

/// Gives the input to the decoder; shows it, as a file to keep, when that goes wrong.
fn try_one(target: &Target, input: &[u8]) {
    let start = Instant::now();
    let outcome = catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
    let why = match outcome {
        Err(panic) => words(&*panic),
        Ok(()) if start.elapsed() > SLOW => format!("it took {:?}", start.elapsed()),
        Ok(()) => return,
    };
    let file = std::env::temp_dir().join(format!("fleetpool-{}-found", target.name));
    fs::write(&file, input).expect("writable");
    panic!(
        "{}: {why}\nThe input is in {}: keep it as {}/NAME",
        target.name,
        file.display(),
        found(target).display()
    );
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_default()
}

#[test]
fn what_is_as_it_should_be_is_taken() {
    for target in TARGETS {
        let seeds = (target.seeds)();
        assert!(!seeds.is_empty(), "{}", target.name);
        seeds.iter().for_each(|seed| try_one(target, seed));
    }
}

#[test]
fn what_was_found_once_does_no_harm_again() {
    for target in TARGETS {
        let files = fs::read_dir(found(target)).into_iter().flatten();
        for file in files {
            let input = fs::read(file.expect("a name").path()).expect("a file");
            try_one(target, &input);
        }
    }
}

/// A test for each, so that they run side by side and a failure has a name.
macro_rules! changed {
    ($($name:ident)+) => {
        $(#[test]
        fn $name() {
            try_changed(stringify!($name));
        })+

        #[test]
        fn every_decoder_is_tried() {
            let tried = [$(stringify!($name)),+];
            let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
            assert_eq!(names, tried);
        }
    };
}

changed! {
    frame hello join certificate csr hello_reply from_agent to_agent from_client to_client to_worker from_worker
    python_worker keeper coordinator agent journal token address selector archive
}

fn try_changed(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name);
    let target = target.expect("a target of that name");
    let seeds = (target.seeds)();
    // For a longer look without libFuzzer.
    let times = std::env::var("FLEETPOOL_FUZZ_TIMES").ok();
    let times: usize = times.map_or(1, |times| times.parse().expect("a number"));
    for input in Mutations::of(&seeds, 0).take(target.tries as usize * times) {
        try_one(target, &input);
    }
}
