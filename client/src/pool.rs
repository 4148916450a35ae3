//! The pool, as a program uses it.

use std::{fmt, future::poll_fn, sync::Arc};

use bytes::Bytes;
pub use fleetpool_proto::view::HostView;
use fleetpool_proto::view::{Answer, Query};

use crate::{
    builder::Builder,
    call::{Arrived, Call, Collect, Core, Encoded, Encoder, Feed, Items, Order, encode_one},
    cluster::{self, Cluster, Hosts},
    command::CommandBuilder,
    error::{Error, TaskError},
    handle::TaskHandle,
    iter::{Results, Stream},
    park,
    task::Task,
};

/// N slots, on this machine or anywhere in a fleet, that run tasks: at most N at once.
///
/// A pool may be shared between threads by reference; calls that are made side by side are served side by side.
/// Dropping it terminates it: what runs is killed, and nothing of it is left.
///
/// ```standalone_crate
/// #[fleetpool::task]
/// fn word_count(text: String) -> usize {
///     text.split_whitespace().count()
/// }
///
/// fn main() -> Result<(), fleetpool::Error> {
///     fleetpool::init();
///     let pool = fleetpool::Pool::builder().processes(2).build()?;
///     let texts = ["one", "two words"].map(String::from);
///     assert_eq!(pool.map(word_count, texts)?, [1, 2]);
///     Ok(())
/// }
/// ```
pub struct Pool {
    core: Arc<Core>,
    cluster: Cluster,
    on: String,
}

impl Pool {
    /// A pool is described first, then opened.
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub(crate) fn new(core: Arc<Core>, cluster: Cluster, on: String) -> Self {
        Self { core, cluster, on }
    }

    /// Runs `task` on every input and waits for all results, in the order of the inputs.
    ///
    /// ```no_run
    /// # #[fleetpool::task] fn square(x: u64) -> u64 { x * x }
    /// # fn f(pool: &fleetpool::Pool) -> Result<(), fleetpool::Error> {
    /// let squares: Vec<u64> = pool.map(square, 0..1_000_000)?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// When a task failed: that of the lowest index, after all others have ended. When the pool has ended.
    pub fn map<T, I>(&self, task: T, inputs: I) -> Result<Vec<T::Output>, Error>
    where
        T: Task,
        I: IntoIterator<Item = T::Input>,
    {
        let _ = task;
        let call = self.core.begin_call()?;
        let _feeding = self.core.begin_feeding();
        let mut collect = Collect::<T, _>::new(self.feed::<T, _>(&call, inputs), call);
        park::block_on(poll_fn(|context| collect.poll(context)))
    }

    /// [`Self::map`] for functions of several arguments: every input is a tuple of them.
    ///
    /// ```no_run
    /// # #[fleetpool::task] fn add(a: i32, b: i32) -> i32 { a + b }
    /// # fn f(pool: &fleetpool::Pool) -> Result<(), fleetpool::Error> {
    /// assert_eq!(pool.starmap(add, [(1, 2), (3, 4)])?, [3, 7]);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As for [`Self::map`].
    pub fn starmap<T, I>(&self, task: T, inputs: I) -> Result<Vec<T::Output>, Error>
    where
        T: Task,
        I: IntoIterator<Item = T::Input>,
    {
        self.map(task, inputs)
    }

    /// Runs `task` on every input in the background. The inputs are taken at once.
    ///
    /// # Errors
    /// When the pool takes no calls any more.
    pub fn map_async<T, I>(&self, task: T, inputs: I) -> Result<TaskHandle<Vec<T::Output>>, Error>
    where
        T: Task,
        I: IntoIterator<Item = T::Input>,
    {
        let _ = task;
        let call = self.core.begin_call()?;
        let inputs: Vec<Encoded> = Encoder::<T, _>::new(inputs.into_iter()).collect();
        let count = inputs.len() as u64;
        let spec = self.core.spec(T::NAME);
        let core = Arc::clone(&self.core);
        let mut feed = Feed::new(core, Arc::clone(&call), spec, inputs.into_iter());
        let feeding = self.core.begin_feeding();
        let fed = Arc::clone(&call);
        self.cluster.runtime().spawn(async move {
            if let Err(error) = poll_fn(|context| feed.poll_all(context)).await {
                fed.end(error);
            }
            drop(feeding);
        });
        Ok(TaskHandle::new(
            Arc::clone(&self.core),
            call,
            count,
            read_all::<T>,
        ))
    }

