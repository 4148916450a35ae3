"""The joblib backend "fleetpool"; with FLEETPOOL_TEST_STDLIB=1, joblib's own "loky"."""

import os
import warnings

import joblib
import numpy
import pytest
from joblib import Parallel, delayed

import tasks
from under_test import STDLIB, module
from waiting import pids_marked

BACKEND = "loky" if STDLIB else "fleetpool"


@pytest.fixture(autouse=True)
def registered():
    if not STDLIB:
        import fleetpool.joblib  # noqa: F401, registers the backend


def test_results_are_in_order():
    with joblib.parallel_config(BACKEND, n_jobs=2):
        assert Parallel()(delayed(tasks.square)(x) for x in range(50)) == [x * x for x in range(50)]


def test_parallel_backend_works_as_well():
    with joblib.parallel_backend(BACKEND, n_jobs=2):
        assert Parallel()(delayed(tasks.add)(x, y=1) for x in range(10)) == list(range(1, 11))


def test_the_backend_may_be_named_in_the_call():
    assert Parallel(n_jobs=2, backend=BACKEND)(delayed(tasks.square)(x) for x in range(4)) == [0, 1, 4, 9]


def test_it_runs_in_other_processes():
    import os

    pids = Parallel(n_jobs=2, backend=BACKEND)(delayed(tasks.pid)(x) for x in range(20))
    assert os.getpid() not in pids
    assert len(set(pids)) <= 2


def test_minus_one_is_every_slot():
    with joblib.parallel_config(BACKEND, n_jobs=-1):
        assert Parallel()(delayed(tasks.square)(x) for x in range(10)) == [x * x for x in range(10)]
        assert joblib.effective_n_jobs(-1) == module.cpu_count()


def test_an_exception_of_a_call_is_raised():
    with pytest.raises(ValueError, match="^3$"):
        Parallel(n_jobs=2, backend=BACKEND)(delayed(tasks.fail)(x) for x in [3])
    assert Parallel(n_jobs=2, backend=BACKEND)(delayed(tasks.square)(x) for x in range(3)) == [0, 1, 4]


def test_lambdas_and_closures_are_taken():
    offset = 3
    assert Parallel(n_jobs=2, backend=BACKEND)(delayed(lambda x: x + offset)(x) for x in range(3)) == [3, 4, 5]


def test_one_pool_for_many_calls():
    with Parallel(n_jobs=2, backend=BACKEND) as parallel:
        for _ in range(5):
            assert parallel(delayed(tasks.square)(x) for x in range(10)) == [x * x for x in range(10)]


def test_calls_inside_of_calls():
    got = Parallel(n_jobs=2, backend=BACKEND)(delayed(nested)(x) for x in range(3))
    assert got == [[0, 1], [0, 1], [0, 1]]


def test_large_arrays():
    array = numpy.arange(1_000_000, dtype=float)
    got = Parallel(n_jobs=2, backend=BACKEND)(delayed(numpy.sum)(array[i::4]) for i in range(4))
    assert sum(got) == array.sum()


def test_results_as_they_come():
    parallel = Parallel(n_jobs=2, backend=BACKEND, return_as="generator")
    assert list(parallel(delayed(tasks.square)(x) for x in range(10))) == [x * x for x in range(10)]


def test_grid_search_of_scikit_learn():
    from sklearn.datasets import load_iris
    from sklearn.model_selection import GridSearchCV
    from sklearn.svm import SVC

    x, y = load_iris(return_X_y=True)
    parameters = {"C": [0.1, 1, 10]}
    alone = GridSearchCV(SVC(), parameters, cv=3).fit(x, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with joblib.parallel_backend(BACKEND):
            parallel = GridSearchCV(SVC(), parameters, cv=3, n_jobs=-1).fit(x, y)
    assert parallel.best_params_ == alone.best_params_
    assert numpy.allclose(parallel.cv_results_["mean_test_score"], alone.cv_results_["mean_test_score"])


def test_a_forest_of_scikit_learn():
    from sklearn.datasets import load_iris
    from sklearn.ensemble import RandomForestClassifier

    x, y = load_iris(return_X_y=True)
    with joblib.parallel_config(BACKEND, n_jobs=2):
        assert RandomForestClassifier(20, random_state=1).fit(x, y).score(x, y) > 0.9


@pytest.mark.beyond
def test_a_dead_worker_is_an_error_and_the_next_call_works():
    from concurrent.futures.process import BrokenProcessPool

    with pytest.raises(BrokenProcessPool):
        Parallel(n_jobs=2, backend=BACKEND)(delayed(tasks.die_by_signal)() for _ in range(3))
    assert Parallel(n_jobs=2, backend=BACKEND)(delayed(tasks.square)(x) for x in range(3)) == [0, 1, 4]


@pytest.mark.beyond
def test_nothing_is_left_after_a_program_that_used_it(tmp_path):
    from scripts import run_text

    mark = f"{tmp_path.name}-{os.getpid()}"
    run_text(
        tmp_path,
        """
        import fleetpool.joblib
        from joblib import Parallel, delayed

        print(Parallel(n_jobs=2, backend="fleetpool")(delayed(abs)(-x) for x in range(3)))
        """,
        env={"FLEETPOOL_TEST_MARK": mark},
    ).succeeded()
    assert not pids_marked(f"FLEETPOOL_TEST_MARK={mark}")


def nested(_):
    return Parallel(n_jobs=2)(delayed(tasks.square)(x) for x in range(2))
