//! Archives, which hosts send back to whoever gets files from them.

use std::fs;

use crate::borrowed::archive::{pack, unpack};

/// Longer inputs tell nothing new, and each is unpacked.
const BYTES_MAX: usize = 64 << 10;

/// Whatever an archive says, nothing is written outside the folder that it is unpacked to.
pub(crate) fn archive(bytes: &[u8]) {
    if bytes.len() > BYTES_MAX {
        return;
    }
    let around = tempfile::tempdir().expect("a folder");
    fs::write(around.path().join("neighbour"), "untouched").expect("writable");
    unpack(bytes, &around.path().join("into"), true).ok();
    let mut names: Vec<_> = fs::read_dir(around.path())
        .expect("a folder")
        .map(|entry| entry.expect("a name").file_name())
        .collect();
    names.sort();
    assert!(names == ["into", "neighbour"], "{names:?}");
    let neighbour = fs::read_to_string(around.path().join("neighbour"));
    assert_eq!(neighbour.expect("it is there"), "untouched");
}

pub(crate) fn archives() -> Vec<Vec<u8>> {
    let from = tempfile::tempdir().expect("a folder");
    let at = |name: &str| from.path().join(name);
    fs::create_dir(at("site")).expect("writable");
    fs::write(at("site/page"), "hello").expect("writable");
    std::os::unix::fs::symlink("../neighbour", at("site/link")).expect("writable");
    fs::write(at("one"), "1").expect("writable");
    let packed = pack(Vec::new(), &[at("site"), at("one")]).expect("readable");
    let mut hostile = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    hostile.append_link(&mut header, "d", "..").expect("a link");
    let mut header = tar::Header::new_gnu();
    header.set_size(3);
    header.set_mode(0o4777);
    hostile
        .append_data(&mut header, "d/neighbour", &b"bad"[..])
        .expect("a file");
    vec![packed, hostile.into_inner().expect("memory")]
}