    /// Runs `task` once and waits for its result.
    ///
    /// ```no_run
    /// # #[fleetpool::task] fn add(a: i32, b: i32) -> i32 { a + b }
    /// # fn f(pool: &fleetpool::Pool) -> Result<(), fleetpool::Error> {
    /// assert_eq!(pool.apply(add, (1, 2))?, 3);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// When the task failed or the pool has ended.
    pub fn apply<T: Task>(&self, task: T, input: T::Input) -> Result<T::Output, Error> {
        self.apply_async(task, input)?.get()
    }

    /// Runs `task` once in the background. Waits only while the pool has no room for another task.
    ///
    /// # Errors
    /// When the pool takes no calls any more.
    pub fn apply_async<T: Task>(
        &self,
        task: T,
        input: T::Input,
    ) -> Result<TaskHandle<T::Output>, Error> {
        let _ = task;
        let call = self.core.begin_call()?;
        let _feeding = self.core.begin_feeding();
        match encode_one::<T>(&input) {
            Ok(argument) => self.push(&call, self.core.spec(T::NAME), &argument)?,
            Err(message) => self.core.refuse_argument(&call, 0, message),
        }
        let core = Arc::clone(&self.core);
        Ok(TaskHandle::new(core, call, 1, read_one::<T>))
    }

    fn push(
        &self,
        call: &Arc<Call>,
        spec: fleetpool_proto::SpecId,
        argument: &Bytes,
    ) -> Result<(), Error> {
        while !self.core.push(spec, argument.clone(), call, 0)? {
            park::block_on(poll_fn(|context| self.core.poll_credit(context)))?;
        }
        Ok(())
    }

    /// Runs `task` on every input and gives the results one by one, in the order of the inputs.
    ///
    /// The input is read as results are taken, so that it may be endless. A task that fails gives an error in its
    /// place.
    ///
    /// ```no_run
    /// # #[fleetpool::task] fn square(x: u64) -> u64 { x * x }
    /// # fn f(pool: &fleetpool::Pool) -> Result<(), fleetpool::Error> {
    /// for result in pool.imap(square, 0..).take(10) {
    ///     println!("{}", result?);
    /// }
    /// # Ok(()) }
    /// ```
    pub fn imap<T, I>(&self, task: T, inputs: I) -> Results<T, I::IntoIter>
    where
        T: Task,
        I: IntoIterator<Item = T::Input>,
    {
        Results::new(self.items(task, inputs, Order::Input))
    }

    /// [`Self::imap`], in the order in which tasks end.
    pub fn imap_unordered<T, I>(&self, task: T, inputs: I) -> Results<T, I::IntoIter>
    where
        T: Task,
        I: IntoIterator<Item = T::Input>,
    {
        Results::new(self.items(task, inputs, Order::Completion))
    }

    /// [`Self::imap`] for executors: the results are awaited.
    ///
    /// ```no_run
    /// # #[fleetpool::task] fn square(x: u64) -> u64 { x * x }
    /// # async fn f(pool: &fleetpool::Pool) -> Result<(), fleetpool::Error> {
    /// let mut squares = pool.stream(square, 0..1_000);
    /// while let Some(result) = squares.next().await {
    ///     println!("{}", result?);
    /// }
    /// # Ok(()) }
    /// ```
    pub fn stream<T, I>(&self, task: T, inputs: I) -> Stream<T, I::IntoIter>
    where
        T: Task,
        I: IntoIterator<Item = T::Input>,
    {
        Stream::new(self.items(task, inputs, Order::Input))
    }

