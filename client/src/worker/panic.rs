//! What a panicking task says.

use std::{
    any::Any,
    cell::RefCell,
    panic::{self, AssertUnwindSafe, PanicHookInfo},
};

use fleetpool_proto::worker::NativeError;

thread_local! {
    /// The last panic of this thread.
    static LAST: RefCell<Option<NativeError>> = const { RefCell::new(None) };
}

/// From now on panics are noted, and printed as before.
pub(super) fn note_panics() {
    let print = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        LAST.set(Some(describe(info)));
        print(info);
    }));
}

/// Runs `task`; a panic in it becomes an error.
pub(super) fn catch<T>(task: impl FnOnce() -> T) -> Result<T, NativeError> {
    // What a panic leaves half done in globals is the program's own affair, as it is with threads.
    panic::catch_unwind(AssertUnwindSafe(task)).map_err(|payload| {
        let unnoted = || NativeError {
            message: message(&*payload),
            location: String::new(),
        };
        LAST.take().unwrap_or_else(unnoted)
    })
}

fn describe(info: &PanicHookInfo<'_>) -> NativeError {
    NativeError {
        message: message(info.payload()),
        location: info.location().map(ToString::to_string).unwrap_or_default(),
    }
}

fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(ToString::to_string);
    let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "a panic without a message".to_owned())
}
