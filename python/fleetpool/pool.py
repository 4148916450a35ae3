"""The pool: `multiprocessing.pool.Pool` over this machine or a fleet."""

from __future__ import annotations

import atexit
import itertools
import os
import sys
import threading
import types
import warnings
import weakref
from typing import Any, Callable, Iterable, Iterator, Mapping, NamedTuple, Optional, Sequence, Union

from . import _context, _core, _errors, _output
from ._errors import MaybeEncodingError, PoolError, TimeoutError
from ._packing import Packed, names_main, pack
from ._shipping import Shipped, Shipper

__all__ = ["AsyncResult", "Host", "IMapIterator", "Pool", "Progress", "ThreadPool"]

# How a worker calls a function with what a task brings; the same numbers as in its program.
_CALL, _ITEM, _STAR, _CHUNK, _STAR_CHUNK, _EACH = range(6)

_RUN, _CLOSE, _TERMINATE = "running", "closed", "terminated"
# Slots that an embedded cluster has at least.
_SLOTS_MIN = 64


class Progress(NamedTuple):
    """How far a pool is, counted in calls of functions (an item of `map` is one)."""

    total: int
    """Calls made so far; a lazy input counts as far as it has been read."""
    done: int
    """Those that have given their result."""
    failed: int
    """Those that have ended without one (in a chunk of `map`, the chunk counts as one)."""
    running: int
    """Those that run now, at most: as many as there are slots."""


class Host(NamedTuple):
    """A host that a pool may use."""

    name: str
    state: str
    """`up`, `cordoned`, `away` or `lost`."""
    slots: int
    allotted: int
    """Slots that pools hold."""
    running: int
    labels: dict[str, str]
    carrier: str
    rtt: float
    """Round trip between it and the coordinator, in seconds."""
    cpus: int
    memory: int
    """Bytes."""


