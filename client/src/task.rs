//! Functions that pools can run, and where a worker finds them.

use serde::{Serialize, de::DeserializeOwned};

use crate::codec;

/// A function that a pool can run in another process. Made by [`#[fleetpool::task]`](macro@crate::task), not by hand.
///
/// ```
/// use fleetpool::Task;
///
/// #[fleetpool::task]
/// fn square(x: u64) -> u64 {
///     x * x
/// }
///
/// assert_eq!(square(3), 9);
/// assert!(<square as Task>::NAME.ends_with("::square"));
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be run by a pool: it is not a fleetpool task",
    label = "not a function marked with `#[fleetpool::task]`",
    note = "put `#[fleetpool::task]` on a function and give its name to the pool",
    note = "closures cannot be tasks: what they capture cannot travel to another process; take it as an argument"
)]
pub trait Task: Copy + Send + Sync + 'static {
    /// Its argument; a tuple when there are several, `()` when there is none.
    type Input: Serialize + DeserializeOwned;
    /// Its result.
    type Output: Serialize + DeserializeOwned;
    /// Its path in the program, by which workers find it.
    const NAME: &'static str;

    /// Calls it here and now, in this process.
    fn call(input: Self::Input) -> Self::Output;
}

/// Runs a function on an encoded argument and appends the encoded result.
pub(crate) type Run = fn(&[u8], &mut Vec<u8>) -> Result<(), codec::Error>;

/// A task in the program's list. For the attribute's use only.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    name: &'static str,
    run: Run,
}

inventory::collect!(Entry);

impl Entry {
    /// The entry of `T`.
    #[must_use]
    pub const fn of<T: Task>() -> Self {
        Self {
            name: T::NAME,
            run: run::<T>,
        }
    }
}

fn run<T: Task>(argument: &[u8], result: &mut Vec<u8>) -> Result<(), codec::Error> {
    let output = T::call(codec::decode(argument)?);
    codec::encode(&output, result)
}

/// The function of that name in this program.
pub(crate) fn find(name: &str) -> Option<Run> {
    let entries = inventory::iter::<Entry>.into_iter();
    entries
        .filter(|entry| entry.name == name)
        .map(|entry| entry.run)
        .next()
}

/// A name that two tasks of this program share, so that a worker could call the wrong one.
pub(crate) fn ambiguous() -> Option<&'static str> {
    let mut names: Vec<_> = inventory::iter::<Entry>
        .into_iter()
        .map(|e| e.name)
        .collect();
    names.sort_unstable();
    names
        .windows(2)
        .find(|pair| pair[0] == pair[1])
        .map(|pair| pair[0])
}
