//! Who may depend on whom, and what the pure crates may name: the `Architecture Invariant:` lines of
//! `ARCHITECTURE.md` that a machine can check.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

/// Every crate of the house and the crates of the house that it may use, tests aside. One way only:
/// proto ← net and cores ← shells ← client ← cli.
const LAYERS: &[(&str, &[&str])] = &[
    ("fleetpool-proto", &[]),
    ("fleetpool-coordinator-core", &["fleetpool-proto"]),
    ("fleetpool-agent-core", &["fleetpool-proto"]),
    ("fleetpool-net", &["fleetpool-proto"]),
    (
        "fleetpool-coordinator",
        &[
            "fleetpool-coordinator-core",
            "fleetpool-net",
            "fleetpool-proto",
        ],
    ),
    (
        "fleetpool-agent",
        &["fleetpool-agent-core", "fleetpool-net", "fleetpool-proto"],
    ),
    ("fleetpool-macros", &[]),
    ("fleetpool-deploy", &[]),
    (
        "fleetpool",
        &[
            "fleetpool-agent",
            "fleetpool-coordinator",
            "fleetpool-deploy",
            "fleetpool-macros",
            "fleetpool-net",
            "fleetpool-proto",
        ],
    ),
    (
        "fleetpool-cli",
        &[
            "fleetpool",
            "fleetpool-agent",
            "fleetpool-coordinator",
            "fleetpool-deploy",
            "fleetpool-net",
            "fleetpool-proto",
        ],
    ),
    ("fleetpool-python", &["fleetpool", "fleetpool-proto"]),
    ("fleetpool-test-fleet", &[]),
    (
        "fleetpool-fuzz",
        &[
            "fleetpool-agent-core",
            "fleetpool-coordinator-core",
            "fleetpool-net",
            "fleetpool-proto",
        ],
    ),
];

/// Crates that see everything and that nobody may depend on.
const ON_TOP: &[&str] = &["fleetpool-cli", "fleetpool-tests"];

/// Crates that decide and do nothing, with their sources.
const PURE: &[(&str, &str)] = &[
    ("fleetpool-proto", "proto/src"),
    ("fleetpool-coordinator-core", "coordinator/core/src"),
    ("fleetpool-agent-core", "agent/core/src"),
];

/// All that a pure crate may pull in from outside: data and its encoding.
const PURE_MAY_USE: &[&str] = &[
    "bytes",
    "num-traits",
    "rmp",
    "rmp-serde",
    "serde",
    "serde_bytes",
    "serde_core",
    "serde_derive",
    "thiserror",
    "thiserror-impl",
    // What derives are made of: gone when the compiler has run.
    "autocfg",
    "proc-macro2",
    "quote",
    "syn",
    "unicode-ident",
];

/// What no pure crate may name, with what to do instead.
const PURE_MAY_NOT_NAME: &[(&str, &str)] = &[
    ("Instant", "take a Timestamp"),
    ("SystemTime", "take a Timestamp"),
    ("thread", "one owner calls it"),
    ("HashMap", "BTreeMap: its order is the same in every run"),
    ("HashSet", "BTreeSet: its order is the same in every run"),
    ("async", "return an action"),
    ("await", "return an action"),
    ("tokio", "return an action"),
    ("rand", "take the number as an argument"),
    ("File", "return an action"),
    ("TcpStream", "return an action"),
    ("UdpSocket", "return an action"),
    ("Mutex", "one owner has it"),
    ("println", "return an action, or let the shell log"),
    ("eprintln", "return an action, or let the shell log"),
];

/// Crates that would be a second way to do what is done already; `deny.toml` says the same to cargo-deny.
const BANNED: &[&str] = &[
    "aws-lc-rs",
    "aws-lc-sys",
    "bincode",
    "native-tls",
    "openssl",
    "openssl-sys",
    "russh",
    "rustls-pemfile",
];

/// The files that may hold `unsafe`.
const UNSAFE_LIVES_IN: &[&str] = &[
    // System calls without a safe wrapper: fork, and what a process does before it is one of ours.
    "agent/src/spawner/sys.rs",
    // The socket that a worker inherits is a number in its environment.
    "client/src/worker/inherit.rs",
    // Large Python objects are made before they are filled.
    "python/src/memory.rs",
];

/// The files where a lint is allowed, since nobody can know whether it will fire: what they write becomes part of other
/// people's code.
const ALLOW_LIVES_IN: &[&str] = &["client/macros/src/expand.rs"];

