"""How a pool begins and ends, and what is left then: nothing."""

import inspect
import multiprocessing
import os
import pickle
import signal
import time

import pytest

import scripts
import tasks
from scripts import run_text
from under_test import STDLIB, Pool, cpu_count, module
from waiting import is_alive, pids_marked, until

SUBMIT = [
    lambda pool: pool.apply(tasks.square, (1,)),
    lambda pool: pool.apply_async(tasks.square, (1,)),
    lambda pool: pool.map(tasks.square, [1]),
    lambda pool: pool.map_async(tasks.square, [1]),
    lambda pool: pool.starmap(tasks.add, [(1, 2)]),
    lambda pool: pool.starmap_async(tasks.add, [(1, 2)]),
    lambda pool: pool.imap(tasks.square, [1]),
    lambda pool: pool.imap_unordered(tasks.square, [1]),
]


def test_close_lets_what_was_submitted_end_and_join_waits_for_it(tmp_path):
    with Pool(2) as pool:
        for number in range(20):
            pool.apply_async(tasks.touch, (str(tmp_path / str(number)),))
        pool.close()
        pool.join()
        assert len(list(tmp_path.iterdir())) == 20


def test_join_before_close_is_a_value_error(pool):
    with pytest.raises(ValueError):
        pool.join()
    assert pool.apply(tasks.square, (3,)) == 9


@pytest.mark.parametrize("end", ["close", "terminate"])
def test_submitting_to_an_ended_pool_is_a_value_error(end):
    pool = Pool(2)
    getattr(pool, end)()
    for submit in SUBMIT:
        with pytest.raises(ValueError):
            submit(pool)
    pool.join()


def test_a_closed_pool_takes_no_more_while_its_tasks_run(tmp_path):
    released = tmp_path / "released"
    with Pool(1) as pool:
        running = pool.apply_async(tasks.await_file, (str(released),))
        pool.close()
        with pytest.raises(ValueError):
            pool.apply(tasks.square, (1,))
        released.touch()
        pool.join()
        assert running.successful()


def test_ending_twice_is_fine():
    pool = Pool(2)
    pool.close()
    pool.close()
    pool.join()
    pool.join()
    pool.terminate()
    pool.terminate()
    pool.close()
    pool.join()


def test_with_gives_the_pool_and_its_end_terminates(tmp_path):
    start = time.monotonic()
    pool = Pool(2)
    with pool as inner:
        assert inner is pool
        pool.map_async(tasks.sleep_for, [1000] * 10)
    with pytest.raises(ValueError):
        pool.apply(tasks.square, (1,))
    with pytest.raises(ValueError):
        with pool:
            pass
    pool.join()
    assert time.monotonic() - start < 20


def test_with_passes_an_exception_on():
    with pytest.raises(ZeroDivisionError):
        with Pool(2) as pool:
            pool.apply_async(tasks.sleep_for, (1000,))
            raise ZeroDivisionError


@pytest.mark.parametrize("end", ["terminate", "with"])
def test_no_process_is_left_after_terminate_and_with(tmp_path, end):
    pool = Pool(3)
    started = [tmp_path / f"started-{number}" for number in range(3)]
    for path in started:
        pool.apply_async(tasks.note_and_await, (str(path), str(tmp_path / "never")))
    pids = [int(until("the task runs", lambda path=path: path.exists() and path.read_text())) for path in started]
    if end == "with":
        with pool:
            pass
    else:
        pool.terminate()
    pool.join()
    until("no worker is left", lambda: not any(is_alive(pid) for pid in pids))


def test_no_process_is_left_after_close_and_join():
    pool = Pool(3)
    pids = set(pool.map(tasks.pid, range(100), 1))
    pool.close()
    pool.join()
    until("no worker is left", lambda: not any(is_alive(pid) for pid in pids))


@pytest.mark.beyond
def test_terminate_ends_what_tasks_have_started_too(tmp_path):
    noted = tmp_path / "child"
    with Pool(1) as pool:
        pool.apply_async(start_child_and_wait, (str(noted),))
        child = int(until("the child runs", lambda: noted.exists() and noted.read_text()))
    pool.join()
    until("the child is gone", lambda: not is_alive(child))


@pytest.mark.parametrize("count", [0, -1])
def test_a_pool_of_no_processes_is_refused(count):
    with pytest.raises(ValueError):
        Pool(count)


def test_a_number_of_processes_that_is_none_is_refused():
    with pytest.raises(TypeError):
        Pool("two")


