//! The message that a worker sends after every task, written by hand.
//!
//! It says what [`FromWorker::Done`](fleetpool_proto::worker::FromWorker) of one row says, in numbers of fixed width,
//! without the allocations that tables of many rows need: half of what a short task costs its worker would be these.

use fleetpool_proto::worker::DoneRow;

/// Bytes of the frame before its header, with and without a segment.
const PRELUDE: (usize, usize) = (10, 6);

/// Appends the frame up to its payload, which follows it as it is.
pub(super) fn write_done(row: &DoneRow, payload_len: u32, out: &mut Vec<u8>) {
    let start = out.len();
    // An empty payload has no segment.
    let segment = payload_len > 0;
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&u16::from(segment).to_be_bytes());
    if segment {
        out.extend_from_slice(&payload_len.to_be_bytes());
    }
    write_header(row, payload_len, out);
    let prelude = if segment { PRELUDE.0 } else { PRELUDE.1 };
    let header = u32::try_from(out.len() - start - prelude).expect("a header of a hundred bytes");
    out[start..start + 4].copy_from_slice(&header.to_be_bytes());
}

/// MessagePack: a name is `a0` and its length, then itself; `91` an array of one; `cf` and `ce` a u64 and a u32.
fn write_header(row: &DoneRow, payload_len: u32, out: &mut Vec<u8>) {
    out.extend_from_slice(b"\x81\xa4Done\x82\xa4rows\x86\xa5index\x91\xcf");
    out.extend_from_slice(&row.index.to_be_bytes());
    out.extend_from_slice(b"\xa7attempt\x91\xce");
    out.extend_from_slice(&row.attempt.0.to_be_bytes());
    out.extend_from_slice(b"\xa7outcome\x91");
    out.push(u8::from(row.outcome));
    out.extend_from_slice(b"\xaastarted_us\x91\xcf");
    out.extend_from_slice(&row.started_us.to_be_bytes());
    out.extend_from_slice(b"\xa6run_us\x91\xcf");
    out.extend_from_slice(&row.run_us.to_be_bytes());
    out.extend_from_slice(b"\xa7printed\x91");
    out.push(0xc2 + u8::from(row.printed));
    out.extend_from_slice(b"\xa8payloads\x91\xce");
    out.extend_from_slice(&payload_len.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use bytes::{Bytes, BytesMut};
    use fleetpool_proto::{
        Attempt, Message as _, Outcome, frame::read_inline, rows::Payloads, worker::FromWorker,
    };
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_read_as_the_message_that_it_stands_for(
            index: u64,
            attempt: u32,
            outcome in proptest::sample::select(&Outcome::ALL[..]),
            started_us: u64,
            run_us: u64,
            printed: bool,
            payload: Vec<u8>,
        ) {
            let attempt = Attempt(attempt);
            let row = DoneRow { index, attempt, outcome, started_us, run_us, printed };
            let mut frame = vec![];
            write_done(&row, u32::try_from(payload.len()).unwrap(), &mut frame);
            frame.extend_from_slice(&payload);
            let mut input = BytesMut::from(&frame[..]);
            let message = FromWorker::from_frame(read_inline(&mut input).unwrap().unwrap()).unwrap();
            let payloads = Payloads::from(vec![Bytes::from(payload)]);
            prop_assert_eq!(message, FromWorker::Done { rows: vec![row], payloads });
            prop_assert!(input.is_empty());
        }
    }
}
