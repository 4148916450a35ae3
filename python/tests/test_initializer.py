"""`initializer`, `initargs` and `maxtasksperchild`."""

import multiprocessing
import os
import signal
import time

import pytest

import tasks
from under_test import Pool, module
from waiting import until

state = {}


def set_state(**values):
    state.update(values)


def set_both(first, second):
    set_state(first=first, second=second)


def get_state():
    return dict(state)


def note_pid(folder):
    tasks.touch(os.path.join(folder, str(os.getpid())))


def test_it_runs_in_every_worker_before_its_first_task(tmp_path):
    noted = tmp_path / "noted"
    noted.mkdir()
    with Pool(3, note_pid, (str(noted),)) as pool:
        pids = tasks.full_size(pool, 3, tmp_path / "meeting")
        assert {str(pid) for pid in pids} <= set(os.listdir(noted))


def test_what_it_sets_is_seen_by_tasks():
    with Pool(2, set_both, ("a", [1])) as pool:
        assert pool.apply(get_state) == {"first": "a", "second": [1]}
    assert state == {}, "and not by the caller"


def test_initargs_may_be_a_list():
    with Pool(2, initializer=set_both, initargs=[1, 2]) as pool:
        assert pool.apply(get_state) == {"first": 1, "second": 2}


def test_an_initializer_that_cannot_be_called_is_a_type_error():
    with pytest.raises(TypeError):
        Pool(1, initializer=5)


@pytest.mark.parametrize("value", [0, -1, 0.5, "12"])
def test_a_senseless_maxtasksperchild_is_a_value_error(value):
    with pytest.raises(ValueError):
        Pool(1, maxtasksperchild=value)


def test_a_worker_ends_after_maxtasksperchild_tasks():
    with Pool(1, maxtasksperchild=2) as pool:
        pids = [pool.apply(tasks.pid) for _ in range(6)]
        assert pids[0::2] == pids[1::2]
        assert len(set(pids)) == 3


@pytest.mark.beyond
def test_maxtasksperchild_counts_tasks_and_not_chunks():
    with Pool(1, maxtasksperchild=5) as pool:
        pids = pool.map(tasks.pid, range(50), chunksize=25)
        assert max(pids.count(pid) for pid in pids) == 5


def test_the_initializer_runs_again_in_each_new_worker(tmp_path):
    with Pool(1, note_pid, (str(tmp_path),), maxtasksperchild=1) as pool:
        pids = {pool.apply(tasks.pid) for _ in range(5)}
        assert len(pids) == 5
        assert {str(pid) for pid in pids} <= set(os.listdir(tmp_path))


@pytest.mark.beyond
def test_the_initializer_runs_again_in_place_of_a_killed_worker():
    with Pool(1, set_both, (1, 2)) as pool:
        with pytest.raises(module.WorkerLost):
            pool.apply(tasks.die_by_signal)
        assert pool.apply(get_state) == {"first": 1, "second": 2}


def test_closing_early_with_workers_of_limited_life():
    with Pool(3, maxtasksperchild=1) as pool:
        results = [pool.apply_async(tasks.square, (number,)) for number in range(6)]
        pool.close()
        pool.join()
        assert [result.get(0) for result in results] == [number * number for number in range(6)]


@pytest.mark.beyond
@pytest.mark.parametrize("deed", [tasks.fail, tasks.exit_politely, tasks.exit_hard, tasks.die_by_signal])
def test_an_initializer_that_fails_is_an_error_of_the_pool(deed):
    """The standard library starts workers for ever, and every call hangs."""
    start = time.monotonic()
    arguments = ("boom",) if deed is tasks.fail else ()
    with pytest.raises(module.PoolError, match="initializer"):
        with Pool(2, deed, arguments) as pool:
            pool.apply_async(tasks.square, (1,)).get(20)
    assert time.monotonic() - start < 20


@pytest.mark.beyond
def test_the_error_of_an_initializer_is_told():
    with pytest.raises(module.PoolError, match="boom"):
        with Pool(1, tasks.fail, ("boom",)) as pool:
            pool.map(tasks.square, range(3))


@pytest.mark.beyond
def test_lambdas_may_be_initializers():
    value = 7
    with Pool(1, lambda: set_state(value=value)) as pool:
        assert pool.apply(get_state) == {"value": 7}


def test_a_lock_of_multiprocessing_in_initargs_works_or_is_refused():
    """It works where workers are forks of the caller, and cannot where they are not: then it says so."""
    lock = multiprocessing.Lock()
    try:
        with Pool(2, set_both, (lock, 0)) as pool:
            assert pool.apply_async(take_lock).get(20) is True
    except RuntimeError as error:
        assert "inheritance" in str(error)


def test_a_worker_may_be_told_to_ignore_interrupts():
    with Pool(2, signal.signal, (signal.SIGINT, signal.SIG_IGN)) as pool:
        pid = pool.apply(tasks.pid)
        os.kill(pid, signal.SIGINT)
        assert until("tasks go on", lambda: pool.map(tasks.square, range(4)) == [0, 1, 4, 9])


def take_lock():
    with state["first"]:
        return True
