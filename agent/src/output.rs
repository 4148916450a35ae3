//! What tasks printed, on its way to the coordinator: in order, in few frames, kept until it has come there, and bounded.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use fleetpool_proto::{
    Frame, HostId, Message as _, PoolId,
    limits::{BATCH_TASKS_MAX, OUTPUT_HELD_BYTES_MAX},
    message::{FromAgent, OutputRow},
};
use tokio::sync::Semaphore;

use crate::{
    journal::{OutputLeft, Pieces},
    workers::{Printed, Told, weight, weight_of},
};

/// Bytes of output in one frame, after which another is begun.
const FRAME_BYTES_MAX: usize = 256 << 10;

/// A frame that the coordinator has not acknowledged.
#[derive(Debug)]
struct Kept {
    number: u64,
    frame: Frame,
    pool: PoolId,
    /// The room that its output takes until then.
    room: usize,
    pieces: u32,
}

/// Output that is not in a frame yet, frames that may be lost with the session, and the room that each pool's output
/// takes: its workers wait when there is none.
#[derive(Debug, Default)]
pub(crate) struct Output {
    rooms: BTreeMap<PoolId, Room>,
    printed: Vec<(Printed, usize)>,
    kept: VecDeque<Kept>,
    /// The last frame's number.
    number: u64,
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

    /// The pool is over: nobody waits for its output any more.
    pub(crate) fn forget(&mut self, pool: PoolId) {
        self.rooms.remove(&pool);
        self.kept.retain(|kept| kept.pool != pool);
    }

    /// Takes in what a worker told, whose room is taken already.
    pub(crate) fn add(&mut self, told: &mut Told) {
        let mut room = weight(&told.output) as usize;
        for printed in told.output.drain(..) {
            let part = weight_of(&printed).min(room);
            room -= part;
            self.printed.push((printed, part));
        }
    }

    /// All of it that is new as frames, in order.
    pub(crate) fn take_frames(&mut self) -> Vec<Frame> {
        let mut batches = Vec::new();
        let mut batch = Batch::default();
        for (printed, room) in self.printed.drain(..) {
            if !batch.takes(&printed) {
                batches.push(std::mem::take(&mut batch));
            }
            batch.add(printed, room);
        }
        batches.push(batch);
        batches.retain(|batch| !batch.rows.is_empty());
        batches.into_iter().map(|batch| self.keep(batch)).collect()
    }

    /// What a new session is to hear again.
    pub(crate) fn unacknowledged(&self) -> impl Iterator<Item = Frame> + '_ {
        self.kept.iter().map(|kept| kept.frame.clone())
    }

    /// The number of the last of it; 0 when there is none.
    pub(crate) fn last_unacknowledged(&self) -> u64 {
        self.kept.back().map_or(0, |kept| kept.number)
    }

    /// What a predecessor has left. It takes room as if it had been printed now.
    pub(crate) fn resume(left: OutputLeft) -> Self {
        let mut output = Self::default();
        for (number, pieces) in left.framed {
            let mut batch = Batch::default();
            for printed in pieces.into_printed() {
                let room = output.take_room(&printed);
                batch.add(printed, room);
            }
            output.number = number - 1;
            output.keep(batch);
        }
        output.number = left.number;
        for printed in left.printed.into_iter().flat_map(Pieces::into_printed) {
            let room = output.take_room(&printed);
            output.printed.push((printed, room));
        }
        output
    }

    /// What a successor is to know.
    pub(crate) fn left(&self) -> OutputLeft {
        let printed = self.printed.iter().map(|(printed, _)| printed);
        OutputLeft {
            number: self.number,
            framed: self.kept.iter().filter_map(Kept::left).collect(),
            printed: Pieces::of(printed).into(),
        }
    }

    /// The last number that was given.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// What was given a number after that one: it, and how many pieces.
    pub(crate) fn numbered_after(&self, number: u64) -> impl Iterator<Item = (u64, u32)> + '_ {
        let after = self
            .kept
            .iter()
            .rev()
            .take_while(move |kept| kept.number > number);
        let mut after: Vec<_> = after.map(|kept| (kept.number, kept.pieces)).collect();
        after.reverse();
        after.into_iter()
    }

    fn take_room(&mut self, printed: &Printed) -> usize {
        let room = weight_of(printed);
        self.room(printed.attempt.task.pool).forget_permits(room)
    }

    /// All up to that number has come.
    pub(crate) fn acknowledged(&mut self, number: u64) {
        while let Some(kept) = self.kept.pop_front_if(|kept| kept.number <= number) {
            // Of a pool that is over nobody waits.
            if let Some(room) = self.rooms.get_mut(&kept.pool) {
                room.give_back(kept.room);
            }
        }
    }

    fn keep(&mut self, batch: Batch) -> Frame {
        self.number += 1;
        let (number, pool, room) = (self.number, batch.pool, batch.room);
        let pieces = u32::try_from(batch.rows.len()).unwrap_or(u32::MAX);
        let frame = batch.into_message(number).into_frame();
        self.kept.push_back(Kept {
            number,
            frame: frame.clone(),
            pool,
            room,
            pieces,
        });
        frame
    }
}

