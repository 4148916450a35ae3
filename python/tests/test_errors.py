"""Errors of tasks, arguments and results: each arrives, typed, and the pool goes on."""

import multiprocessing.pool
import os
import time
import traceback

import pytest

import tasks
from scripts import run_text
from under_test import MaybeEncodingError, Pool, module


class Odd(Exception):
    """With a field beside its arguments."""

    def __init__(self, number):
        super().__init__(number)
        self.number = number


def test_an_exception_keeps_its_class_arguments_and_fields(pool):
    with pytest.raises(Odd) as caught:
        pool.apply(raise_odd, (3,))
    assert type(caught.value) is Odd
    assert caught.value.args == (3,)
    assert caught.value.number == 3


def test_the_remote_traceback_is_chained(pool):
    for call in (
        lambda: pool.apply(raise_odd, (3,)),
        lambda: pool.map(raise_odd, [3]),
        lambda: next(pool.imap(raise_odd, [3])),
    ):
        with pytest.raises(Odd) as caught:
            call()
        assert type(caught.value.__cause__) is multiprocessing.pool.RemoteTraceback
        told = "".join(traceback.format_exception(caught.value))
        assert "in raise_odd" in told
        assert "raise Odd(number)" in told


def test_the_cause_of_a_remote_exception_is_told(pool):
    with pytest.raises(RuntimeError, match="outer") as caught:
        pool.apply(raise_from_another)
    assert "KeyError: 'inner'" in "".join(traceback.format_exception(caught.value))


def test_an_argument_that_cannot_be_pickled_is_an_error_at_get(pool):
    result = pool.apply_async(tasks.echo, (unpicklable(),))
    with pytest.raises(TypeError, match="pickle"):
        result.get(20)
    with pytest.raises(TypeError, match="pickle"):
        pool.map(tasks.echo, [unpicklable()])
    assert pool.apply(tasks.square, (2,)) == 4


def test_an_argument_whose_reduce_raises_is_that_error(pool):
    with pytest.raises(ZeroDivisionError):
        pool.apply(tasks.echo, (FailsToPickle(),))
    with pytest.raises(ZeroDivisionError):
        pool.map(tasks.echo, [FailsToPickle()] * 10)
    assert pool.apply(tasks.square, (2,)) == 4


def test_an_argument_nested_too_deeply_is_an_error(pool):
    nested = []
    for _ in range(100_000):
        nested = [nested]
    result = pool.apply_async(tasks.echo, (nested,))
    with pytest.raises(RecursionError):
        result.get(20)
    assert pool.apply(tasks.square, (2,)) == 4
    while nested:  # or its end is too deep a recursion for the interpreter
        nested = nested[0]


@pytest.mark.beyond
def test_arguments_are_taken_at_the_call(pool, tmp_path):
    """The standard library pickles them later, in a thread, so that changes after the call leak in."""
    released = tmp_path / "released"
    blockers = [pool.apply_async(tasks.await_file, (str(released),)) for _ in range(4)]
    box = [0]
    results = []
    for number in range(200):
        box[0] = number
        results.append(pool.apply_async(tasks.echo, (box,)))
    released.touch()
    assert [result.get(20) for result in results] == [[number] for number in range(200)]
    assert [result.get(20) for result in blockers] == [str(released)] * 4


@pytest.mark.beyond
def test_an_argument_that_cannot_be_unpickled_is_an_error(pool):
    """The standard library's worker dies of it, and the call hangs."""
    result = pool.apply_async(tasks.echo, (FailsToUnpickle(),))
    with pytest.raises(Exception, match="will not be unpickled"):
        result.get(20)
    assert pool.map(tasks.square, range(10)) == [x * x for x in range(10)]


@pytest.mark.beyond
def test_an_argument_that_is_too_large_is_refused_before_it_is_copied(tmp_path):
    """FLEETPOOL_ARGUMENT_MIB=8192 makes it larger; nobody touches it, so that it takes no memory itself."""
    mib = int(os.environ.get("FLEETPOOL_ARGUMENT_MIB", 1025))
    run_text(
        tmp_path,
        f"""
        import sys

        import numpy
        from fleetpool import Pool

        def refused(call, *args):
            try:
                call(*args)
            except OverflowError as error:
                assert "over the limit" in str(error) and "pass a path" in str(error), error
            else:
                raise AssertionError("it was sent")

        def peak_kib():
            # Of this program: what getrusage(2) says counts what its parent had as well.
            with open("/proc/self/status") as status:
                return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))

        if __name__ == "__main__":
            with Pool(1) as pool:
                assert pool.apply(len, (numpy.zeros(3),)) == 3
                before = peak_kib()
                huge, array = bytes({mib} << 20), numpy.zeros({mib} << 20, numpy.uint8)
                for data in (huge, array):
                    refused(pool.apply, len, (data,))
                    refused(pool.map, len, [data])
                    refused(pool.map, len, [b"few", data], 2)
                    refused(next, pool.imap(len, [data]))
                    refused(next, pool.imap_unordered(len, [data]))
                assert pool.map(len, [b"few", b"x"]) == [3, 1]
                grown = (peak_kib() - before) >> 10
            print(f"{{grown}} MiB more for arguments of {mib} MiB", file=sys.stderr)
            assert grown <= 64, f"{{grown}} MiB"
        """,
    ).succeeded()


