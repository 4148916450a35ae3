"""A process that dies fails the task that it ran and no other; the pool is back at full size."""

import multiprocessing.pool
import os
import signal
import time
from concurrent.futures.process import BrokenProcessPool

import pytest

import scripts
import tasks
from under_test import Pool, module
from waiting import is_alive, pids_marked, until

pytestmark = pytest.mark.beyond  # the standard library hangs when a worker dies

SLOTS = 4
AT = 42


@pytest.mark.parametrize(
    ("deed", "error"),
    [
        (tasks.die_by_signal, "WorkerLost"),
        (tasks.die_by_segfault, "WorkerLost"),
        (tasks.exit_hard, "WorkerLost"),
        (tasks.return_lambda, "MaybeEncodingError"),
        (tasks.raise_stubborn, "Exception"),
    ],
)
def test_one_of_a_hundred_fails_the_others_arrive_and_the_pool_goes_on(pool, tmp_path, deed, error):
    start = time.monotonic()
    results = [pool.apply_async(tasks.Misbehaviour(deed, AT), (number,)) for number in range(100)]
    with pytest.raises(getattr(module, error, Exception)):
        results[AT].get(20)
    assert time.monotonic() - start < 10
    others = [number for number in range(100) if number != AT]
    assert [results[number].get(20) for number in others] == [number * number for number in others]
    assert len(set(tasks.full_size(pool, SLOTS, tmp_path / "meeting"))) == SLOTS


@pytest.mark.parametrize("deed", [tasks.die_by_signal, tasks.exit_hard, tasks.return_lambda, tasks.raise_stubborn])
@pytest.mark.parametrize("chunksize", [1, 10])
def test_in_an_imap_only_that_task_is_lost(pool, deed, chunksize):
    results = pool.imap(tasks.Misbehaviour(deed, AT), range(100), chunksize)
    got, errors = {}, {}
    for number in range(100):
        try:
            got[number] = results.next(20)
        except Exception as error:
            errors[number] = error
    lost = [AT]
    if deed in (tasks.die_by_signal, tasks.exit_hard):
        # A chunk is one task: a worker's death costs all of it.
        lost = list(range(AT - AT % chunksize, AT - AT % chunksize + chunksize))
    assert list(errors) == lost
    assert got == {number: number * number for number in range(100) if number not in lost}
    with pytest.raises(StopIteration):
        results.next(20)


def test_a_map_raises_the_loss_after_the_others_have_ended(pool):
    with pytest.raises(module.WorkerLost) as caught:
        pool.map(tasks.Misbehaviour(tasks.die_by_signal, AT), range(100), 7)
    # The first item of the chunk that was lost.
    assert caught.value.index == AT - AT % 7
    assert pool.map(tasks.square, range(10)) == [x * x for x in range(10)]


def test_a_killed_worker_is_told_with_all_that_is_known():
    with Pool(2) as pool:
        pid = []
        with pytest.raises(module.WorkerLost) as caught:
            pool.apply(note_stderr_and_die)
        lost = caught.value
        assert isinstance(lost, BrokenProcessPool)
        assert lost.signal == signal.SIGKILL
        assert lost.exit is None
        assert lost.index == 0
        assert isinstance(lost.host, str) and lost.host
        assert isinstance(lost.pid, int) and not is_alive(lost.pid)
        assert lost.pid not in (pid, os.getpid())
        assert lost.memory is None or lost.memory >= 0
        assert "last words" in lost.stderr_tail
        assert "9" in str(lost) or "KILL" in str(lost)


def test_an_exit_is_told_with_its_status(pool):
    with pytest.raises(module.WorkerLost) as caught:
        pool.apply(tasks.exit_hard)
    assert caught.value.exit == 1
    assert caught.value.signal is None


def test_a_segfault_is_told_with_its_signal(pool):
    with pytest.raises(module.WorkerLost) as caught:
        pool.apply(tasks.die_by_segfault)
    assert caught.value.signal == signal.SIGSEGV


