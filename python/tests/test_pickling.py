"""What can be a function, an argument or a result."""

import copyreg
import functools
import math
import operator
import re
from decimal import Decimal
from functools import partial
from pathlib import Path

import numpy
import pytest

import tasks
from under_test import Pool


class Scale:
    """Its methods are tasks."""

    def __init__(self, factor):
        self.factor = factor

    def times(self, x):
        return self.factor * x

    def __call__(self, x):
        return self.factor * x

    @classmethod
    def made(cls, factor):
        return cls(factor).factor

    @staticmethod
    def plain(x):
        return 3 * x

    class Inner:
        def __init__(self, x):
            self.x = x


def twice(function):
    @functools.wraps(function)
    def wrapper(x):
        return 2 * function(x)

    return wrapper


@twice
def decorated(x):
    return x + 1


@functools.lru_cache
def cached(x):
    return x + 1


FUNCTIONS = {
    "function": (tasks.square, 9),
    "builtin": (abs, 3),
    "type": (str, "3"),
    "of the C library": (math.factorial, 6),
    "partial": (partial(tasks.add, y=10), 13),
    "partial of a partial": (partial(partial(tasks.add), 10), 13),
    "bound method": (Scale(5).times, 15),
    "method of a builtin": ([0, 1, 2, 30].__getitem__, 30),
    "object with __call__": (Scale(5), 15),
    "class method": (Scale.made, 3),
    "static method": (Scale.plain, 9),
    "decorated": (decorated, 8),
    "cached": (cached, 4),
    "operator": (operator.neg, -3),
    "method caller": (operator.methodcaller("__add__", 4), 7),
    "numpy ufunc": (numpy.square, 9),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_of_every_kind(pool, name):
    function, expected = FUNCTIONS[name]
    assert pool.apply(function, (3,)) == expected
    assert pool.map(function, [3, 3]) == [expected] * 2


def test_a_method_works_on_a_copy(pool):
    scale = Scale(5)
    pool.apply(setattr, (scale, "factor", 6))
    assert scale.factor == 5


@pytest.mark.beyond
def test_lambdas_closures_and_local_functions(pool):
    offset = 10

    def local(x):
        return x + offset

    class Local:
        def __init__(self, x):
            self.x = x

        def get(self):
            return self.x + offset

    assert pool.map(lambda x: x + offset, range(3)) == [10, 11, 12]
    assert pool.map(local, range(3)) == [10, 11, 12]
    assert pool.map(Local(5).get.__func__, [Local(1)]) == [11]
    assert pool.apply(partial(lambda x, y: x * y, 3), (4,)) == 12
    assert pool.apply(lambda f: f(3), (lambda x: x + 1,)) == 4, "as an argument too"


@pytest.mark.beyond
def test_a_recursive_local_function(pool):
    def factorial(n):
        return 1 if n == 0 else n * factorial(n - 1)

    assert pool.map(factorial, range(5)) == [1, 1, 2, 6, 24]


VALUES = [
    None,
    True,
    10**100,
    -0.5,
    float("inf"),
    1 + 2j,
    "größer",
    "\udcff",
    b"\0\xff",
    bytearray(b"abc"),
    (),
    [[], [()]],
    {"a": {1, 2}, (1, 2): frozenset([3])},
    range(5),
    slice(1, 2, 3),
    Ellipsis,
    Decimal("1.10"),
    Path("/tmp/x"),
    re.compile("a+"),
    int,
    len,
    tasks.square,
    ValueError("as a value"),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: re.sub(" at 0x[0-9a-f]+", "", repr(value)))
def test_values_go_and_come_back(pool, value):
    got = pool.apply(tasks.echo, (value,))
    assert type(got) is type(value)
    assert repr(got) == repr(value)


def test_an_exception_that_is_returned_is_not_raised(pool):
    assert pool.map(ValueError, ["x"])[0].args == ("x",)


def test_identity_within_one_call_is_kept(pool):
    one = [1]
    first, second = pool.apply(tasks.echo, ((one, one),))
    assert first is second
    loop = []
    loop.append(loop)
    got = pool.apply(tasks.echo, (loop,))
    assert got[0] is got


def test_objects_of_classes_and_of_inner_classes(pool):
    scale = pool.apply(tasks.echo, (Scale(7),))
    assert type(scale) is Scale and scale.factor == 7
    inner = pool.apply(Scale.Inner, (8,))
    assert type(inner) is Scale.Inner and inner.x == 8


class Point:
    def __init__(self, x):
        self.x = x


def reduce_point(point):
    return Point, (point.x + 100,)


def test_what_is_registered_with_copyreg_is_used(monkeypatch):
    monkeypatch.setitem(copyreg.dispatch_table, Point, reduce_point)
    with Pool(1) as pool:
        assert pool.apply(get_x, (Point(1),)) == 101


def get_x(point):
    return point.x


def test_large_arguments_and_results(pool):
    data = bytes(range(256)) * (4 * 2**20 // 256)
    assert pool.map(len, [data] * 6) == [len(data)] * 6
    assert pool.map(bytes, [len(data)] * 4) == [bytes(len(data))] * 4
    assert pool.apply(tasks.echo, (data,)) == data


def test_a_function_that_holds_much_is_called_often(pool):
    held = partial(length_and, bytes(4 * 2**20))
    assert pool.map(held, range(200), 1) == [(4 * 2**20, number) for number in range(200)]


def length_and(data, number):
    return len(data), number


def test_arrays_go_and_come_back(pool):
    array = numpy.arange(1_000_000, dtype=numpy.float64).reshape(1000, 1000)
    for given in (array, array.T, array[::2, ::3], numpy.array(5.0), numpy.array([]), array > 3):
        got = pool.apply(tasks.echo, (given,))
        assert got.dtype == given.dtype
        assert numpy.array_equal(got, given)
    assert numpy.array_equal(pool.apply(numpy.add, (array, 1)), array + 1)


def test_arrays_of_objects_and_of_records(pool):
    objects = numpy.array([{"a": 1}, None, "x"], dtype=object)
    assert pool.apply(tasks.echo, (objects,)).tolist() == objects.tolist()
    records = numpy.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")])
    assert pool.apply(tasks.echo, (records,))["b"][0] == 2.0


def test_arrays_in_results_are_writable(pool):
    """They are taken out of band by protocol 5, whose buffers may be read-only."""
    for got in (
        pool.apply(numpy.zeros, (1000,)),
        pool.map(numpy.zeros, [1000])[0],
        next(pool.imap(numpy.zeros, [1_000_000])),
        pool.apply(dict, (), {"array": numpy.zeros(100_000)})["array"],
    ):
        got[0] = 5
        assert got[0] == 5


def test_arrays_in_arguments_are_writable(pool):
    for size in (10, 1_000_000):
        assert pool.apply(write_first, (numpy.zeros(size),)) == 5


def write_first(array):
    array[0] = 5
    return float(array[0])


def test_bytearrays_in_results_are_writable(pool):
    got = pool.apply(bytearray, (2_000_000,))
    got[0] = 5
    got.append(1)
    assert len(got) == 2_000_001


def test_arguments_are_not_kept_alive(pool):
    import gc
    import weakref

    from waiting import until

    objects = [Point(number) for number in range(10)]
    references = [weakref.ref(one) for one in objects]
    assert pool.map(get_x, objects) == list(range(10))
    del objects
    until("they are freed", lambda: gc.collect() >= 0 and all(one() is None for one in references))


def test_random_numbers_of_workers_are_the_tasks_own_affair(pool):
    """As in the standard library: a task that wants its own seed sets it."""
    assert pool.map(seeded, [1, 1, 2])[:2] == [pool.apply(seeded, (1,))] * 2


def seeded(seed):
    import random

    return random.Random(seed).random()
