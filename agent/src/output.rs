//! What tasks printed, on its way to the coordinator: in order, in few frames, and bounded.

use std::{collections::BTreeMap, sync::Arc};

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
    /// The pool whose output it is, where it is output.
    pub(crate) pool: PoolId,
    /// The room that its output takes until it is sent; 0: it is no output, and of this session only.
    pub(crate) room: usize,
}

/// Output that is not in a frame yet, and the room that each pool's output takes: its workers wait when there is none.
#[derive(Debug, Default)]
pub(crate) struct Output {
    rooms: BTreeMap<PoolId, Room>,
    printed: Vec<(Printed, usize)>,
}

/// Room for the output of a pool.
#[derive(Debug)]
struct Room {
    free: Arc<Semaphore>,
    /// While the coordinator holds the pool's output: the room that is not given out until it lets go.
    kept_back: Option<usize>,
}

impl Default for Room {
    fn default() -> Self {
        Self {
            free: Arc::new(Semaphore::new(OUTPUT_HELD_BYTES_MAX)),
            kept_back: None,
        }
    }
}

impl Room {
    fn give_back(&mut self, bytes: usize) {
        match &mut self.kept_back {
            Some(kept_back) => *kept_back += bytes,
            None => self.free.add_permits(bytes),
        }
    }

    fn hold(&mut self, on: bool) {
        match (on, self.kept_back.take()) {
            (true, kept_back) => {
                let free = self.free.forget_permits(OUTPUT_HELD_BYTES_MAX);
                self.kept_back = Some(kept_back.unwrap_or(0) + free);
            }
            (false, kept_back) => self.free.add_permits(kept_back.unwrap_or(0)),
        }
    }
}

impl Output {
    /// The room for the output of a pool's workers.
    pub(crate) fn room(&mut self, pool: PoolId) -> Arc<Semaphore> {
        Arc::clone(&self.rooms.entry(pool).or_default().free)
    }

    /// Lets the pool's output wait, or go on. What is printed already still goes.
    pub(crate) fn hold(&mut self, pool: PoolId, on: bool) {
        if let Some(room) = self.rooms.get_mut(&pool) {
            room.hold(on);
        }
    }

    /// The session that held output is over.
    pub(crate) fn release_all(&mut self) {
        self.rooms.values_mut().for_each(|room| room.hold(false));
    }

    /// The pool is over.
    pub(crate) fn forget(&mut self, pool: PoolId) {
        self.rooms.remove(&pool);
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
    pub(crate) fn sent(&mut self, pool: PoolId, bytes: usize) {
        // Of a pool that is over nobody waits.
        if let Some(room) = self.rooms.get_mut(&pool) {
            room.give_back(bytes);
        }
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
        let pool = self.pool;
        let message = FromAgent::Output {
            pool,
            rows: self.rows,
            payloads: self.payloads.into(),
        };
        Some(Outbound {
            frame: message.into_frame(),
            pool,
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
        let mut output = Output::default();
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

    fn free(output: &mut Output, pool: u64) -> usize {
        output.room(PoolId(pool)).available_permits()
    }

    #[test]
    fn a_pool_that_is_held_gets_no_room_and_the_others_do() {
        let mut output = Output::default();
        assert_eq!(free(&mut output, 1), OUTPUT_HELD_BYTES_MAX);
        output
            .room(PoolId(1))
            .try_acquire_many(10)
            .expect("room")
            .forget();
        output.hold(PoolId(1), true);
        output.hold(PoolId(1), true);
        output.sent(PoolId(1), 10);
        assert_eq!(free(&mut output, 1), 0);
        assert_eq!(free(&mut output, 2), OUTPUT_HELD_BYTES_MAX);
        output.hold(PoolId(1), false);
        output.hold(PoolId(1), false);
        assert_eq!(free(&mut output, 1), OUTPUT_HELD_BYTES_MAX);
        output.hold(PoolId(1), true);
        output.release_all();
        assert_eq!(free(&mut output, 1), OUTPUT_HELD_BYTES_MAX);
    }

    #[test]
    fn no_segment_travels_apart_and_is_overtaken() {
        let mut output = Output::default();
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
