"""Functions, classes and globals of `__main__`, however the program was started; and of notebooks."""

import zipfile

import pytest

import scripts
from scripts import run, run_text, source, write

UNGUARDED = """
from fleetpool import Pool

def double(x):
    return 2 * x

pool = Pool(2)
print(pool.map(double, range(5)))
pool.close()
pool.join()
"""
DOUBLED = ["[0, 2, 4, 6, 8]"]


def test_a_script_without_the_main_guard(tmp_path):
    assert run_text(tmp_path, UNGUARDED).succeeded().lines == DOUBLED


def test_a_script_without_the_main_guard_and_without_an_end_of_its_pool(tmp_path):
    text = UNGUARDED.replace("pool.close()\n", "").replace("pool.join()\n", "")
    assert run_text(tmp_path, text).succeeded().lines == DOUBLED


def test_from_stdin(tmp_path):
    assert run(["-"], cwd=tmp_path, text_in=source(UNGUARDED)).succeeded().lines == DOUBLED


def test_by_minus_c(tmp_path):
    assert run(["-c", source(UNGUARDED)], cwd=tmp_path).succeeded().lines == DOUBLED


def test_from_a_zip_file(tmp_path):
    archive = tmp_path / "program.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("__main__.py", source("import helper\n" + UNGUARDED.replace("2 * x", "helper.twice(x)")))
        file.writestr("helper.py", "def twice(x):\n    return 2 * x\n")
    assert run([archive], cwd=tmp_path).succeeded().lines == DOUBLED


def test_from_a_folder(tmp_path):
    write(tmp_path / "program" / "__main__.py", "import helper\n" + UNGUARDED.replace("2 * x", "helper.twice(x)"))
    write(tmp_path / "program" / "helper.py", "def twice(x):\n    return 2 * x\n")
    assert run([tmp_path / "program"], cwd=tmp_path).succeeded().lines == DOUBLED


def test_from_the_main_of_a_package(tmp_path):
    package_in(tmp_path, "__main__")
    assert run(["-m", "package"], cwd=tmp_path).succeeded().lines == DOUBLED


def test_from_a_module_of_a_package(tmp_path):
    package_in(tmp_path, "tool")
    assert run(["-m", "package.tool"], cwd=tmp_path).succeeded().lines == DOUBLED


def test_a_script_finds_its_neighbours_from_another_folder(tmp_path):
    write(tmp_path / "program" / "script.py", "import helper\n" + UNGUARDED.replace("double,", "helper.twice,"))
    write(tmp_path / "program" / "helper.py", "def twice(x):\n    return 2 * x\n")
    (tmp_path / "elsewhere").mkdir()
    assert run([tmp_path / "program" / "script.py"], cwd=tmp_path / "elsewhere").succeeded().lines == DOUBLED


def test_modules_of_a_folder_that_the_program_put_on_its_path(tmp_path):
    write(tmp_path / "lib" / "helper.py", "def twice(x):\n    return 2 * x\n")
    text = f"import sys\nsys.path.insert(0, {str(tmp_path / 'lib')!r})\nimport helper\n"
    ended = run_text(tmp_path, text + UNGUARDED.replace("double,", "helper.twice,"), name="p/script.py")
    assert ended.succeeded().lines == DOUBLED


def test_by_runpy(tmp_path):
    path = write(tmp_path / "script.py", UNGUARDED)
    starter = f"import runpy; runpy.run_path({str(path)!r}, run_name='__main__')"
    ended = run(["-c", starter], cwd=tmp_path)
    # `__main__` is the starter's here and does not have the function: the standard library refuses it.
    assert ended.lines == DOUBLED or "PicklingError" in ended.err


def test_the_program_runs_once(tmp_path):
    ended = run_text(tmp_path, "print('once', flush=True)\n" + UNGUARDED).succeeded()
    assert ended.lines == ["once", *DOUBLED]


def test_name_is_not_changed_for_the_caller(tmp_path):
    ended = run_text(tmp_path, UNGUARDED + "print(__name__, double.__module__, 'double' in globals())\n").succeeded()
    assert ended.lines == [*DOUBLED, "__main__ __main__ True"]


def test_an_initializer_that_sets_a_global_is_seen_by_tasks(tmp_path):
    ended = run_text(
        tmp_path,
        """
        from fleetpool import Pool

        connection = None

        def connect(name):
            global connection
            connection = name

        def ask(x):
            return f"{connection} {x}"

        if __name__ == "__main__":
            with Pool(2, connect, ("db",)) as pool:
                print(pool.map(ask, range(2)), connection)
        """,
    ).succeeded()
    assert ended.lines == ["['db 0', 'db 1'] None"]


