"""`apply` and `apply_async`: one call."""

import time

import pytest

import tasks


def test_apply_gives_the_result(pool):
    assert pool.apply(tasks.add, (1, 2)) == 3
    assert pool.apply(tasks.add, (1,), {"y": 5}) == 6
    assert pool.apply(tasks.pid) != 0


def test_keyword_arguments_are_called_kwds(pool):
    assert pool.apply(func=tasks.add, args=(1,), kwds={"y": 2}) == 3
    assert pool.apply_async(func=tasks.add, args=(1,), kwds={"y": 2}, callback=None, error_callback=None).get() == 3
    with pytest.raises(TypeError):
        pool.apply(tasks.add, (1,), kwargs={"y": 2})


def test_arguments_may_be_a_list(pool):
    assert pool.apply(tasks.add, [1, 2]) == 3
    assert pool.apply_async(tasks.add, [1], {"y": 2}).get() == 3


def test_apply_waits_for_each_call(pool, tmp_path):
    for number in range(3):
        path = tmp_path / str(number)
        pool.apply(tasks.touch, (str(path),))
        assert path.exists()


def test_apply_async_does_not_wait(pool, tmp_path):
    released = tmp_path / "released"
    result = pool.apply_async(tasks.await_file, (str(released),))
    assert not result.ready()
    released.touch()
    assert result.get(timeout=20) == str(released)


def test_tasks_start_in_the_order_of_submission(tmp_path):
    from under_test import Pool

    log = str(tmp_path / "log")
    with Pool(1) as pool:
        for number in range(20):
            pool.apply_async(tasks.append_line, (log, number))
        pool.close()
        pool.join()
    assert (tmp_path / "log").read_text().split() == [str(number) for number in range(20)]


def test_apply_raises_what_the_call_raised(pool):
    with pytest.raises(ValueError, match="^nine$"):
        pool.apply(tasks.fail, ("nine",))


def test_a_call_with_wrong_arguments_is_a_type_error(pool):
    with pytest.raises(TypeError):
        pool.apply(tasks.add, (1, 2, 3))


def test_what_cannot_be_called_is_a_type_error(pool):
    with pytest.raises(TypeError):
        pool.apply(5, (1,))


def test_a_free_slot_takes_a_short_task_while_a_long_one_runs(pool, tmp_path):
    released = tmp_path / "released"
    long = pool.apply_async(tasks.await_file, (str(released),))
    short = [pool.apply_async(tasks.square, (number,)) for number in range(50)]
    assert [result.get(timeout=20) for result in short] == [number * number for number in range(50)]
    assert not long.ready()
    released.touch()
    long.get(timeout=20)


def test_one_call_after_another_is_quick(pool):
    pool.apply(tasks.echo, (0,))
    start = time.monotonic()
    for number in range(100):
        assert pool.apply(tasks.echo, (number,)) == number
    assert time.monotonic() - start < 20
