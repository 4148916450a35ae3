"""One turn of one contestant: `turn.py CONTESTANT MEASUREMENT SCALE`, in a process of its own, prints its figures.

What it prints is one line of JSON, names of figures with their values. `cpu_s` is the processor time, while the
measured part ran, of every process whose environment holds $FLEETPOOL_BENCH_MARK: the caller, its workers, and what
else the contestant started; and of the processes in $FLEETPOOL_BENCH_PIDS, those of a cluster.
"""

import json
import multiprocessing
import os
import random
import sys
import time
from functools import partial
from statistics import mean, quantiles

SLOTS = 2
MIB = 2**20
BODY_MIB = 8
HELD_MIB = 20


# --- what is called


def noop(x=None):
    return x


def length_of(data):
    return len(data)


def size_of(array):
    return array.size


def make_bytes(_):
    if "bytes" not in made:
        made["bytes"] = bytes(BODY_MIB * MIB)
    return made["bytes"]


def make_array(_):
    if "array" not in made:
        import numpy

        made["array"] = numpy.zeros(BODY_MIB * MIB // 8)
    return made["array"]


made = {}


def sleep_ms(ms):
    start = time.perf_counter()
    time.sleep(ms / 1e3)
    return time.perf_counter() - start


def with_held(held, x):
    return x


class Holder:
    def __init__(self, held):
        self.held = held

    def call(self, x):
        return x


# --- who calls


def pool_of(contestant):
    """A pool of two processes, or of the whole cluster."""
    if contestant == "fleetpool":
        import fleetpool

        return fleetpool.Pool(SLOTS)
    if contestant == "cluster":
        import fleetpool

        return fleetpool.Pool(address=os.environ["FLEETPOOL_CLUSTER"])
    if contestant == "ray":
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")
        import ray
        from ray.util.multiprocessing import Pool

        ray.init(num_cpus=SLOTS, include_dashboard=False, logging_level="ERROR")
        return Pool(SLOTS)
    if contestant == "dask":
        return DaskPool()
    return multiprocessing.get_context(contestant).Pool(SLOTS)


class DaskPool:
    """What is measured, by Dask's futures."""

    def __init__(self):
        from distributed import Client

        self.client = Client(n_workers=SLOTS, threads_per_worker=1, dashboard_address=None)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.client.close()

    def apply(self, function, args=()):
        return self.client.submit(function, *args, pure=False).result()

    def apply_async(self, function, args=()):
        future = self.client.submit(function, *args, pure=False)
        future.get = future.result
        return future

    def map(self, function, inputs, chunksize=1):
        return self.client.gather(self.client.map(function, list(inputs), pure=False, batch_size=10_000))

    def imap_unordered(self, function, inputs, chunksize=1):
        from distributed import as_completed

        for future in as_completed(self.client.map(function, list(inputs), pure=False)):
            yield future.result()


# --- what is measured; `scale` is 1, or less for a quick look


def apply(contestant, scale):
    """One call after another."""
    with pool_of(contestant) as pool:
        warm(pool)
        times = []
        cpu = Cpu()
        for number in range(count(2000, scale)):
            start = time.perf_counter()
            pool.apply(noop, (number,))
            times.append(time.perf_counter() - start)
        cuts = quantiles(times, n=100)
        return {"p50_us": cuts[49] * 1e6, "p99_us": cuts[98] * 1e6, "cpu_s": cpu.spent_s()}


def apply_async(contestant, scale):
    """Many calls at once."""
    with pool_of(contestant) as pool:
        warm(pool)
        calls = count(20_000, scale * share(contestant))

        def run():
            for result in [pool.apply_async(noop, (number,)) for number in range(calls)]:
                result.get()

        return rate(calls, run)


def map_by_one(contestant, scale):
    """`map` at chunksize 1."""
    with pool_of(contestant) as pool:
        warm(pool)
        calls = count(200_000, scale * share(contestant))
        return rate(calls, lambda: pool.map(noop, range(calls), 1))


def imap_unordered_by_one(contestant, scale):
    """`imap_unordered` at chunksize 1."""
    with pool_of(contestant) as pool:
        warm(pool)
        calls = count(200_000, scale * share(contestant))
        return rate(calls, lambda: exhaust(pool.imap_unordered(noop, range(calls), 1)))


def map_default(contestant, scale):
    """`map` with the chunks that it chooses."""
    with pool_of(contestant) as pool:
        warm(pool)
        calls = count(1_000_000, scale)
        return rate(calls, lambda: pool.map(noop, range(calls)))


def heavy_tail(contestant, scale):
    """Tasks of very different lengths: makespan over that of ideal list schedules of the same tasks."""
    dice = random.Random(os.environ.get("FLEETPOOL_BENCH_TURN", "0"))
    lengths = [min(4 * dice.paretovariate(1.1), 400) for _ in range(count(200, scale))]
    with pool_of(contestant) as pool:
        warm(pool)
        cpu, start = Cpu(), time.perf_counter()
        ran_s = pool.map(sleep_ms, lengths)
        took_s = time.perf_counter() - start
        # Which slot is free first hangs on microseconds: the mean of many schedules whose tasks differ by a hair.
        ideal_s = mean(list_schedule([one * dice.uniform(0.995, 1.005) for one in ran_s]) for _ in range(100))
        return {"makespan": took_s / ideal_s, "cpu_s": cpu.spent_s()}


def list_schedule(lengths):
    """The time of all tasks, when each in its order goes to the slot that is free first."""
    free = [0.0] * SLOTS
    for length in lengths:
        free.sort()
        free[0] += length
    return max(free)


def large(make_bodies, function, contestant, scale):
    """Large arguments or results, each pickled by itself."""
    with pool_of(contestant) as pool:
        warm(pool)
        pool.map(function, make_bodies()[:2], 1)
        bodies = make_bodies() * count(8, scale)
        measured = rate(BODY_MIB * len(bodies), lambda: pool.map(function, bodies, 1))
        return {"mib_per_s": measured["per_s"], "cpu_s": measured["cpu_s"]}


def some_bytes():
    return [bytes(BODY_MIB * MIB) for _ in range(8)]


def some_arrays():
    import numpy

    return [numpy.zeros(BODY_MIB * MIB // 8) for _ in range(8)]


def held(make_function, contestant, scale):
    """Calls of a function that holds 20 MiB. Who sends it with each call is given fewer of them."""
    calls = count(2000 if contestant in ("fleetpool", "cluster") else 100, scale)
    with pool_of(contestant) as pool:
        warm(pool)
        function = make_function(bytes(HELD_MIB * MIB))
        return rate(calls, lambda: exhaust(pool.imap_unordered(function, range(calls), 1)))


def closure(held):
    def call(x):
        return x if held else None

    return call


def start_to_end(contestant, scale):
    """A pool, its first result, and gone."""
    cpu, start = Cpu(), time.perf_counter()
    pool = pool_of(contestant)
    assert pool.apply(noop, (5,)) == 5
    pool.close()
    pool.join()
    return {"ms": (time.perf_counter() - start) * 1e3, "cpu_s": cpu.spent_s()}


def memory(contestant, scale):
    """How much the caller grows over a long lazy input, after its first part."""
    first, calls = count(10_000, scale), count(1_000_000, scale)
    with pool_of(contestant) as pool:
        cpu = Cpu()
        results = pool.imap_unordered(noop, (number for number in range(calls)), 1)
        for _ in range(first):
            next(results)
        before = most = rss_bytes()
        for number, _ in enumerate(results):
            if number % 1000 == 0:
                most = max(most, rss_bytes())
        return {"grown_mib": (most - before) / MIB, "cpu_s": cpu.spent_s()}


MEASUREMENTS = {
    "apply": apply,
    "apply_async": apply_async,
    "map_by_one": map_by_one,
    "imap_unordered_by_one": imap_unordered_by_one,
    "map_default": map_default,
    "heavy_tail": heavy_tail,
    "bytes_in": partial(large, some_bytes, length_of),
    "bytes_out": partial(large, lambda: list(range(8)), make_bytes),
    "arrays_in": partial(large, some_arrays, size_of),
    "arrays_out": partial(large, lambda: list(range(8)), make_array),
    "held_by_partial": partial(held, lambda data: partial(with_held, data)),
    "held_by_method": partial(held, lambda data: Holder(data).call),
    "held_by_closure": partial(held, closure),
    "start_to_end": start_to_end,
    "memory": memory,
}


# --- helpers


def warm(pool):
    """Both workers are there."""
    pool.map(sleep_ms, [5] * 8, 1)


def share(contestant):
    """How much of the calls a contestant is given, for its figure to come within seconds."""
    return {"ray": 0.05, "dask": 0.02}.get(contestant, 1)


def count(full, scale):
    return max(1, round(full * scale))


def exhaust(results):
    for _ in results:
        pass


def rate(done, run):
    """How much of what `run` does it does in a second."""
    cpu, start = Cpu(), time.perf_counter()
    run()
    took_s = time.perf_counter() - start
    spent_s = cpu.spent_s()
    return {"per_s": done / took_s, "cpu_s": spent_s, "cpu_us_each": spent_s / done * 1e6}


class Cpu:
    """Processor time of everyone who takes part, since this was made."""

    def __init__(self):
        self.before_s = all_cpu_s()

    def spent_s(self):
        return all_cpu_s() - self.before_s


def all_cpu_s():
    mark = os.environ.get("FLEETPOOL_BENCH_MARK", "").encode()
    named = os.environ.get("FLEETPOOL_BENCH_PIDS", "").split()
    return sum(cpu_of(pid) for pid in os.listdir("/proc") if pid.isdigit() and (pid in named or is_marked(pid, mark)))


def is_marked(pid, mark):
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return bool(mark) and mark in file.read()
    except OSError:
        return False


def cpu_of(pid):
    """Of a process and of those that it has seen end."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def rss_bytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    who, what, how_much = sys.argv[1:]
    print(json.dumps(MEASUREMENTS[what](who, float(how_much))))