impl Kept {
    fn left(&self) -> Option<(u64, Pieces)> {
        let Ok(FromAgent::Output {
            pool,
            number,
            rows,
            payloads,
        }) = FromAgent::from_frame(self.frame.clone())
        else {
            return None;
        };
        let payloads = payloads.into_items();
        let pieces = Pieces {
            pool,
            rows,
            payloads,
        };
        Some((number, pieces))
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

    fn into_message(self, number: u64) -> FromAgent {
        FromAgent::Output {
            pool: self.pool,
            number,
            rows: self.rows,
            payloads: self.payloads.into(),
        }
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
            heard: None,
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
        let bytes = |frame: &Frame| frame.body.iter().map(bytes::Bytes::len).sum::<usize>();
        assert_eq!(frames.iter().map(bytes).collect::<Vec<_>>(), [7, 5, 6]);
        assert!(output.take_frames().is_empty());
    }

    #[test]
    fn what_is_not_acknowledged_is_said_again_and_keeps_its_room() {
        let mut output = Output::default();
        let all = [printed(1, 0, 3), printed(2, 0, 4), printed(1, 1, 5)];
        for printed in &all {
            let room = u32::try_from(weight_of(printed)).unwrap();
            let pool = output.room(printed.attempt.task.pool);
            pool.try_acquire_many(room).expect("room").forget();
        }
        output.add(&mut told(all.to_vec()));
        let frames = output.take_frames();
        assert_eq!(Vec::from_iter(output.unacknowledged()), frames);
        let taken = |output: &mut Output| OUTPUT_HELD_BYTES_MAX - free(output, 1);
        assert_eq!(taken(&mut output), weight_of(&all[0]) + weight_of(&all[2]));
        output.acknowledged(2);
        assert_eq!(Vec::from_iter(output.unacknowledged()), frames[2..]);
        assert_eq!(taken(&mut output), weight_of(&all[2]));
        output.forget(PoolId(1));
        assert_eq!(output.unacknowledged().count(), 0);
    }

    fn free(output: &mut Output, pool: u64) -> usize {
        output.room(PoolId(pool)).available_permits()
    }

    #[test]
    fn a_pool_that_is_held_gets_no_room_and_the_others_do() {
        let mut output = Output::default();
        assert_eq!(free(&mut output, 1), OUTPUT_HELD_BYTES_MAX);
        let some = printed(1, 0, 10);
        let room = u32::try_from(weight_of(&some)).unwrap();
        let pool = output.room(PoolId(1));
        pool.try_acquire_many(room).expect("room").forget();
        output.add(&mut told(vec![some]));
        output.take_frames();
        output.hold(PoolId(1), true);
        output.hold(PoolId(1), true);
        output.acknowledged(1);
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
        for frame in output.take_frames() {
            let apart =
                |segment: &bytes::Bytes| segment.len() >= fleetpool_proto::limits::BULK_BYTES_MIN;
            assert!(!frame.body.iter().any(apart));
        }
    }
}
