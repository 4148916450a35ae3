//! The thread that waits for the disk, so that nobody else does: one `fdatasync` for all that was written since the last.

use std::{
    fs::File,
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
};

/// How far a journal has come.
pub(super) type Position = u64;

/// Hears of each position that is on disk; `false`: nobody wants to know any more.
pub(crate) type Told = Box<dyn Fn(io::Result<Position>) -> bool + Send>;

/// Asks for what was written to be put on disk. Its thread ends with it.
#[derive(Debug)]
pub(super) struct Syncer {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    wanted: Option<(Arc<File>, Position)>,
    /// Files that are to be on disk before it is told.
    others: Vec<Arc<File>>,
    over: bool,
}

impl Syncer {
    pub(super) fn start(told: Told) -> io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let theirs = Arc::clone(&shared);
        thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || theirs.run(&told))?;
        Ok(Self { shared })
    }

    /// Has the file put on disk as far as `position`.
    pub(super) fn want(&self, file: &Arc<File>, position: Position, others: Vec<Arc<File>>) {
        let mut state = self.shared.lock();
        state.wanted = Some((Arc::clone(file), position));
        state.others.extend(others);
        drop(state);
        self.shared.changed.notify_one();
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        self.shared.lock().over = true;
        self.shared.changed.notify_one();
    }
}

impl Shared {
    fn run(&self, told: &Told) {
        while let Some((file, position, others)) = self.next() {
            let others = others.iter().try_for_each(|other| other.sync_data());
            let synced = others.and_then(|()| file.sync_data()).map(|()| position);
            let failed = synced.is_err();
            // After an error nobody knows what is on disk: nothing more is promised.
            if !told(synced) || failed {
                return;
            }
        }
    }

    fn next(&self) -> Option<(Arc<File>, Position, Vec<Arc<File>>)> {
        let mut state = self.lock();
        loop {
            if state.over {
                return None;
            }
            if let Some((file, position)) = state.wanted.take() {
                return Some((file, position, std::mem::take(&mut state.others)));
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