def test_without_a_number_there_is_a_process_for_each_cpu(tmp_path):
    with Pool() as pool:
        count = len(os.sched_getaffinity(0))
        assert len(set(tasks.full_size(pool, count, tmp_path / "meeting"))) == count


def test_cpu_count_is_of_the_processors_that_may_be_used():
    ours = len(os.sched_getaffinity(0))
    assert cpu_count() == (multiprocessing.cpu_count() if STDLIB else ours)


def test_arguments_of_the_standard_pool_are_taken_by_place_and_by_name():
    with Pool(2, None, (), None, None) as pool:
        assert pool.apply(tasks.square, (2,)) == 4
    with Pool(processes=2, initializer=None, initargs=(), maxtasksperchild=None, context=None) as pool:
        assert pool.apply(tasks.square, (2,)) == 4


def test_a_pool_of_a_context_of_multiprocessing_may_be_asked_for():
    with Pool(2, context=multiprocessing.get_context("fork")) as pool:
        assert pool.apply(tasks.square, (2,)) == 4


def test_a_script_that_never_ends_its_pool_ends_and_leaves_nothing(tmp_path):
    name = "FLEETPOOL_TEST_MARK"
    value = f"{tmp_path.name}-{os.getpid()}"
    run_text(
        tmp_path,
        """
        import time
        from fleetpool import Pool

        pool = Pool(2)
        print(pool.map(abs, range(3)))
        pool.apply_async(time.sleep, (1000,))
        """,
        env={name: value},
    ).succeeded()
    until("nothing is left", lambda: not pids_marked(f"{name}={value}"))


def test_a_pool_that_nobody_has_any_more_ends():
    pool = Pool(2)
    pids = set(pool.map(tasks.pid, range(100), 1))
    with pytest.warns(ResourceWarning):
        del pool
        import gc

        gc.collect()
    until("no worker is left", lambda: not any(is_alive(pid) for pid in pids))


@pytest.mark.parametrize("whole_group", [True, False])
def test_an_interrupt_ends_the_caller_and_all_workers(tmp_path, whole_group):
    """Ctrl-C goes to all processes of a terminal; a supervisor's signal to the caller alone."""
    name = "FLEETPOOL_TEST_MARK"
    value = f"{tmp_path.name}-{os.getpid()}"
    script = scripts.write(
        tmp_path / "script.py",
        """
        import signal, time
        from fleetpool import Pool

        signal.signal(signal.SIGINT, signal.default_int_handler)

        def busy(number):
            print("begun", flush=True)
            time.sleep(1000)

        if __name__ == "__main__":
            try:
                with Pool(2) as pool:
                    pool.map(busy, range(2), 1)
            except KeyboardInterrupt:
                print("interrupted", flush=True)
        """,
    )
    process = scripts.start([script], cwd=tmp_path, env={name: value})
    assert [process.stdout.readline() for _ in range(2)] == ["begun\n"] * 2
    if whole_group:
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.send_signal(signal.SIGINT)
    ended = scripts.finish(process, limit_s=20)
    assert ended.lines == ["interrupted"], ended.err
    assert ended.status == 0
    until("nothing is left", lambda: not pids_marked(f"{name}={value}"))


@pytest.mark.parametrize(
    "wait",
    [
        "pool.apply(time.sleep, (1000,))",
        "pool.apply_async(time.sleep, (1000,)).get()",
        "pool.apply_async(time.sleep, (1000,)).get(timeout=1000)",
        "pool.apply_async(time.sleep, (1000,)).wait()",
        "next(pool.imap(time.sleep, [1000]))",
        "pool.apply_async(time.sleep, (1000,)), pool.close(), pool.join()",
    ],
)
def test_every_wait_can_be_interrupted(tmp_path, wait):
    script = scripts.write(
        tmp_path / "script.py",
        f"""
        import signal, threading, time
        from fleetpool import Pool

        signal.signal(signal.SIGINT, signal.default_int_handler)
        if __name__ == "__main__":
            with Pool(1) as pool:
                pool.apply(abs, (1,))
                try:
                    print("waiting", flush=True)
                    {wait}
                except KeyboardInterrupt:
                    print("interrupted", flush=True)
        """,
    )
    process = scripts.start([script], cwd=tmp_path)
    assert process.stdout.readline() == "waiting\n"
    time.sleep(0.3)  # until it waits, which cannot be seen from outside
    process.send_signal(signal.SIGINT)
    assert scripts.finish(process, limit_s=20).succeeded().lines == ["interrupted"]


