//! What the documents point at is there: tests that are named as evidence, and files that are linked.

use std::{
    fs,
    path::{Path, PathBuf},
};

#[test]
fn every_test_that_guarantees_name_exists() {
    let document = read("docs/guarantees.md");
    let paragraphs = document.split("\n\n");
    let named = exist(paragraphs.filter(|text| text.starts_with("Shown by ")));
    assert!(named > 30, "only {named} tests are named");
}

#[test]
fn every_test_that_faults_name_exists() {
    let document = read("docs/faults.md");
    let rows = document.lines().filter(|line| line.starts_with("| "));
    // The third cell says what shows it.
    let named = exist(rows.filter_map(|row| row.split('|').nth(3)));
    assert!(named > 10, "only {named} tests are named");
}

/// That tests named behind their file's name exist: how many there are.
fn exist<'t>(texts: impl Iterator<Item = &'t str>) -> usize {
    let mut wrong = Vec::new();
    let mut named = 0;
    for paragraph in texts {
        let mut file = String::new();
        for word in paragraph.split('`').skip(1).step_by(2) {
            if word.ends_with(".rs") || word.ends_with(".py") {
                file = read(word);
            } else {
                named += 1;
                if !["fn ", "def "]
                    .iter()
                    .any(|kind| file.contains(&format!("{kind}{word}(")))
                {
                    wrong.push(word.to_owned());
                }
            }
        }
    }
    assert!(wrong.is_empty(), "no such test: {wrong:#?}");
    named
}

#[test]
fn every_link_leads_to_a_file() {
    let mut wrong = Vec::new();
    for document in documents() {
        let text = fs::read_to_string(&document).expect("readable");
        let folder = document.parent().expect("a folder");
        for target in links(&text) {
            let file = target.split('#').next().unwrap_or_default();
            if !file.is_empty() && !folder.join(file).exists() {
                wrong.push(format!("{}: {target}", document.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_source_that_the_architecture_names_exists() {
    let text = read("ARCHITECTURE.md");
    let whole = |word: &&str| word.contains('/') && word.ends_with(".rs");
    let named: Vec<&str> = text.split('`').skip(1).step_by(2).filter(whole).collect();
    let found = |path: &str| {
        [
            "",
            "proto/net/src",
            "coordinator/src",
            "agent/src",
            "client/src",
            "proto/src",
        ]
        .iter()
        .any(|folder| root().join(folder).join(path).exists())
    };
    let wrong: Vec<_> = named.iter().filter(|path| !found(path)).collect();
    assert!(!named.is_empty() && wrong.is_empty(), "{wrong:#?}");
}

/// Where Markdown's `[text](target)` leads within the house.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let targets = text
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next());
    targets.filter(|target| !target.starts_with("http") && !target.contains(' '))
}

fn documents() -> Vec<PathBuf> {
    let folders = ["", "docs", "examples"].map(|folder| root().join(folder));
    let entries = folders
        .iter()
        .flat_map(|folder| fs::read_dir(folder).expect("a folder"));
    let paths = entries.map(|entry| entry.expect("readable").path());
    paths
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .collect()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().expect("tests/ is in the house").to_owned()
}