class Pool:
    """N worker processes that run functions: on this machine, or on the hosts of a fleet.

    A drop-in for `multiprocessing.Pool`: the same methods, arguments, order of results and exceptions. Used as a context
    manager it is terminated at the end. It can be used by several threads at once.

    >>> with Pool(4) as pool:
    ...     pool.map(abs, range(-3, 3))
    [3, 2, 1, 0, 1, 2]

    Args:
        processes: most calls at once, over all hosts. `None`: as many as there are slots, growing and shrinking with the
            fleet; on an embedded cluster as many as this machine has processors.
        initializer, initargs: called in every new worker before its first task. Where it raises, calls on the pool raise
            `PoolError`.
        maxtasksperchild: a worker is replaced after this many tasks.
        context: for compatibility: a start method of `multiprocessing` means nothing here.
        address: the cluster: `host:port`, `unix:/path`, or `local` for one within this process. `None`:
            `$FLEETPOOL_CLUSTER`, `$FLEETPOOL_HOSTS`, `cluster` in `~/.config/fleetpool/config.toml`, then an embedded one.
        hosts: in place of a cluster, hosts to make one of for as long as the pool lives: `web[01-08]`, `ada@web1`, `@rack1`.
            Agents are started there over the user's own `ssh`, and are gone with the pool. Hosts join as they come; one that
            cannot be had is told of in the log `fleetpool`, and the pool goes on without it.
        on: which hosts may be used: `web[01-40],!web03`, `@rack1`, `gpu=a100`. Groups are those of
            `~/.config/fleetpool/config.toml` and of ClusterShell.
        retries: how often a task may run again, whatever ended it; or a mapping of `host_lost`, `worker_lost` and `failed`
            (which includes timeouts) to numbers. `None`: three times after its host was lost, and never else.
        buffersize: how many tasks `imap` and `imap_unordered` may be ahead of their consumer.
        py_modules: modules or folders of modules that hosts lack: names of modules, modules, or paths.
        working_dir: a folder whose files the tasks find in their current folder.
        env: variables set (or, with `None`, removed) for the workers.
        name: what the pool is called in `fleetpool jobs`.
        priority: pools of a higher priority are served before others.

    On a cluster the hosts' `python3` runs the functions, or what `$FLEETPOOL_PYTHON` says: a path, or a name on their `PATH`.
    The identity to show the cluster is in `~/.config/fleetpool/identity`, or where `$FLEETPOOL_IDENTITY` says.

    Raises:
        ValueError: arguments that make no sense.
        PoolError: the cluster cannot be reached or does not let this client in.
    """

    def __init__(
        self,
        processes: Optional[int] = None,
        initializer: Optional[Callable[..., object]] = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: Optional[int] = None,
        context: Any = None,
        *,
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
        self._state = _TERMINATE
        _check(processes, initializer, maxtasksperchild, buffersize)
        _check_place(address, hosts)
        if _context.in_worker():
            # A pool of this machine alone: one of the fleet would wait for slots that its own tasks hold.
            address, hosts = "local", None
        self._processes = processes
        self._maxtasks = maxtasksperchild
        self._initialised = initializer is not None
        self._buffersize = buffersize
        self._shipper = Shipper()
        self._lock = threading.RLock()
        # How functions are called, and the numbers of specifications by what they say.
        self._callers: dict[Any, _Caller] = {}
        self._specs: dict[Any, int] = {}
        # Layers of the main program that arguments may refer to: every function brings those.
        self._layers = 0
        self._total = 0
        self._streams: weakref.WeakSet[IMapIterator] = weakref.WeakSet()
        self._handler: Optional[_Handler] = None
        self._pid = os.getpid()
        # An embedded cluster has room for `resize`; what the pool may use of it is said by its own size.
        slots = max(processes or 0, _context.cpu_count(), _SLOTS_MIN)
        hub = _core.Hub(address, hosts, slots, _context.binary(), _output.note)
        self._embedded = hub.embedded
        env = dict(env or {})
        if hub.embedded:
            processes = processes or _context.cpu_count()
            env = {**_context.threads(processes), **env}
        options = {
            "name": name or _context.program_name(),
            "on": on or "",
            "slots": processes,
            "priority": priority,
            "maxtasksperchild": maxtasksperchild or 0,
            "env": list(env.items()),
            "initializer": getattr(initializer, "__qualname__", "its initializer") if initializer is not None else None,
            "interpreter": sys.executable if hub.embedded else os.environ.get("FLEETPOOL_PYTHON", "python3"),
            **_retries(retries),
        }
        blob = _context.pack(
            self._shipper,
            remote=not hub.embedded,
            initializer=initializer,
            initargs=tuple(initargs),
            py_modules=py_modules or (),
            working_dir=working_dir,
        )
        _output.flush()
        self._core = hub.open(options, blob, _output.sink, _output.note)
        self._state = _RUN
        _living.add(self)

    # -- calls ---------------------------------------------------------------------------------------------------

    def apply(self, func: Callable[..., Any], args: Iterable[Any] = (), kwds: Mapping[str, Any] = {}) -> Any:
        """Calls `func(*args, **kwds)` in a worker, and waits for the result. Raises what it raises."""
        return self.apply_async(func, args, kwds).get()

    def apply_async(
        self,
        func: Callable[..., Any],
        args: Iterable[Any] = (),
        kwds: Mapping[str, Any] = {},
        callback: Optional[Callable[[Any], object]] = None,
        error_callback: Optional[Callable[[BaseException], object]] = None,
        *,
        timeout: Optional[float] = None,
    ) -> AsyncResult:
        """Calls `func(*args, **kwds)` in a worker, and does not wait.

        The arguments are taken as they are now. `callback` is called with the result, or `error_callback` with the
        exception, on a thread of the pool, before the result is ready. `timeout`: the call is killed, with all that it
        has started, when it runs longer than so many seconds, and raises `TaskTimeout`.
        """
        self._check_running()
        if timeout is not None:
            _check_timeout(timeout)
        try:
            result = AsyncResult(self._core, _CALL, self._caller(func, timeout), (tuple(args), dict(kwds)), self)
        except PoolError:
            raise
        except Exception as error:
            return _refused(error, error_callback)
        self._total += 1
        if callback is not None or error_callback is not None:
            result._tell(self, callback, error_callback)
        return result

    def map(
        self,
        func: Callable[[Any], Any],
        iterable: Iterable[Any],
        chunksize: Optional[int] = None,
        *,
        timeout: Optional[float] = None,
    ) -> list[Any]:
        """`[func(x) for x in iterable]`, in the workers. Waits for all; then raises the error of the lowest item."""
        return self._map(func, iterable, chunksize, timeout, _ITEM, _CHUNK)

    def starmap(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Iterable[Any]],
        chunksize: Optional[int] = None,
        *,
        timeout: Optional[float] = None,
    ) -> list[Any]:
        """`[func(*x) for x in iterable]`, in the workers."""
        return self._map(func, iterable, chunksize, timeout, _STAR, _STAR_CHUNK)

    def map_async(
        self,
        func: Callable[[Any], Any],
        iterable: Iterable[Any],
        chunksize: Optional[int] = None,
        callback: Optional[Callable[[list[Any]], object]] = None,
        error_callback: Optional[Callable[[BaseException], object]] = None,
        *,
        timeout: Optional[float] = None,
    ) -> MapResult:
        """`map` that does not wait. The items are taken as they are now; the callback gets the whole list."""
        return self._map_async(func, iterable, chunksize, callback, error_callback, timeout, _ITEM, _CHUNK)

    def starmap_async(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Iterable[Any]],
        chunksize: Optional[int] = None,
        callback: Optional[Callable[[list[Any]], object]] = None,
        error_callback: Optional[Callable[[BaseException], object]] = None,
        *,
        timeout: Optional[float] = None,
    ) -> MapResult:
        """`starmap` that does not wait."""
        return self._map_async(func, iterable, chunksize, callback, error_callback, timeout, _STAR, _STAR_CHUNK)

    def imap(
        self,
        func: Callable[[Any], Any],
        iterable: Iterable[Any],
        chunksize: int = 1,
        *,
        timeout: Optional[float] = None,
        buffersize: Optional[int] = None,
    ) -> IMapIterator:
        """The results of `map` one by one, in the order of the items, which are read as results are taken: the input may
        be endless. An item that fails raises in its place, and the rest goes on."""
        return self._imap(func, iterable, chunksize, timeout, buffersize, True)

    def imap_unordered(
        self,
        func: Callable[[Any], Any],
        iterable: Iterable[Any],
        chunksize: int = 1,
        *,
        timeout: Optional[float] = None,
        buffersize: Optional[int] = None,
    ) -> IMapIterator:
        """`imap`, in the order in which items end."""
        return self._imap(func, iterable, chunksize, timeout, buffersize, False)

    # -- life ----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Takes no more calls. What was given to the pool still runs."""
        if self._state == _RUN:
            if self._initialised and not self._core.progress()[0] and not self._total:
                # Workers start when there is something to do; an initializer is something to do.
                self.apply_async(_nothing)
            self._state = _CLOSE
            self._core.close()

    def terminate(self) -> None:
        """Ends the pool now: what runs is killed, and who waits for a result gets `PoolError`.

        While the coordinator is away nobody waits for it: it ends the pool when it is back.
        """
        if self._state != _TERMINATE:
            self._state = _TERMINATE
            if self._pid == os.getpid():
                self._core.terminate()
        self._let_go()

    def join(self) -> None:
        """Waits until all that was given to the closed pool has ended, and its workers are gone.

        Raises `ValueError` while the pool is open.
        """
        if self._state == _RUN:
            raise _errors.of_pool("not_closed", "")
        if self._state == _CLOSE:
            for results in list(self._streams):
                results._finish()
        self._core.join()
        self._core.release()
        handler = self._handler
        if handler is not None and threading.current_thread() is not handler:
            handler.finish()
        self._let_go()

    def __enter__(self) -> Pool:
        self._check_running()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.terminate()

    def __del__(self, _warn: Callable[..., None] = warnings.warn) -> None:
        if getattr(self, "_state", _TERMINATE) == _RUN and self._pid == os.getpid():
            _warn(f"unclosed running fleetpool pool {self!r}", ResourceWarning, source=self)
            self._state = _TERMINATE
            self._core.terminate()

    def __reduce__(self) -> Any:
        raise NotImplementedError("pool objects cannot be passed between processes or pickled")

    def __repr__(self) -> str:
        return f"<{type(self).__module__}.{type(self).__qualname__} state={self._state} processes={self._processes}>"

    # -- beyond multiprocessing ----------------------------------------------------------------------------------

    def progress(self) -> Progress:
        """How far the pool is."""
        ended, failed, slots = self._core.progress()
        total = self._total + sum(results._submitted() for results in list(self._streams))
        ended = min(ended, total)
        return Progress(total, max(0, ended - failed), failed, min(total - ended, slots))

    def resize(self, processes: Optional[int]) -> None:
        """Changes how many calls may run at once; `None`: as many as the cluster has slots."""
        if processes is not None and processes < 1:
            raise ValueError("Number of processes must be at least 1")
        self._check_running()
        if processes is None and self._embedded:
            processes = _context.cpu_count()
        self._core.resize(processes)
        self._processes = processes

    def hosts(self) -> list[Host]:
        """The hosts that the pool may use, by name."""
        self._check_running()
        hosts = [Host(**{**host, "labels": dict(host["labels"])}) for host in self._core.hosts()]
        if self._embedded:
            # What else it has room for is for `resize`.
            hosts = [host._replace(slots=self._processes or _context.cpu_count()) for host in hosts]
        return hosts

    # -- inside --------------------------------------------------------------------------------------------------

    def _check_running(self) -> None:
        if self._state != _RUN or self._pid != os.getpid():
            if self._pid != os.getpid():
                raise RuntimeError("this pool belongs to the parent process: a forked child must open its own")
            raise _errors.of_pool("closed", "")

    def _caller(self, func: Callable[..., Any], timeout: Optional[float]) -> _Caller:
        """What calls `func`; raises what pickling it raises."""
        try:
            known = self._callers.get((func, timeout))
        except TypeError:
            known = None
        if known is not None and known.function is func and known.is_current():
            return known
        if timeout is not None:
            _check_timeout(timeout)
        with self._lock:
            caller = _Caller(self, func, timeout)
            if _is_fixed(func):
                self._callers[func, timeout] = caller
        return caller

    def _define(self, func: Callable[..., Any], shipped: Shipped, timeout: Optional[float]) -> int:
        key = (shipped.code, timeout)
        number = self._specs.get(key)
        if number is None:
            version = sys.version_info[:2] if shipped.by_value else None
            milliseconds = 0 if timeout is None else max(1, round(timeout * 1000))
            name = getattr(func, "__qualname__", None) or type(func).__qualname__
            number = self._core.define(name, shipped.code, version, sorted(shipped.modules), milliseconds)
            self._specs[key] = number
        return number

    def _pack(self, value: Any) -> Packed:
        """An argument; what it refers to of the main program goes over with the functions that are called with it."""
        try:
            packed = pack(value)
        except RecursionError:
            raise
        except Exception:
            return self._pack_by_value(value)
        if names_main(packed):
            with self._lock:
                if self._shipper.main_classes() or not self._layers:
                    self._layers = self._shipper.count
        return packed

    def _pack_by_value(self, value: Any) -> Packed:
        with self._lock:
            packed = self._shipper.dumps(value)
            self._layers = self._shipper.count
            return packed

    def _map(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        chunksize: Optional[int],
        timeout: Optional[float],
        one: int,
        many: int,
    ) -> list[Any]:
        self._check_running()
        values = _sized(iterable)
        chunks = self._chunks(values, chunksize)
        caller = self._caller(func, timeout)
        self._total += len(values)
        if chunks is None:
            stream = _core.Stream(self._core, one, values, caller, 0, True, False)
        else:
            stream = _core.Stream(self._core, many, chunks, caller, 0, True, False, weight=0)
        try:
            return stream.collect()
        except BaseException:
            # Only what comes from outside, as Ctrl-C does, leaves anything to be abandoned.
            stream.abandon()
            raise

    def _map_async(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        chunksize: Optional[int],
        callback: Optional[Callable[[list[Any]], object]],
        error_callback: Optional[Callable[[BaseException], object]],
        timeout: Optional[float],
        one: int,
        many: int,
    ) -> MapResult:
        self._check_running()
        values = _sized(iterable)
        chunks = self._chunks(values, chunksize)
        try:
            caller = self._caller(func, timeout)
            if chunks is None:
                result = MapResult(self._core, one, caller, values, self, False)
            else:
                result = MapResult(self._core, many, caller, chunks, self, True)
        except PoolError:
            raise
        except Exception as error:
            return _refused(error, error_callback)
        self._total += len(values)
        if callback is not None or error_callback is not None:
            result._tell(self, callback, error_callback)
        return result

    def _imap(
        self,
        func: Callable[[Any], Any],
        iterable: Iterable[Any],
        chunksize: int,
        timeout: Optional[float],
        buffersize: Optional[int],
        ordered: bool,
    ) -> IMapIterator:
        self._check_running()
        _check_chunksize(chunksize)
        _check_buffersize(buffersize)
        if buffersize is None:
            buffersize = self._buffersize
        caller = self._caller(func, timeout)
        if self._maxtasks is not None:
            chunksize = 1
        mode, chunk = (_ITEM, 0) if chunksize == 1 else (_EACH, chunksize)
        threaded = not isinstance(iterable, _QUICK)
        stream = _core.Stream(
            self._core, mode, iter(iterable), caller, chunk, ordered, threaded, buffersize, chunksize
        )
        results = IMapIterator(stream, not threaded, max(1, chunksize))
        self._streams.add(results)
        return results

    def _chunks(self, values: Sequence[Any], chunksize: Optional[int]) -> Optional[Iterator[tuple[Any, ...]]]:
        """The items in chunks, each of them a task; `None`: each item is one."""
        if chunksize is not None:
            _check_chunksize(chunksize)
        # What a worker may do is counted in calls.
        if chunksize == 1 or self._maxtasks is not None:
            return None
        if chunksize is not None:
            return _chunks(values, chunksize)
        slots = self._processes or self._core.slots or _context.cpu_count()
        return _shrinking_chunks(values, slots * 4) if len(values) > slots * 4 else None

    def _watch(self, result: _core.Call) -> None:
        with self._lock:
            if self._handler is None:
                self._handler = _Handler()
            self._handler.watch.add(result)

    def _let_go(self) -> None:
        _living.discard(self)
        self._callers.clear()
        if self._handler is not None:
            self._handler.watch.close()