#[test]
fn dependencies_point_one_way() {
    let allowed: BTreeMap<_, _> = LAYERS.iter().copied().collect();
    let mut wrong = Vec::new();
    for package in workspace_packages() {
        if package.name == "fleetpool-tests" {
            continue;
        }
        let Some(may_use) = allowed.get(package.name.as_str()) else {
            wrong.push(format!("{}: give it a place in LAYERS", package.name));
            continue;
        };
        for dependency in package
            .uses
            .iter()
            .filter(|name| allowed.contains_key(name.as_str()) || on_top(name))
        {
            if !may_use.contains(&dependency.as_str()) || on_top(dependency) {
                wrong.push(format!("{} may not depend on {dependency}", package.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn pure_crates_pull_in_data_and_encoding_alone() {
    let mut wrong = Vec::new();
    for (name, _) in PURE {
        for dependency in transitive_dependencies(name) {
            let ours = PURE.iter().any(|(pure, _)| *pure == dependency);
            if !ours && !PURE_MAY_USE.contains(&dependency.as_str()) {
                wrong.push(format!("{name} pulls in {dependency}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn pure_crates_name_no_clock_no_thread_and_no_io() {
    let mut wrong = Vec::new();
    for (_, folder) in PURE {
        for file in rust_files(&root().join(folder)) {
            for (number, line) in numbered_code(&file) {
                for (word, instead) in PURE_MAY_NOT_NAME {
                    if names(&line, word) {
                        wrong.push(format!("{}:{number}: {word}: {instead}", shown(&file)));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn unsafe_code_lives_where_it_is_listed() {
    let mut wrong = Vec::new();
    for file in house_files() {
        let path = shown(&file);
        let may = UNSAFE_LIVES_IN.contains(&path.as_str());
        for (number, line) in numbered_code(&file) {
            if !may && names(&line, "unsafe") {
                wrong.push(format!("{path}:{number}: unsafe"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn lints_are_expected_with_a_reason_and_not_allowed() {
    let mut wrong = Vec::new();
    // Tests share modules of which each uses a part.
    let is_test = |path: &str| path.contains("/tests/");
    for file in house_files() {
        let path = shown(&file);
        if is_test(&path) || ALLOW_LIVES_IN.contains(&path.as_str()) {
            continue;
        }
        for (number, line) in numbered_code(&file) {
            if line.contains("#[allow(") || line.contains("#![allow(") {
                wrong.push(format!("{path}:{number}: use #[expect(…, reason = \"…\")]"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn there_is_one_crypto_provider_and_one_encoding() {
    let lock = std::fs::read_to_string(root().join("Cargo.lock")).expect("Cargo.lock is there");
    let wrong: Vec<_> = BANNED
        .iter()
        .filter(|name| {
            lock.lines()
                .any(|line| line == format!("name = \"{name}\""))
        })
        .collect();
    assert!(wrong.is_empty(), "banned, see deny.toml: {wrong:?}");
}

struct Package {
    name: String,
    /// What it depends on when it is built or used; tests' own dependencies left out.
    uses: BTreeSet<String>,
}

fn workspace_packages() -> Vec<Package> {
    let text = cargo(&[
        "metadata",
        "--format-version",
        "1",
        "--no-deps",
        "--locked",
        "--offline",
    ]);
    let metadata: Value = serde_json::from_str(&text).expect("cargo metadata prints JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    packages.iter().map(package).collect()
}

fn package(value: &Value) -> Package {
    let dependencies = value["dependencies"].as_array().expect("dependencies");
    let uses = dependencies
        .iter()
        .filter(|dependency| dependency["kind"] != "dev")
        .map(|dependency| text(&dependency["name"]))
        .collect();
    Package {
        name: text(&value["name"]),
        uses,
    }
}

fn transitive_dependencies(package: &str) -> BTreeSet<String> {
    let tree = [
        "tree",
        "--locked",
        "--offline",
        "--edges",
        "normal",
        "--prefix",
        "none",
        "--format",
        "{p}",
    ];
    cargo(&[&tree[..], &["--package", package]].concat())
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect()
}

fn cargo(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO"))
        .args(arguments)
        .current_dir(root())
        .output()
        .expect("cargo starts");
    assert!(
        output.status.success(),
        "cargo {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("cargo prints UTF-8")
}

fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().expect("tests/ is in the house").to_owned()
}

fn shown(file: &Path) -> String {
    file.strip_prefix(root())
        .unwrap_or(file)
        .display()
        .to_string()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn on_top(name: &str) -> bool {
    ON_TOP.contains(&name)
}

/// The Rust files of every crate, this one aside: it names what it forbids.
fn house_files() -> Vec<PathBuf> {
    let folders = [
        "proto",
        "coordinator",
        "agent",
        "client",
        "cli",
        "deploy",
        "tests/src",
        "tests/fleet/src",
        "tests/fuzz/src",
        "examples",
    ];
    let files = folders
        .iter()
        .flat_map(|folder| rust_files(&root().join(folder)));
    files.collect()
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else {
            continue;
        };
        for path in entries.map(|entry| entry.expect("readable folder").path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

/// Lines of code with their numbers: no comments, nothing inside string literals, nothing from the file's
/// `#[cfg(test)]` on, which stands last in every file.
fn numbered_code(file: &Path) -> Vec<(usize, String)> {
    let source = std::fs::read_to_string(file).expect("readable source");
    source
        .lines()
        .take_while(|line| line.trim() != "#[cfg(test)]")
        .enumerate()
        .map(|(number, line)| (number + 1, without_comment_and_strings(line)))
        .collect()
}

fn without_comment_and_strings(line: &str) -> String {
    let line = line.split("//").next().unwrap_or_default();
    line.split('"').step_by(2).collect::<Vec<_>>().join("\"\"")
}

/// Whether `word` stands in `line` as a whole identifier.
fn names(line: &str, word: &str) -> bool {
    line.split(|character: char| !character.is_alphanumeric() && character != '_')
        .any(|token| token == word)
}
