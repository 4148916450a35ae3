//! What tasks have printed and nobody has written yet. A bounded part of it stays in memory, the rest waits in one
//! unnamed temporary file, which is bounded too: a flood of output, or an early task that ends last under `-k`, grows
//! no process and fills no disk (G7).

use std::{fs::File, io, os::unix::fs::FileExt as _};

use fleetpool_proto::{limits::SPOOL_BYTES_MAX, message::Stream};

/// Bytes held in memory, all tasks together; what comes on top goes to disk.
const MEMORY_BYTES_MAX: usize = 32 << 20;
/// Neighbouring bytes of one stream are kept together up to this size.
const PIECE_BYTES_MAX: usize = 64 << 10;

/// Output of one task, in the order written.
#[derive(Debug, Default)]
pub(crate) struct Held {
    pub(crate) pieces: Vec<(Stream, Piece)>,
}

/// Bytes that wait. Must be given to [`Spool::take`] or [`Spool::drop_all`] in the end.
#[derive(Debug)]
pub(crate) enum Piece {
    /// Here.
    Memory(Vec<u8>),
    /// In the spool's file.
    Disk {
        /// From here.
        at: u64,
        /// So many.
        len: usize,
    },
}

/// No more output may wait.
#[derive(Debug, thiserror::Error)]
#[error("as much output waits for its turn as may: {} MiB", SPOOL_BYTES_MAX >> 20)]
pub(crate) struct Full;

/// Where output waits.
#[derive(Debug)]
pub(crate) struct Spool {
    memory_bytes: usize,
    memory_bytes_max: usize,
    disk_bytes_max: u64,
    file: Option<File>,
    /// Where the file ends.
    end: u64,
    /// Bytes of the file that somebody waits for.
    disk_bytes: u64,
}

impl Default for Spool {
    fn default() -> Self {
        Self::with(MEMORY_BYTES_MAX, SPOOL_BYTES_MAX)
    }
}

impl Spool {
    pub(super) fn with(memory_bytes_max: usize, disk_bytes_max: u64) -> Self {
        Self {
            memory_bytes: 0,
            memory_bytes_max,
            disk_bytes_max,
            file: None,
            end: 0,
            disk_bytes: 0,
        }
    }

    /// Adds bytes to what a task has printed.
    ///
    /// # Errors
    /// When they have to go to disk, and it takes none, or [`Full`].
    pub(crate) fn hold(&mut self, held: &mut Held, stream: Stream, bytes: &[u8]) -> io::Result<()> {
        if !self.fits_into_memory(bytes.len()) {
            let piece = self.write(bytes)?;
            held.pieces.push((stream, piece));
            return Ok(());
        }
        self.hold_here(held, stream, bytes);
        Ok(())
    }

    /// Whether [`Self::hold`] has no room for so many bytes.
    pub(crate) fn is_full(&self, len: usize) -> bool {
        !self.fits_into_memory(len) && self.end + len as u64 > self.disk_bytes_max
    }

    /// Adds bytes that are written at once, and so wait in memory however much waits there.
    pub(crate) fn hold_here(&mut self, held: &mut Held, stream: Stream, bytes: &[u8]) {
        self.memory_bytes += bytes.len();
        match held.pieces.last_mut() {
            Some((last, Piece::Memory(piece)))
                if *last == stream && piece.len() + bytes.len() <= PIECE_BYTES_MAX =>
            {
                piece.extend_from_slice(bytes);
            }
            _ => held.pieces.push((stream, Piece::Memory(bytes.to_vec()))),
        }
    }

    fn fits_into_memory(&self, len: usize) -> bool {
        self.memory_bytes + len <= self.memory_bytes_max
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<Piece> {
        if self.end + bytes.len() as u64 > self.disk_bytes_max {
            return Err(io::Error::other(Full));
        }
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(tempfile::tempfile()?),
        };
        let at = self.end;
        file.write_all_at(bytes, at)?;
        self.end += bytes.len() as u64;
        self.disk_bytes += bytes.len() as u64;
        Ok(Piece::Disk {
            at,
            len: bytes.len(),
        })
    }