class _Caller:
    """A function in a pool: packs its arguments, and knows under which specification they go."""

    __slots__ = ("pool", "function", "timeout", "shipped", "layers", "spec")

    def __init__(self, pool: Pool, function: Callable[..., Any], timeout: Optional[float]) -> None:
        self.pool = pool
        self.function = function
        self.timeout = timeout
        self.shipped = pool._shipper.ship(function)
        self.layers = 0
        self.spec = 0
        self._refresh()

    def is_current(self) -> bool:
        return not self.shipped.names or self.shipped.is_current(_context.main_globals())

    def _refresh(self) -> None:
        self.layers = self.pool._layers
        if self.layers:
            self.shipped = self.pool._shipper.with_layers(self.shipped, self.layers)
        self.spec = self.pool._define(self.function, self.shipped, self.timeout)

    def __call__(self, value: Any) -> Packed:
        """Packs an argument. `spec` is to be looked at afterwards: it may be another than before."""
        packed = self.pool._pack(value)
        if self.pool._layers != self.layers:
            with self.pool._lock:
                self._refresh()
        return packed


class AsyncResult(_core.Call):
    """A call that was made and not waited for."""

    _settled: Optional[threading.Event] = None

    def get(self, timeout: Optional[float] = None) -> Any:
        """Waits for the result; raises what the function raised.

        Raises `TimeoutError` when it has not come within `timeout` seconds: the call goes on, and may be asked again.
        """
        if self._settled is not None and not self._settled.wait(timeout):
            raise TimeoutError
        return self._get(timeout)

    def wait(self, timeout: Optional[float] = None) -> None:
        """Waits until the call has ended, well or not, but not longer than `timeout` seconds."""
        if self._settled is None:
            self._wait(timeout)
        else:
            self._settled.wait(timeout)

    def ready(self) -> bool:
        """Whether the call has ended, well or not."""
        return self._is_complete() if self._settled is None else self._settled.is_set()

    def successful(self) -> bool:
        """Whether the call has ended well. Raises `ValueError` while it has not ended."""
        if not self.ready():
            raise ValueError(f"{self!r} not ready")
        try:
            self._get(0)
        except BaseException:
            return False
        return True

    def cancel(self) -> bool:
        """Ends the call, whether it runs or not, with everything that it has started: `get()` raises
        `TaskCancelled`. A call that has ended stays as it is; whether it had not."""
        return self._cancel()

    def _tell(
        self,
        pool: Pool,
        callback: Optional[Callable[[Any], object]],
        error_callback: Optional[Callable[[BaseException], object]],
    ) -> None:
        """Is ready when the callback has been called."""
        self._callback, self._error_callback = callback, error_callback
        self._settled = threading.Event()
        pool._watch(self)

    def _settle(self) -> None:
        """Tells the callbacks. On the handler's thread."""
        try:
            try:
                value = self._get(0)
            except BaseException as error:
                if self._error_callback is not None:
                    self._error_callback(error)
            else:
                if self._callback is not None:
                    self._callback(value)
        except BaseException as error:
            _errors.report("a callback raised; the pool goes on:", error)
        finally:
            assert self._settled is not None
            self._settled.set()


