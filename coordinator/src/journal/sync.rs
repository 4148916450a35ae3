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
    pub(super) fn want(&self, file: &Arc<File>, position: Position) {
        self.shared.lock().wanted = Some((Arc::clone(file), position));
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
        while let Some((file, position)) = self.next() {
            let synced = file.sync_data().map(|()| position);
            let failed = synced.is_err();
            // After an error nobody knows what is on disk: nothing more is promised.
            if !told(synced) || failed {
                return;
            }
        }
    }

    fn next(&self) -> Option<(Arc<File>, Position)> {
        let mut state = self.lock();
        loop {
            if state.over {
                return None;
            }
            if let Some(wanted) = state.wanted.take() {
                return Some(wanted);
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
