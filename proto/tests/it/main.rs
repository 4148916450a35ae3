//! The wire, byte by byte: golden files, skew between versions, and bytes that nobody meant. Also the language of
//! selectors (`selector.rs`), which people write.
//!
//! # Adding a version of the protocol
//!
//! What may change without one: a new field of a struct that has `#[serde(default)]`, a new column of a `rows!`
//! table, a new field with its own default in a variant. Older peers ignore them, newer ones fill them in.
//! A new variant, or anything that changes what is there, needs a version, because older peers cannot read it:
//!
//! 1. Raise `PROTOCOL` by one and `PROTOCOL_MIN` to the version before (`src/version.rs`). The shells send what is
//!    new only to peers that were welcomed to it.
//! 2. Copy `tests/golden/vN` to `tests/golden/vN+1`; delete the folders of versions below `PROTOCOL_MIN`. The old
//!    folder stays as it is: it is what peers of that version send.
//! 3. Add the new messages to `samples.rs` (the compiler and `covers!` say which are missing) and write the new
//!    golden files: `UPDATE_GOLDEN=1 cargo test -p fleetpool-proto`. The diff of the files is the change of the
//!    wire: nothing else may show in it.
//! 4. Note the version in CHANGELOG.md.
//!
//! A golden file that differs without a new version is a bug that would part a fleet in two during its upgrade.

mod decoders;
mod golden;
mod payloads;
mod roles;
mod samples;
mod selector;
mod selector_groups;
mod selector_names;
mod skew;
