//! Tags in front of lines: which task, or which host, wrote this.

use std::sync::Arc;

use fleetpool_proto::message::Stream;

use crate::run::ended::Task;

/// What stands in front of each line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum TagStyle {
    /// Nothing.
    #[default]
    None,
    /// The inputs and a tab, as GNU parallel does; a last line without a newline stays without.
    Inputs,
    /// `host: `; every line ends with a newline, so that none runs into the next host's.
    Host,
}

impl TagStyle {
    /// The tag of a task's lines.
    pub(crate) fn tagger(self, task: &Task, host: &str) -> Tagger {
        let tag = match self {
            Self::None => None,
            Self::Inputs => Some([task.values.join(&b' '), b"\t".to_vec()].concat()),
            Self::Host => Some(format!("{host}: ").into_bytes()),
        };
        Tagger {
            tag: tag.map(Arc::from),
            ends_lines: self == Self::Host,
            in_line: [false; 2],
        }
    }
}

/// Puts a tag in front of the lines of one task.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tagger {
    tag: Option<Arc<[u8]>>,
    ends_lines: bool,
    /// Whether a line of stdout, or of stderr, has been begun.
    in_line: [bool; 2],
}

impl Tagger {
    /// `bytes` with a tag wherever a line begins.
    pub(crate) fn tag(&mut self, stream: Stream, bytes: Vec<u8>) -> Vec<u8> {
        let Some(tag) = &self.tag else {
            return bytes;
        };
        let in_line = &mut self.in_line[slot(stream)];
        let mut tagged = Vec::with_capacity(bytes.len() + tag.len());
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            if !*in_line {
                tagged.extend_from_slice(tag);
            }
            tagged.extend_from_slice(line);
            *in_line = !line.ends_with(b"\n");
        }
        tagged
    }

    /// What is missing at the end of a stream.
    pub(crate) fn end(&mut self, stream: Stream) -> &'static [u8] {
        let unfinished = std::mem::take(&mut self.in_line[slot(stream)]);
        if unfinished && self.ends_lines {
            b"\n"
        } else {
            b""
        }
    }
}

/// A stream's place in an array of two.
pub(crate) fn slot(stream: Stream) -> usize {
    match stream {
        Stream::Stdout => 0,
        Stream::Stderr => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::ended::tests::task;

    fn check(style: TagStyle, chunks: &[&str], expect: &str) {
        let mut tagger = style.tagger(&task(1, "a b"), "web1");
        let mut all = Vec::new();
        for chunk in chunks {
            all.extend(tagger.tag(Stream::Stdout, chunk.as_bytes().to_vec()));
        }
        all.extend_from_slice(tagger.end(Stream::Stdout));
        assert_eq!(String::from_utf8(all).unwrap(), expect);
    }

    #[test]
    fn each_line_is_tagged_once() {
        check(TagStyle::None, &["x\ny"], "x\ny");
        check(TagStyle::Inputs, &["x\ny\n"], "a b\tx\na b\ty\n");
        check(TagStyle::Inputs, &["x\ny"], "a b\tx\na b\ty");
        check(TagStyle::Host, &["x\n\ny"], "web1: x\nweb1: \nweb1: y\n");
        check(TagStyle::Host, &["x", "y\nz\n"], "web1: xy\nweb1: z\n");
        check(TagStyle::Host, &[], "");
    }
}
