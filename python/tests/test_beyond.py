"""What `multiprocessing.Pool` does not have: cancelling, time limits, looking at a pool and resizing it."""

import builtins
import concurrent.futures
import importlib.resources
import inspect
import itertools
import os
import time

import pytest

import tasks
from under_test import Pool, module
from waiting import is_alive, until

pytestmark = pytest.mark.beyond

# --- cancelling


def test_a_task_that_waits_can_be_cancelled_and_never_runs(tmp_path):
    released = tmp_path / "released"
    with Pool(1) as pool:
        blocker = pool.apply_async(tasks.await_file, (str(released),))
        waiting = pool.apply_async(tasks.touch, (str(tmp_path / "ran"),))
        after = pool.apply_async(tasks.square, (3,))
        assert waiting.cancel() is True
        with pytest.raises(module.TaskCancelled):
            waiting.get(20)
        assert waiting.ready() and not waiting.successful()
        released.touch()
        assert blocker.get(20) == str(released)
        assert after.get(20) == 9
    assert not (tmp_path / "ran").exists()


def test_a_running_task_is_ended_with_all_it_started(tmp_path):
    noted = tmp_path / "pids"
    with Pool(1) as pool:
        running = pool.apply_async(note_pids_and_wait, (str(noted),))
        pids = until("it runs", lambda: noted.exists() and noted.read_text().split())
        running.cancel()
        with pytest.raises(concurrent.futures.CancelledError):
            running.get(20)
        until("its processes are gone", lambda: not any(is_alive(pid) for pid in pids))
        assert pool.apply(tasks.square, (3,)) == 9


def test_cancelling_what_has_ended_changes_nothing(pool):
    result = pool.apply_async(tasks.square, (3,))
    assert result.get(20) == 9
    assert result.cancel() is False
    assert result.get() == 9


def test_cancelling_twice_is_fine(pool):
    result = pool.apply_async(tasks.sleep_for, (1000,))
    result.cancel()
    result.cancel()
    with pytest.raises(module.TaskCancelled):
        result.get(20)


def test_a_map_can_be_cancelled(pool, tmp_path):
    result = pool.map_async(tasks.await_file, [str(tmp_path / "never")] * 100)
    result.cancel()
    with pytest.raises(module.TaskCancelled):
        result.get(20)
    assert pool.map(tasks.square, range(10)) == [x * x for x in range(10)]


def test_the_error_callback_is_told_of_a_cancelled_task(pool):
    told = []
    result = pool.apply_async(tasks.sleep_for, (1000,), error_callback=told.append)
    result.cancel()
    with pytest.raises(module.TaskCancelled):
        result.get(20)
    assert [type(error) for error in told] == [module.TaskCancelled]


# --- time limits of tasks


@pytest.mark.parametrize(
    "call",
    [
        lambda pool: pool.apply_async(tasks.sleep_for, (1000,), timeout=0.3).get(20),
        lambda pool: pool.map(tasks.sleep_for, [0, 1000, 0], timeout=0.3),
        lambda pool: pool.map_async(tasks.sleep_for, [0, 1000, 0], timeout=0.3).get(20),
        lambda pool: list(pool.imap(tasks.sleep_for, [0, 1000, 0], timeout=0.3)),
        lambda pool: list(pool.imap_unordered(tasks.sleep_for, [0, 1000, 0], timeout=0.3)),
        lambda pool: pool.starmap(tasks.sleep_for, [(0,), (1000,)], timeout=0.3),
        lambda pool: pool.starmap_async(tasks.sleep_for, [(0,), (1000,)], timeout=0.3).get(20),
    ],
    ids=["apply_async", "map", "map_async", "imap", "imap_unordered", "starmap", "starmap_async"],
)
def test_a_task_over_its_time_is_ended(pool, call):
    start = time.monotonic()
    with pytest.raises(module.TaskTimeout) as caught:
        call(pool)
    assert isinstance(caught.value, builtins.TimeoutError)
    assert 0.25 < time.monotonic() - start < 20
    assert pool.map(tasks.square, range(10)) == [x * x for x in range(10)]


def test_the_limit_is_each_tasks_own(pool):
    assert pool.map(tasks.sleep_for, [0.3] * 8, timeout=5, chunksize=4) == [0.3] * 8


