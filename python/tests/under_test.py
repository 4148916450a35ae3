"""What is tested: fleetpool, or the standard library with FLEETPOOL_TEST_STDLIB=1.

The second is there to test the tests: whatever is not marked `beyond` must hold for `multiprocessing.Pool` too.
"""

import importlib
import os

STDLIB = os.environ.get("FLEETPOOL_TEST_STDLIB") == "1"
NAME = "multiprocessing" if STDLIB else "fleetpool"

module = importlib.import_module(NAME)

TimeoutError = module.TimeoutError
cpu_count = module.cpu_count

if STDLIB:
    from concurrent.futures import ProcessPoolExecutor as Executor
    from multiprocessing.pool import MaybeEncodingError, Pool
else:
    Pool = module.Pool
    Executor = module.Executor
    MaybeEncodingError = module.MaybeEncodingError

__all__ = ["NAME", "STDLIB", "Executor", "MaybeEncodingError", "Pool", "TimeoutError", "cpu_count", "module"]
