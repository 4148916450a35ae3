"""`fleetpool.Executor` is a `concurrent.futures.Executor`; with FLEETPOOL_TEST_STDLIB=1, `ProcessPoolExecutor`."""

import asyncio
import concurrent.futures
import inspect
import itertools
import multiprocessing
import threading
from concurrent.futures import CancelledError
from concurrent.futures.process import BrokenProcessPool

import pytest

import tasks
from under_test import STDLIB, Executor, module
from waiting import is_alive, until


@pytest.fixture
def executor():
    with Executor(2) as executor:
        yield executor


def test_it_is_an_executor(executor):
    assert isinstance(executor, concurrent.futures.Executor)


def test_arguments_of_the_standard_one_are_taken():
    with Executor(
        max_workers=2,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=None,
        initargs=(),
        max_tasks_per_child=None,
    ) as executor:
        assert executor.submit(abs, -1).result(30) == 1
    with pytest.raises(ValueError):
        Executor(max_workers=0)
    with pytest.raises(TypeError):
        Executor(1, initializer=5)


@pytest.mark.beyond
def test_cluster_options_are_those_of_the_pool():
    cluster = {
        "address",
        "hosts",
        "on",
        "retries",
        "buffersize",
        "py_modules",
        "working_dir",
        "env",
        "name",
        "priority",
    }
    for kind in (Executor, module.Pool):
        parameters = inspect.signature(kind).parameters
        assert cluster <= {name for name, one in parameters.items() if one.kind is one.KEYWORD_ONLY}


def test_submit_gives_a_future(executor):
    future = executor.submit(tasks.add, 1, y=2)
    assert isinstance(future, concurrent.futures.Future)
    assert future.result(timeout=20) == 3
    assert future.done() and not future.running() and not future.cancelled()
    assert future.exception() is None


def test_an_exception_is_that_of_the_future(executor):
    future = executor.submit(tasks.fail, 3)
    assert isinstance(future.exception(20), ValueError)
    with pytest.raises(ValueError) as caught:
        future.result()
    assert "in fail" in str(caught.value.__cause__)


def test_result_with_a_timeout(executor, tmp_path):
    released = tmp_path / "released"
    future = executor.submit(tasks.await_file, str(released))
    with pytest.raises(concurrent.futures.TimeoutError):
        future.result(timeout=0.05)
    released.touch()
    assert future.result(20) == str(released)


def test_map_is_in_order_and_takes_several_iterables(executor):
    assert list(executor.map(tasks.square, range(20))) == [x * x for x in range(20)]
    assert list(executor.map(tasks.add, range(5), range(5))) == [0, 2, 4, 6, 8]
    assert list(executor.map(tasks.add, range(5), range(3), chunksize=2)) == [0, 2, 4]
    assert list(executor.map(tasks.square, [])) == []


def test_map_refuses_a_chunksize_below_one(executor):
    with pytest.raises(ValueError):
        executor.map(tasks.square, range(3), chunksize=0)


def test_map_raises_in_the_place_of_the_item(executor):
    results = executor.map(tasks.Misbehaviour(fail_here, 2), range(5))
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError):
        next(results)


def test_map_with_a_timeout(executor, tmp_path):
    released = tmp_path / "released"
    results = executor.map(tasks.await_file, [str(released)], timeout=0.05)
    with pytest.raises(concurrent.futures.TimeoutError):
        next(results)
    released.touch()


@pytest.mark.beyond
def test_map_with_a_buffersize_reads_no_further(executor):
    """Python 3.14 has it; here every version does."""
    seen = []
    results = executor.map(tasks.echo, (seen.append(n) or n for n in itertools.count()), buffersize=5)
    for number in range(50):
        assert next(results) == number
        assert len(seen) <= number + 1 + 5 + 1
    with pytest.raises(ValueError):
        executor.map(tasks.echo, [1], buffersize=0)


def test_as_completed_and_wait(executor):
    futures = [executor.submit(tasks.square, number) for number in range(20)]
    assert sorted(future.result() for future in concurrent.futures.as_completed(futures, 20)) == sorted(
        x * x for x in range(20)
    )
    done, not_done = concurrent.futures.wait(futures, 20)
    assert done == set(futures) and not not_done


def test_a_done_callback_is_called(executor):
    got = []
    called = threading.Event()
    future = executor.submit(tasks.square, 3)
    future.add_done_callback(lambda future: (got.append(future.result()), called.set()))
    assert called.wait(20)
    assert got == [9]


