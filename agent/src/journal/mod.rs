//! The agent's journal: what its successor has to know, where there is a spawner that outlives it (G10).
//!
//! An append-only file in the agent's folder. It has to survive the death of this process, not of the machine, which takes all
//! that it is about with it: so nothing is ever synchronised to the disk. What came in together is one record, which counts
//! whole or not at all, and is written before anything is done or acknowledged that follows from it. When the file has grown
//! large it is begun anew with all that is true.

mod left;

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use serde::Serialize as _;

pub(crate) use left::{Entry, Left, OutputLeft, Pieces};

use crate::spawner::VERSION;

const FILE: &str = "agent.journal";
const NEW_FILE: &str = "agent.journal.new";
/// First in the file; the build's version of what is in it follows.
const MAGIC: &[u8] = b"fleetpool agent journal ";
/// A file smaller than this is not begun anew.
const BYTES_MIN: u64 = 8 << 20;
/// A file is begun anew when it is this many times what it was when it was begun.
const GROWTH: u64 = 4;
/// Length and checksum before each record.
const PRELUDE_BYTES: usize = 8;

/// The journal of an agent's life.
#[derive(Debug)]
pub(crate) struct Journal {
    folder: PathBuf,
    begin: Entry,
    /// `None`: it could not be written, and is of no use to a successor.
    file: Option<File>,
    bytes: u64,
    bytes_max: u64,
    pending: Vec<Entry>,
    buffer: Vec<u8>,
}

impl Journal {
    /// What an agent of that life has left there; `None` when it is another's, or cannot be read.
    pub(crate) fn read(folder: &Path, incarnation: u64, boot_id: &str) -> Option<Left> {
        let bytes = fs::read(folder.join(FILE)).ok()?;
        let rest = bytes.strip_prefix(MAGIC)?;
        let (&version, mut rest) = rest.split_first()?;
        let begin = take_record(&mut rest)?.into_iter().next()?;
        let is_his = matches!(&begin, Entry::Begin { incarnation: life, boot_id: boot }
            if *life == incarnation && boot == boot_id);
        if version != VERSION || !is_his {
            return None;
        }
        let mut left = Left::default();
        // What follows a record that is not whole was never acted upon.
        while let Some(entries) = take_record(&mut rest) {
            entries.into_iter().for_each(|entry| left.apply(entry));
        }
        Some(left)
    }

    /// Begins the file of a life with all that is true.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn begin(
        folder: &Path,
        incarnation: u64,
        boot_id: &str,
        left: Left,
    ) -> io::Result<Self> {
        let mut journal = Self {
            folder: folder.to_owned(),
            begin: Entry::Begin {
                incarnation,
                boot_id: boot_id.to_owned(),
            },
            file: None,
            bytes: 0,
            bytes_max: 0,
            pending: Vec::new(),
            buffer: Vec::new(),
        };
        journal.begin_anew(left)?;
        Ok(journal)
    }

    /// Puts an entry into the next record.
    pub(crate) fn note(&mut self, entry: Entry) {
        self.pending.push(entry);
    }

    /// Writes the record. Whether the file should be begun anew.
    pub(crate) fn write(&mut self) -> bool {
        if self.pending.is_empty() {
            return false;
        }
        let Some(file) = &mut self.file else {
            self.pending.clear();
            return false;
        };
        self.buffer.clear();
        put_record(&mut self.buffer, &self.pending);
        self.pending.clear();
        match file.write_all(&self.buffer) {
            Ok(()) => self.bytes += self.buffer.len() as u64,
            Err(error) => self.give_up(&error),
        }
        self.bytes > self.bytes_max
    }

    /// Begins the file anew, where it can be.
    pub(crate) fn compact(&mut self, left: Left) {
        if let Err(error) = self.begin_anew(left) {
            self.give_up(&error);
        }
    }

    fn begin_anew(&mut self, left: Left) -> io::Result<()> {
        let new = self.folder.join(NEW_FILE);
        let mut bytes = [MAGIC, &[VERSION]].concat();
        put_record(&mut bytes, std::slice::from_ref(&self.begin));
        put_record(&mut bytes, &[Entry::Whole(Box::new(left))]);
        // It has what tasks print and return.
        let mut options = File::options();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(&new)?;
        file.write_all(&bytes)?;
        fs::rename(&new, self.folder.join(FILE))?;
        self.file = Some(file);
        self.bytes = bytes.len() as u64;
        self.bytes_max = BYTES_MIN.max(self.bytes * GROWTH);
        Ok(())
    }

    /// A successor finds nothing, and everything ends with this process as if there were no journal.
    fn give_up(&mut self, error: &io::Error) {
        tracing::error!(%error, folder = %self.folder.display(),
            "cannot write the agent's journal: what runs here will not survive a restart of the agent");
        self.file = None;
        self.bytes = 0;
        let _ = fs::remove_file(self.folder.join(FILE));
    }
}

