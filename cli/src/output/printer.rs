//! Decides what is written next: a task's output when it has ended, in input order, or line by line as it comes.
//!
//! Output of two tasks is never mixed within a line, whichever the style: what is not a whole line yet waits.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
};

use fleetpool_proto::message::Stream;

use super::{
    gather::Gather,
    hold::{Held, Piece, Spool},
    record::Record,
    tag::{TagStyle, Tagger, slot},
};
use crate::run::ended::{Ended, Task};

/// When a task's output is written, and as what.
#[derive(Debug)]
pub(crate) enum Style {
    /// All of it when the task has ended.
    Grouped,
    /// Each line as it comes.
    Lines,
    /// A line of JSON a task.
    Json,
    /// Once for all hosts that printed the same.
    Gathered(Gather),
}

/// Holds what tasks print until it is due.
#[derive(Debug)]
pub(crate) struct Printer {
    style: Style,
    tags: TagStyle,
    /// Whether output must also be held for somebody else.
    keeps: bool,
    spool: Spool,
    running: BTreeMap<u64, Running>,
    order: Option<Order>,
    due: VecDeque<Block>,
    /// See [`Self::take_passing`].
    passing: bool,
}

/// A task that has printed something and has not ended.
#[derive(Debug, Default)]
struct Running {
    attempt: u32,
    held: Held,
    tagger: Tagger,
    /// The begun line of stdout, and of stderr.
    begun: [Held; 2],
    stdout_bytes: u64,
    /// There was no room for all of it to wait: it is written line by line as it comes.
    passes: bool,
}

/// Output that is written without anything between.
#[derive(Debug, Default)]
struct Block {
    tagger: Tagger,
    pieces: VecDeque<(Stream, Piece)>,
    ends: bool,
}

/// Blocks that wait for those of earlier inputs.
#[derive(Debug)]
struct Order {
    next: u64,
    waiting: BTreeMap<u64, Block>,
}

impl Printer {
    /// A printer; `ordered` writes tasks in the order of their inputs, `keeps` holds output for [`Self::record`].
    pub(crate) fn new(style: Style, tags: TagStyle, ordered: bool, keeps: bool) -> Self {
        Self {
            style,
            tags,
            keeps,
            spool: Spool::default(),
            running: BTreeMap::new(),
            order: ordered.then(|| Order {
                next: 1,
                waiting: BTreeMap::new(),
            }),
            due: VecDeque::new(),
            passing: false,
        }
    }

    /// A task printed something; tells whether it is the first of this attempt. What an earlier attempt printed is
    /// dropped, unless it is out already.
    ///
    /// # Errors
    /// When it must wait on disk, and the disk takes it not.
    pub(crate) fn output(
        &mut self,
        task: &Task,
        host: &str,
        attempt: u32,
        stream: Stream,
        bytes: &[u8],
    ) -> io::Result<bool> {
        let tags = self.tags;
        let mut anew = false;
        let running = self.running.entry(task.seq).or_default();
        if running.attempt != attempt {
            anew = true;
            let new = Running {
                attempt,
                tagger: tags.tagger(task, host),
                ..Running::default()
            };
            let old = std::mem::replace(running, new);
            old.forget(&mut self.spool)?;
        }
        if stream == Stream::Stdout {
            running.stdout_bytes += bytes.len() as u64;
        }
        let may_pass = matches!(self.style, Style::Grouped) && self.order.is_none() && !self.keeps;
        if may_pass && !running.passes && self.spool.is_full(bytes.len()) {
            self.due.push_back(running.pass());
            self.passing = true;
        }
        if running.passes {
            self.due
                .extend(running.lines(stream, bytes, |held, stream, bytes| {
                    self.spool.hold_here(held, stream, bytes);
                    Ok(())
                })?);
            return Ok(anew);
        }
        if !matches!(self.style, Style::Lines) || self.keeps {
            self.spool.hold(&mut running.held, stream, bytes)?;
        }
        if matches!(self.style, Style::Lines) {
            self.due
                .extend(running.lines(stream, bytes, |held, stream, bytes| {
                    self.spool.hold(held, stream, bytes)
                })?);
        }
        Ok(anew)
    }

    /// Whether a task more is written as it comes, for want of room, since this was last asked.
    pub(crate) fn take_passing(&mut self) -> bool {
        std::mem::take(&mut self.passing)
    }

    /// Bytes that a task has printed to stdout, and whether it has printed anything.
    pub(crate) fn printed(&self, seq: u64) -> (u64, bool) {
        self.running
            .get(&seq)
            .map_or((0, false), |running| (running.stdout_bytes, true))
    }

    /// All that is known of a task that has ended.
    ///
    /// # Errors
    /// When its output waited on disk and cannot be read.
    pub(crate) fn record(&self, ended: &Ended) -> io::Result<Record> {
        let none = Held::default();
        let held = self
            .running
            .get(&ended.task.seq)
            .map_or(&none, |running| &running.held);
        let stdout = self.spool.collect(held, Stream::Stdout)?;
        Ok(Record::new(
            ended,
            &stdout,
            &self.spool.collect(held, Stream::Stderr)?,
        ))
    }