def test_asyncio_takes_it(executor):
    async def work():
        loop = asyncio.get_running_loop()
        return await asyncio.gather(*(loop.run_in_executor(executor, tasks.square, number) for number in range(5)))

    assert asyncio.run(work()) == [0, 1, 4, 9, 16]


def test_a_future_that_waits_can_be_cancelled(tmp_path):
    released = tmp_path / "released"
    with Executor(1) as executor:
        blocker = executor.submit(tasks.await_file, str(released))
        futures = [executor.submit(tasks.touch, str(tmp_path / f"ran-{number}")) for number in range(20)]
        assert futures[-1].cancel()
        assert futures[-1].cancelled()
        with pytest.raises(CancelledError):
            futures[-1].result()
        released.touch()
        assert blocker.result(20)
    assert not (tmp_path / "ran-19").exists()
    assert (tmp_path / "ran-18").exists()


def test_a_running_future_says_so_and_is_not_cancelled(executor, tmp_path):
    started, released = tmp_path / "started", tmp_path / "released"
    future = executor.submit(tasks.note_and_await, str(started), str(released))
    until("it runs", lambda: started.exists() and future.running())
    assert not future.cancel()
    released.touch()
    assert future.result(20) == str(released)


def test_with_waits_for_all(tmp_path):
    with Executor(2) as executor:
        for number in range(10):
            executor.submit(tasks.touch, str(tmp_path / str(number)))
    assert len(list(tmp_path.iterdir())) == 10
    with pytest.raises(RuntimeError):
        executor.submit(abs, 1)
    with pytest.raises(RuntimeError):
        executor.map(abs, [1])


def test_shutdown_may_not_wait(tmp_path):
    released = tmp_path / "released"
    executor = Executor(1)
    future = executor.submit(tasks.await_file, str(released))
    executor.shutdown(wait=False)
    assert not future.done()
    released.touch()
    assert future.result(20) == str(released)
    executor.shutdown()


def test_shutdown_may_cancel_what_waits(tmp_path):
    started, released = tmp_path / "started", tmp_path / "released"
    executor = Executor(1)
    running = executor.submit(tasks.note_and_await, str(started), str(released))
    until("the first runs", started.exists)
    waiting = [executor.submit(tasks.square, number) for number in range(20)]
    executor.shutdown(wait=False, cancel_futures=True)
    released.touch()
    assert running.result(20) == str(released)
    until("the last is cancelled", waiting[-1].cancelled)


def test_no_process_is_left_after_shutdown():
    with Executor(2) as executor:
        pids = set(executor.map(tasks.pid, range(50)))
    until("no worker is left", lambda: not any(is_alive(pid) for pid in pids))


def test_an_initializer_is_run():
    with Executor(1, initializer=set_value, initargs=(5,)) as executor:
        assert executor.submit(get_value).result(20) == 5


def test_an_initializer_that_fails_breaks_the_executor():
    expected = BrokenProcessPool if STDLIB else (BrokenProcessPool, module.PoolError)
    with pytest.raises(expected):
        with Executor(1, initializer=tasks.fail, initargs=("boom",)) as executor:
            executor.submit(abs, 1).result(20)


@pytest.mark.beyond
def test_a_dead_worker_fails_its_own_future_and_no_other(executor):
    """It breaks the whole ProcessPoolExecutor."""
    futures = [executor.submit(tasks.Misbehaviour(tasks.die_by_signal, 3), number) for number in range(20)]
    with pytest.raises(BrokenProcessPool) as caught:
        futures[3].result(20)
    assert type(caught.value) is module.WorkerLost
    assert [futures[number].result(20) for number in range(20) if number != 3] == [n * n for n in range(20) if n != 3]
    assert executor.submit(tasks.square, 5).result(20) == 25


def test_max_tasks_per_child():
    context = multiprocessing.get_context("spawn")
    with Executor(1, mp_context=context, max_tasks_per_child=2) as executor:
        pids = [executor.submit(tasks.pid).result(20) for _ in range(6)]
    assert pids[0::2] == pids[1::2]
    assert len(set(pids)) == 3
    with pytest.raises(ValueError):
        Executor(1, max_tasks_per_child=0)


@pytest.mark.beyond
def test_lambdas_are_taken(executor):
    offset = 5
    assert list(executor.map(lambda x: x + offset, range(3))) == [5, 6, 7]
    assert executor.submit(lambda: offset).result(20) == 5


def fail_here():
    raise ValueError("here")


value = None


def set_value(given):
    global value
    value = given


def get_value():
    return value
