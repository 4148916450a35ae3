//! Calls and their results.

use std::{
    panic::{self, AssertUnwindSafe},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use fleetpool::{Error, OutputStream, Pool, TaskError, TaskHandle};
use serde::{Deserialize, Serialize};

use crate::{meet, pool, runner::tests, sleep_ms, square};

tests! {
    g2_a_call_fills_slots_that_come_after_it_began
    map_keeps_the_order_of_its_inputs
    map_of_nothing_is_nothing
    map_raises_the_error_of_the_lowest_index_after_all_have_ended
    apply_takes_what_the_function_takes
    apply_async_does_not_wait
    a_handle_tells_how_far_it_is
    map_async_takes_its_inputs_at_once
    imap_gives_results_in_the_order_of_inputs
    imap_unordered_gives_them_as_they_come
    errors_come_in_their_place
    an_endless_input_is_read_lazily
    an_abandoned_iterator_leaves_the_pool_free
    calls_side_by_side_do_not_starve_each_other
    a_stream_is_awaited
    large_arguments_and_results_travel_whole
    a_map_of_many_is_whole
    structs_and_enums_travel
    a_panic_says_what_and_where
    a_value_that_cannot_be_encoded_fails_alone
    what_tasks_print_arrives_before_their_results
    output_that_nobody_takes_holds_up_nothing_but_its_task
    commands_run_in_slots
    a_cancelled_task_ends_at_once
    a_cancelled_map_ends_at_once
    what_is_cancelled_before_it_begins_costs_nothing
    a_task_that_runs_too_long_is_killed
    tasks_know_who_they_are
    a_directly_called_task_is_a_plain_call
    an_input_that_panics_costs_its_call_alone
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Shape {
    Dot,
    Circle { radius: f64 },
    Named(String, Box<Shape>),
}

/// Scales a shape.
#[fleetpool::task]
fn scale(shape: Shape, factor: f64) -> Shape {
    match shape {
        Shape::Dot => Shape::Dot,
        Shape::Circle { radius } => Shape::Circle {
            radius: radius * factor,
        },
        Shape::Named(name, inner) => Shape::Named(name, Box::new(scale(*inner, factor))),
    }
}

#[fleetpool::task]
fn add(a: i32, b: i32) -> i32 {
    a + b
}

#[fleetpool::task]
fn nothing() {}

#[fleetpool::task]
fn fail_on_odd(x: u32) -> u32 {
    assert!(x.is_multiple_of(2), "{x} is odd");
    x
}

#[fleetpool::task]
fn echo(bytes: serde_bytes::ByteBuf) -> serde_bytes::ByteBuf {
    bytes
}

#[fleetpool::task]
fn print_both(x: u32) -> u32 {
    println!("out {x}");
    eprintln!("err {x}");
    print!("no line end {x}");
    x
}

#[fleetpool::task]
fn who() -> Option<(u64, u32, String, u16)> {
    let task = fleetpool::current()?;
    Some((task.index, task.attempt, task.host, task.slot))
}

/// Serde has no unions of its own that refuse; a map with a key that is no text is refused by nobody but this.
#[derive(Debug, Deserialize)]
struct Refuses(#[allow(dead_code)] u8);

impl Serialize for Refuses {
    fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("never"))
    }
}

#[fleetpool::task]
fn take(value: Refuses) -> u8 {
    value.0
}

#[fleetpool::task]
fn give() -> Refuses {
    Refuses(1)
}

fn map_keeps_the_order_of_its_inputs() {
    let squares = pool(2).map(square, 0..1000).unwrap();
    assert!(squares.into_iter().eq((0..1000).map(|x| x * x)));
}

fn map_of_nothing_is_nothing() {
    assert_eq!(pool(1).map(square, []).unwrap(), [0; 0]);
}

fn map_raises_the_error_of_the_lowest_index_after_all_have_ended() {
    let error = pool(2).map(fail_on_odd, [2, 4, 5, 6, 7]).unwrap_err();
    let Error::Task(TaskError::Failed { index, message, .. }) = error else {
        panic!("not failed but {error}");
    };
    assert_eq!((index, message.as_str()), (2, "5 is odd"));
}

fn apply_takes_what_the_function_takes() {
    let pool = pool(1);
    assert_eq!(pool.apply(square, 12).unwrap(), 144);
    assert_eq!(pool.apply(add, (1, 2)).unwrap(), 3);
    assert_eq!(pool.starmap(add, [(1, 2), (3, 4)]).unwrap(), [3, 7]);
    pool.apply(nothing, ()).unwrap();
}

fn apply_async_does_not_wait() {
    let pool = pool(2);
    let slow = pool.apply_async(sleep_ms, 5000).unwrap();
    let quick: Vec<_> = (0..10)
        .map(|x| pool.apply_async(square, x).unwrap())
        .collect();
    assert!(!slow.ready(), "it waits");
    for (x, handle) in quick.into_iter().enumerate() {
        assert_eq!(handle.get().unwrap(), (x * x) as u64);
    }
    assert_eq!(slow.get().unwrap(), 5000);
}

fn a_handle_tells_how_far_it_is() {
    let pool = pool(1);
    let slow = pool.apply_async(sleep_ms, 300).unwrap();
    assert!(!slow.ready());
    assert_eq!(slow.successful(), None);
    let early = slow.get_timeout(Duration::from_millis(1));
    assert!(matches!(early, Err(Error::TimedOut)));
    assert!(slow.wait(Duration::from_secs(10)));
    assert_eq!(slow.successful(), Some(true));
    assert_eq!(slow.get().unwrap(), 300);
    let failed = pool.apply_async(fail_on_odd, 1).unwrap();
    assert!(failed.wait(Duration::from_secs(10)));
    assert_eq!(failed.successful(), Some(false));
}

fn map_async_takes_its_inputs_at_once() {
    let pool = pool(2);
    let mut inputs: Vec<u64> = (0..200_000).collect();
    let handle = pool.map_async(square, inputs.drain(..)).unwrap();
    pool.close();
    let squares = handle.get().unwrap();
    assert!(squares.into_iter().eq((0..200_000).map(|x| x * x)));
    pool.join().unwrap();
}

fn imap_gives_results_in_the_order_of_inputs() {
    let pool = pool(2);
    let waits = [60, 0, 30, 0, 0];
    let results: Result<Vec<_>, _> = pool.imap(sleep_ms, waits).collect();
    assert_eq!(results.unwrap(), waits);
}

fn imap_unordered_gives_them_as_they_come() {
    let pool = pool(2);
    let first = pool.imap_unordered(sleep_ms, [20_000, 0]).next();
    assert_eq!(first.unwrap().unwrap(), 0);
}

fn errors_come_in_their_place() {
    let pool = pool(2);
    let outcomes: Vec<_> = pool
        .imap(fail_on_odd, 0..6)
        .map(|result| result.ok())
        .collect();
    assert_eq!(outcomes, [Some(0), None, Some(2), None, Some(4), None]);
}

/// More than a call begins with before it knows of any slot. Nobody gets a result before all are there.
fn g2_a_call_fills_slots_that_come_after_it_began() {
    type Way = fn(Pool, Vec<(String, usize)>);
    const ALL: usize = 12;
    let ways: [Way; 3] = [
        |pool, inputs| drop(pool.map(meet, inputs).unwrap()),
        |pool, inputs| drop(pool.map_async(meet, inputs).unwrap().get().unwrap()),
        |pool, inputs| pool.imap(meet, inputs).for_each(Result::unwrap),
    ];
    for way in ways {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().to_str().unwrap().to_owned();
        way(pool(12), vec![(place, ALL); ALL]);
    }
}

fn an_endless_input_is_read_lazily() {
    let pool = pool(2);
    let pulled = AtomicU64::new(0);
    let inputs = (0..).inspect(|_| {
        pulled.fetch_add(1, Ordering::Relaxed);
    });
    let mut results = pool.imap(square, inputs);
    for x in 0..1000 {
        assert_eq!(results.next().unwrap().unwrap(), x * x);
    }
    let ahead = pulled.load(Ordering::Relaxed) - 1000;
    assert!(ahead < 40_000, "{ahead} inputs are read ahead");
    // It is neither dropped nor taken to its end.
    pool.close();
    pool.join().unwrap();
    let rest: Vec<_> = results.collect();
    assert!(matches!(rest.last(), Some(Err(Error::Closed))));
    assert!(rest[..rest.len() - 1].iter().all(Result::is_ok));
}

fn an_abandoned_iterator_leaves_the_pool_free() {
    let pool = pool(1);
    let mut results = pool.imap(sleep_ms, std::iter::repeat(50));
    results.next().unwrap().unwrap();
    drop(results);
    let start = Instant::now();
    pool.apply(square, 1).unwrap();
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "it waits for what nobody wants"
    );
}