    /// A task has ended.
    ///
    /// # Errors
    /// When its output waited on disk and cannot be read.
    pub(crate) fn ended(&mut self, ended: &Ended) -> io::Result<()> {
        let json = matches!(self.style, Style::Json)
            .then(|| self.record(ended))
            .transpose()?;
        let running = self.running.remove(&ended.task.seq).unwrap_or_default();
        let block = match &mut self.style {
            Style::Grouped if !running.passes => running.group(),
            Style::Grouped | Style::Lines => running.last_lines(&mut self.spool)?,
            Style::Json => {
                running.forget(&mut self.spool)?;
                Block::text(
                    &mut self.spool,
                    Stream::Stdout,
                    &json.map(|record| record.json_line()).unwrap_or_default(),
                )
            }
            Style::Gathered(gather) => {
                gather.add(
                    ended,
                    &self.spool.collect(&running.held, Stream::Stdout)?,
                    &self.spool.collect(&running.held, Stream::Stderr)?,
                );
                running.forget(&mut self.spool)?;
                Block::default()
            }
        };
        self.put(ended.task.seq, block);
        Ok(())
    }

    /// A task that is not run again: those behind it need not wait for it.
    pub(crate) fn skip(&mut self, seq: u64) {
        self.put(seq, Block::default());
    }

    /// fleetpool itself has something to say.
    pub(crate) fn note(&mut self, text: &str) {
        let text = format!("fleetpool: {text}\n");
        let block = Block::text(&mut self.spool, Stream::Stderr, text.as_bytes());
        self.due.push_back(block);
    }

    /// Nothing more comes: what still waits is due.
    ///
    /// # Errors
    /// When it must wait on disk, and the disk takes it not.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        if let Some(order) = self.order.take() {
            self.due.extend(order.waiting.into_values());
        }
        for (_, running) in std::mem::take(&mut self.running) {
            let block = match self.style {
                Style::Grouped if !running.passes => running.group(),
                Style::Grouped | Style::Lines => running.last_lines(&mut self.spool)?,
                Style::Json | Style::Gathered(_) => Block::default(),
            };
            self.due.push_back(block);
        }
        if let Style::Gathered(gather) = &mut self.style {
            for (stream, text) in gather.finish() {
                let block = Block::text(&mut self.spool, stream, &text);
                self.due.push_back(block);
            }
        }
        Ok(())
    }

    /// The next bytes to write.
    ///
    /// # Errors
    /// When they waited on disk and cannot be read.
    pub(crate) fn next_bytes(&mut self) -> io::Result<Option<(Stream, Vec<u8>)>> {
        while let Some(block) = self.due.front_mut() {
            if let Some((stream, piece)) = block.pieces.pop_front() {
                let bytes = self.spool.take(piece)?;
                return Ok(Some((stream, block.tagger.tag(stream, bytes))));
            }
            for stream in [Stream::Stdout, Stream::Stderr] {
                let missing = block.tagger.end(stream);
                if block.ends && !missing.is_empty() {
                    return Ok(Some((stream, missing.to_vec())));
                }
            }
            self.due.pop_front();
        }
        Ok(None)
    }

    /// Whether there is anything to write.
    pub(crate) fn is_due(&self) -> bool {
        !self.due.is_empty()
    }

    fn put(&mut self, seq: u64, block: Block) {
        let Some(order) = &mut self.order else {
            self.due.push_back(block);
            return;
        };
        order.waiting.insert(seq, block);
        while let Some(block) = order.waiting.remove(&order.next) {
            self.due.push_back(block);
            order.next += 1;
        }
    }
}

impl Running {
    /// Its output in one block.
    fn group(self) -> Block {
        Block {
            tagger: self.tagger,
            pieces: self.held.pieces.into(),
            ends: true,
        }
    }

    /// Its output so far in one block, which ends its line; the rest passes.
    fn pass(&mut self) -> Block {
        self.passes = true;
        Block {
            tagger: self.tagger.clone(),
            pieces: std::mem::take(&mut self.held).pieces.into(),
            ends: true,
        }
    }

    /// The whole lines that `bytes` complete; what begins a new one waits.
    fn lines(
        &mut self,
        stream: Stream,
        bytes: &[u8],
        mut hold: impl FnMut(&mut Held, Stream, &[u8]) -> io::Result<()>,
    ) -> io::Result<Option<Block>> {
        let begun = &mut self.begun[slot(stream)];
        let Some(end) = bytes.iter().rposition(|byte| *byte == b'\n') else {
            hold(begun, stream, bytes)?;
            return Ok(None);
        };
        let mut lines = std::mem::take(begun);
        hold(&mut lines, stream, &bytes[..=end])?;
        if end + 1 < bytes.len() {
            hold(begun, stream, &bytes[end + 1..])?;
        }
        Ok(Some(Block {
            tagger: self.tagger.clone(),
            pieces: lines.pieces.into(),
            ends: false,
        }))
    }