@pytest.mark.beyond
def test_an_interrupt_prints_no_traceback_of_a_worker(tmp_path):
    """The standard library's workers print one each, when the terminal interrupts them too."""
    script = scripts.write(
        tmp_path / "script.py",
        """
        import signal, time
        from fleetpool import Pool

        signal.signal(signal.SIGINT, signal.default_int_handler)

        def busy(number):
            print("begun", flush=True)
            time.sleep(1000)

        with Pool(2) as pool:
            try:
                pool.map(busy, range(2), 1)
            except KeyboardInterrupt:
                pass
        """,
    )
    process = scripts.start([script], cwd=tmp_path)
    assert [process.stdout.readline() for _ in range(2)] == ["begun\n"] * 2
    os.killpg(process.pid, signal.SIGINT)
    assert scripts.finish(process, limit_s=20).succeeded().err == ""


def test_each_new_pool_sees_the_folder_and_environment_of_its_moment(tmp_path, monkeypatch):
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        monkeypatch.chdir(folder)
        monkeypatch.setenv("FLEETPOOL_TEST_NUMBER", str(number))
        monkeypatch.syspath_prepend(str(folder))
        (folder / f"only_in_{number}.py").write_text(f"NUMBER = {number}\n")
        with Pool(1) as pool:
            assert pool.apply(os.getcwd) == str(folder)
            assert pool.apply(os.getenv, ("FLEETPOOL_TEST_NUMBER",)) == str(number)
            assert pool.apply(number_of_module, (f"only_in_{number}",)) == number


def test_a_variable_that_was_removed_is_not_seen(monkeypatch):
    monkeypatch.setenv("FLEETPOOL_TEST_GONE", "1")
    monkeypatch.delenv("FLEETPOOL_TEST_GONE")
    with Pool(1) as pool:
        assert pool.apply(os.getenv, ("FLEETPOOL_TEST_GONE",)) is None


def test_workers_are_other_processes_and_not_named_main(pool):
    names = pool.map(process_name, range(20), 1)
    assert "MainProcess" not in names
    assert os.getpid() not in pool.map(tasks.pid, range(20), 1)


def test_a_worker_does_not_take_the_callers_stdin(tmp_path):
    ended = scripts.run(
        ["-c", scripts.source("from fleetpool import Pool\nwith Pool(1) as pool: print(repr(pool.apply(input)))\n")],
        cwd=tmp_path,
        text_in="for the caller\n",
    )
    assert "EOFError" in ended.err


def test_a_pool_cannot_be_pickled(pool):
    with pytest.raises(NotImplementedError):
        pickle.dumps(pool)
    with pytest.raises(NotImplementedError):
        pool.apply_async(tasks.echo, (pool,)).get(20)


def test_proxies_of_a_manager_work_inside_tasks(pool):
    with multiprocessing.Manager() as manager:
        shared, queue, lock = manager.dict(), manager.Queue(), manager.Lock()
        pool.starmap(use_proxies, [(shared, queue, lock, number) for number in range(10)])
        assert dict(shared) == {number: number for number in range(10)} | {"sum": 45}
        assert sorted(queue.get(timeout=20) for _ in range(10)) == list(range(10))


def test_shared_memory_works_inside_tasks(pool):
    from multiprocessing import shared_memory

    memory = shared_memory.SharedMemory(create=True, size=16)
    try:
        pool.map(write_shared, [(memory.name, number) for number in range(16)])
        assert bytes(memory.buf[:16]) == bytes(range(16))
    finally:
        memory.close()
        memory.unlink()


def test_a_task_may_start_threads(pool):
    assert pool.apply(sum_in_threads, (10,)) == 45


@pytest.mark.beyond
def test_a_forked_child_that_uses_its_parents_pool_is_told_so(tmp_path):
    ended = run_text(
        tmp_path,
        """
        import os, sys
        from fleetpool import Pool

        if __name__ == "__main__":
            pool = Pool(2)
            assert pool.map(abs, [-1]) == [1]
            child = os.fork()
            if child == 0:
                try:
                    print("child", pool.apply_async(abs, (-2,)).get(timeout=20))
                except Exception as error:
                    print("child", type(error).__name__, error)
                sys.stdout.flush()
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
            assert pool.map(abs, [-3]) == [3]
            pool.close()
            pool.join()
            print("parent goes on")
        """,
    ).succeeded()
    assert ended.lines[0].startswith("child ")
    assert "TimeoutError" not in ended.lines[0]
    assert ended.lines[-1] == "parent goes on"