fn put_record(buffer: &mut Vec<u8>, entries: &[Entry]) {
    let at = buffer.len();
    buffer.extend_from_slice(&[0; PRELUDE_BYTES]);
    let mut serializer = rmp_serde::Serializer::new(&mut *buffer).with_struct_map();
    // Into memory it does not fail; what could not be encoded could not be read either.
    let encoded = entries.serialize(&mut serializer);
    debug_assert!(encoded.is_ok(), "entries can be encoded: {encoded:?}");
    let body = &buffer[at + PRELUDE_BYTES..];
    let (len, sum) = (
        u32::try_from(body.len()).unwrap_or(u32::MAX),
        checksum(body),
    );
    buffer[at..at + 4].copy_from_slice(&len.to_be_bytes());
    buffer[at + 4..at + PRELUDE_BYTES].copy_from_slice(&sum);
}

/// The next whole record.
fn take_record(bytes: &mut &[u8]) -> Option<Vec<Entry>> {
    let (prelude, rest) = bytes.split_first_chunk::<PRELUDE_BYTES>()?;
    let [a, b, c, d, sum @ ..] = *prelude;
    let len = usize::try_from(u32::from_be_bytes([a, b, c, d])).ok()?;
    let (body, rest) = rest.split_at_checked(len)?;
    if checksum(body) != sum {
        return None;
    }
    *bytes = rest;
    rmp_serde::from_slice(body).ok()
}