def test_functions_share_their_globals_from_task_to_task(tmp_path):
    ended = run_text(
        tmp_path,
        """
        from fleetpool import Pool

        seen = []

        def note(x):
            seen.append(x)

        def count():
            return len(seen)

        if __name__ == "__main__":
            with Pool(1) as pool:
                for number in range(5):
                    pool.apply(note, (number,))
                print(pool.apply(count), len(seen))
        """,
    ).succeeded()
    assert ended.lines == ["5 0"]


def test_globals_set_before_the_pool_are_seen(tmp_path):
    ended = run_text(
        tmp_path,
        """
        import sys
        from fleetpool import Pool

        def scaled(x):
            return factor * x + len(table)

        if __name__ == "__main__":
            factor = 3
            table = list(range(1000))
            with Pool(2) as pool:
                print(pool.map(scaled, range(3)))
        """,
    ).succeeded()
    assert ended.lines == ["[1000, 1003, 1006]"]


def test_objects_come_back_as_the_classes_of_main(tmp_path):
    ended = run_text(
        tmp_path,
        """
        from collections import namedtuple
        from dataclasses import dataclass
        from enum import Enum
        from fleetpool import Pool

        class Color(Enum):
            RED = 1
            BLUE = 2

        @dataclass
        class Point:
            x: int
            color: Color

        class Base:
            def __init__(self, number):
                self.number = number

        class Derived(Base):
            def __init__(self, number):
                super().__init__(number)

            def twice(self):
                return 2 * self.number

        Pair = namedtuple("Pair", "a b")

        class Bad(Exception):
            pass

        def make(x):
            if x == 3:
                raise Bad("three")
            return Point(x, Color.BLUE), Derived(x), Pair(x, x), isinstance(Point(x, Color.RED), Point)

        def take(point, derived):
            assert isinstance(point, Point) and point.color is Color.BLUE
            return derived.twice()

        if __name__ == "__main__":
            with Pool(2) as pool:
                point, derived, pair, _ = pool.apply(make, (1,))
                assert type(point) is Point and point == Point(1, Color.BLUE)
                assert point.color is Color.BLUE
                assert type(derived) is Derived and derived.twice() == 2
                assert type(pair) is Pair and pair.a == 1
                assert pool.apply(take, (point, derived)) == 2
                assert pool.map(derived.__class__.twice, [derived]) == [2]
                try:
                    pool.apply(make, (3,))
                except Bad as error:
                    print("caught", error)
        """,
    ).succeeded()
    assert ended.lines == ["caught three"]


def test_globals_that_cannot_be_pickled_do_no_harm(tmp_path):
    """A fork has them all; what a task does not touch must not matter."""
    ended = run_text(
        tmp_path,
        """
        import logging, socket, sys, threading
        from fleetpool import Pool

        log = logging.getLogger(__name__)
        lock = threading.Lock()
        file = open(__file__)
        connection = socket.socket()
        generator = (x for x in range(3))
        thread = threading.Thread(target=print)
        main = sys.modules["__main__"]

        def double(x):
            log.debug("doubling")
            return 2 * x

        pool = Pool(2)
        unrelated = threading.Event()
        print(pool.map(double, range(5)))
        pool.terminate()
        """,
    ).succeeded()
    assert ended.lines == DOUBLED


def test_functions_call_each_other_and_use_imported_modules(tmp_path):
    ended = run_text(
        tmp_path,
        """
        import math as m
        from fleetpool import Pool
        from functools import lru_cache

        def even(n):
            return n == 0 or odd(n - 1)

        def odd(n):
            return n != 0 and even(n - 1)

        @lru_cache
        def fib(n):
            return n if n < 2 else fib(n - 1) + fib(n - 2)

        def work(n):
            return even(n), fib(n), m.sqrt(n * n)

        pool = Pool(2)
        print(pool.map(work, [7, 10]))
        """,
    ).succeeded()
    assert ended.lines == ["[(False, 13, 7.0), (True, 55, 10.0)]"]


def test_main_is_seen_by_libraries_as_main(tmp_path):
    """`pickle`, `inspect` and the like look a function up by its module's name."""
    ended = run_text(
        tmp_path,
        """
        import inspect, pickle, sys
        from fleetpool import Pool

        class Thing:
            pass

        def look():
            assert sys.modules[look.__module__].look is look
            assert pickle.loads(pickle.dumps(look)) is look
            assert type(pickle.loads(pickle.dumps(Thing()))) is Thing
            return inspect.signature(look).parameters == {}

        if __name__ == "__main__":
            with Pool(1) as pool:
                print(pool.apply(look))
        """,
    ).succeeded()
    assert ended.lines == ["True"]