def test_others_of_the_map_go_on(pool):
    results = pool.imap(tasks.sleep_for, [0, 1000, 0.01], timeout=3)
    assert next(results) == 0
    with pytest.raises(module.TaskTimeout):
        next(results)
    assert next(results) == 0.01


def test_a_task_over_its_time_takes_what_it_started_with_it(tmp_path):
    noted = tmp_path / "pids"
    with Pool(1) as pool:
        # A busy machine may need longer until it has started something.
        for limit_s in (1, 4, 16):
            with pytest.raises(module.TaskTimeout):
                pool.apply_async(note_pids_and_wait, (str(noted),), timeout=limit_s).get(30)
            if noted.exists():
                break
        pids = noted.read_text().split()
        until("its processes are gone", lambda: not any(is_alive(pid) for pid in pids))


def test_the_time_of_a_task_that_waits_for_a_slot_does_not_count(tmp_path):
    released = tmp_path / "released"
    with Pool(1) as pool:
        blocker = pool.apply_async(tasks.await_file, (str(released),))
        waiting = pool.apply_async(tasks.square, (3,), timeout=2)
        waiting.wait(2.5)
        assert not waiting.ready()
        released.touch()
        assert waiting.get(20) == 9
        assert blocker.get(20) == str(released)


@pytest.mark.parametrize("limit", [0, -1])
def test_a_senseless_limit_is_refused(pool, limit):
    with pytest.raises(ValueError):
        pool.apply_async(tasks.square, (1,), timeout=limit)


# --- looking and steering


def test_progress_counts(pool, tmp_path):
    released = tmp_path / "released"
    assert (pool.progress().total, pool.progress().done) == (0, 0)
    pool.map(tasks.square, range(10))
    with pytest.raises(ValueError):
        pool.apply(tasks.fail, (1,))
    running = pool.apply_async(tasks.await_file, (str(released),))
    until("one runs", lambda: pool.progress().running == 1)
    seen = pool.progress()
    assert (seen.total, seen.done, seen.failed, seen.running) == (12, 10, 1, 1)
    released.touch()
    running.get(20)
    until("all are counted", lambda: (pool.progress().done, pool.progress().running) == (11, 0))


def test_hosts_of_a_pool_on_this_machine(pool):
    hosts = pool.hosts()
    assert len(hosts) == 1
    assert isinstance(hosts[0].name, str) and hosts[0].name
    assert hosts[0].slots == 4
    assert hosts[0].state == "up"


def test_resize_up_and_down_and_back(tmp_path):
    with Pool(1) as pool:
        pool.resize(3)
        assert len(set(tasks.full_size(pool, 3, tmp_path / "three"))) == 3
        pool.resize(1)
        until("two workers are gone", lambda: len(set(pool.map(tasks.pid, range(50), 1))) == 1)
        pool.resize(None)
        count = len(os.sched_getaffinity(0))
        assert len(set(tasks.full_size(pool, count, tmp_path / "all"))) == count


def test_making_a_pool_smaller_loses_no_task(tmp_path):
    released = tmp_path / "released"
    with Pool(3) as pool:
        results = [pool.apply_async(tasks.await_file, (str(released),)) for _ in range(3)]
        until("all run", lambda: pool.progress().running == 3)
        pool.resize(1)
        released.touch()
        assert [result.get(20) for result in results] == [str(released)] * 3
        assert pool.map(tasks.square, range(10)) == [x * x for x in range(10)]


@pytest.mark.parametrize("count", [0, -1])
def test_a_senseless_size_is_refused(pool, count):
    with pytest.raises(ValueError):
        pool.resize(count)


def test_buffersize_bounds_how_far_an_input_is_read():
    seen = []
    with Pool(2, buffersize=10) as pool:
        results = pool.imap(tasks.echo, (seen.append(n) or n for n in itertools.count()))
        for number in range(100):
            assert next(results) == number
            assert len(seen) <= number + 1 + 10 + 2, "those in the buffer, and one in each slot"


@pytest.mark.parametrize("size", [0, -1])
def test_a_senseless_buffersize_is_refused(size):
    with pytest.raises(ValueError):
        Pool(1, buffersize=size)


# --- options of the pool


