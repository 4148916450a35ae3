//! The results of a call one by one, or all together, while its input is still being read.
//!
//! The input is read ahead of the results as far as the call's flow and the pool's credit allow: by whoever takes the
//! results, between two of them, where the input is a sequence; by a thread of the package's own (`run_feed`) where
//! reading it may take long or wait for something.
//!
//! It must never hold a lock of its own while Python code runs that another thread may wait for: reading is tried, and
//! left to whoever is at it.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Instant,
};

use bytes::Bytes;
use fleetpool::{
    Error,
    raw::{Arrived, Flow, RawCall},
};
use fleetpool_proto::SpecId;
use pyo3::{
    exceptions::PyStopIteration,
    intern,
    prelude::*,
    types::{PyIterator, PyList},
};

use crate::{
    call::{Ended, Packed, ended, extend},
    errors,
    payload::{self, Packer},
    pool::Pool,
    wait::{block, deadline},
};

/// A call's results as they are asked for.
#[pyclass(frozen, module = "fleetpool._core")]
pub(crate) struct Stream {
    call: RawCall,
    mode: u8,
    /// Inputs in a task; 0: a task is one input, not a chunk of them.
    chunk: usize,
    /// Inputs in a task, whose result is a list of results; 1: it is one; 0: what is read are chunks already, of any size.
    weight: u64,
    ordered: bool,
    /// Somebody else reads the input.
    threaded: bool,
    /// Most tasks ahead of the results.
    buffer: u64,
    feed: Mutex<Feed>,
    shelf: Mutex<Shelf>,
    /// Tasks submitted, and taken by the consumer.
    submitted: AtomicU64,
    taken: AtomicU64,
    /// The input has been read to its end, or will not be read any more.
    fed: AtomicBool,
    /// The reader waits until the consumer has taken something.
    starved: AtomicBool,
}

/// The input's side.
struct Feed {
    input: Option<Py<PyIterator>>,
    /// Packs arguments, and has the specification as `spec`: it may be another when it has packed one.
    caller: Py<PyAny>,
    spec: u32,
    packer: Packer,
    flow: Flow,
    /// Read, and not submitted yet for want of credit.
    pulled: Option<Bytes>,
}

/// The results' side.
#[derive(Default)]
struct Shelf {
    arrived: Vec<Arrived>,
    /// What can be given out; from `taken` on where the order is that of the inputs.
    waiting: VecDeque<Option<Item>>,
    /// What is left of a chunk that is being given out.
    open: VecDeque<(bool, Py<PyAny>)>,
    /// How often the error that ended a chunk is still to be told: once for each of its inputs.
    again: (u64, Option<PyErr>),
    /// How many inputs the last chunk has, and which that is; the others are full.
    last: Option<(u64, u64)>,
    /// Tasks that ended before they began: where, and why.
    unsent: Vec<(u64, PyErr)>,
    /// Why there is nothing more; told once.
    over: Option<PyErr>,
}

/// What a task ended with, unpacked when it is asked for.
enum Item {
    Arrived(Arrived),
    Unsent(PyErr),
}

/// Why the reader stops.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fed {
    Wholly,
    /// With so many slots.
    Enough(u64),
    NoCredit,
    /// Another thread reads.
    Busy,
}

#[pymethods]
impl Stream {
    #[new]
    #[pyo3(signature = (pool, mode, input, caller, chunk, ordered, threaded, buffer = None, weight = 1))]
    #[expect(clippy::too_many_arguments, reason = "the package's own call, once")]
    fn new(
        py: Python<'_>,
        pool: &Bound<'_, Pool>,
        mode: u8,
        input: &Bound<'_, PyAny>,
        caller: Py<PyAny>,
        chunk: usize,
        ordered: bool,
        threaded: bool,
        buffer: Option<u64>,
        weight: u64,
    ) -> PyResult<Self> {
        let call = pool.get().open(py)?.begin(weight);
        let call = call.map_err(|error| errors::of_pool(py, &error))?;
        let feed = Feed {
            input: Some(input.try_iter()?.unbind()),
            spec: caller.getattr(py, intern!(py, "spec"))?.extract(py)?,
            caller,
            packer: Packer::default(),
            flow: Flow::default(),
            pulled: None,
        };
        Ok(Self {
            call,
            mode,
            chunk,
            weight,
            ordered,
            threaded,
            buffer: buffer.unwrap_or(u64::MAX).max(1),
            feed: Mutex::new(feed),
            shelf: Mutex::default(),
            submitted: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            fed: AtomicBool::new(false),
            starved: AtomicBool::new(false),
        })
    }

