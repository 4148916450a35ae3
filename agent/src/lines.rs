//! Output cut into whole lines.

use bytes::{Bytes, BytesMut};
use fleetpool_proto::limits::OUTPUT_LINE_BYTES_MAX;

/// One stream's bytes on their way to becoming lines. Holds less than one line.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    rest: BytesMut,
}

impl Lines {
    /// Takes bytes in, and gives out what is whole: pieces of at most [`OUTPUT_LINE_BYTES_MAX`] that end with a
    /// line's end, except within a line that is longer than that.
    pub(crate) fn push(&mut self, bytes: &[u8], mut emit: impl FnMut(Bytes)) {
        self.rest.extend_from_slice(bytes);
        while let Some(len) = self.piece_len() {
            emit(self.rest.split_to(len).freeze());
        }
    }

    /// What is left of a line without an end, now that no more will come.
    pub(crate) fn finish(&mut self) -> Option<Bytes> {
        let rest = std::mem::take(&mut self.rest);
        (!rest.is_empty()).then(|| rest.freeze())
    }

    fn piece_len(&self) -> Option<usize> {
        let window = &self.rest[..self.rest.len().min(OUTPUT_LINE_BYTES_MAX)];
        match window.iter().rposition(|&byte| byte == b'\n') {
            Some(end) => Some(end + 1),
            None => (window.len() == OUTPUT_LINE_BYTES_MAX).then_some(window.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pushed: &[&[u8]], pieces: &[&[u8]]) {
        let mut lines = Lines::default();
        let mut got = Vec::new();
        for bytes in pushed {
            lines.push(bytes, |piece| got.push(piece));
        }
        got.extend(lines.finish());
        assert_eq!(got, pieces);
    }

    #[test]
    fn lines_leave_whole() {
        check(&[b"a\nb", b"c\nd\n", b"e"], &[b"a\n", b"bc\nd\n", b"e"]);
        check(&[b"", b"\n\0\xff\n"], &[b"\n\0\xff\n"]);
        check(&[], &[]);
    }

    #[test]
    fn an_overlong_line_leaves_in_pieces() {
        let long = vec![b'x'; OUTPUT_LINE_BYTES_MAX];
        check(&[&long, b"y\n"], &[&long, b"y\n"]);
    }

    #[test]
    fn many_lines_leave_in_pieces_that_end_with_a_line() {
        let line = [b'x'; 999].into_iter().chain([b'\n']).collect::<Vec<u8>>();
        let mut lines = Lines::default();
        let mut got = Vec::new();
        lines.push(&line.repeat(200), |piece| got.push(piece));
        assert_eq!(got.concat(), line.repeat(200));
        assert!(
            got.iter()
                .all(|piece| piece.ends_with(b"\n") && piece.len() <= OUTPUT_LINE_BYTES_MAX)
        );
    }
}