fn checksum(body: &[u8]) -> [u8; 4] {
    let [a, b, c, d, ..] = *blake3::hash(body).as_bytes();
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use fleetpool_agent_core::Fact;
    use fleetpool_proto::{
        Attempt, AttemptId, Outcome, PoolId, SlotNo, SpecId, TaskId,
        message::{GrantRow, ReportRow, Stream, TaskRow},
        pool::{PoolOptions, Spec},
    };

    use super::*;
    use crate::workers::Printed;

    const POOL: PoolId = PoolId(7);

    fn printed(index: u64, text: &str) -> Printed {
        Printed {
            attempt: AttemptId {
                task: TaskId::new(POOL, index),
                attempt: Attempt(1),
            },
            pid: 40,
            stream: Stream::Stdout,
            bytes: text.to_owned().into(),
        }
    }

    fn handed(index: u64) -> GrantRow {
        GrantRow {
            index,
            attempt: Attempt(1),
            spec: SpecId(1),
        }
    }

    /// One record an item, with every kind of entry.
    fn records() -> Vec<Vec<Entry>> {
        let slot = SlotNo(2);
        let ended = |index| TaskRow {
            index,
            attempt: Attempt(1),
        };
        let report = ReportRow {
            index: 1,
            attempt: Attempt(1),
            outcome: Outcome::Failed,
            slot,
            pid: 40,
            started_us: 5,
            run_us: 6,
        };
        let pool = Fact::Pool {
            pool: POOL,
            options: Box::new(PoolOptions::default()),
        };
        let spec = Fact::Spec {
            pool: POOL,
            spec: SpecId(1),
            body: Box::new(Spec::default()),
        };
        let worker = Fact::Worker {
            slot,
            generation: 3,
            pool: POOL,
        };
        let other = Fact::Worker {
            slot: SlotNo(0),
            generation: 1,
            pool: POOL,
        };
        let heard = |number| Entry::Heard {
            slot,
            generation: 3,
            number,
        };
        let handed = Fact::Handed {
            slot,
            at_us: 10,
            tasks: [1, 2, 3].map(handed).into(),
        };
        let reports = Fact::Reports {
            pool: POOL,
            at_us: 20,
            rows: vec![report],
            payloads: vec![b"why".as_slice().into()],
        };
        let lines = [
            printed(1, "one\n"),
            printed(1, "two\n"),
            printed(1, "three"),
        ];
        let printed = Pieces::of(&lines).into_iter().map(Entry::Printed);
        vec![
            vec![Entry::Fact(pool), Entry::Fact(spec)],
            vec![Entry::Fact(Fact::Allotted {
                pool: POOL,
                slots: 2,
            })],
            vec![Entry::Fact(other), Entry::Fact(worker), Entry::Fact(handed)],
            vec![Entry::Fact(Fact::Fence { at_us: Some(99) })],
            printed.chain([heard(2)]).collect(),
            vec![Entry::Framed {
                number: 1,
                pieces: 2,
            }],
            vec![Entry::Fact(reports), heard(3)],
            vec![Entry::Framed {
                number: 2,
                pieces: 1,
            }],
            vec![Entry::OutputAcked { number: 1 }],
            vec![Entry::Fact(Fact::Dropped {
                slot,
                at_us: 30,
                tasks: vec![ended(3)],
            })],
            vec![Entry::Fact(Fact::WorkerOver { slot: SlotNo(0) })],
            vec![Entry::Fact(Fact::Acked {
                pool: PoolId(8),
                rows: vec![ended(1)],
            })],
            vec![Entry::Fact(Fact::PoolOver { pool: PoolId(8) })],
        ]
    }

    fn left_after(records: &[Vec<Entry>]) -> Left {
        let mut left = Left::default();
        let entries = records.iter().flatten().cloned();
        entries.for_each(|entry| left.apply(entry));
        left
    }

    fn written(folder: &Path, records: &[Vec<Entry>]) -> Journal {
        let mut journal = Journal::begin(folder, 5, "boot", Left::default()).unwrap();
        for record in records {
            record.iter().cloned().for_each(|entry| journal.note(entry));
            assert!(!journal.write());
        }
        journal
    }

    #[test]
    fn a_successor_finds_all_that_was_written_and_another_life_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let records = records();
        let mut journal = written(folder.path(), &records);
        let left = left_after(&records);
        let read = |life, boot| Journal::read(folder.path(), life, boot);
        assert_eq!(read(5, "boot"), Some(left.clone()));
        assert_eq!((read(6, "boot"), read(5, "another boot")), (None, None));
        journal.compact(left.clone());
        assert_eq!(read(5, "boot"), Some(left.clone()));
        journal.note(Entry::OutputAcked { number: 2 });
        journal.write();
        assert_eq!(left.output.framed.len(), 1);
        assert_eq!(read(5, "boot").unwrap().output.framed.len(), 0);
    }

    #[test]
    fn a_journal_that_ends_anywhere_counts_up_to_its_last_whole_record() {
        let folder = tempfile::tempdir().unwrap();
        let records = records();
        drop(written(folder.path(), &records));
        let file = folder.path().join(FILE);
        let whole = fs::read(&file).unwrap();
        let all: Vec<Left> = (0..=records.len())
            .map(|count| left_after(&records[..count]))
            .collect();
        let mut known = 0;
        for len in 0..=whole.len() {
            fs::write(&file, &whole[..len]).unwrap();
            let Some(left) = Journal::read(folder.path(), 5, "boot") else {
                assert_eq!(known, 0);
                continue;
            };
            let now = all.iter().rposition(|known| *known == left).unwrap();
            assert!(now >= known);
            known = now;
        }
        assert_eq!(known, records.len());
    }

    /// What an older build of the same [`VERSION`] has written can be read.
    #[test]
    fn a_journal_of_this_version_is_read_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/agent-2.journal");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            drop(written(folder.path(), &records()));
            fs::create_dir_all(golden.parent().unwrap()).unwrap();
            fs::copy(folder.path().join(FILE), &golden).unwrap();
        }
        assert_eq!(VERSION, 2, "name the golden file by the version");
        fs::copy(&golden, folder.path().join(FILE)).unwrap();
        let left = Journal::read(folder.path(), 5, "boot");
        assert_eq!(left, Some(left_after(&records())));
    }

    #[test]
    fn what_cannot_be_written_is_not_found() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = written(folder.path(), &[]);
        journal.file = Some(File::open("/dev/null").unwrap());
        journal.note(Entry::OutputAcked { number: 2 });
        assert!(!journal.write());
        assert_eq!(Journal::read(folder.path(), 5, "boot"), None);
        journal.note(Entry::OutputAcked { number: 3 });
        assert!(!journal.write());
    }
}