@pytest.mark.beyond
def test_a_forked_child_may_have_a_pool_of_its_own(tmp_path):
    ended = run_text(
        tmp_path,
        """
        import os
        from fleetpool import Pool

        if __name__ == "__main__":
            pool = Pool(2)
            assert pool.map(abs, [-1]) == [1]
            child = os.fork()
            if child == 0:
                with Pool(1) as own:
                    print("child", own.apply(abs, (-2,)), flush=True)
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
            print("parent", pool.apply(abs, (-3,)))
            pool.terminate()
        """,
    ).succeeded()
    assert ended.lines == ["child 2", "parent 3"]


def test_a_child_process_of_multiprocessing_may_have_a_pool(tmp_path):
    ended = run_text(
        tmp_path,
        """
        import multiprocessing as mp
        from fleetpool import Pool

        def child():
            with Pool(2) as pool:
                print(pool.map(abs, [-1, -2]), flush=True)

        if __name__ == "__main__":
            process = mp.Process(target=child)
            process.start()
            process.join()
            print(process.exitcode)
        """,
    ).succeeded()
    assert ended.lines == ["[1, 2]", "0"]


def test_a_pool_inside_a_task_works_or_says_that_it_cannot(pool):
    try:
        assert pool.apply_async(nested).get(30) == [0, 1, 4]
    except AssertionError as error:  # the standard library's
        assert "daemonic" in str(error)
    except module.TimeoutError:
        pytest.fail("it hangs")
    assert pool.apply(tasks.square, (2,)) == 4


def test_several_pools_side_by_side():
    with Pool(2) as one, Pool(2) as other:
        results = [pool.map_async(tasks.square, range(20)) for pool in (one, other) * 3]
        assert [result.get(20) for result in results] == [[x * x for x in range(20)]] * 6
        assert not set(one.map(tasks.pid, range(20))) & set(other.map(tasks.pid, range(20)))


def test_one_pool_after_another():
    for _ in range(10):
        with Pool(2) as pool:
            assert pool.map(tasks.square, range(4)) == [0, 1, 4, 9]
        pool.join()


def test_pools_leave_no_threads_and_no_open_files(tmp_path):
    """After the first, which may keep something for the next."""
    ended = run_text(
        tmp_path,
        """
        import os, threading
        from fleetpool import Pool

        def use():
            with Pool(2) as pool:
                assert pool.map(abs, range(10)) == list(range(10))
            pool.join()
            return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))

        if __name__ == "__main__":
            use()
            first = use()
            for _ in range(10):
                last = use()
            print(first, last)
            assert last[0] <= first[0] + 2 and last[1] <= first[1] + 2
        """,
    )
    ended.succeeded()


def test_methods_take_what_the_standard_pool_takes():
    """Further parameters may follow, by name."""
    import multiprocessing.pool

    for name in ("apply apply_async map map_async imap imap_unordered starmap starmap_async").split():
        theirs = list(inspect.signature(getattr(multiprocessing.pool.Pool, name)).parameters)
        ours = list(inspect.signature(getattr(Pool, name)).parameters)
        assert ours[: len(theirs)] == theirs


def test_the_names_of_multiprocessing_that_pools_need_are_there():
    for name in ("Pool", "TimeoutError", "cpu_count"):
        assert hasattr(module, name)


def start_child_and_wait(noted):
    import subprocess

    child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    with open(noted, "w") as file:
        file.write(str(child.pid))
    time.sleep(1000)


def number_of_module(name):
    import importlib

    return importlib.import_module(name).NUMBER


def process_name(_):
    return multiprocessing.current_process().name


def use_proxies(shared, queue, lock, number):
    shared[number] = number
    queue.put(number)
    with lock:
        shared["sum"] = shared.get("sum", 0) + number


def write_shared(name_and_number):
    from multiprocessing import shared_memory

    name, number = name_and_number
    memory = shared_memory.SharedMemory(name)
    memory.buf[number] = number
    memory.close()


def sum_in_threads(count):
    from multiprocessing.pool import ThreadPool

    with ThreadPool(4) as threads:
        return sum(threads.map(int, range(count)))


def nested():
    with Pool(2) as pool:
        return pool.map(tasks.square, range(3))
