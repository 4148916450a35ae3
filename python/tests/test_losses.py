"""A process that dies fails the task that it ran and no other; the pool is back at full size."""

import multiprocessing.pool
import os
import signal
import socket
import struct
import sys
import threading
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
    assert time.monotonic() - start < 20
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


def test_twenty_kills_a_second_cost_the_tasks_that_ran_and_no_other(tmp_path, capsys):
    """FLEETPOOL_DEATH_SECONDS=60 goes on for longer. Workers, killer and caller read one clock."""
    count = 300 * int(os.environ.get("FLEETPOOL_DEATH_SECONDS", 2))
    killer = Killer(tmp_path / "notes")
    done, seen = {}, []
    with Pool(2) as pool, killer:
        results = pool.imap_unordered(square_noted, ((number, str(killer.path)) for number in range(count)))
        for _ in range(count):
            try:
                number, result = results.next(20)
                assert result == number * number
            except module.WorkerLost as lost:
                assert lost.signal == signal.SIGKILL
                number = lost.index
                # Each of them once, and nobody else's.
                seen.append(time.monotonic_ns() - killer.untold.pop(lost.pid))
            assert number not in done
            done[number] = True
        with pytest.raises(StopIteration):
            results.next(20)
    assert len(done) == count
    assert seen and len(killer.replaced) > killer.kills // 2
    with capsys.disabled():
        told, begun = figure(seen), figure(killer.replaced)
        print(
            f"\n{killer.kills} kills among {count} tasks, {len(seen)} lost: told after {told}, the next begins after {begun}",
            file=sys.stderr,
        )


NOTE = struct.Struct("IIQ")


def square_noted(task):
    """Say where it runs, work for a while, and square."""
    number, notes = task
    note = NOTE.pack(int(os.environ["FLEETPOOL_SLOT"]), os.getpid(), time.monotonic_ns())
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(note, notes)
    time.sleep(0.005)
    return number, number * number


class Killer(threading.Thread):
    """Hears which worker each slot has, and kills one every 50 ms."""

    def __init__(self, path):
        super().__init__()
        self.path = path
        self.notes = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notes.bind(str(path))
        self.notes.settimeout(0.005)
        # The worker of each slot, when each was killed, and of which of these nothing was heard.
        self.workers, self.killed, self.untold = {}, {}, {}
        self.replaced = []
        self.over = False

    @property
    def kills(self):
        return len(self.killed)

    def __enter__(self):
        self.start()

    def __exit__(self, *_):
        self.over = True
        self.join()
        self.notes.close()

    def run(self):
        due = time.monotonic()
        while not self.over:
            self.listen()
            if time.monotonic() >= due and self.kill_one():
                due = time.monotonic() + 0.05

    def listen(self):
        try:
            slot, pid, began = NOTE.unpack(self.notes.recv(NOTE.size))
        except TimeoutError:
            return
        # Put last, so that the other slot is next.
        before = self.workers.pop(slot, pid)
        self.workers[slot] = pid
        if before != pid and before in self.killed:
            self.replaced.append(began - self.killed[before])

    def kill_one(self):
        alive = [pid for pid in self.workers.values() if pid not in self.killed]
        if not alive:
            return False
        self.killed[alive[0]] = self.untold[alive[0]] = time.monotonic_ns()
        os.kill(alive[0], signal.SIGKILL)
        return True


def figure(times_ns):
    times = sorted(time_ns / 1e6 for time_ns in times_ns)
    at = [times[(len(times) - 1) * percent // 100] for percent in (50, 99)]
    return "{:.1f} ms (p50), {:.1f} ms (p99)".format(*at)


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


def test_nothing_is_left_behind_when_the_caller_is_killed(tmp_path, capsys):
    mark = f"FLEETPOOL_TEST_MARK={tmp_path.name}-{os.getpid()}"
    name, value = mark.split("=")
    script = scripts.write(
        tmp_path / "script.py",
        """
        import os, signal, subprocess, sys, time
        from fleetpool import Pool

        def daemonise():
            if os.fork() == 0:
                os.setsid()
                if os.fork() == 0:
                    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
                        signal.signal(number, signal.SIG_IGN)
                    os.chdir("/")
                    os.closerange(0, 1024)
                    while True:
                        time.sleep(1000)
                os._exit(0)
            os.wait()

        def busy(number):
            subprocess.Popen(["sleep", "1000"])
            subprocess.Popen(["sleep", "1000"], start_new_session=True)
            daemonise()
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
        # The caller, two workers, and three that each has started.
        assert len(pids_marked(mark)) >= 9
        process.kill()
        start = time.monotonic()
        process.wait()
        until("nothing is left", lambda: not pids_marked(mark))
        with capsys.disabled():
            print(f"\na killed caller: nothing is left after {time.monotonic() - start:.2f} s", file=sys.stderr)
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