@pytest.mark.beyond
def test_a_result_that_is_too_large_is_a_maybe_encoding_error():
    with Pool(1) as pool:
        result = pool.apply_async(bytes, (1 << 30,))
        after = pool.apply_async(tasks.square, (2,))
        with pytest.raises(MaybeEncodingError, match="write it to a file"):
            result.get(20)
        assert after.get(20) == 4


def test_a_result_that_cannot_be_pickled_is_a_maybe_encoding_error(pool):
    with pytest.raises(MaybeEncodingError) as caught:
        pool.apply(tasks.return_lambda)
    assert isinstance(caught.value, multiprocessing.pool.MaybeEncodingError)
    assert caught.value.value.startswith("<function") and "lambda" in caught.value.value
    assert caught.value.exc[0] not in "\"'"
    assert pool.apply(tasks.square, (2,)) == 4


def test_an_exception_that_cannot_be_pickled_is_a_maybe_encoding_error(pool):
    with pytest.raises(MaybeEncodingError, match="lambda"):
        pool.apply(raise_with_a_lambda)


def test_a_result_that_cannot_be_pickled_among_others(pool):
    results = pool.imap(tasks.Misbehaviour(tasks.return_lambda, 3), range(6))
    assert [next(results) for _ in range(3)] == [0, 1, 4]
    with pytest.raises(MaybeEncodingError):
        next(results)
    assert list(results) == [16, 25]


@pytest.mark.beyond
def test_an_exception_that_cannot_be_unpickled_is_an_error_that_names_it(pool):
    """It kills the standard library's result thread, and every call hangs."""
    start = time.monotonic()
    with pytest.raises(Exception, match="[Ss]tubborn"):
        pool.apply_async(tasks.raise_stubborn).get(20)
    assert time.monotonic() - start < 20
    assert pool.map(tasks.square, range(10)) == [x * x for x in range(10)]


@pytest.mark.beyond
def test_a_result_that_cannot_be_unpickled_is_an_error(pool):
    with pytest.raises(Exception, match="will not be unpickled"):
        pool.apply_async(make_one_that_fails_to_unpickle).get(20)
    assert pool.map(tasks.square, range(10)) == [x * x for x in range(10)]


@pytest.mark.beyond
@pytest.mark.parametrize("deed", [tasks.exit_politely, tasks.interrupt, tasks.exit_hard])
def test_a_task_that_wants_to_end_its_process_is_an_error(pool, deed):
    """All of these hang in the standard library."""
    start = time.monotonic()
    with pytest.raises((Exception, SystemExit, KeyboardInterrupt)) as caught:
        pool.apply_async(deed).get(20)
    assert not isinstance(caught.value, module.TimeoutError)
    assert time.monotonic() - start < 20
    assert pool.map(tasks.square, range(10)) == [x * x for x in range(10)]


def test_warnings_of_a_task_are_no_error(pool):
    assert pool.apply(warn) == 5


def test_a_stop_iteration_of_a_task_is_an_error(pool):
    with pytest.raises(StopIteration, match="task"):
        pool.apply(raise_stop_iteration)


def test_errors_leave_the_pool_at_full_size(tmp_path):
    with Pool(2) as pool:
        for _ in range(20):
            with pytest.raises(ValueError):
                pool.apply(tasks.fail, (1,))
            with pytest.raises(MaybeEncodingError):
                pool.apply(tasks.return_lambda)
        assert len(set(tasks.full_size(pool, 2, tmp_path / "meeting"))) == 2


def raise_odd(number):
    raise Odd(number)


def raise_from_another():
    try:
        raise KeyError("inner")
    except KeyError as error:
        raise RuntimeError("outer") from error


def raise_with_a_lambda():
    raise ValueError(lambda: 1)


def raise_stop_iteration():
    raise StopIteration("of a task")


def warn():
    import warnings

    warnings.warn("of a task", stacklevel=1)
    return 5


def unpicklable():
    return (number for number in range(3))


class FailsToPickle:
    def __reduce__(self):
        raise ZeroDivisionError("not to be pickled")


def refuse():
    raise RuntimeError("will not be unpickled")


class FailsToUnpickle:
    def __reduce__(self):
        return refuse, ()


def make_one_that_fails_to_unpickle():
    return FailsToUnpickle()