    /// Submits as much as is good before a result is asked for.
    fn start(&self, py: Python<'_>) -> PyResult<()> {
        if !self.threaded {
            self.feed(py)?;
        }
        Ok(())
    }

    /// Reads the input until there is no more of it, or nobody wants it. For a thread of its own.
    fn run_feed(&self, py: Python<'_>) -> PyResult<()> {
        loop {
            let fed = self.feed(py)?;
            let taken = self.taken.load(Ordering::Relaxed);
            let received = self.call.received().0;
            match fed {
                Fed::Wholly | Fed::Busy => break,
                Fed::NoCredit => {
                    let credit =
                        block(py, deadline(None), |context| self.call.poll_credit(context))?;
                    if credit.is_some_and(|credit| credit.is_err()) {
                        break;
                    }
                }
                Fed::Enough(slots) => {
                    block(py, deadline(None), |context| {
                        let hunger = self.poll_hunger(context, taken, received);
                        self.unless_slots(hunger, slots)
                    })?;
                }
            }
        }
        self.cut();
        Ok(())
    }

    fn __iter__(stream: PyRef<'_, Self>) -> PyRef<'_, Self> {
        stream
    }

    /// The next result; raises why there is none in its place.
    fn __next__(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        Ok(self
            .next_by(py, None)?
            .expect("it comes, if there is no deadline"))
    }

    /// The next result, as `__next__` gives it, in a tuple; `None` when the time is over.
    fn next(&self, py: Python<'_>, timeout: f64) -> PyResult<Option<(Py<PyAny>,)>> {
        let result = self.next_by(py, deadline(Some(timeout)))?;
        Ok(result.map(|value| (value,)))
    }
    /// Waits for all results, in the order of the inputs; raises the error of the lowest input, after all have ended.
    fn collect(&self, py: Python<'_>) -> PyResult<Py<PyList>> {
        let results = PyList::empty(py);
        let mut failure = None;
        loop {
            while let Some(item) = self.take_item() {
                match self.open_item(py, item) {
                    Ended::Value(_) if failure.is_some() => {}
                    Ended::Value(value) if self.weight == 1 => results.append(value)?,
                    Ended::Value(value) => extend(&results, &value)?,
                    Ended::Error(error) => {
                        failure.get_or_insert(error);
                    }
                }
            }
            let fed = self.feed(py)?;
            if self.is_over() {
                let over = lock(&self.shelf).over.take();
                return match failure.or(over) {
                    Some(error) => Err(error),
                    None => Ok(results.unbind()),
                };
            }
            let ready = block(py, None, |context| self.poll_more(context, fed))?;
            self.sort_in();
            if let Some(Err(error)) = ready {
                self.stop(errors::of_pool(py, &error));
            }
        }
    }

    /// Submits what is left of the input, without waiting for anybody to take results.
    fn finish(&self, py: Python<'_>) -> PyResult<()> {
        let Ok(mut feed) = self.feed.try_lock() else {
            return Ok(());
        };
        let mut later: Vec<Bytes> = feed.pulled.take().into_iter().collect();
        let first = self.submitted.load(Ordering::Relaxed);
        while let Some(packed) = self.pull(py, &mut feed) {
            match packed {
                Ok(payload) => later.push(payload),
                // In the place of what would have come next.
                Err(error) => {
                    lock(&self.shelf)
                        .unsent
                        .push((first + later.len() as u64, error));
                    break;
                }
            }
        }
        self.submitted
            .fetch_add(later.len() as u64, Ordering::Relaxed);
        self.call.feed(SpecId(feed.spec), first, later);
        drop(feed);
        self.cut();
        Ok(())
    }

    /// Reads the input no further; what is asked for behind it raises `error`, if one is given.
    fn leave(&self, error: Option<Bound<'_, PyAny>>) {
        if self.fed.load(Ordering::Acquire) {
            return;
        }
        if let Some(error) = error {
            lock(&self.shelf)
                .over
                .get_or_insert(PyErr::from_value(error));
        }
        self.cut();
    }

    /// Ends the tasks, whose results nobody wants.
    fn abandon(&self, py: Python<'_>) {
        py.detach(|| self.call.abandon());
        self.cut();
    }

    /// How many tasks have been submitted, and have ended.
    fn counts(&self) -> (u64, u64) {
        (
            self.submitted.load(Ordering::Relaxed),
            self.call.received().0,
        )
    }
}

impl Stream {
    fn next_by(&self, py: Python<'_>, deadline: Option<Instant>) -> PyResult<Option<Py<PyAny>>> {
        loop {
            if let Some(result) = self.take(py) {
                return result.map(Some);
            }
            let fed = if self.threaded {
                Fed::Busy
            } else {
                self.feed(py)?
            };
            if self.is_over() {
                return Err(self.last_word());
            }
            let ready = block(py, deadline, |context| self.poll_more(context, fed))?;
            match ready {
                None => return Ok(None),
                Some(Ok(())) => self.sort_in(),
                Some(Err(error)) => {
                    self.sort_in();
                    self.stop(errors::of_pool(py, &error));
                }
            }
        }
    }

