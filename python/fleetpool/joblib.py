"""joblib's backend "fleetpool": scikit-learn's `n_jobs=`, and everything else that uses joblib, on this machine's slots or a
fleet's.

>>> import fleetpool.joblib, joblib
>>> with joblib.parallel_config("fleetpool", n_jobs=2):
...     joblib.Parallel()(joblib.delayed(abs)(x) for x in (-1, 2))
[1, 2]

Importing this module registers the backend. What `parallel_config` (or `parallel_backend`) is given beyond `n_jobs` goes to
the `Pool`: `address=`, `on=`, `py_modules=`.
"""

from __future__ import annotations

from typing import Any, Callable, Optional

import joblib
from joblib.parallel import AutoBatchingMixin, ParallelBackendBase, SequentialBackend

from ._context import in_worker
from .pool import Pool

__all__ = ["FleetpoolBackend", "register"]


class FleetpoolBackend(AutoBatchingMixin, ParallelBackendBase):
    """Runs joblib's batches in a pool that lives as long as one `Parallel` does."""

    supports_retrieve_callback = True
    supports_timeout = True
    default_n_jobs = -1

    def __init__(self, nesting_level: Optional[int] = None, inner_max_num_threads: Optional[int] = None, **options: Any):
        super().__init__(nesting_level=nesting_level, inner_max_num_threads=inner_max_num_threads)
        self._options = options
        self._pool: Optional[Pool] = None

    def effective_n_jobs(self, n_jobs: Optional[int]) -> int:
        """How many calls run at once: every slot that there is for -1."""
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        if n_jobs is None or in_worker():
            return 1
        if n_jobs > 0:
            return n_jobs
        return max(1, self._slots() + 1 + n_jobs)

    def _slots(self) -> int:
        pool = self._pool
        if pool is not None:
            return sum(host.slots for host in pool.hosts())
        with Pool(**self._options) as pool:
            return sum(host.slots for host in pool.hosts())

    def configure(self, n_jobs: int = 1, parallel: Any = None, prefer: Any = None, require: Any = None, **_: Any) -> int:
        """Opens the pool, for as many calls at once as there will be."""
        slots = self.effective_n_jobs(n_jobs)
        self.parallel = parallel
        self._pool = Pool(slots, **self._options)
        return slots

    def terminate(self) -> None:
        """Ends the pool with all that runs in it."""
        if self._pool is not None:
            self._pool.terminate()
            self._pool.join()
            self._pool = None

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Ends what runs; with `ensure_ready` there is another pool afterwards."""
        self.terminate()
        if ensure_ready:
            self.configure(n_jobs=self.parallel.n_jobs, parallel=self.parallel)

    def submit(self, func: Callable[[], Any], callback: Optional[Callable[[Any], object]] = None) -> Any:
        """Runs a batch; the callback hears of its end, well or not."""
        assert self._pool is not None, "joblib configures a backend before it uses it"
        return self._pool.apply_async(func, callback=callback, error_callback=callback)

    def apply_async(self, func: Callable[[], Any], callback: Optional[Callable[[Any], object]] = None) -> Any:
        """The name that joblib before 1.5 has for `submit`."""
        return self.submit(func, callback)

    def retrieve_result_callback(self, out: Any) -> Any:
        """What a batch has given, for joblib's callback: raises what it raised."""
        if isinstance(out, BaseException):
            raise out
        return out

    def get_nested_backend(self) -> tuple[Any, Optional[int]]:
        """Within a task joblib goes one by one: the task has one slot."""
        return SequentialBackend(nesting_level=(self.nesting_level or 0) + 1), None


def register() -> None:
    """Makes the backend known to joblib."""
    joblib.register_parallel_backend("fleetpool", FleetpoolBackend)


register()
