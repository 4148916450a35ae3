"""`concurrent.futures.Executor` over a pool."""

from __future__ import annotations

import concurrent.futures
import itertools
import threading
import time
from collections import deque
from typing import Any, Callable, Iterable, Iterator, Mapping, Optional, Union

from . import _core
from .pool import _CALL, _STAR, _STAR_CHUNK, Pool, _chunks

__all__ = ["Executor"]


class _Pending(_core.Call):
    """A call on its way, and the future that waits for it."""

    executor: Executor
    future: concurrent.futures.Future[Any]

    def _settle(self) -> None:
        self.executor._ended(self)
        if self.future.cancelled():
            return
        try:
            value = self._get(0)
        except BaseException as error:
            self.future.set_exception(error)
        else:
            self.future.set_result(value)


class _Future(concurrent.futures.Future[Any]):
    """A future whose call does not run once it is cancelled."""

    _pending: Optional[_Pending] = None

    def cancel(self) -> bool:
        """Cancels the call if it waits; `False` when it runs or has ended."""
        if not super().cancel():
            return False
        with self._condition:
            fresh = self._state == "CANCELLED"
        if fresh:
            # Tells those who wait for several futures.
            self.set_running_or_notify_cancel()
        if self._pending is not None:
            self._pending._cancel()
        return True


class Executor(concurrent.futures.Executor):
    """Runs calls in the slots of this machine or of a fleet: a drop-in for `ProcessPoolExecutor`.

    A worker that dies costs the future of the call that it ran, and no other: that raises `WorkerLost`, a
    `BrokenProcessPool`, and later calls go on.

    Args:
        max_workers: most calls at once, over all hosts; `None`: as many as there are slots.
        mp_context: for compatibility.
        initializer, initargs: called in every new worker before its first call.
        max_tasks_per_child: a worker is replaced after this many calls.
        buffersize: how far `map` reads its inputs ahead of the results, where it is not said there.
        address, hosts, on, retries, py_modules, working_dir, env, name, priority: as for `Pool`.
    """

    def __init__(
        self,
        max_workers: Optional[int] = None,
        mp_context: Any = None,
        initializer: Optional[Callable[..., object]] = None,
        initargs: tuple[Any, ...] = (),
        *,
        max_tasks_per_child: Optional[int] = None,
        address: Optional[str] = None,
        hosts: Optional[str] = None,
        on: Optional[str] = None,
        retries: Union[None, int, Mapping[str, int]] = None,
        buffersize: Optional[int] = None,
        py_modules: Optional[Iterable[Any]] = None,
        working_dir: Optional[str] = None,
        env: Optional[Mapping[str, Optional[str]]] = None,
        name: Optional[str] = None,
        priority: int = 0,
    ) -> None:
        if max_workers is not None and max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        self._pool = Pool(
            max_workers,
            initializer,
            initargs,
            max_tasks_per_child,
            mp_context,
            address=address,
            hosts=hosts,
            on=on,
            retries=retries,
            py_modules=py_modules,
            working_dir=working_dir,
            env=env,
            name=name,
            priority=priority,
        )
        self._max_workers = max_workers
        self._buffersize = buffersize
        self._lock = threading.RLock()
        self._open = True
        # Calls that have not ended: those that run, as far as can be told from here, and those behind them.
        self._running = 0
        self._waiting: deque[_Pending] = deque()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> concurrent.futures.Future[Any]:
        """Calls `fn(*args, **kwargs)` in a worker."""
        return self._submit(fn, _CALL, (args, kwargs))

    def _submit(self, fn: Callable[..., Any], mode: int, value: Any) -> _Future:
        future = _Future()
        with self._lock:
            if not self._open:
                raise RuntimeError("cannot schedule new futures after shutdown")
            try:
                pending = _Pending(self._pool._core, mode, self._pool._caller(fn, None), value, self._pool)
            except Exception as error:
                future.set_running_or_notify_cancel()
                future.set_exception(error)
                return future
            pending.executor, pending.future = self, future
            self._pool._total += 1
            future._pending = pending
            self._waiting.append(pending)
            self._promote()
        self._pool._watch(pending)
        return future

    def _promote(self) -> None:
        """Calls run in the order in which they were made, as many as there are slots."""
        slots = self._max_workers or self._pool._core.slots or 1
        while self._waiting and self._running < slots:
            future = self._waiting.popleft().future
            if not future.cancelled() and future.set_running_or_notify_cancel():
                self._running += 1

    def _ended(self, pending: _Pending) -> None:
        with self._lock:
            future = pending.future
            if future.running():
                self._running -= 1
            elif pending in self._waiting:
                # It was quicker than those before it.
                self._waiting.remove(pending)
                if not future.cancelled():
                    future.set_running_or_notify_cancel()
            self._promote()

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
        if buffersize is None:
            buffersize = self._buffersize
        if buffersize is not None and buffersize < 1:
            raise ValueError("buffersize must be None or > 0")
        end = None if timeout is None else timeout + time.monotonic()
        inputs: Iterator[Any] = zip(*iterables)
        mode, calls = (_STAR, inputs) if chunksize == 1 else (_STAR_CHUNK, _chunks(inputs, chunksize))
        futures = deque(self._submit(fn, mode, call) for call in itertools.islice(calls, buffersize))
        results = self._results(fn, mode, calls, futures, end)
        return results if chunksize == 1 else itertools.chain.from_iterable(results)

    def _results(
        self, fn: Callable[..., Any], mode: int, calls: Iterator[Any], futures: deque[_Future], end: Optional[float]
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
        """Takes no more calls. With `cancel_futures`, those that wait are cancelled."""
        with self._lock:
            first, self._open = self._open, False
            waiting = list(self._waiting) if cancel_futures else []
        for pending in waiting:
            pending.future.cancel()
        if first:
            self._pool.close()
        if wait:
            self._pool.join()
        elif first:
            threading.Thread(target=self._pool.join, name="fleetpool shutdown", daemon=False).start()
