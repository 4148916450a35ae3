"""`imap` and `imap_unordered`: results as they come, inputs as they are needed."""

import itertools
from functools import partial

import pytest

import tasks
from scripts import run_text
from under_test import Pool, TimeoutError
from waiting import rss_bytes, until

MIB = 2**20


@pytest.mark.parametrize("chunksize", [1, 3, 100])
def test_imap_gives_results_in_order(pool, chunksize):
    assert list(pool.imap(tasks.square, range(50), chunksize)) == [x * x for x in range(50)]


@pytest.mark.parametrize("chunksize", [1, 3, 100])
def test_imap_unordered_gives_each_result_once(pool, chunksize):
    assert sorted(pool.imap_unordered(tasks.square, range(50), chunksize)) == [x * x for x in range(50)]


def test_arguments_may_be_named(pool):
    assert list(pool.imap(func=tasks.square, iterable=[3], chunksize=1)) == [9]
    assert list(pool.imap_unordered(func=tasks.square, iterable=[3], chunksize=1)) == [9]


def test_no_inputs_give_no_results(pool):
    assert list(pool.imap(tasks.square, [])) == []
    assert list(pool.imap_unordered(tasks.square, [])) == []


def test_what_it_gives_is_an_iterator(pool):
    results = pool.imap(tasks.square, range(3))
    assert iter(results) is results
    assert [next(results), results.next(), results.next(timeout=20)] == [0, 1, 4]
    for _ in range(2):
        with pytest.raises(StopIteration):
            next(results)


@pytest.mark.parametrize("method", ["imap", "imap_unordered"])
def test_next_with_a_timeout_raises_and_the_result_still_comes(pool, tmp_path, method):
    released = tmp_path / "released"
    results = getattr(pool, method)(tasks.await_file, [str(released)])
    with pytest.raises(TimeoutError):
        results.next(timeout=0.05)
    with pytest.raises(TimeoutError):
        results.next(0)
    released.touch()
    assert results.next(20) == str(released)


@pytest.mark.beyond
def test_next_has_a_timeout_with_chunks_too(pool, tmp_path):
    """The standard library gives a plain generator then."""
    released = tmp_path / "released"
    results = pool.imap(tasks.await_file, [str(released)] * 4, chunksize=2)
    with pytest.raises(TimeoutError):
        results.next(timeout=0.05)
    released.touch()
    assert [results.next(20) for _ in range(4)] == [str(released)] * 4


def test_results_come_while_later_tasks_run(pool, tmp_path):
    released = tmp_path / "released"
    results = pool.imap(await_if_last, [(number, str(released)) for number in range(4)])
    assert [results.next(20) for _ in range(3)] == [0, 1, 2]
    released.touch()
    assert results.next(20) == 3


def test_imap_unordered_gives_the_first_that_ends(tmp_path):
    with Pool(2) as pool:
        released = tmp_path / "released"
        inputs = [(3, str(released)), (0, str(released))]
        results = pool.imap_unordered(await_if_last, inputs)
        assert results.next(20) == 0
        released.touch()
        assert results.next(20) == 3


def test_it_starts_before_it_is_asked(pool, tmp_path):
    pool.imap(tasks.touch, [str(tmp_path / "begun")])
    until("the task has run", (tmp_path / "begun").exists)


def test_it_goes_on_after_the_error_of_an_item(pool):
    results = pool.imap(partial(tasks.fail_on, [1]), range(4))
    assert next(results) == 0
    with pytest.raises(ValueError, match="^1$"):
        next(results)
    assert list(results) == [2, 3]


@pytest.mark.beyond
@pytest.mark.parametrize("method", ["imap", "imap_unordered"])
def test_it_goes_on_after_the_error_of_an_item_with_chunks_too(pool, method):
    """In the standard library it ends there, and the rest of the chunk is lost."""
    results = getattr(pool, method)(partial(tasks.fail_on, [1, 5]), range(8), chunksize=3)
    good, errors = [], []
    while True:
        try:
            good.append(results.next(20))
        except StopIteration:
            break
        except ValueError as error:
            errors.append(error.args[0])
    assert (sorted(good), sorted(errors)) == ([0, 2, 3, 4, 6, 7], [1, 5])