def test_many_deaths_in_a_row(tmp_path):
    with Pool(2) as pool:
        results = [pool.apply_async(tasks.die_by_signal) for _ in range(30)]
        for result in results:
            with pytest.raises(module.WorkerLost):
                result.get(20)
        assert len(set(tasks.full_size(pool, 2, tmp_path / "meeting"))) == 2


def test_killing_workers_that_do_nothing_loses_nothing(tmp_path):
    with Pool(2) as pool:
        for round_ in range(5):
            for pid in set(tasks.full_size(pool, 2, tmp_path / str(round_))):
                os.kill(pid, signal.SIGKILL)
            until("tasks go on", lambda: pool.map(tasks.square, range(20), 1) == [x * x for x in range(20)])


def test_a_lost_worker_takes_what_it_started_with_it(tmp_path):
    with Pool(1) as pool:
        noted = str(tmp_path / "grandchild")
        with pytest.raises(module.WorkerLost):
            pool.apply(start_grandchild_and_die, (noted,))
        grandchild = int((tmp_path / "grandchild").read_text())
        until("the grandchild is gone", lambda: not is_alive(grandchild))


def test_a_callback_is_told_of_the_loss(pool):
    told = []
    result = pool.apply_async(tasks.die_by_signal, error_callback=told.append)
    with pytest.raises(module.WorkerLost):
        result.get(20)
    assert [type(error) for error in told] == [module.WorkerLost]


def test_exceptions_have_a_place_among_the_standard_ones():
    import builtins
    import concurrent.futures

    assert issubclass(module.WorkerLost, BrokenProcessPool)
    assert issubclass(module.TaskTimeout, builtins.TimeoutError)
    assert issubclass(module.TaskCancelled, concurrent.futures.CancelledError)
    assert issubclass(module.MaybeEncodingError, multiprocessing.pool.MaybeEncodingError)
    for name in ("HostLost", "PoolError"):
        assert issubclass(getattr(module, name), Exception)


@pytest.mark.parametrize("name", ["WorkerLost", "HostLost", "TaskTimeout", "TaskCancelled", "PoolError"])
def test_exceptions_can_be_pickled(pool, name):
    """A task may get one from a pool of its own, or hand one on."""
    import pickle

    kept = getattr(module, name)
    if name == "WorkerLost":
        with pytest.raises(kept) as caught:
            pool.apply(tasks.die_by_signal)
        again = pickle.loads(pickle.dumps(caught.value))
        assert (again.index, again.pid, again.signal) == (0, caught.value.pid, signal.SIGKILL)
    assert pickle.loads(pickle.dumps(kept)) is kept


def test_nothing_is_left_behind_when_the_caller_is_killed(tmp_path):
    mark = f"FLEETPOOL_TEST_MARK={tmp_path.name}-{os.getpid()}"
    name, value = mark.split("=")
    script = scripts.write(
        tmp_path / "script.py",
        """
        import subprocess, sys, time
        from fleetpool import Pool

        def busy(number):
            subprocess.Popen(["sleep", "1000"])
            subprocess.Popen(["sleep", "1000"], start_new_session=True)
            print("begun", flush=True)
            time.sleep(1000)

        if __name__ == "__main__":
            pool = Pool(2)
            pool.map(busy, range(2))
        """,
    )
    process = scripts.start([script], cwd=tmp_path, env={name: value})
    try:
        assert [process.stdout.readline() for _ in range(2)] == ["begun\n"] * 2
        assert len(pids_marked(mark)) >= 7
        process.kill()
        process.wait()
        until("nothing is left", lambda: not pids_marked(mark))
    finally:
        scripts.end_group(process)
        process.stdout.close()
        process.stderr.close()


def note_stderr_and_die():
    import sys

    print("last words", file=sys.stderr, flush=True)
    tasks.die_by_signal()


def start_grandchild_and_die(noted):
    import subprocess

    child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    with open(noted, "w") as file:
        file.write(str(child.pid))
    tasks.die_by_signal()
