"""CPython's own tests of its pool, run with ours in its place.

They are taken from the interpreter that runs this, `test._test_multiprocessing` (3.10 to 3.14). Debian and Ubuntu leave
it out of their Python: `apt install libpython3-testsuite` brings it.

With FLEETPOOL_TEST_STDLIB=1 the standard pool is tested, and nothing is skipped: what shows that this runner works.
"""

import multiprocessing
import multiprocessing.managers
import multiprocessing.pool
import unittest
from unittest import mock

from under_test import NAME, STDLIB, Pool

try:
    from test import _test_multiprocessing as theirs
    from test.support import script_helper
except ImportError as error:
    raise ImportError(
        "this Python comes without its own tests, which are run here: "
        "`apt install libpython3-testsuite` on Debian and Ubuntu, or use a Python from python.org, pyenv or uv"
    ) from error

LOOKS_INSIDE = "looks into private attributes: "

SKIPPED = {
    ("_TestPool", "test_make_pool"): LOOKS_INSIDE + "the list of workers, `_pool`; test_lifecycle.py has the rest",
    ("_TestPool", "test_resource_warning"): LOOKS_INSIDE
    + "sets `_state` to run again; test_lifecycle.py has the warning",
    ("_TestPoolWorkerLifetime", "test_pool_worker_lifetime"): LOOKS_INSIDE
    + "`_pool` and `_repopulate_pool`; test_initializer.py has workers of limited life",
    ("TestPoolNotLeakOnFailure", "test_release_unused_processes"): "makes the context fail to start processes, "
    "and ours are not started through one",
}

# Those of the pool, and those of something else that use one.
CLASSES = [
    "_TestPool",
    "_TestPoolWorkerErrors",
    "_TestPoolWorkerLifetime",
    "TestPoolNotLeakOnFailure",
    "TestInitializers",
    "TestStdinBadfiledescriptor",
    "TestSyncManagerTypes",
]
# Of these, only what uses a pool.
ONLY = {
    "TestInitializers": {"test_pool_initializer"},
    "TestStdinBadfiledescriptor": {"test_pool_in_process"},
    "TestSyncManagerTypes": {"test_pool"},
}
KINDS = {"processes": theirs.ProcessesMixin, "manager": theirs.ManagerMixin}


def install(name):
    """Put the test cases of one of their classes here, for each kind of pool that is a pool of processes."""
    base = getattr(theirs, name, None)
    if base is None:  # another version has it
        return
    kinds = [kind for kind in getattr(base, "ALLOWED_TYPES", [None]) if kind in (None, *KINDS)]
    for kind in kinds:
        ours = f"With{kind.capitalize()}{name[1:]}" if kind else name
        globals()[ours] = test_case(ours, base, kind)


def test_case(name, base, kind):
    """One of their classes with its skipped tests marked."""
    bases = (base, KINDS[kind], unittest.TestCase) if kind else (base,)
    members = {"__module__": __name__, "__qualname__": name}
    if kind == "processes":
        members["Pool"] = staticmethod(Pool)
    for test in unittest.TestLoader().getTestCaseNames(type(name, bases, {})):
        if test not in ONLY.get(base.__name__, {test}):
            members[test] = None
        elif (base.__name__, test) in SKIPPED and kind != "manager" and not STDLIB:
            members[test] = unittest.skip(SKIPPED[base.__name__, test])(getattr(base, test))
    return type(name, bases, members)


test_case.__test__ = False

for one in CLASSES:
    install(one)


def assert_python_ok(*arguments, **environment):
    """Programs that they run use our pool as well."""
    said = [one.replace("from multiprocessing import Pool", f"from {NAME} import Pool") for one in arguments]
    return ASSERT_PYTHON_OK(*said, **environment)


ASSERT_PYTHON_OK = script_helper.assert_python_ok
PATCHES = []


def setUpModule():
    if not STDLIB:
        PATCHES.extend(
            [
                mock.patch.object(multiprocessing, "Pool", Pool),
                mock.patch.object(multiprocessing.pool, "Pool", Pool),
                mock.patch.object(script_helper, "assert_python_ok", assert_python_ok),
                mock.patch.dict(multiprocessing.managers.SyncManager._registry, registry_with_our_pool()),
            ]
        )
    for patch in PATCHES:
        patch.start()


def tearDownModule():
    for patch in PATCHES:
        patch.stop()
    PATCHES.clear()


def registry_with_our_pool():
    """A manager's pool is one of ours, in the manager's process."""
    _, exposed, method_to_typeid, proxy = multiprocessing.managers.SyncManager._registry["Pool"]
    return {"Pool": (Pool, exposed, method_to_typeid, proxy)}


def test_what_is_skipped_is_little_and_of_these_classes():
    assert {name for name, _ in SKIPPED} <= set(CLASSES)
    assert len(SKIPPED) < 10