    /// Reads and submits as much as may be.
    fn feed(&self, py: Python<'_>) -> PyResult<Fed> {
        if self.fed.load(Ordering::Acquire) {
            return Ok(Fed::Wholly);
        }
        let Ok(mut feed) = self.feed.try_lock() else {
            return Ok(Fed::Busy);
        };
        loop {
            let (submitted, taken) = (
                self.submitted.load(Ordering::Relaxed),
                self.taken.load(Ordering::Relaxed),
            );
            let open = submitted - taken;
            let slots = self.call.slots();
            if self.call.is_cancelled() {
                break;
            }
            if open >= self.buffer || !feed.flow.allows(&self.call, open) {
                return Ok(Fed::Enough(slots));
            }
            let payload = match feed
                .pulled
                .take()
                .map(Ok)
                .or_else(|| self.pull(py, &mut feed))
            {
                Some(Ok(payload)) => payload,
                Some(Err(error)) => {
                    self.refuse(error);
                    if feed.input.is_none() {
                        break;
                    }
                    continue;
                }
                None => break,
            };
            match self
                .call
                .push(SpecId(feed.spec), submitted, payload.clone())
            {
                Ok(true) => drop(self.submitted.fetch_add(1, Ordering::Relaxed)),
                Ok(false) => {
                    feed.pulled = Some(payload);
                    return Ok(Fed::NoCredit);
                }
                Err(error) => {
                    drop(feed);
                    self.stop(errors::of_pool(py, &error));
                    return Ok(Fed::Wholly);
                }
            }
        }
        drop(feed);
        self.cut();
        Ok(Fed::Wholly)
    }

    /// The next task's argument; `None` when there is no more input. An error is told in its place: one of the input
    /// ends it, one of packing concerns that task alone.
    fn pull(&self, py: Python<'_>, feed: &mut Feed) -> Option<Packed> {
        let mut input = feed.input.as_ref()?.clone_ref(py).into_bound(py);
        let value = match self.chunk {
            0 => self.pull_one(&mut input),
            _ => self.pull_chunk(py, &mut input),
        };
        match value {
            None => {
                feed.input = None;
                None
            }
            Some(Err(error)) => {
                feed.input = None;
                Some(Err(error))
            }
            Some(Ok(value)) => {
                let caller = feed.caller.bind(py);
                let packed = feed.packer.argument(self.mode, &value, caller);
                if let Ok(spec) = caller
                    .getattr(intern!(py, "spec"))
                    .and_then(|spec| spec.extract())
                {
                    feed.spec = spec;
                }
                Some(packed)
            }
        }
    }