    /// The bytes of `piece`, which wait no longer.
    ///
    /// # Errors
    /// When they cannot be read back.
    pub(crate) fn take(&mut self, piece: Piece) -> io::Result<Vec<u8>> {
        match piece {
            Piece::Memory(bytes) => {
                self.memory_bytes -= bytes.len();
                Ok(bytes)
            }
            Piece::Disk { at, len } => {
                let bytes = self.read(at, len);
                self.free(len)?;
                bytes
            }
        }
    }

    /// What `held` has of one stream; it goes on waiting.
    ///
    /// # Errors
    /// When it cannot be read back.
    pub(crate) fn collect(&self, held: &Held, stream: Stream) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        for (of, piece) in &held.pieces {
            match piece {
                _ if *of != stream => {}
                Piece::Memory(bytes) => all.extend_from_slice(bytes),
                Piece::Disk { at, len } => all.extend(self.read(*at, *len)?),
            }
        }
        Ok(all)
    }

    /// Forgets all of `held`.
    ///
    /// # Errors
    /// When the file cannot be cut.
    pub(crate) fn drop_all(&mut self, held: Held) -> io::Result<()> {
        for (_, piece) in held.pieces {
            match piece {
                Piece::Memory(bytes) => self.memory_bytes -= bytes.len(),
                Piece::Disk { len, .. } => self.free(len)?,
            }
        }
        Ok(())
    }

    fn read(&self, at: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        if let Some(file) = &self.file {
            file.read_exact_at(&mut bytes, at)?;
        }
        Ok(bytes)
    }

    /// Gives disk space back as soon as nothing in it is waited for.
    fn free(&mut self, len: usize) -> io::Result<()> {
        self.disk_bytes -= len as u64;
        if self.disk_bytes == 0 {
            self.end = 0;
            if let Some(file) = &self.file {
                file.set_len(0)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_into_memory_waits_on_disk_and_comes_back_in_order() {
        let mut spool = Spool::with(10, 1000);
        let (mut a, mut b) = (Held::default(), Held::default());
        spool.hold(&mut a, Stream::Stdout, b"12345").unwrap();
        spool.hold(&mut b, Stream::Stdout, b"6789").unwrap();
        spool.hold(&mut a, Stream::Stderr, b"on disk").unwrap();
        spool.hold(&mut a, Stream::Stdout, b"too").unwrap();
        assert_eq!(spool.collect(&a, Stream::Stdout).unwrap(), b"12345too");
        assert_eq!(spool.collect(&a, Stream::Stderr).unwrap(), b"on disk");
        let taken: Vec<_> = a
            .pieces
            .into_iter()
            .map(|(_, piece)| spool.take(piece).unwrap())
            .collect();
        assert_eq!(taken, [&b"12345"[..], b"on disk", b"too"]);
        spool.drop_all(b).unwrap();
        assert_eq!((spool.memory_bytes, spool.disk_bytes, spool.end), (0, 0, 0));
        assert_eq!(spool.file.unwrap().metadata().unwrap().len(), 0);
    }

    #[test]
    fn g7_the_file_has_a_bound_as_well() {
        let mut spool = Spool::with(10, 10);
        let mut held = Held::default();
        spool.hold(&mut held, Stream::Stdout, b"in memory").unwrap();
        assert!(!spool.is_full(10));
        spool.hold(&mut held, Stream::Stdout, b"on disk").unwrap();
        assert!(spool.is_full(4));
        let error = spool
            .hold(&mut held, Stream::Stdout, b"nowhere")
            .unwrap_err();
        assert!(error.get_ref().is_some_and(|error| error.is::<Full>()));
        spool.drop_all(held).unwrap();
        assert!(!spool.is_full(4));
    }

    #[test]
    fn neighbours_of_one_stream_are_kept_together() {
        let mut spool = Spool::default();
        let mut held = Held::default();
        for (stream, bytes) in [
            (Stream::Stdout, "a"),
            (Stream::Stdout, "b"),
            (Stream::Stderr, "c"),
            (Stream::Stdout, "d"),
        ] {
            spool.hold(&mut held, stream, bytes.as_bytes()).unwrap();
        }
        assert_eq!(held.pieces.len(), 3);
    }
}
