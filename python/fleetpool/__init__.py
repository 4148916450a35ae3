"""A process pool over as many machines as you have: `multiprocessing.Pool` for a fleet.

>>> from fleetpool import Pool
>>> with Pool(4) as pool:
...     pool.map(abs, range(-3, 3))
[3, 2, 1, 0, 1, 2]

Without an address the pool runs on this machine, with no set-up; with one, on the fleet of the coordinator there. Functions
and arguments need not be importable by the workers: what belongs to the main program, lambdas and closures go over by
value.

A script that only uses pools needs one line changed: `import fleetpool as multiprocessing`. What else it takes from
`multiprocessing` (locks, queues, managers, processes) is the standard library's own, and works on this machine.
"""

from __future__ import annotations

import importlib
import multiprocessing as _multiprocessing
import pickle as _pickle
from typing import TYPE_CHECKING, Any, Optional

from . import _core, _errors

_core.setup(_pickle.loads, _errors)

from ._context import cpu_count, worker as _worker  # noqa: E402
from ._core import __version__  # noqa: E402
from ._errors import (  # noqa: E402
    Error,
    HostLost,
    MaybeEncodingError,
    PoolError,
    RemoteTraceback,
    TaskError,
    TaskNotStarted,
    TaskTimeout,
    TimeoutError,
)
from .pool import AsyncResult, Host, IMapIterator, Pool, Progress  # noqa: E402

if TYPE_CHECKING:
    from ._futures import TaskCancelled, WorkerLost
    from .executor import Executor

__all__ = [
    "AsyncResult",
    "Error",
    "Executor",
    "Host",
    "HostLost",
    "IMapIterator",
    "MaybeEncodingError",
    "Pool",
    "PoolError",
    "Progress",
    "RemoteTraceback",
    "Task",
    "TaskCancelled",
    "TaskError",
    "TaskNotStarted",
    "TaskTimeout",
    "TimeoutError",
    "WorkerLost",
    "__version__",
    "cpu_count",
    "current_task",
    "freeze_support",
    "get_context",
]


class Task:
    """The task that runs, as it sees itself."""

    index: int
    """Its place in the order in which its pool was given tasks."""
    attempt: int
    """Which try of it; larger than 1 where its host was lost and it is run again."""
    host: str
    """The host's name in the fleet."""
    slot: int
    """The slot on that host, counted from 1."""

    def __init__(self, index: int, attempt: int, host: str, slot: int) -> None:
        self.index, self.attempt, self.host, self.slot = index, attempt, host, slot

    def __repr__(self) -> str:
        return f"Task(index={self.index}, attempt={self.attempt}, host={self.host!r}, slot={self.slot})"


def current_task() -> Optional[Task]:
    """The task that runs in this process; `None` outside of a worker and between tasks."""
    worker = _worker()
    if worker is None or not worker.current.attempt:
        return None
    context = worker.context
    return Task(worker.current.index, worker.current.attempt, context["host"], context["slot"])


def freeze_support() -> None:
    """For compatibility: there is nothing to be done."""


def get_context(method: Optional[str] = None) -> Any:
    """For compatibility: something that has this module's `Pool`, whatever the start method."""
    _multiprocessing.get_context(method)
    import sys

    return sys.modules[__name__]


# What is imported when it is first asked for: it brings in `concurrent.futures`.
_LATER = {"Executor": "executor", "TaskCancelled": "_futures", "WorkerLost": "_futures"}


def __getattr__(name: str) -> Any:
    """What this module does not have of its own is the standard library's."""
    if name in _LATER:
        found = getattr(importlib.import_module(f"{__name__}.{_LATER[name]}"), name)
        globals()[name] = found
        return found
    if name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(_multiprocessing, name)
    except AttributeError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
