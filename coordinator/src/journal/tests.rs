use std::sync::mpsc;

use fleetpool_proto::{HostId, PoolId, message::TaskRow};

use super::*;

fn fact(index: u64) -> Fact {
    Fact::Granted {
        pool: PoolId(1),
        host: HostId(2),
        rows: vec![TaskRow {
            index,
            ..TaskRow::default()
        }],
    }
}

fn nobody() -> Told {
    Box::new(|_| true)
}

fn kept(dir: &Path) -> Result<Vec<Fact>, JournalError> {
    let mut facts = Vec::new();
    Folder::open(dir)?.read(|fact| facts.push(fact))?;
    Ok(facts)
}

#[test]
fn g9_only_its_owner_can_look_into_a_journals_folder() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().expect("a folder");
    let folder = dir.path().join("journal");
    Folder::open(&folder).expect("a folder");
    let mode = fs::metadata(&folder)
        .expect("it is there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o700);
}

/// A journal of ten facts, two of them in its snapshot; its bytes.
fn written(dir: &Path) -> (PathBuf, Vec<u8>) {
    let folder = Folder::open(dir).expect("a folder");
    let mut journal = folder.begin((0..2).map(fact), nobody()).expect("a journal");
    (2..10).for_each(|index| journal.add(fact(index)));
    journal.write().expect("written");
    let path = read::path(dir, 1);
    let bytes = fs::read(&path).expect("a file");
    (path, bytes)
}

#[test]
fn g10_what_was_written_is_read_and_a_new_journal_says_the_same() {
    let dir = tempfile::tempdir().expect("a folder");
    written(dir.path());
    let before = kept(dir.path()).expect("sound");
    assert_eq!(before, (0..10).map(fact).collect::<Vec<_>>());
    let folder = Folder::open(dir.path()).expect("a folder");
    folder.begin(before.clone(), nobody()).expect("a journal");
    assert_eq!(kept(dir.path()).expect("sound"), before);
    assert_eq!(read::numbers(dir.path()).expect("numbers"), [2]);
}

#[test]
fn g5_a_doubt_outlasts_every_journal_until_hosts_are_fenced() {
    let dir = tempfile::tempdir().expect("a folder");
    written(dir.path());
    let folder = || Folder::open(dir.path()).expect("a folder");
    assert!(!folder().is_doubted());
    folder().doubt().expect("written");
    folder().begin([fact(0)], nobody()).expect("a journal");
    assert!(folder().is_doubted(), "its process was killed");
    let mut journal = folder().begin([fact(0)], nobody()).expect("a journal");
    journal.trust();
    assert!(!folder().is_doubted());
}

#[test]
fn g10_a_journal_cut_at_any_byte_is_a_prefix_of_what_was_written() {
    let dir = tempfile::tempdir().expect("a folder");
    let (path, bytes) = written(dir.path());
    let mut most = 0;
    for end in read::HEAD.len()..=bytes.len() {
        fs::write(&path, &bytes[..end]).expect("a file");
        let facts = kept(dir.path()).expect("a prefix");
        assert_eq!(facts, (0..facts.len() as u64).map(fact).collect::<Vec<_>>());
        assert!(facts.len() >= most, "a longer journal says less");
        most = facts.len();
    }
    assert_eq!(most, 10);
}

#[test]
fn g10_a_flipped_bit_is_refused_or_costs_no_more_than_the_end() {
    let dir = tempfile::tempdir().expect("a folder");
    let (path, bytes) = written(dir.path());
    let last = bytes.len() / 10 * 9;
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        fs::write(&path, &flipped).expect("a file");
        match kept(dir.path()) {
            Err(JournalError::Damaged { at: place, .. }) => assert!(place <= at as u64),
            Err(JournalError::Foreign(_)) => assert!(at < read::HEAD.len()),
            Err(error) => panic!("{error}"),
            Ok(facts) => {
                assert!(at >= last, "byte {at} may not be lost in silence");
                assert_eq!(facts, (0..facts.len() as u64).map(fact).collect::<Vec<_>>());
            }
        }
    }
}

#[test]
fn g10_what_is_on_disk_is_told() {
    let dir = tempfile::tempdir().expect("a folder");
    let (told, hears) = mpsc::channel();
    let tell: Told = Box::new(move |synced| told.send(synced.expect("a disk")).is_ok());
    let folder = Folder::open(dir.path()).expect("a folder");
    let mut journal = folder.begin([], tell).expect("a journal");
    journal.add(fact(0));
    journal.sync(Vec::new());
    journal.write().expect("written");
    journal.sync(Vec::new());
    let position = journal.position();
    assert!(position > 0);
    assert_eq!(
        hears.recv(),
        Ok(position),
        "what is not written is not promised"
    );
}

#[test]
fn g10_after_the_disk_has_refused_nothing_is_told_to_be_there() {
    let (told, hears) = mpsc::channel();
    let tell: Told = Box::new(move |synced| told.send(synced.is_ok()).is_ok());
    let syncer = Syncer::start(tell).expect("a thread");
    // No disk is behind a pipe, and the kernel says so.
    let (_read, write) = io::pipe().expect("a pipe");
    let refuses = Arc::new(File::from(std::os::fd::OwnedFd::from(write)));
    syncer.want(&refuses, 1, Vec::new());
    assert_eq!(hears.recv(), Ok(false));
    let works = Arc::new(tempfile::tempfile().expect("a file"));
    syncer.want(&works, 2, Vec::new());
    assert_eq!(hears.recv(), Err(mpsc::RecvError), "nothing is told");
}

#[test]
fn g10_what_a_full_disk_did_not_take_is_written_once_when_there_is_room() {
    let dir = tempfile::tempdir().expect("a folder");
    let folder = Folder::open(dir.path()).expect("a folder");
    let mut journal = folder.begin([fact(0)], nobody()).expect("a journal");
    let full = OpenOptions::new().write(true).open("/dev/full");
    let file = std::mem::replace(&mut journal.file, Arc::new(full.expect("a device")));
    journal.add(fact(1));
    let error = journal.write().expect_err("it is full");
    assert!(is_full(&error), "{error}");
    assert!(journal.is_short() && journal.is_pending());
    assert!(
        !dir.path().join(RESERVE).exists(),
        "the reserve is given up"
    );
    journal.add(fact(2));
    journal.file = file;
    journal.write().expect("there is room");
    assert!(!journal.stays_short());
    assert_eq!(
        kept(dir.path()).expect("sound"),
        [fact(0), fact(1), fact(2)]
    );
}

#[test]
fn a_journal_that_has_grown_is_begun_anew() {
    let dir = tempfile::tempdir().expect("a folder");
    let folder = Folder::open(dir.path()).expect("a folder");
    let mut journal = folder.begin([], nobody()).expect("a journal");
    let large = || Fact::Submitted {
        pool: PoolId(1),
        spec: fleetpool_proto::SpecId(0),
        first: 0,
        hosts: Vec::new(),
        payloads: [bytes::Bytes::from(vec![7; 16 << 20])]
            .into_iter()
            .collect(),
    };
    while !journal.is_long() {
        journal.add(large());
        journal.write().expect("written");
    }
    journal.renew([fact(0)]);
    journal.add(fact(1));
    journal.write().expect("written");
    assert!(!journal.is_long());
    assert_eq!(kept(dir.path()).expect("sound"), [fact(0), fact(1)]);
}
