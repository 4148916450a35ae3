"""Callbacks run in the caller's process, before the result is ready."""

import os
import threading

import pytest

import tasks
from scripts import run_text
from waiting import until


def test_a_callback_gets_the_result_before_get_returns(pool):
    for number in range(50):
        got = []
        result = pool.apply_async(tasks.square, (number,), callback=got.append)
        assert [result.get(20)] == got


def test_a_callback_runs_in_the_callers_process_off_the_main_thread(pool):
    where = []

    def note(_):
        where.append((os.getpid(), threading.current_thread() is threading.main_thread()))

    pool.apply_async(tasks.pid, callback=note).get(20)
    pool.apply_async(tasks.fail, (1,), error_callback=note).wait(20)
    assert where == [(os.getpid(), False)] * 2


def test_a_callback_runs_before_the_result_is_ready(pool):
    ready = []
    box = []
    begun = threading.Event()

    def note(_):
        begun.wait(20)
        ready.append(box[0].ready())

    box.append(pool.apply_async(tasks.echo, (1,), callback=note))
    begun.set()
    box[0].get(20)
    assert ready == [False]


def test_that_of_a_map_gets_the_whole_list_in_order_and_once(pool):
    got = []
    pool.map_async(tasks.square, range(20), chunksize=3, callback=got.append).get(20)
    pool.starmap_async(tasks.add, [(1, 2), (3, 4)], callback=got.append).get(20)
    assert got == [[x * x for x in range(20)], [3, 7]]


def test_that_of_an_empty_map_is_called_or_not_but_the_result_is_ready(pool):
    assert pool.map_async(tasks.square, [], callback=lambda _: None).get(20) == []


def test_an_error_callback_gets_the_exception_and_the_other_nothing(pool):
    good, bad = [], []
    pool.apply_async(tasks.fail, ("x",), callback=good.append, error_callback=bad.append).wait(20)
    pool.map_async(tasks.fail, [1], callback=good.append, error_callback=bad.append).wait(20)
    assert good == []
    assert [type(error) for error in bad] == [ValueError, ValueError]


def test_a_callback_may_submit(pool):
    second = []
    pool.apply_async(tasks.square, (2,), callback=lambda x: second.append(pool.apply_async(tasks.square, (x,))))
    assert until("the callback has run", lambda: second)[0].get(20) == 16


def test_callbacks_have_run_when_join_returns(pool):
    got = []
    for number in range(100):
        pool.apply_async(tasks.echo, (number,), callback=got.append)
    pool.close()
    pool.join()
    assert sorted(got) == list(range(100))


@pytest.mark.beyond
@pytest.mark.parametrize("kind", ["callback", "error_callback"])
def test_one_that_raises_is_reported_and_the_pool_goes_on(tmp_path, kind):
    """It kills the standard library's result thread, and every later call hangs."""
    ended = run_text(
        tmp_path,
        f"""
        from fleetpool import Pool

        def task(x):
            if x == 0 and {kind!r} == "error_callback":
                raise KeyError("no")
            return x

        def raising(_):
            raise RuntimeError("boom in the callback")

        if __name__ == "__main__":
            with Pool(2) as pool:
                result = pool.apply_async(task, (0,), {kind}=raising)
                result.wait(20)
                assert result.ready()
                assert pool.map(task, range(1, 10)) == list(range(1, 10))
                pool.close()
                pool.join()
            print("went on")
        """,
    ).succeeded()
    assert ended.lines == ["went on"]
    assert "boom in the callback" in ended.err
