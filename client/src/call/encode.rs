//! Arguments, encoded as they are asked for.

use std::marker::PhantomData;

use bytes::{BufMut as _, Bytes, BytesMut};

use crate::{codec, task::Task};

/// Encoded arguments share blocks of this size.
const BLOCK_BYTES: usize = 64 << 10;
/// What must be left of a block for another argument to begin in it.
const ROOM_BYTES_MIN: usize = 256;

/// An encoded argument, or why there is none.
pub(crate) type Encoded = Result<Bytes, String>;

/// The arguments of a call, encoded one at a time.
pub(crate) struct Encoder<T, I> {
    inputs: I,
    block: BytesMut,
    task: PhantomData<fn() -> T>,
}

impl<T: Task, I: Iterator<Item = T::Input>> Encoder<T, I> {
    pub(crate) fn new(inputs: I) -> Self {
        Self {
            inputs,
            block: BytesMut::new(),
            task: PhantomData,
        }
    }
}

impl<T: Task, I: Iterator<Item = T::Input>> Iterator for Encoder<T, I> {
    type Item = Encoded;

    fn next(&mut self) -> Option<Encoded> {
        let input = self.inputs.next()?;
        if self.block.capacity() < ROOM_BYTES_MIN {
            self.block.reserve(BLOCK_BYTES);
        }
        Some(encode_into::<T>(&input, &mut self.block))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.inputs.size_hint()
    }
}

/// One encoded argument.
pub(crate) fn encode_one<T: Task>(input: &T::Input) -> Encoded {
    encode_into::<T>(input, &mut BytesMut::new())
}

fn encode_into<T: Task>(input: &T::Input, block: &mut BytesMut) -> Encoded {
    let written = codec::encode(input, &mut (&mut *block).writer());
    let bytes = block.split().freeze();
    written.map(|()| bytes).map_err(|error| error.to_string())
}
