//! Quoting for a POSIX shell.

/// `value` as one word of a shell's line.
pub(crate) fn word(value: &[u8]) -> Vec<u8> {
    if !value.is_empty() && value.iter().all(is_plain) {
        return value.to_vec();
    }
    let mut quoted = vec![b'\''];
    quoted.extend(inside_single(value));
    quoted.push(b'\'');
    quoted
}

/// `value` for a place between single quotes.
pub(super) fn inside_single(value: &[u8]) -> Vec<u8> {
    let parts: Vec<&[u8]> = value.split(|byte| *byte == b'\'').collect();
    parts.join(&b"'\\''"[..])
}

/// `value` for a place between double quotes.
pub(super) fn inside_double(value: &[u8]) -> Vec<u8> {
    let escape = |byte: &u8| match byte {
        b'\\' | b'$' | b'"' | b'`' => vec![b'\\', *byte],
        _ => vec![*byte],
    };
    value.iter().flat_map(escape).collect()
}

/// `words` as a line that a shell takes apart into the same words.
pub(crate) fn join<'a>(words: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let quoted: Vec<_> = words.into_iter().map(word).collect();
    quoted.join(&b' ')
}

/// Bytes that mean nothing to any shell, wherever they stand in a word.
fn is_plain(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_-./:@%+,".contains(byte)
}

#[cfg(test)]
mod tests {
    use std::{os::unix::ffi::OsStrExt as _, process::Command};

    use proptest::prelude::*;

    use super::*;

    /// What `sh` makes of `line`: the words, each ended by NUL.
    fn through_sh(line: &[u8]) -> Vec<u8> {
        let mut script = b"printf '%s\\0' ".to_vec();
        script.extend_from_slice(line);
        let sh = Command::new("sh")
            .arg("-c")
            .arg(std::ffi::OsStr::from_bytes(&script))
            .output()
            .unwrap();
        assert!(sh.status.success(), "{}", String::from_utf8_lossy(&script));
        sh.stdout
    }

    #[test]
    fn plain_words_stay_as_they_are() {
        let check =
            |value: &str, expect: &str| assert_eq!(word(value.as_bytes()), expect.as_bytes());
        check("a-b_c./:@%+,9", "a-b_c./:@%+,9");
        check("", "''");
        check("a b", "'a b'");
        check("it's", r"'it'\''s'");
        check("$x", "'$x'");
        check("~", "'~'");
        check("A=1", "'A=1'");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        #[test]
        fn a_shell_gives_back_what_was_quoted(values in prop::collection::vec("[^\0]{0,12}", 1..4)) {
            let line = join(values.iter().map(|value| value.as_bytes()));
            let expect: Vec<u8> = values.iter().flat_map(|value| [value.as_bytes(), b"\0"].concat()).collect();
            prop_assert_eq!(through_sh(&line), expect);
        }

        #[test]
        fn so_it_does_between_quotes(value in "[^\0]{0,12}") {
            let expect = [b"a", value.as_bytes(), b"b\0"].concat();
            let single = [b"'a", &inside_single(value.as_bytes())[..], b"b'"].concat();
            prop_assert_eq!(through_sh(&single), expect.clone());
            let double = [b"\"a", &inside_double(value.as_bytes())[..], b"b\""].concat();
            prop_assert_eq!(through_sh(&double), expect);
        }
    }
}
