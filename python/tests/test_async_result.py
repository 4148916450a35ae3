"""What `apply_async` and `map_async` give."""

import multiprocessing
import threading
import time

import pytest

import tasks
from under_test import Pool, TimeoutError, module


def test_get_gives_the_value_as_often_as_asked(pool):
    result = pool.apply_async(tasks.square, (7,))
    assert [result.get(), result.get(10), result.get(timeout=0)] == [49, 49, 49]


def test_get_raises_as_often_as_asked(pool):
    result = pool.apply_async(tasks.fail, ("x",))
    for _ in range(2):
        with pytest.raises(ValueError):
            result.get()


def test_get_with_a_timeout_raises_timeout_error_in_time(pool, tmp_path):
    released = tmp_path / "released"
    result = pool.apply_async(tasks.await_file, (str(released),))
    start = time.monotonic()
    with pytest.raises(TimeoutError):
        result.get(timeout=0.2)
    with pytest.raises(multiprocessing.TimeoutError):
        result.get(0)
    assert 0.2 <= time.monotonic() - start < 20
    released.touch()
    assert result.get(timeout=20) == str(released), "and the result still comes"


@pytest.mark.beyond
def test_timeout_error_is_the_builtin_one_too():
    import builtins

    assert issubclass(TimeoutError, multiprocessing.TimeoutError)
    assert issubclass(TimeoutError, builtins.TimeoutError)


def test_ready_and_successful(pool, tmp_path):
    released = tmp_path / "released"
    result = pool.apply_async(tasks.await_file, (str(released),))
    assert result.ready() is False
    with pytest.raises(ValueError):
        result.successful()
    released.touch()
    result.wait()
    assert result.ready() is True
    assert result.successful() is True


def test_a_failed_one_is_ready_and_not_successful(pool):
    result = pool.apply_async(tasks.fail, (1,))
    result.wait(20)
    assert result.ready()
    assert result.successful() is False


def test_wait_gives_nothing_and_raises_nothing(pool, tmp_path):
    released = tmp_path / "released"
    running = pool.apply_async(tasks.await_file, (str(released),))
    failed = pool.apply_async(tasks.fail, (1,))
    assert running.wait(timeout=0.05) is None
    assert not running.ready()
    assert failed.wait(20) is None
    released.touch()
    assert running.wait() is None


def test_that_of_a_map_is_ready_when_all_are(pool, tmp_path):
    released = tmp_path / "released"
    calls = [(None,), (str(released),)]
    result = pool.starmap_async(await_if_asked, calls, chunksize=1)
    result.wait(0.3)
    assert not result.ready()
    released.touch()
    assert result.get(20) == [None, str(released)]
    assert result.successful()


def test_many_threads_may_wait_for_one(pool, tmp_path):
    released = tmp_path / "released"
    result = pool.apply_async(tasks.await_file, (str(released),))
    got = []
    threads = [threading.Thread(target=lambda: got.append(result.get(20))) for _ in range(5)]
    for thread in threads:
        thread.start()
    released.touch()
    for thread in threads:
        thread.join(20)
    assert got == [str(released)] * 5


def test_many_threads_may_submit(pool):
    sums = []
    threads = [threading.Thread(target=lambda: sums.append(sum(pool.map(tasks.echo, range(200))))) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sums == [sum(range(200))] * 5


def test_results_outlive_their_pool():
    with Pool(2) as pool:
        results = [pool.apply_async(tasks.square, (number,)) for number in range(10)]
        pool.close()
        pool.join()
    assert [result.get(timeout=0) for result in results] == [number * number for number in range(10)]


@pytest.mark.beyond
def test_get_raises_when_the_pool_is_terminated(tmp_path):
    """In the standard library it waits for ever."""
    with Pool(1) as pool:
        running = pool.apply_async(tasks.await_file, (str(tmp_path / "never"),))
        queued = pool.apply_async(tasks.square, (2,))
        mapped = pool.map_async(tasks.square, range(10))
        caught = []
        waiter = threading.Thread(target=lambda: caught.append(error_of(running)))
        waiter.start()
    waiter.join(20)
    ended = (module.TaskCancelled, module.PoolError)
    assert isinstance(caught[0], ended)
    for result in (queued, mapped):
        with pytest.raises(ended):
            result.get(timeout=20)


def await_if_asked(path):
    return path and tasks.await_file(path)


def error_of(result):
    try:
        return result.get()
    except BaseException as error:
        return error