def test_an_exception_of_the_input_is_delivered_in_its_place(pool):
    results = pool.imap(tasks.square, failing_input(3))
    assert [next(results) for _ in range(3)] == [0, 1, 4]
    with pytest.raises(KeyError, match="input"):
        next(results)
    with pytest.raises(StopIteration):
        next(results)
    assert pool.apply(tasks.square, (2,)) == 4, "and the pool goes on"


def test_an_exception_of_the_input_ends_imap_unordered(pool):
    results = pool.imap_unordered(tasks.square, failing_input(3))
    got = []
    with pytest.raises(KeyError, match="input"):
        for result in results:
            got.append(result)
    assert set(got) <= {0, 1, 4}


def test_inputs_are_read_in_the_callers_process_while_results_are_consumed(pool):
    """A program may look at one result before it decides on the next input."""
    todo = [0]

    def inputs():
        while todo and todo[-1] is not None:
            yield todo[-1]
            until("a result has come", lambda seen=len(todo): len(todo) > seen)

    for result in pool.imap(tasks.square, inputs()):
        todo.append(result + 1 if len(todo) < 5 else None)
    assert todo == [0, 1, 2, 5, 26, None]


@pytest.mark.beyond
def test_inputs_of_several_calls_are_read_side_by_side(pool):
    """In the standard library an endless input starves every other call."""
    first = pool.imap(tasks.echo, itertools.count())
    second = pool.imap(tasks.square, itertools.count())
    assert [second.next(20) for _ in range(100)] == [x * x for x in range(100)]
    assert [first.next(20) for _ in range(100)] == list(range(100))
    assert pool.apply(tasks.echo, (5,)) == 5
    assert pool.map(tasks.echo, range(10)) == list(range(10))


@pytest.mark.beyond
def test_an_input_that_waits_holds_up_no_other_call(pool, tmp_path):
    released = tmp_path / "released"
    waiting = pool.imap(tasks.echo, (tasks.await_file(str(released)) for _ in range(1)))
    assert pool.apply_async(tasks.square, (3,)).get(timeout=20) == 9
    released.touch()
    assert list(waiting) == [str(released)]


@pytest.mark.beyond
def test_an_endless_input_is_read_no_further_than_it_is_consumed(tmp_path):
    pulled = itertools.count()
    seen = [0]

    def endless():
        for number in pulled:
            seen[0] = number
            yield number

    pool = Pool(2)
    results = pool.imap(tasks.echo, endless())
    for _ in range(1000):
        next(results)
    before = rss_bytes()
    at_rest = until("the input rests", lambda: resting(seen))
    assert at_rest < 100_000
    pool.close()
    pool.join()
    assert rss_bytes() - before < 32 * MIB
    assert resting(seen) == at_rest


@pytest.mark.beyond
def test_a_dropped_iterator_stops_its_input(pool):
    seen = [0]

    def endless():
        for number in itertools.count():
            seen[0] = number
            yield number

    results = pool.imap_unordered(tasks.echo, endless())
    next(results)
    del results
    until("the input rests", lambda: resting(seen))
    assert pool.apply(tasks.square, (3,)) == 9


def test_200_000_tiny_tasks_keep_the_caller_small(tmp_path):
    run_text(
        tmp_path,
        """
        from fleetpool import Pool

        def negative(x):
            return -x

        def peak_kib():
            # Of this program: what getrusage(2) says counts what its parent had as well.
            with open("/proc/self/status") as status:
                return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))

        if __name__ == "__main__":
            with Pool(2) as pool:
                total = sum(pool.imap_unordered(negative, range(200_000), chunksize=1))
            assert total == -sum(range(200_000)), total
            assert peak_kib() < 300 * 1024, f"{peak_kib()} KiB"
        """,
    ).succeeded()


def test_tqdm_counts_results_as_they_come(pool):
    from tqdm import tqdm

    with tqdm(pool.imap_unordered(tasks.square, range(20)), total=20, disable=None, mininterval=0) as bar:
        assert sorted(bar) == [x * x for x in range(20)]


def await_if_last(number_and_path):
    number, path = number_and_path
    if number == 3:
        tasks.await_file(path)
    return number


def failing_input(count):
    yield from range(count)
    raise KeyError("input")


def resting(seen):
    """How far an input has been read, once that stays the same for a while; else None."""
    import time

    before = seen[0]
    time.sleep(0.3)
    return before if seen[0] == before and before else None