    fn pull_one<'py>(
        &self,
        input: &mut Bound<'py, PyIterator>,
    ) -> Option<PyResult<Bound<'py, PyAny>>> {
        let value = input.next()?;
        if self.weight == 0
            && let Ok(chunk) = &value
        {
            self.call.add_chunk(chunk.len().unwrap_or(1) as u64);
        }
        Some(value)
    }

    /// A chunk of the input. An error of the input takes the place of the chunk that it came in, as in the standard
    /// library.
    fn pull_chunk<'py>(
        &self,
        py: Python<'py>,
        input: &mut Bound<'py, PyIterator>,
    ) -> Option<PyResult<Bound<'py, PyAny>>> {
        let chunk = PyList::empty(py);
        for value in input.by_ref().take(self.chunk) {
            if let Err(error) = value.and_then(|value| chunk.append(value)) {
                return Some(Err(error));
            }
        }
        if chunk.is_empty() {
            return None;
        }
        if chunk.len() < self.chunk {
            let last = self.submitted.load(Ordering::Relaxed);
            lock(&self.shelf).last = Some((last, chunk.len() as u64));
        }
        Some(Ok(chunk.into_any()))
    }

    /// A task that ends before it began.
    fn refuse(&self, error: PyErr) {
        let position = self.submitted.fetch_add(1, Ordering::Relaxed);
        lock(&self.shelf).unsent.push((position, error));
        self.call.wake();
    }

    fn cut(&self) {
        self.fed.store(true, Ordering::Release);
        self.call.wake();
    }

    /// Nothing more will come.
    fn stop(&self, error: PyErr) {
        lock(&self.shelf).over.get_or_insert(error);
        self.cut();
        // What has not come by now never will.
        self.taken
            .fetch_max(self.submitted.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    fn is_over(&self) -> bool {
        let shelf = lock(&self.shelf);
        let nothing = shelf.arrived.is_empty()
            && shelf.unsent.is_empty()
            && shelf.open.is_empty()
            && shelf.again.0 == 0;
        let all_taken =
            self.taken.load(Ordering::Relaxed) >= self.submitted.load(Ordering::Relaxed);
        nothing && self.fed.load(Ordering::Acquire) && all_taken
    }

    fn last_word(&self) -> PyErr {
        let over = lock(&self.shelf).over.take();
        over.unwrap_or_else(|| PyStopIteration::new_err(()))
    }

    /// Ready when it is worth to look again.
    fn poll_more(&self, context: &Context<'_>, fed: Fed) -> Poll<Result<(), Error>> {
        let mut shelf = lock(&self.shelf);
        if !shelf.unsent.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let polled = self.call.poll_arrived(context, &mut shelf.arrived);
        drop(shelf);
        if polled.is_ready() {
            return polled;
        }
        if self.is_over() {
            return Poll::Ready(Ok(()));
        }
        match fed {
            Fed::NoCredit => self.call.poll_credit(context),
            Fed::Enough(slots) => self.unless_slots(Poll::Pending, slots).map(Ok),
            Fed::Wholly | Fed::Busy => Poll::Pending,
        }
    }

    /// Ready, too, when there are other slots than those by which the input was read.
    fn unless_slots(&self, polled: Poll<()>, slots: u64) -> Poll<()> {
        match polled {
            Poll::Pending if slots != self.call.slots() => Poll::Ready(()),
            polled => polled,
        }
    }

    /// Ready when the reader may go on.
    fn poll_hunger(&self, context: &Context<'_>, taken: u64, received: u64) -> Poll<()> {
        self.starved.store(true, Ordering::SeqCst);
        let over = || self.fed.load(Ordering::Acquire) || self.call.is_cancelled();
        if self.taken.load(Ordering::SeqCst) != taken || over() {
            return Poll::Ready(());
        }
        self.call.poll_received(context, received).map(|_| ())
    }

    fn sort_in(&self) {
        let mut shelf = lock(&self.shelf);
        let Shelf {
            arrived,
            waiting,
            unsent,
            ..
        } = &mut *shelf;
        let taken = self.taken.load(Ordering::Relaxed);
        let arrived = arrived
            .drain(..)
            .map(|arrived| (arrived.position, Item::Arrived(arrived)));
        let unsent = unsent
            .drain(..)
            .map(|(position, error)| (position, Item::Unsent(error)));
        for (position, item) in arrived.chain(unsent) {
            if !self.ordered {
                waiting.push_back(Some(item));
                continue;
            }
            let Some(place) = position
                .checked_sub(taken)
                .and_then(|place| usize::try_from(place).ok())
            else {
                continue;
            };
            if place >= waiting.len() {
                waiting.resize_with(place + 1, || None);
            }
            waiting[place] = Some(item);
        }
    }

    fn take_item(&self) -> Option<Item> {
        let mut shelf = lock(&self.shelf);
        shelf.waiting.front()?.as_ref()?;
        let item = shelf.waiting.pop_front()?;
        drop(shelf);
        self.taken.fetch_add(1, Ordering::SeqCst);
        if self.threaded && self.starved.swap(false, Ordering::SeqCst) {
            self.call.wake();
        }
        item
    }

    fn open_item<'py>(&self, py: Python<'py>, item: Item) -> Ended<'py> {
        match item {
            Item::Arrived(mut arrived) => {
                // What ends a chunk is said of its first input.
                arrived.position = self.call.first_input(arrived.position);
                ended(py, &self.call, &arrived)
            }
            Item::Unsent(error) => Ended::Error(error),
        }
    }

    /// A result that is here and due.
    fn take(&self, py: Python<'_>) -> Option<PyResult<Py<PyAny>>> {
        loop {
            let rest = lock(&self.shelf).open.pop_front();
            if let Some((good, packed)) = rest {
                return Some(self.open_rest(py, good, packed));
            }
            if let Some(error) = self.error_again(py) {
                return Some(Err(error));
            }
            let item = self.take_item()?;
            let inputs = self.inputs_of(&item);
            match self.open_item(py, item) {
                Ended::Error(error) => {
                    lock(&self.shelf).again = (inputs - 1, Some(error.clone_ref(py)));
                    return Some(Err(error));
                }
                Ended::Value(value) if self.weight == 1 => return Some(Ok(value.unbind())),
                Ended::Value(chunk) => match chunk.extract::<Vec<_>>() {
                    Ok(items) => lock(&self.shelf).open = items.into(),
                    Err(error) => return Some(Err(error)),
                },
            }
        }
    }

    /// How many inputs a task has.
    fn inputs_of(&self, item: &Item) -> u64 {
        let Item::Arrived(arrived) = item else {
            return 1;
        };
        let last = lock(&self.shelf).last;
        let short = last.filter(|(position, _)| *position == arrived.position);
        short.map_or(self.weight, |(_, inputs)| inputs).max(1)
    }

    fn error_again(&self, py: Python<'_>) -> Option<PyErr> {
        let mut shelf = lock(&self.shelf);
        let (left, error) = &mut shelf.again;
        *left = left.checked_sub(1)?;
        error.as_ref().map(|error| error.clone_ref(py))
    }

    /// One of a chunk's results.
    fn open_rest(&self, py: Python<'_>, good: bool, packed: Py<PyAny>) -> PyResult<Py<PyAny>> {
        let packed: Vec<u8> = packed.extract(py)?;
        match good {
            true => payload::unpack(py, &packed).map(Bound::unbind),
            false => Err(errors::of_failure(py, &packed, "", 0)),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