fn calls_side_by_side_do_not_starve_each_other() {
    let pool = pool(2);
    // More endless calls than the pool's window has room for, none of them read.
    let _unread: Vec<_> = (0..8).map(|_| pool.imap(square, 0..)).collect();
    thread::scope(|scope| {
        let maps: Vec<_> = (0..3)
            .map(|_| scope.spawn(|| pool.map(square, 0..20_000).unwrap().len()))
            .collect();
        for map in maps {
            assert_eq!(map.join().unwrap(), 20_000);
        }
    });
}

fn a_stream_is_awaited() {
    let pool = pool(2);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let sum = runtime.block_on(async {
        let mut squares = pool.stream(square, 0..100);
        let mut sum = 0;
        while let Some(result) = squares.next().await {
            sum += result.unwrap();
        }
        sum + pool
            .apply_async(square, 2)
            .unwrap()
            .get_async()
            .await
            .unwrap()
    });
    assert_eq!(sum, 328_350 + 4);
}

fn large_arguments_and_results_travel_whole() {
    let pool = pool(2);
    let block = |seed: usize| {
        let bytes = (0..8 << 20).map(|n| ((n * (seed + 1)) >> 3).to_le_bytes()[0]);
        serde_bytes::ByteBuf::from(bytes.collect::<Vec<_>>())
    };
    let results = pool.imap(echo, (0..12).map(block));
    for (seed, result) in results.enumerate() {
        assert!(result.unwrap() == block(seed), "block {seed} is another");
    }
}

