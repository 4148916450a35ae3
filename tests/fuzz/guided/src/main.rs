//! A decoder of the house under libFuzzer: `FLEETPOOL_FUZZ=hello fleetpool-fuzz-guided CORPUS`. With `FLEETPOOL_FUZZ_SEEDS=FOLDER`
//! it writes the seeds there, one a file, and ends.
#![no_main]

use std::{env, fs, process::exit, sync::OnceLock};

use fleetpool_fuzz::{TARGETS, Target};
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: chosen(), |bytes: &[u8]| {
    (chosen().run)(bytes);
});

/// The target that was asked for.
fn chosen() -> &'static Target {
    static CHOSEN: OnceLock<&Target> = OnceLock::new();
    CHOSEN.get_or_init(|| {
        let name = env::var("FLEETPOOL_FUZZ").unwrap_or_default();
        let Some(target) = TARGETS.iter().find(|target| target.name == name) else {
            let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
            eprintln!("FLEETPOOL_FUZZ is one of: {}", names.join(" "));
            exit(2);
        };
        if let Some(folder) = env::var_os("FLEETPOOL_FUZZ_SEEDS") {
            for (number, seed) in (target.seeds)().iter().enumerate() {
                let file = std::path::Path::new(&folder).join(format!("seed{number}"));
                fs::write(file, seed).expect("a folder to write to");
            }
            exit(0);
        }
        target
    })
}