    fn items<T, I>(&self, _task: T, inputs: I, order: Order) -> Items<T, Encoder<T, I::IntoIter>>
    where
        T: Task,
        I: IntoIterator<Item = T::Input>,
    {
        let (call, refusal) = match self.core.begin_call() {
            Ok(call) => (call, None),
            Err(error) => (Arc::default(), Some(error)),
        };
        let feed = self.feed::<T, _>(&call, inputs);
        let mut items = Items::new(Arc::clone(&self.core), call, feed, order);
        items.start(refusal);
        items
    }

    fn feed<T, I>(&self, call: &Arc<Call>, inputs: I) -> Feed<Encoder<T, I::IntoIter>>
    where
        T: Task,
        I: IntoIterator<Item = T::Input>,
    {
        let inputs = Encoder::new(inputs.into_iter());
        let spec = self.core.spec(T::NAME);
        Feed::new(Arc::clone(&self.core), Arc::clone(call), spec, inputs)
    }

    /// A program to be run in one of the pool's slots.
    ///
    /// ```no_run
    /// # fn f(pool: &fleetpool::Pool) -> Result<(), fleetpool::Error> {
    /// let end = pool.command("convert").arg("a.jpg").arg("a.png").run()?;
    /// assert!(end.success());
    /// # Ok(()) }
    /// ```
    pub fn command(&self, program: impl Into<std::ffi::OsString>) -> CommandBuilder<'_> {
        CommandBuilder::new(self, program.into())
    }

    /// Takes no more calls. What was given to the pool still runs.
    pub fn close(&self) {
        self.core.close();
    }

    /// Waits until all that was given to the closed pool has ended and its workers are gone.
    ///
    /// Results that nobody has taken yet are still there afterwards. The input of an iterator that was not taken to
    /// its end is not read further.
    ///
    /// # Errors
    /// When the pool is not closed, or its cluster is lost.
    pub fn join(&self) -> Result<(), Error> {
        park::block_on(self.core.join())
    }

    /// Ends the pool now: what runs is killed with all its processes, and calls that wait end with
    /// [`Error::Terminated`]. While the coordinator is away nobody waits for it: it ends the pool when it is back.
    pub fn terminate(&self) {
        self.core.terminate();
    }

    /// Changes how many tasks may run at once; `None`: as many as the cluster has slots.
    ///
    /// # Errors
    /// When it is zero.
    pub fn resize(&self, processes: impl Into<Option<u32>>) -> Result<(), Error> {
        let processes = processes.into();
        crate::builder::check_processes(processes)?;
        self.core.limit(processes);
        self.core.submitter().resize(processes);
        Ok(())
    }

    /// The hosts that the pool may use, by name.
    ///
    /// # Errors
    /// When the cluster is lost.
    pub fn hosts(&self) -> Result<Vec<HostView>, Error> {
        park::block_on(hosts(&self.cluster, &self.on))
    }
}

/// The hosts of a cluster that a selector names.
pub(crate) async fn hosts(cluster: &Cluster, on: &str) -> Result<Vec<HostView>, Error> {
    let on = on.to_owned();
    match cluster.ask(Query::Hosts { on }).await? {
        Answer::Hosts(hosts) => Ok(hosts),
        Answer::Refused { reason } => Err(Error::Invalid(reason)),
        other => Err(Error::Cluster(cluster::Error::Lost {
            reason: format!("the coordinator answered a question for hosts with {other:?}"),
        })),
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.core.terminate();
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("id", &self.core.submitter().pool())
            .field("slots", &self.core.slots())
            .finish_non_exhaustive()
    }
}

fn read_one<T: Task>(arrived: &[Arrived], hosts: &Hosts) -> Result<T::Output, TaskError> {
    match arrived.first() {
        Some(arrived) => arrived.result(hosts),
        None => Err(TaskError::Cancelled { index: 0 }),
    }
}

fn read_all<T: Task>(arrived: &[Arrived], hosts: &Hosts) -> Result<Vec<T::Output>, TaskError> {
    let mut in_order: Vec<&Arrived> = arrived.iter().collect();
    in_order.sort_unstable_by_key(|arrived| arrived.position);
    in_order
        .into_iter()
        .map(|arrived| arrived.result(hosts))
        .collect()
}
