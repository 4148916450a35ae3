//! What `{.} {/} {//} {/.}` make of a value: exactly what GNU parallel makes of it.

use super::Edit;

/// The part of `value` that `edit` names.
pub(super) fn edit(value: &[u8], edit: Edit) -> &[u8] {
    match edit {
        Edit::Whole => value,
        Edit::NoExtension => without_extension(value),
        Edit::Base => base(value),
        Edit::Folder => folder(value),
        Edit::BaseNoExtension => without_extension(base(value)),
    }
}

/// Without the last `.` and what follows it in the last component; a dotfile is all extension.
fn without_extension(value: &[u8]) -> &[u8] {
    match value.iter().rposition(|byte| matches!(byte, b'.' | b'/')) {
        Some(at) if value[at] == b'.' => &value[..at],
        _ => value,
    }
}

fn base(value: &[u8]) -> &[u8] {
    match value.iter().rposition(|byte| *byte == b'/') {
        Some(at) => &value[at + 1..],
        None => value,
    }
}

/// As dirname(1): trailing slashes belong to the last component.
fn folder(value: &[u8]) -> &[u8] {
    let component = trim_slashes(value);
    match component.iter().rposition(|byte| *byte == b'/') {
        _ if component.is_empty() && !value.is_empty() => b"/",
        None => b".",
        Some(at) => match trim_slashes(&component[..at]) {
            b"" => b"/",
            folder => folder,
        },
    }
}

fn trim_slashes(value: &[u8]) -> &[u8] {
    let end = value
        .iter()
        .rposition(|byte| *byte != b'/')
        .map_or(0, |at| at + 1);
    &value[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `{.} {/} {//} {/.}` of a value, as GNU parallel 20221122 printed them.
    fn check(value: &str, expect: [&str; 4]) {
        let edits = [
            Edit::NoExtension,
            Edit::Base,
            Edit::Folder,
            Edit::BaseNoExtension,
        ];
        let got = edits.map(|kind| std::str::from_utf8(edit(value.as_bytes(), kind)).unwrap());
        assert_eq!(got, expect, "{value:?}");
    }

    #[test]
    fn paths_come_apart_as_in_gnu_parallel() {
        check(".bashrc", ["", ".bashrc", ".", ""]);
        check("a/.x", ["a/", ".x", "a", ""]);
        check("a.tar.gz", ["a.tar", "a.tar.gz", ".", "a.tar"]);
        check("/a/b.c/d", ["/a/b.c/d", "d", "/a/b.c", "d"]);
        check("a/", ["a/", "", ".", ""]);
        check("/", ["/", "", "/", ""]);
        check("", ["", "", ".", ""]);
        check("a b.txt", ["a b", "a b.txt", ".", "a b"]);
        check("./x.y", ["./x", "x.y", ".", "x"]);
        check("a.", ["a", "a.", ".", "a"]);
        check("..", [".", "..", ".", "."]);
        check("a/..", ["a/.", "..", "a", "."]);
        check("/x", ["/x", "x", "/", "x"]);
        check("a//b.c", ["a//b", "b.c", "a", "b"]);
    }
}