def test_command_line_and_file_are_those_of_the_program(tmp_path):
    path = write(
        tmp_path / "script.py",
        """
        import os, sys
        from fleetpool import Pool

        def look():
            return sys.argv[1:], os.path.basename(__file__)

        if __name__ == "__main__":
            with Pool(1) as pool:
                print(pool.apply(look))
        """,
    )
    assert run([path, "--size", "3"], cwd=tmp_path).succeeded().lines == ["(['--size', '3'], 'script.py')"]


@pytest.mark.beyond
def test_functions_defined_after_the_pool_was_made(tmp_path):
    """A fork does not know them."""
    ended = run_text(
        tmp_path,
        """
        from fleetpool import Pool

        pool = Pool(2)

        def first(x):
            return x + 1

        print(pool.map(first, range(3)))

        def second(x):
            return first(x) * 10

        print(pool.map(second, range(3)))
        """,
    ).succeeded()
    assert ended.lines == ["[1, 2, 3]", "[10, 20, 30]"]


@pytest.mark.beyond
def test_lambdas_and_closures(tmp_path):
    ended = run_text(
        tmp_path,
        """
        from fleetpool import Pool

        offset = 100

        def adder(n):
            def add(x):
                return x + n + offset
            return add

        with Pool(2) as pool:
            print(pool.map(lambda x: x * x, range(3)), pool.map(adder(5), range(3)))
        """,
    ).succeeded()
    assert ended.lines == ["[0, 1, 4] [105, 106, 107]"]


@pytest.mark.beyond
def test_a_redefined_function_is_the_new_one(tmp_path):
    ended = run_text(
        tmp_path,
        """
        from fleetpool import Pool

        pool = Pool(1)
        def f():
            return "old"
        print(pool.apply(f))
        def f():
            return "new"
        print(pool.apply(f))
        """,
    ).succeeded()
    assert ended.lines == ["old", "new"]


def test_a_notebook(tmp_path):
    """Cells as a kernel runs them: one after another in one shell, whose namespace is `__main__`."""
    cells = [
        "from fleetpool import Pool\nimport math\nclass Point:\n    def __init__(self, x):\n        self.x = x",
        "def work(x):\n    return Point(math.floor(x) * 2)",
        "with Pool(2) as pool:\n    points = pool.map(work, range(3))",
        "print([point.x for point in points], all(isinstance(point, Point) for point in points))",
    ]
    assert notebook(tmp_path, cells).lines == ["[0, 2, 4] True"]


@pytest.mark.beyond
def test_a_notebook_with_a_pool_that_is_older_than_its_functions(tmp_path):
    cells = [
        "from fleetpool import Pool\npool = Pool(2)",
        "def work(x):\n    return x + 1",
        "print(pool.map(work, range(3)))",
        "def work(x):\n    return x + 2",
        "print(pool.map(work, range(3)), pool.map(lambda x: -work(x), range(2)))",
    ]
    assert notebook(tmp_path, cells).lines == ["[1, 2, 3]", "[2, 3, 4] [-2, -3]"]


def test_an_ipython_script(tmp_path):
    path = write(tmp_path / "script.ipy", UNGUARDED)
    environment = {"IPYTHONDIR": str(tmp_path / "ipython")}
    ended = run(["-m", "IPython", "--colors=NoColor", path], cwd=tmp_path, env=environment).succeeded()
    assert ended.lines == DOUBLED


def test_the_interactive_prompt(tmp_path):
    lines = source(UNGUARDED).replace("2 * x\n", "2 * x\n\n")
    ended = run(["-i", "-q", "-"], cwd=tmp_path, text_in=lines).succeeded()
    assert ended.lines == DOUBLED


def notebook(folder, cells):
    text = f"""
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell.instance(colors="NoColor")
    for cell in {[source(cell) for cell in cells]!r}:
        shell.run_cell(cell, store_history=True).raise_error()
    """
    return run_text(folder, text, env={"IPYTHONDIR": str(folder / "ipython")}).succeeded()


def package_in(folder, name):
    write(folder / "package" / "__init__.py", "FACTOR = 2\n")
    write(folder / "package" / "helper.py", "from . import FACTOR\n\ndef twice(x):\n    return FACTOR * x\n")
    text = "from .helper import twice\n" + UNGUARDED.replace("2 * x", "twice(x)")
    return scripts.write(folder / "package" / f"{name}.py", text)
