"""Everything that can go wrong, as exceptions; and how the extension makes them."""

from __future__ import annotations

import builtins
import multiprocessing
import multiprocessing.pool
import pickle
import sys
from typing import Any, Optional


class Error(Exception):
    """The base of what fleetpool itself raises."""


class PoolError(Error):
    """The pool cannot be used: its cluster cannot be reached or refuses it, its initializer fails, or it has ended."""


class TimeoutError(multiprocessing.TimeoutError, builtins.TimeoutError):  # noqa: A001 - the name that the standard library uses
    """A result did not come in the time given. The call goes on. Both `multiprocessing`'s and the builtin one."""


class MaybeEncodingError(multiprocessing.pool.MaybeEncodingError):  # type: ignore[name-defined]
    """A result, or an exception, that cannot be pickled. `exc` says why, `value` what it is."""


class _Text(str):
    """What was shown elsewhere, for those who show what they are given."""

    def __repr__(self) -> str:
        return str(self)


class TaskError(Error):
    """The base of what ends one task without a result of its own; no other task is affected.

    `index` is the task's place among those of its call, `host` where it ran (empty: nowhere), `pid` its process.
    """

    def __init__(self, message: str, index: int = 0, host: str = "", pid: int = 0) -> None:
        super().__init__(message)
        self.index = index
        self.host = host
        self.pid = pid

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (type(self), self.args, self.__dict__)


class HostLost(TaskError):
    """The task's host was lost, more often than it may be run again."""


class TaskTimeout(TaskError, TimeoutError):
    """The task ran past its timeout, and was killed with everything it had started."""


class TaskNotStarted(TaskError):
    """The task could not be started: its argument cannot be sent, or no host can run it."""


# Where a task's exception was raised: the text of its traceback, as the exception's cause.
RemoteTraceback: Any = multiprocessing.pool.RemoteTraceback  # type: ignore[attr-defined]


def _again(kind: type, args: tuple[Any, ...], state: dict[str, Any]) -> BaseException:
    error: BaseException = kind.__new__(kind)  # type: ignore[call-overload]
    error.args = args
    error.__dict__.update(state)
    return error


def of_pool(kind: str, message: str) -> BaseException:
    """An error of a call on a pool."""
    if kind == "closed":
        return ValueError("Pool not running: make all calls before close() and terminate()")
    if kind == "not_closed":
        return ValueError("Pool is still running: call close() or terminate() before join()")
    if kind == "invalid":
        return ValueError(message)
    if kind == "too_large":
        return OverflowError(message)
    return PoolError(message)


def of_task(kind: str, message: str, fields: dict[str, Any]) -> BaseException:
    """An error that a task did not raise itself."""
    from . import _futures

    kinds: dict[str, type[TaskError]] = {
        "worker_lost": _futures.WorkerLost,
        "host_lost": HostLost,
        "timed_out": TaskTimeout,
        "cancelled": _futures.TaskCancelled,
        "not_started": TaskNotStarted,
    }
    return kinds[kind](message, **fields)


def of_failure(payload: bytes, host: str, pid: int) -> BaseException:
    """What a task raised."""
    how, what, trace = pickle.loads(payload)
    error = _raised(how, what)
    if trace:
        where = f" on {host}, process {pid}" if host else ""
        error.__cause__ = RemoteTraceback(f'\n"""\n{trace}"""{where}')
    return error


def _raised(how: str, what: Any) -> BaseException:
    if how == "unsent":
        return MaybeEncodingError(*map(_Text, what))
    if how == "text":
        name, text, shown, reason = what
        return MaybeEncodingError(_Text(f"{reason} (of {name}: {text})"), _Text(shown))
    try:
        error = pickle.loads(what)
        if how == "rebuild":
            error = _again(*error)
        if isinstance(error, BaseException):
            return error
        return MaybeEncodingError(_Text("it is no exception any more"), error)
    except Exception as reason:
        size = len(what)
        return MaybeEncodingError(reason, _Text(f"an exception that this process cannot unpickle ({size} bytes)"))


def report(message: str, error: BaseException) -> None:
    """Says of an exception that nobody waits for, as `sys.unraisablehook` does."""
    print(f"fleetpool: {message}", file=sys.stderr)
    sys.excepthook(type(error), error, error.__traceback__)