fn a_map_of_many_is_whole() {
    let squares = pool(2).map(square, 0..300_000).unwrap();
    assert!(squares.into_iter().eq((0..300_000).map(|x| x * x)));
}

fn structs_and_enums_travel() {
    let circle = Shape::Circle { radius: 2.0 };
    let shapes = [Shape::Dot, Shape::Named("big".to_owned(), Box::new(circle))];
    let scaled = pool(1)
        .starmap(scale, shapes.clone().map(|shape| (shape, 1.5)))
        .unwrap();
    assert!(scaled.into_iter().eq(shapes.map(|shape| scale(shape, 1.5))));
}

fn a_panic_says_what_and_where() {
    let error = pool(1).apply(fail_on_odd, 3).unwrap_err();
    let Error::Task(TaskError::Failed {
        index,
        host,
        message,
        location,
    }) = error
    else {
        panic!("not failed but {error}");
    };
    assert_eq!((index, message.as_str()), (0, "3 is odd"));
    assert!(!host.is_empty());
    assert!(location.contains("calls.rs:"), "{location}");
}

fn a_value_that_cannot_be_encoded_fails_alone() {
    let pool = pool(1);
    let error = pool.apply(take, Refuses(1)).unwrap_err();
    assert!(
        matches!(error, Error::Task(TaskError::NotStarted { index: 0, .. })),
        "{error}"
    );
    let error = pool.apply(give, ()).unwrap_err();
    assert!(error.to_string().contains("never"), "{error}");
    assert_eq!(pool.apply(square, 2).unwrap(), 4);
}

fn what_tasks_print_arrives_before_their_results() {
    let printed = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&printed);
    let pool = Pool::builder()
        .cluster("local")
        .processes(2)
        .output(move |line| noted.lock().unwrap().push(line))
        .build()
        .unwrap();
    for x in 0..20 {
        pool.apply(print_both, x).unwrap();
        let mut lines = std::mem::take(&mut *printed.lock().unwrap());
        lines.sort_by_key(|line| line.stream);
        let text = |stream| -> String {
            let of = lines.iter().filter(|line| line.stream == stream);
            of.map(|line| String::from_utf8_lossy(&line.bytes))
                .collect()
        };
        assert_eq!(
            text(OutputStream::Stdout),
            format!("out {x}\nno line end {x}")
        );
        assert_eq!(text(OutputStream::Stderr), format!("err {x}\n"));
        assert!(
            lines
                .iter()
                .all(|line| line.index == u64::from(x) && line.pid != 0)
        );
    }
    // Handed out in batches, what is printed still is its own task's.
    pool.map(print_both, 0..200).unwrap();
    let lines = std::mem::take(&mut *printed.lock().unwrap());
    for (x, index) in (0..200).zip(20..) {
        let own = lines
            .iter()
            .filter(|line| line.index == index && line.stream == OutputStream::Stdout);
        let text: String = own
            .map(|line| String::from_utf8_lossy(&line.bytes))
            .collect();
        assert_eq!(text, format!("out {x}\nno line end {x}"));
    }
}