    /// The lines that were begun and will not be completed.
    fn last_lines(self, spool: &mut Spool) -> io::Result<Block> {
        spool.drop_all(self.held)?;
        let begun = self.begun.into_iter().flat_map(|held| held.pieces);
        Ok(Block {
            tagger: self.tagger,
            pieces: begun.collect(),
            ends: true,
        })
    }

    fn forget(self, spool: &mut Spool) -> io::Result<()> {
        let [stdout, stderr] = self.begun;
        [self.held, stdout, stderr]
            .into_iter()
            .try_for_each(|held| spool.drop_all(held))
    }
}

impl Block {
    /// Text of our own, which is in memory already.
    fn text(spool: &mut Spool, stream: Stream, text: &[u8]) -> Self {
        let mut held = Held::default();
        spool.hold_here(&mut held, stream, text);
        Self {
            pieces: held.pieces.into(),
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::ended::tests::{ended, task};

    struct World(Printer);

    impl World {
        fn new(style: Style, tags: TagStyle, ordered: bool) -> Self {
            Self(Printer::new(style, tags, ordered, false))
        }

        fn print(&mut self, seq: u64, text: &str) -> &mut Self {
            self.try_print(seq, 1, text)
        }

        fn try_print(&mut self, seq: u64, attempt: u32, text: &str) -> &mut Self {
            self.0
                .output(
                    &task(seq, &format!("v{seq}")),
                    "web1",
                    attempt,
                    Stream::Stdout,
                    text.as_bytes(),
                )
                .unwrap();
            self
        }

        fn end(&mut self, seq: u64) -> &mut Self {
            self.0.ended(&ended(seq, "x", 0)).unwrap();
            self
        }

        fn expect(&mut self, expect: &str) -> &mut Self {
            let mut all = Vec::new();
            while let Some((_, bytes)) = self.0.next_bytes().unwrap() {
                all.extend(bytes);
            }
            assert_eq!(String::from_utf8(all).unwrap(), expect);
            self
        }
    }

    #[test]
    fn grouped_output_comes_when_its_task_ends() {
        World::new(Style::Grouped, TagStyle::None, false)
            .print(1, "a\n")
            .print(2, "b\n")
            .print(1, "c\n")
            .expect("")
            .end(2)
            .expect("b\n")
            .end(1)
            .expect("a\nc\n");
    }

    #[test]
    fn g7_what_there_is_no_room_for_is_written_as_it_comes() {
        let mut world = World::new(Style::Grouped, TagStyle::Inputs, false);
        world.0.spool = Spool::with(8, 8);
        world.print(1, "12345\n").print(2, "1234567\n").expect("");
        assert!(!world.0.take_passing());
        world.print(2, "next\nha").expect("v2\t1234567\nv2\tnext\n");
        assert!(world.0.take_passing());
        world.print(2, "lf\n").expect("v2\thalf\n");
        world.end(1).expect("v1\t12345\n");
        world
            .print(3, "fits\n")
            .expect("")
            .end(3)
            .expect("v3\tfits\n");
        world.print(2, "last").end(2).expect("v2\tlast");
        assert!(!world.0.take_passing());
    }

    #[test]
    fn g7_an_order_that_there_is_no_room_for_is_an_error() {
        let mut world = World::new(Style::Grouped, TagStyle::None, true);
        world.0.spool = Spool::with(8, 8);
        world.print(2, "12345678").print(2, "12345678");
        let task = task(2, "v2");
        let more = world.0.output(&task, "web1", 1, Stream::Stdout, b"more");
        assert!(more.unwrap_err().to_string().contains("1024 MiB"));
    }

    #[test]
    fn ordered_output_waits_for_earlier_inputs() {
        let mut world = World::new(Style::Grouped, TagStyle::Inputs, true);
        world.print(2, "b\n").end(2).expect("");
        world.0.skip(1);
        world.expect("v2\tb\n").print(4, "d\n").end(4).expect("");
        world.0.finish().unwrap();
        world.expect("v4\td\n");
    }

    #[test]
    fn lines_come_at_once_and_never_in_parts() {
        World::new(Style::Lines, TagStyle::Inputs, false)
            .print(1, "half ")
            .expect("")
            .print(2, "whole\nnext")
            .expect("v2\twhole\n")
            .print(1, "line\n")
            .expect("v1\thalf line\n")
            .end(2)
            .expect("v2\tnext");
    }

    #[test]
    fn an_earlier_try_is_forgotten() {
        World::new(Style::Grouped, TagStyle::None, false)
            .try_print(1, 1, "first\n")
            .try_print(1, 2, "second\n")
            .end(1)
            .expect("second\n");
    }

    #[test]
    fn json_is_a_line_a_task() {
        let mut world = World::new(Style::Json, TagStyle::None, false);
        world.print(1, "a\n").end(1);
        let (_, line) = world.0.next_bytes().unwrap().unwrap();
        let value: serde_json::Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(
            (&value["stdout"], &value["index"]),
            (&"a\n".into(), &0.into())
        );
    }

    #[test]
    fn hosts_end_their_lines() {
        World::new(Style::Grouped, TagStyle::Host, false)
            .print(1, "no newline")
            .end(1)
            .expect("web1: no newline\n");
    }
}