def test_retries_run_a_failed_task_again(tmp_path):
    with Pool(1, retries=2) as pool:
        assert pool.apply(fail_until, (str(tmp_path / "count"), 3)) == 3
        with pytest.raises(ValueError):
            pool.apply(fail_until, (str(tmp_path / "other"), 4))
        assert (tmp_path / "other").read_text().count("\n") == 3


def test_without_retries_a_failed_task_runs_once(pool, tmp_path):
    with pytest.raises(ValueError):
        pool.apply(fail_until, (str(tmp_path / "count"), 2))
    assert (tmp_path / "count").read_text().count("\n") == 1


def test_env_is_added_to_the_environment_of_tasks():
    with Pool(1, env={"FLEETPOOL_TEST_EXTRA": "yes"}) as pool:
        assert pool.apply(os.getenv, ("FLEETPOOL_TEST_EXTRA",)) == "yes"
        assert pool.apply(os.getenv, ("PATH",)) == os.environ["PATH"]
    assert "FLEETPOOL_TEST_EXTRA" not in os.environ


def test_tasks_do_not_see_what_is_said_to_their_interpreter_alone(pool):
    assert pool.apply(os.getenv, ("GLIBC_TUNABLES",)) is None
    assert pool.apply(os.getenv, ("FLEETPOOL_TEMPLATE",)) is None


def test_working_dir_is_where_tasks_run(tmp_path):
    (tmp_path / "data.txt").write_text("found")
    with Pool(1, working_dir=str(tmp_path)) as pool:
        assert pool.apply(read, ("data.txt",)) == "found"


def test_py_modules_are_brought_to_the_workers(tmp_path):
    (tmp_path / "brought.py").write_text("def answer():\n    return 42\n")
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("")
    (tmp_path / "package" / "inner.py").write_text("ANSWER = 43\n")
    with Pool(1, py_modules=[str(tmp_path / "brought.py"), str(tmp_path / "package")]) as pool:
        assert pool.apply(call_of_module, ("brought", "answer")) == 42
        assert pool.apply(attribute_of_module, ("package.inner", "ANSWER")) == 43


def test_name_and_priority_are_taken():
    with Pool(1, name="nightly", priority=5) as pool:
        assert pool.apply(tasks.square, (3,)) == 9


# --- what a task knows


def test_current_task_is_none_outside():
    assert module.current_task() is None


def test_current_task_tells_which_it_is(tmp_path):
    with Pool(2) as pool:
        told = pool.map(tell_current, range(5), 1)
        assert [index for index, *_ in told] == list(range(5))
        assert {attempt for _, attempt, *_ in told} == {1}
        assert {host for *_, host, _ in told} == {pool.hosts()[0].name}
        assert {slot for *_, slot in told} <= {1, 2}


