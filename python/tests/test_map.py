"""`map` and its relatives: results in order, errors after all have ended."""

from functools import partial

import pytest

import tasks
from under_test import Pool


@pytest.mark.parametrize("chunksize", [None, 1, 3, 100])
def test_results_are_in_the_order_of_the_inputs(pool, chunksize):
    assert pool.map(tasks.square, range(50), chunksize) == [x * x for x in range(50)]


def test_arguments_may_be_named(pool):
    assert pool.map(func=tasks.square, iterable=[1, 2], chunksize=1) == [1, 4]
    assert pool.starmap(func=tasks.add, iterable=[(1, 2)], chunksize=1) == [3]
    assert pool.map_async(
        func=tasks.square, iterable=[3], chunksize=None, callback=None, error_callback=None
    ).get() == [9]


def test_inputs_may_be_a_generator(pool):
    assert pool.map(tasks.square, (x for x in range(10))) == [x * x for x in range(10)]


def test_inputs_may_be_a_dictionary_or_a_string(pool):
    assert pool.map(tasks.echo, {"a": 1, "b": 2}) == ["a", "b"]
    assert pool.map(str.upper, "abc") == ["A", "B", "C"]


def test_no_inputs_give_no_results(pool):
    assert pool.map(tasks.square, []) == []
    assert pool.starmap(tasks.add, []) == []
    assert pool.map_async(tasks.square, [], chunksize=1).get(timeout=10) == []
    assert pool.starmap_async(tasks.add, []).get(timeout=10) == []


def test_many_inputs(pool):
    assert sum(pool.map(tasks.echo, range(100_000))) == sum(range(100_000))


def test_starmap_spreads_each_input_over_the_arguments(pool):
    assert pool.starmap(tasks.add, [(1, 2), [3, 4], (5,)]) == [3, 7, 5]
    assert pool.starmap_async(tasks.add, zip(range(5), range(5)), chunksize=2).get() == [0, 2, 4, 6, 8]


def test_what_is_no_iterable_is_refused_at_once(pool):
    with pytest.raises(TypeError):
        pool.map(tasks.square, 5)
    with pytest.raises(TypeError):
        pool.map_async(tasks.square, None)


def test_starmap_of_what_cannot_be_spread_is_an_error(pool):
    with pytest.raises(TypeError):
        pool.starmap(tasks.add, [1, 2])


def test_map_raises_what_a_task_raised(pool):
    with pytest.raises(ValueError, match="^7$"):
        pool.map(partial(tasks.fail_on, [7]), range(20), 1)


def test_map_raises_after_all_others_have_ended(tmp_path):
    with Pool(2) as pool:
        calls = [(tasks.fail, 0)] + [(tasks.touch, str(tmp_path / str(number))) for number in range(20)]
        with pytest.raises(ValueError):
            pool.starmap(run_call, calls, chunksize=1)
        assert len(list(tmp_path.iterdir())) == 20


@pytest.mark.beyond
def test_map_raises_the_error_of_the_lowest_index(pool, tmp_path):
    """The standard library raises the one that arrived first."""
    second_failed = str(tmp_path / "second")
    calls = [(fail_after, second_failed), (touch_and_fail, second_failed)]
    with pytest.raises(ValueError, match="first"):
        pool.starmap(run_call, calls, chunksize=1)


def test_an_exception_of_the_input_is_raised(pool):
    with pytest.raises(KeyError, match="input"):
        pool.map(tasks.square, failing_input(3), 1)
    assert pool.map(tasks.square, [2]) == [4], "and the pool goes on"


@pytest.mark.beyond
@pytest.mark.parametrize("chunksize", [0, -1])
def test_a_chunksize_below_one_is_refused(pool, chunksize):
    for call in (pool.map, pool.starmap, pool.map_async, pool.starmap_async, pool.imap, pool.imap_unordered):
        with pytest.raises(ValueError):
            call(tasks.echo, [(1,)], chunksize)


def test_n_slots_run_n_tasks_at_the_same_time(tmp_path):
    with Pool(3) as pool:
        assert len(set(tasks.full_size(pool, 3, tmp_path / "meeting"))) == 3


def test_workers_are_reused(pool):
    assert len(set(pool.map(tasks.pid, range(1000), 1))) <= 4


def run_call(function, argument):
    return function(argument)


def fail_after(path):
    tasks.await_file(path)
    raise ValueError("first")


def touch_and_fail(path):
    tasks.touch(path)
    raise ValueError("second")


def failing_input(count):
    yield from range(count)
    raise KeyError("input")