class MapResult(AsyncResult):
    """A `map_async` that was not waited for."""


ApplyResult = AsyncResult


def _refused(error: Exception, error_callback: Optional[Callable[[BaseException], object]]) -> Any:
    return _Refused(error, error_callback)


class _Refused:
    """A call that could not be made: its function or an argument cannot be pickled. That is told where the result is
    asked for, as `multiprocessing` does."""

    def __init__(self, error: Exception, error_callback: Optional[Callable[[BaseException], object]]) -> None:
        self._error = error
        if error_callback is not None:
            thread = threading.Thread(target=_tell, args=(error_callback, error), daemon=True)
            thread.start()
            thread.join()

    def get(self, timeout: Optional[float] = None) -> Any:
        raise self._error

    def wait(self, timeout: Optional[float] = None) -> None:
        return None

    def ready(self) -> bool:
        return True

    def successful(self) -> bool:
        return False

    def cancel(self) -> bool:
        return False


def _tell(callback: Callable[[BaseException], object], error: BaseException) -> None:
    try:
        callback(error)
    except BaseException as raised:
        _errors.report("a callback raised; the pool goes on:", raised)


class IMapIterator(Iterator[Any]):
    """Results one by one, as `imap` and `imap_unordered` give them."""

    def __init__(self, stream: _core.Stream, quick: bool, weight: int) -> None:
        self._stream = stream
        self._take = stream.__next__
        self._quick = quick
        self._weight = weight
        if quick:
            stream.start()
        else:
            thread = threading.Thread(target=_read, args=(stream,), name="fleetpool input", daemon=True)
            thread.start()

    def __iter__(self) -> IMapIterator:
        return self

    def __next__(self) -> Any:
        return self._take()

    def next(self, timeout: Optional[float] = None) -> Any:
        """The next result. Raises `TimeoutError` when it has not come within `timeout` seconds; it may be asked for
        again."""
        if timeout is None:
            return self._take()
        found = self._stream.next(timeout)
        if found is None:
            raise TimeoutError
        return found[0]

    def __del__(self) -> None:
        # What was asked for is done, as far as it is known to have an end.
        if getattr(self, "_stream", None) is None:
            return
        if self._quick:
            self._stream.finish()
        else:
            self._stream.leave(None)

    def _finish(self) -> None:
        """The pool is about to end: what is known to have an end is submitted whole."""
        if self._quick:
            self._stream.finish()
        else:
            self._stream.leave(
                PoolError(
                    "the pool was joined before this input was read to its end: take all results before join(), or give a "
                    "list in place of a generator"
                )
            )

    def _submitted(self) -> int:
        return int(self._stream.counts()[0]) * self._weight