def test_chunks_that_map_chooses_end_with_single_items(pool):
    indexes = [index for index, *_ in pool.map(tell_current, range(100))]
    sizes = [len(list(items)) for _, items in itertools.groupby(indexes)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > 1 and sizes[-4:] == [1] * 4


def test_progress_counts_the_items_of_chunks(pool):
    pool.map(tasks.square, range(1000))
    assert pool.progress()[:3] == (1000, 1000, 0)


def test_current_task_tells_the_attempt(tmp_path):
    with Pool(1, retries=1) as pool:
        assert pool.apply(fail_first_attempt) == 2


def test_the_environment_of_a_task_tells_host_and_slot(pool):
    assert pool.apply(os.getenv, ("FLEETPOOL_HOST",)) == pool.hosts()[0].name
    assert pool.apply(os.getenv, ("FLEETPOOL_SLOT",)) in {"1", "2", "3", "4"}


def test_numeric_libraries_get_a_slots_share_of_the_processors(monkeypatch):
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    with Pool(4) as pool:
        share = max(1, len(os.sched_getaffinity(0)) // 4)
        assert pool.apply(os.getenv, ("OMP_NUM_THREADS",)) == str(share)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    with Pool(4) as pool:
        assert pool.apply(os.getenv, ("OMP_NUM_THREADS",)) == "7"


# --- no cluster, no hope


def test_an_address_that_nobody_listens_on_is_a_pool_error():
    start = time.monotonic()
    with pytest.raises(module.PoolError, match="127.0.0.1:1"):
        with Pool(address="127.0.0.1:1") as pool:
            pool.apply_async(abs, (1,)).get(30)
    assert time.monotonic() - start < 30


def test_hosts_that_make_no_sense_are_refused():
    for hosts in ("web*", "", "a@web1,b@web1", "-oProxyCommand=id"):
        with pytest.raises(module.PoolError):
            Pool(hosts=hosts)


def test_the_address_may_be_in_the_environment(monkeypatch):
    monkeypatch.setenv("FLEETPOOL_CLUSTER", "127.0.0.1:1")
    with pytest.raises(module.PoolError):
        with Pool(2) as pool:
            pool.apply_async(abs, (1,)).get(30)
    with Pool(2, address="local") as pool:
        assert pool.apply(abs, (-1,)) == 1


def test_two_ways_to_name_a_cluster_are_refused():
    with pytest.raises((ValueError, TypeError)):
        Pool(address="127.0.0.1:1", hosts="web[1-2]")


# --- the package


def test_the_signature_of_pool():
    parameters = inspect.signature(Pool).parameters
    by_place = [name for name, one in parameters.items() if one.kind is one.POSITIONAL_OR_KEYWORD]
    by_name = {name: one.default for name, one in parameters.items() if one.kind is one.KEYWORD_ONLY}
    assert by_place == ["processes", "initializer", "initargs", "maxtasksperchild", "context"]
    assert by_name == {
        "address": None,
        "hosts": None,
        "on": None,
        "retries": None,
        "buffersize": None,
        "py_modules": None,
        "working_dir": None,
        "env": None,
        "name": None,
        "priority": 0,
    }


PUBLIC = (
    "Pool Executor TimeoutError MaybeEncodingError WorkerLost HostLost TaskTimeout TaskCancelled PoolError "
    "cpu_count current_task"
).split()


def test_public_names_are_listed():
    assert set(PUBLIC) <= set(module.__all__)
    for name in module.__all__:
        assert hasattr(module, name)


def test_everything_public_has_a_docstring():
    missing = []
    for name in module.__all__:
        found = getattr(module, name)
        if not inspect.getdoc(found):
            missing.append(name)
        if inspect.isclass(found) and found.__module__.startswith("fleetpool"):
            own = [member for member in vars(found) if not member.startswith("_")]
            missing += [f"{name}.{member}" for member in own if not inspect.getdoc(getattr(found, member))]
    assert missing == []
    assert module.__doc__


def test_the_package_is_typed():
    assert importlib.resources.files("fleetpool").joinpath("py.typed").is_file()


def test_it_stands_in_for_multiprocessing():
    import fleetpool as multiprocessing

    with multiprocessing.Pool(processes=2) as pool:
        with pytest.raises(multiprocessing.TimeoutError):
            pool.apply_async(time.sleep, (1000,)).get(timeout=0.05)
    assert multiprocessing.cpu_count() >= 1


def test_importing_it_is_quick_and_starts_nothing(tmp_path):
    from scripts import run_text

    ended = run_text(
        tmp_path,
        """
        import os, time
        start = time.monotonic()
        import fleetpool
        took = time.monotonic() - start
        assert took < 10, took
        print(len(os.listdir("/proc/self/task")))
        """,
    ).succeeded()
    assert ended.lines == ["1"]


def note_pids_and_wait(noted):
    import subprocess

    child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    with open(f"{noted}.new", "w") as file:
        file.write(f"{os.getpid()} {child.pid}")
    os.rename(f"{noted}.new", noted)
    time.sleep(1000)


def fail_until(path, wanted):
    """Fails until it has run so many times; its file has a line for each."""
    tasks.append_line(path, "ran")
    with open(path) as file:
        ran = len(file.readlines())
    if ran < wanted:
        raise ValueError(ran)
    return ran


def read(path):
    with open(path) as file:
        return file.read()


def attribute_of_module(module_name, name):
    import importlib

    return getattr(importlib.import_module(module_name), name)


def call_of_module(module_name, name):
    return attribute_of_module(module_name, name)()


def tell_current(_):
    import fleetpool

    now = fleetpool.current_task()
    return now.index, now.attempt, now.host, now.slot


def fail_first_attempt():
    import fleetpool

    attempt = fleetpool.current_task().attempt
    if attempt == 1:
        raise ValueError("first attempt")
    return attempt
