"""`concurrent.futures.Executor` over a pool."""

from __future__ import annotations

import concurrent.futures
import itertools
import threading
import time
import weakref
from collections import deque
from typing import Any, Callable, Iterable, Iterator, Optional

from . import _core, _errors
from .pool import _CALL, _STAR, _STAR_CHUNK, Pool, _chunks

__all__ = ["Executor"]


class Future(concurrent.futures.Future[Any]):
    """A call of an executor. `cancel()` also ends a call that runs, with everything that it has started."""

    _call: Optional[_core.Call] = None

    def cancel(self) -> bool:
        """Cancels the call, whether it has begun or not; `False` when it has ended already."""
        if not super().cancel():
            return False
        self.set_running_or_notify_cancel()
        if self._call is not None:
            self._call._cancel()
        return True


class _Pending(_core.Call):
    """A call on its way, and the future that waits for it."""

    def __init__(self, call: _core.Call, future: Future) -> None:
        self.future = future

    def _settle(self) -> None:
        future = self.future
        try:
            value = self._one()
        except _errors.TaskCancelled:
            future.cancel()
        except BaseException as error:
            _finish(future.set_exception, error)
        else:
            _finish(future.set_result, value)


def _finish(finish: Callable[[Any], None], with_what: Any) -> None:
    try:
        finish(with_what)
    except concurrent.futures.InvalidStateError:
        # It was cancelled while its result was on the way.
        pass


class Executor(concurrent.futures.Executor):
    """Runs calls in the slots of this machine or of a fleet: a drop-in for `ProcessPoolExecutor`.

    A worker that dies costs the future of the call that it ran, and no other: that raises `WorkerLost`, a
    `BrokenProcessPool`, and later calls go on.

    Args:
        max_workers: most calls at once, over all hosts; `None`: as many as there are slots.
        mp_context: for compatibility.
        initializer, initargs: called in every new worker before its first call.
        max_tasks_per_child: a worker is replaced after this many calls.
        options: those of `Pool`: `address`, `on`, `retries`, `env`, …
    """

    def __init__(
        self,
        max_workers: Optional[int] = None,
        mp_context: Any = None,
        initializer: Optional[Callable[..., object]] = None,
        initargs: tuple[Any, ...] = (),
        *,
        max_tasks_per_child: Optional[int] = None,
        **options: Any,
    ) -> None:
        if max_workers is not None and max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        self._pool = Pool(max_workers, initializer, initargs, max_tasks_per_child, mp_context, **options)
        self._lock = threading.Lock()
        self._open = True
        self._futures: weakref.WeakSet[Future] = weakref.WeakSet()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        """Calls `fn(*args, **kwargs)` in a worker."""
        return self._submit(fn, _CALL, (args, kwargs))

    def _submit(self, fn: Callable[..., Any], mode: int, value: Any) -> Future:
        future = Future()
        with self._lock:
            if not self._open:
                raise RuntimeError("cannot schedule new futures after shutdown")
            try:
                caller = self._pool._caller(fn, None)
                packed = caller(value)
            except Exception as error:
                future.set_running_or_notify_cancel()
                future.set_exception(error)
                return future
            call = self._pool._core.submit(caller.spec, mode, packed)
            self._pool._total += 1
        pending = _Pending(call, future)
        future._call = pending
        self._futures.add(future)
        self._pool._watch(pending)
        return future

    def map(
        self,
        fn: Callable[..., Any],
        *iterables: Iterable[Any],
        timeout: Optional[float] = None,
        chunksize: int = 1,
        buffersize: Optional[int] = None,
    ) -> Iterator[Any]:
        """`map(fn, *iterables)`, in the workers. With a `buffersize` the inputs are read as results are taken, so far
        ahead of them; without one, all at once."""
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if buffersize is not None and buffersize < 1:
            raise ValueError("buffersize must be None or > 0")
        end = None if timeout is None else timeout + time.monotonic()
        inputs: Iterator[Any] = zip(*iterables)
        mode, calls = (_STAR, inputs) if chunksize == 1 else (_STAR_CHUNK, _chunks(inputs, chunksize))
        futures = deque(self._submit(fn, mode, call) for call in itertools.islice(calls, buffersize))
        results = self._results(fn, mode, calls, futures, end)
        return results if chunksize == 1 else itertools.chain.from_iterable(results)

    def _results(
        self, fn: Callable[..., Any], mode: int, calls: Iterator[Any], futures: deque[Future], end: Optional[float]
    ) -> Iterator[Any]:
        try:
            while futures:
                left = None if end is None else end - time.monotonic()
                result = futures[0].result(left)
                futures.popleft()
                futures.extend(self._submit(fn, mode, call) for call in itertools.islice(calls, 1))
                yield result
        finally:
            for future in futures:
                future.cancel()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Takes no more calls. With `cancel_futures`, those that have not ended are cancelled, also those that run."""
        with self._lock:
            first, self._open = self._open, False
        if cancel_futures:
            for future in list(self._futures):
                future.cancel()
        if first:
            self._pool.close()
        if wait:
            self._pool.join()
        elif first:
            threading.Thread(target=self._pool.join, name="fleetpool shutdown", daemon=False).start()