def _read(stream: _core.Stream) -> None:
    try:
        stream.run_feed()
    except BaseException as error:
        _errors.report("reading the input of imap failed:", error)


class _Handler(threading.Thread):
    """Tells callbacks of their results, one after another."""

    def __init__(self) -> None:
        super().__init__(name="fleetpool callbacks", daemon=True)
        self.watch = _core.Watch()
        self.start()

    def run(self) -> None:
        while (results := self.watch.next()) is not None:
            for result in results:
                result._settle()
            del results

    def finish(self) -> None:
        """Waits until all that has ended has been told. The pool has ended."""
        self.watch.close()
        self.join()


# Inputs that can be read between two results: reading them waits for nobody.
_QUICK = (list, tuple, range, str, bytes, bytearray, dict, set, frozenset)


def _sized(iterable: Iterable[Any]) -> Sequence[Any]:
    return iterable if hasattr(iterable, "__len__") else list(iterable)  # type: ignore[return-value]


def _chunks(values: Iterable[Any], size: int) -> Iterator[tuple[Any, ...]]:
    iterator = iter(values)
    while chunk := tuple(itertools.islice(iterator, size)):
        yield chunk


def _shrinking_chunks(values: Sequence[Any], parts: int) -> Iterator[tuple[Any, ...]]:
    """The first as large as if there were so many chunks, each of the others that part of what is left: so all workers end
    at nearly the same time, however different the items are."""
    iterator, left = iter(values), len(values)
    while chunk := tuple(itertools.islice(iterator, max(1, left // parts))):
        left -= len(chunk)
        yield chunk


def _is_fixed(func: Any) -> bool:
    """Whether a function is the same each time it is called: then it is pickled once."""
    if isinstance(func, types.BuiltinFunctionType):
        return func.__self__ is None or isinstance(func.__self__, types.ModuleType)
    if isinstance(func, type):
        return True
    return isinstance(func, types.FunctionType) and func.__closure__ is None


def _check(
    processes: Optional[int],
    initializer: Optional[Callable[..., object]],
    maxtasksperchild: Optional[int],
    buffersize: Optional[int],
) -> None:
    if processes is not None and processes < 1:
        raise ValueError("Number of processes must be at least 1")
    if initializer is not None and not callable(initializer):
        raise TypeError("initializer must be a callable")
    if maxtasksperchild is not None and (not isinstance(maxtasksperchild, int) or maxtasksperchild <= 0):
        raise ValueError("maxtasksperchild must be a positive int or None")
    _check_buffersize(buffersize)


def _check_place(address: Optional[str], hosts: Optional[str]) -> None:
    if address is not None and hosts is not None:
        raise ValueError("give address= or hosts=, not both: a pool is on one cluster")
    if (hosts is not None or address not in (None, "local")) and _context.in_worker():
        raise PoolError(
            "a task cannot open a pool on a cluster: its worker holds one of the slots that it would wait for; return the "
            "work to be done and let the caller submit it"
        )


def _check_timeout(timeout: float) -> None:
    if not timeout > 0:
        raise ValueError(f"timeout must be above 0 seconds, not {timeout!r}")


# By a name that every interpreter has: a host may lack this package.
_nothing = bool


def _check_chunksize(chunksize: int) -> None:
    if chunksize < 1:
        raise ValueError(f"Chunksize must be 1+, not {chunksize}")


def _check_buffersize(buffersize: Optional[int]) -> None:
    if buffersize is not None and buffersize < 1:
        raise ValueError(f"buffersize must be 1 or more, not {buffersize}")


def _retries(retries: Union[None, int, Mapping[str, int]]) -> dict[str, int]:
    if retries is None:
        return {}
    if isinstance(retries, int):
        retries = dict.fromkeys(("host_lost", "worker_lost", "failed"), retries)
    unknown = set(retries) - {"host_lost", "worker_lost", "failed"}
    if unknown:
        raise ValueError(f"retries has no {sorted(unknown)[0]!r}: give host_lost, worker_lost or failed")
    return {f"retries_{name}": number for name, number in retries.items()}


_living: weakref.WeakSet[Pool] = weakref.WeakSet()


@atexit.register
def _end_all() -> None:
    """Nothing outlives the program; and no thread of a cluster calls an interpreter that is gone."""
    for pool in list(_living):
        if pool._pid == os.getpid():
            pool.terminate()
            try:
                pool._core.join(5)
            except PoolError:
                # Why it ended before was told to whoever called it.
                pass
