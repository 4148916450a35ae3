//! What tasks printed, on its way to the coordinator: in order, in few frames, and bounded.

use std::sync::Arc;

use fleetpool_proto::{
    Frame, HostId, Message as _, PoolId,
    limits::{BATCH_TASKS_MAX, OUTPUT_HELD_BYTES_MAX},
    message::{FromAgent, OutputRow},
};
use tokio::sync::Semaphore;

use crate::workers::{Printed, Told, weight};

/// Bytes of output in one frame, after which another is begun.
const FRAME_BYTES_MAX: usize = 256 << 10;

/// A frame for the coordinator.
#[derive(Debug)]
pub(crate) struct Outbound {
    pub(crate) frame: Frame,
    /// The room that its output takes until it is sent; 0: it is no output, and of this session only.
    pub(crate) room: usize,
}

/// Output that is not in a frame yet, and the room that all output takes: workers wait when there is none.
#[derive(Debug)]
pub(crate) struct Output {
    room: Arc<Semaphore>,
    printed: Vec<(Printed, usize)>,
}

impl Output {
    pub(crate) fn new() -> Self {
        Self {
            room: Arc::new(Semaphore::new(OUTPUT_HELD_BYTES_MAX)),
            printed: Vec::new(),
        }
    }

    pub(crate) fn room(&self) -> Arc<Semaphore> {
        Arc::clone(&self.room)
    }

    /// Takes in what a worker told, whose room is taken already.
    pub(crate) fn add(&mut self, told: &mut Told) {
        let mut room = weight(&told.output) as usize;
        for printed in told.output.drain(..) {
            let part = printed.bytes.len().min(room);
            room -= part;
            self.printed.push((printed, part));
        }
    }

    /// All of it as frames, in order.
    pub(crate) fn take_frames(&mut self) -> Vec<Outbound> {
        let mut frames = Vec::new();
        let mut batch = Batch::default();
        for (printed, room) in self.printed.drain(..) {
            if !batch.takes(&printed) {
                frames.extend(std::mem::take(&mut batch).finish());
            }
            batch.add(printed, room);
        }
        frames.extend(batch.finish());
        frames
    }

    /// A frame is on its way.
    pub(crate) fn sent(&self, room: usize) {
        self.room.add_permits(room);
    }
}

#[derive(Default)]
struct Batch {
    pool: PoolId,
    rows: Vec<OutputRow>,
    payloads: Vec<bytes::Bytes>,
    bytes: usize,
    room: usize,
}

impl Batch {
    fn takes(&self, printed: &Printed) -> bool {
        self.rows.is_empty()
            || (self.pool == printed.attempt.task.pool
                && self.rows.len() < BATCH_TASKS_MAX
                && self.bytes + printed.bytes.len() <= FRAME_BYTES_MAX)
    }

    fn add(&mut self, printed: Printed, room: usize) {
        self.pool = printed.attempt.task.pool;
        self.bytes += printed.bytes.len();
        self.room += room;
        self.rows.push(OutputRow {
            index: printed.attempt.task.index,
            attempt: printed.attempt.attempt,
            stream: printed.stream,
            pid: printed.pid,
            host: HostId::default(),
        });
        self.payloads.push(printed.bytes);
    }

    fn finish(self) -> Option<Outbound> {
        if self.rows.is_empty() {
            return None;
        }
        let message = FromAgent::Output {
            pool: self.pool,
            rows: self.rows,
            payloads: self.payloads.into(),
        };
        Some(Outbound {
            frame: message.into_frame(),
            room: self.room,
        })
    }
}

#[cfg(test)]
mod tests {
    use fleetpool_proto::{Attempt, AttemptId, TaskId, message::Stream};

    use super::*;

    fn printed(pool: u64, index: u64, len: usize) -> Printed {
        Printed {
            attempt: AttemptId {
                task: TaskId::new(PoolId(pool), index),
                attempt: Attempt(1),
            },
            pid: 1,
            stream: Stream::Stdout,
            bytes: vec![b'x'; len].into(),
        }
    }

    fn told(output: Vec<Printed>) -> Told {
        Told {
            output,
            events: Vec::new(),
        }
    }

    #[test]
    fn a_frame_has_one_pool_and_order_is_kept() {
        let mut output = Output::new();
        let all = [
            printed(1, 0, 3),
            printed(1, 1, 4),
            printed(2, 0, 5),
            printed(1, 2, 6),
        ];
        output.add(&mut told(all.to_vec()));
        let frames = output.take_frames();
        assert_eq!(
            frames.iter().map(|frame| frame.room).collect::<Vec<_>>(),
            [7, 5, 6]
        );
        assert!(output.take_frames().is_empty());
    }

    #[test]
    fn no_segment_travels_apart_and_is_overtaken() {
        let mut output = Output::new();
        let longest = fleetpool_proto::limits::OUTPUT_LINE_BYTES_MAX;
        output.add(&mut told(vec![
            printed(1, 0, longest),
            printed(1, 1, 9),
            printed(1, 2, longest),
        ]));
        for outbound in output.take_frames() {
            let apart =
                |segment: &bytes::Bytes| segment.len() >= fleetpool_proto::limits::BULK_BYTES_MIN;
            assert!(!outbound.frame.body.iter().any(apart));
        }
    }
}
