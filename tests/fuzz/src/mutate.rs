//! Changed inputs without end, the same in every run: what a fuzzer does that does not look at the code.

/// Longest input.
const BYTES_MAX: usize = 4096;
/// Most changes of one input.
const CHANGES_MAX: u32 = 6;
/// Bytes at which formats turn: signs, lengths, and the marks of MessagePack.
const TURNING: &[u8] = &[
    0x00, 0x01, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc1, 0xc4, 0xc6, 0xcb, 0xcf, 0xd3,
    0xd9, 0xdb, 0xdc, 0xdd, 0xde, 0xdf, 0xe0, 0xff, b'[', b']', b',', b'-', b'/', b'@', b'.', b':',
    b'(', b'!', b'0', b'9', b'\n',
];

/// Changed copies of some seeds.
#[derive(Debug)]
pub struct Mutations<'a> {
    seeds: &'a [Vec<u8>],
    dice: u64,
}

impl<'a> Mutations<'a> {
    /// Of these seeds, which must not be none; another `number` gives other ones.
    #[must_use]
    pub fn of(seeds: &'a [Vec<u8>], number: u64) -> Self {
        let dice = number ^ 0x9e37_79b9_7f4a_7c15;
        Self { seeds, dice }
    }

    /// xorshift64*.
    fn roll(&mut self, below: usize) -> usize {
        self.dice ^= self.dice >> 12;
        self.dice ^= self.dice << 25;
        self.dice ^= self.dice >> 27;
        let number = self.dice.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(number).unwrap_or(0) % below.max(1)
    }

    fn seed(&mut self) -> &'a [u8] {
        let at = self.roll(self.seeds.len());
        &self.seeds[at]
    }

    fn turning(&mut self) -> u8 {
        let at = self.roll(TURNING.len());
        TURNING[at]
    }

    /// A piece of a seed.
    fn piece(&mut self) -> &'a [u8] {
        let seed = self.seed();
        let from = self.roll(seed.len());
        let len = self.roll(64).min(seed.len() - from);
        &seed[from..from + len]
    }

    fn change(&mut self, bytes: &mut Vec<u8>) {
        let at = self.roll(bytes.len());
        if bytes.is_empty() {
            bytes.push(self.turning());
            return;
        }
        match self.roll(10) {
            0 => bytes[at] ^= 1 << self.roll(8),
            1 | 2 => bytes[at] = self.turning(),
            3 => bytes[at] = bytes[at].wrapping_add(if self.roll(2) == 0 { 1 } else { 0xff }),
            4 => bytes.truncate(at),
            5 => {
                let to = at + self.roll(16).min(bytes.len() - at);
                bytes.drain(at..to);
            }
            6 => bytes.insert(at, self.turning()),
            7 => {
                let piece = self.piece();
                bytes.splice(at..at, piece.iter().copied());
            }
            8 => {
                let piece = self.piece();
                let to = (at + piece.len()).min(bytes.len());
                bytes.splice(at..to, piece.iter().copied());
            }
            // Over and over: what is nested or long.
            _ => {
                let to = at + self.roll(4).min(bytes.len() - at);
                let piece = bytes[at..to].repeat(self.roll(300));
                bytes.splice(at..at, piece);
            }
        }
    }
}

impl Iterator for Mutations<'_> {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let mut bytes = self.seed().to_vec();
        for _ in 0..=self.roll(CHANGES_MAX as usize) {
            self.change(&mut bytes);
        }
        bytes.truncate(BYTES_MAX);
        Some(bytes)
    }
}