fn output_that_nobody_takes_holds_up_nothing_but_its_task() {
    let (hold, held) = mpsc::channel::<()>();
    let held = Mutex::new(held);
    let pool = Pool::builder()
        .cluster("local")
        .processes(1)
        .output(move |_| {
            let _ = held.lock().unwrap().recv();
        })
        .build()
        .unwrap();
    let handle = pool.apply_async(print_both, 1).unwrap();
    assert!(
        !handle.wait(Duration::from_millis(200)),
        "its output comes first"
    );
    let start = Instant::now();
    drop(pool);
    assert!(handle.get().is_err());
    assert!(start.elapsed() < Duration::from_secs(3));
    drop(hold);
}

fn commands_run_in_slots() {
    let pool = pool(2);
    let cat = pool.command("cat").stdin("hello").run().unwrap();
    assert_eq!((cat.success(), &cat.stdout[..]), (true, &b"hello"[..]));
    let shell = pool
        .command("sh")
        .args(["-c", "pwd; echo $WORD >&2; exit 3"])
        .env("WORD", "careful")
        .cwd("/")
        .run()
        .unwrap();
    assert_eq!(
        (shell.exit, &shell.stdout[..], &shell.stderr[..]),
        (Some(3), &b"/\n"[..], &b"careful\n"[..])
    );
    let missing = pool.command("/no/such/program").run().unwrap_err();
    assert!(
        missing.to_string().contains("cannot run /no/such/program"),
        "{missing}"
    );
}

fn a_cancelled_task_ends_at_once() {
    let pool = pool(1);
    let running = pool.apply_async(sleep_ms, 60_000).unwrap();
    let waiting = pool.apply_async(sleep_ms, 60_000).unwrap();
    assert!(!running.wait(Duration::from_millis(100)));
    let start = Instant::now();
    running.cancel();
    waiting.cancel();
    for handle in [running, waiting] {
        let error = handle.get().unwrap_err();
        assert!(
            matches!(error, Error::Task(TaskError::Cancelled { .. })),
            "{error}"
        );
    }
    assert!(start.elapsed() < Duration::from_secs(3));
    assert_eq!(pool.apply(square, 3).unwrap(), 9);
}

fn a_cancelled_map_ends_at_once() {
    let pool = pool(1);
    let map = pool.map_async(sleep_ms, vec![10_000; 500]).unwrap();
    assert!(!map.wait(Duration::from_millis(50)));
    map.cancel();
    let error = map.get().unwrap_err();
    assert!(
        matches!(error, Error::Task(TaskError::Cancelled { index: 0 })),
        "{error}"
    );
    assert_eq!(pool.apply(square, 3).unwrap(), 9);
}

fn what_is_cancelled_before_it_begins_costs_nothing() {
    let pool = pool(1);
    let handles: Vec<_> = (0..5)
        .map(|_| pool.apply_async(sleep_ms, 20_000).unwrap())
        .collect();
    let start = Instant::now();
    handles.iter().for_each(TaskHandle::cancel);
    assert!(handles.iter().all(|handle| handle.get().is_err()));
    assert_eq!(pool.apply(square, 4).unwrap(), 16);
    assert!(start.elapsed() < Duration::from_secs(3));
}

fn a_task_that_runs_too_long_is_killed() {
    let timeout = Duration::from_secs(1);
    let pool = Pool::builder()
        .cluster("local")
        .processes(1)
        .timeout(timeout)
        .build()
        .unwrap();
    let start = Instant::now();
    let error = pool.apply(sleep_ms, 60_000).unwrap_err();
    assert!(
        matches!(error, Error::Task(TaskError::TimedOut { index: 0, .. })),
        "{error}"
    );
    assert!(start.elapsed() < Duration::from_secs(3));
    assert_eq!(pool.apply(sleep_ms, 1).unwrap(), 1);
}

fn tasks_know_who_they_are() {
    let pool = pool(1);
    pool.apply(nothing, ()).unwrap();
    let (index, attempt, host, slot) = pool.apply(who, ()).unwrap().expect("it is a task");
    assert_eq!((index, attempt, slot), (1, 1, 1));
    assert_eq!(pool.hosts().unwrap()[0].name, host);
}

fn a_directly_called_task_is_a_plain_call() {
    assert_eq!(square(3), 9);
    assert_eq!(who(), None);
    assert_eq!((0..3).map(*square).sum::<u64>(), 5);
}

fn an_input_that_panics_costs_its_call_alone() {
    let pool = pool(1);
    let inputs = (0..10).map(|x| {
        if x < 5 {
            20_000
        } else {
            panic!("the input ends here")
        }
    });
    let mapped = panic::catch_unwind(AssertUnwindSafe(|| pool.map(sleep_ms, inputs)));
    assert!(mapped.is_err());
    let start = Instant::now();
    assert_eq!(pool.apply(square, 4).unwrap(), 16);
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "it waits for what nobody wants"
    );
}
