"""fleetpool's pool against the standard library's, and others, side by side.

    $ python python/bench/pool.py                          # all cases on this machine
    $ python python/bench/pool.py a c --quick              # some, and a quick look
    $ python python/bench/pool.py h --cluster loopback     # over QUIC, a coordinator and two agents started here
    $ python python/bench/pool.py h --cluster head:7700    # on a cluster that is there

Contestants take turns (A B A B ...), each turn in a process of its own, and medians are compared, with the lowest and
the highest in parentheses: a figure means something only beside one taken in the same minute. Processor seconds are
those of the whole process tree while the measured part ran.

| case | what |
|---|---|
| a | one `apply` after another |
| b | 20,000 times `apply_async`, then every `get()` |
| c | `map` and `imap_unordered` of 200,000 no-ops at chunksize 1 |
| d | `map` with the chunks that it chooses: 1,000,000 no-ops; 200 tasks of Pareto lengths (4 to 400 ms), over ideal |
| e | 64 arguments and 64 results of 8 MiB, bytes and NumPy arrays |
| f | 2,000 calls of a function that holds 20 MiB, by partial, method and closure (the peer: 100) |
| g | `Pool(2)`, its first result, `close()`, `join()` |
| h | a to f over QUIC, beside the standard library on this machine; a to c against Ray and Dask where installed (3 turns) |
| i | how much the caller's memory grows over 1,000,000 lazy inputs after the first 10,000 |
"""

import argparse
import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import table
from table import Turns, against, alone, at_most, ratio_at_least, ratio_at_most

HERE = Path(__file__).parent
STDLIB = "fork"
QUICK_SCALE = 0.05
RIVAL_TURNS = 3

LARGE = [
    ("8 MiB bytes as arguments", "bytes_in", 3),
    ("8 MiB bytes as results", "bytes_out", 3.5),
    ("8 MiB arrays as arguments", "arrays_in", 3),
    ("8 MiB arrays as results", "arrays_out", 3.5),
]
EACH_CALL = [("map, chunksize 1", "map_by_one"), ("imap_unordered, chunksize 1", "imap_unordered_by_one")]
HELD = [("partial", "held_by_partial"), ("method", "held_by_method")]


def main():
    options = parse()
    runs = Runs(options)
    with cluster_of(options) as environment:
        runs.environment.update(environment)
        for letter in options.cases:
            for line in CASES[letter](runs, letter):
                runs.lines.append(line)
                print(" | ".join(filter(None, line)), file=sys.stderr, flush=True)
    print(table.render(runs.lines))


def parse():
    parser = argparse.ArgumentParser(description="fleetpool's pool against others, side by side")
    parser.add_argument(
        "cases", nargs="*", metavar="CASE", help="letters a to i; all by default, h with --cluster alone"
    )
    parser.add_argument("--quick", action="store_true", help="3 turns of a twentieth of the size: to see that it runs")
    parser.add_argument("--turns", type=int, help="turns of each contestant (5; 3 with --quick)")
    parser.add_argument("--cluster", metavar="ADDR", help="for h; `loopback` starts one here")
    parser.add_argument("--ours", default="fleetpool", help="who stands for us: `fork` tests this program itself")
    options = parser.parse_args()
    options.turns = options.turns or (3 if options.quick else 5)
    options.cases = options.cases or [letter for letter in CASES if letter != "h" or options.cluster]
    unknown = set(options.cases) - set(CASES)
    if unknown:
        parser.error(f"no such case: {' '.join(sorted(unknown))}")
    if "h" in options.cases and not options.cluster:
        parser.error("h needs --cluster")
    return options


@contextlib.contextmanager
def cluster_of(options):
    """The environment of turns on the cluster; one is started if asked for."""
    if options.cluster != "loopback":
        yield {"FLEETPOOL_CLUSTER": options.cluster} if options.cluster else {}
        return
    sys.path.insert(0, str(HERE.parent / "tests"))
    from loopback import Cluster

    with tempfile.TemporaryDirectory() as folder, Cluster(folder) as cluster:
        for name in ("a1", "a2"):
            cluster.add_agent(name, slots=1)
        cluster.await_hosts(2)
        pids = [process.pid for process in (cluster.coordinator, *cluster.agents.values())]
        yield {**cluster.client_env(), "FLEETPOOL_BENCH_PIDS": " ".join(map(str, pids))}


class Runs:
    """Lets contestants take turns."""

    def __init__(self, options):
        self.ours = options.ours
        self.turns = options.turns
        self.scale = QUICK_SCALE if options.quick else 1.0
        self.cluster_is_ours = options.ours == "fleetpool"
        self.environment = {}
        self.lines = []

    def interleave(self, measurement, *contestants, turns=None):
        """For each contestant, its figures by name."""
        all_figures = [{} for _ in contestants]
        for turn in range(min(turns or self.turns, self.turns)):
            for contestant, figures in zip(contestants, all_figures):
                for name, figure in self.turn(contestant, measurement, turn).items():
                    figures.setdefault(name, []).append(figure)
        return [{name: Turns(of, figures["cpu_s"]) for name, of in figures.items()} for figures in all_figures]

    def turn(self, contestant, measurement, number):
        mark = f"{os.getpid()}-{number}-{contestant}"
        environment = {**os.environ, "FLEETPOOL_BENCH_MARK": mark, "FLEETPOOL_BENCH_TURN": str(number)}
        environment.pop("FLEETPOOL_CLUSTER", None)
        if contestant == "cluster":
            environment.update(self.environment)
        command = [sys.executable, str(HERE / "turn.py"), contestant, measurement, str(self.scale)]
        ended = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        # Others may have something to say as they end.
        return json.loads(next(line for line in ended.stdout.splitlines() if line.startswith("{")))


# --- the cases; each gives lines of the table


def case_a(runs, letter):
    ours, peer = runs.interleave("apply", runs.ours, STDLIB)
    yield against(f"{letter} apply p50", "us", ours["p50_us"], "stdlib", peer["p50_us"], ratio_at_most(0.5))
    yield against(f"{letter} apply p99", "us", ours["p99_us"], "stdlib", peer["p99_us"], ratio_at_most(0.5))


def case_b(runs, letter):
    ours, peer = runs.interleave("apply_async", runs.ours, STDLIB)
    yield against(f"{letter} apply_async", "calls/s", ours["per_s"], "stdlib", peer["per_s"], ratio_at_least(8))


def case_c(runs, letter):
    for name, measurement in EACH_CALL:
        ours, peer = runs.interleave(measurement, runs.ours, STDLIB)
        yield against(f"{letter} {name}", "calls/s", ours["per_s"], "stdlib", peer["per_s"], ratio_at_least(10))
        each = "cpu_us_each"
        yield against(f"{letter} {name}", "us CPU a task", ours[each], "stdlib", peer[each], ratio_at_most(0.15))


def case_d(runs, letter):
    ours, peer = runs.interleave("map_default", runs.ours, STDLIB)
    name = f"{letter} map, its own chunks"
    yield against(name, "calls/s", ours["per_s"], "stdlib", peer["per_s"], ratio_at_least(1))
    ours, peer = runs.interleave("heavy_tail", runs.ours, STDLIB)
    name = f"{letter} heavy tail"
    yield against(name, "x ideal makespan", ours["makespan"], "stdlib", peer["makespan"], at_most(1.03))


def case_e(runs, letter):
    for name, measurement, bound in LARGE:
        ours, peer = runs.interleave(measurement, runs.ours, STDLIB)
        figure = "mib_per_s"
        yield against(f"{letter} {name}", "MiB/s", ours[figure], "stdlib", peer[figure], ratio_at_least(bound))


def case_f(runs, letter):
    for name, measurement in HELD:
        ours, peer = runs.interleave(measurement, runs.ours, STDLIB)
        line = f"{letter} 20 MiB held by a {name}"
        yield against(line, "calls/s", ours["per_s"], "stdlib", peer["per_s"], ratio_at_least(8))
    if runs.ours != "fleetpool":
        yield table.left_out(f"{letter} 20 MiB held by a closure", "the standard library takes none")
        return
    [ours] = runs.interleave("held_by_closure", runs.ours)
    # The standard library takes no closure: beside its partial, which was measured last.
    [peer] = runs.interleave("held_by_partial", STDLIB)
    line = f"{letter} 20 MiB held by a closure"
    yield against(line, "calls/s", ours["per_s"], "stdlib, partial", peer["per_s"], ratio_at_least(8))


def case_g(runs, letter):
    ours, spawn, fork = runs.interleave("start_to_end", runs.ours, "spawn", "fork")
    line = f"{letter} pool, first result, gone"
    yield against(line, "ms", ours["ms"], "stdlib, spawn", spawn["ms"], ratio_at_most(1))
    yield against(line, "ms", ours["ms"], "stdlib, fork", fork["ms"], ratio_at_most(3))


def case_h(runs, letter):
    """Against the standard library on this machine there is no target: the line is there to be read."""
    ours = "cluster" if runs.cluster_is_ours else runs.ours
    rivals = [name for name, needs in (("ray", "ray"), ("dask", "distributed")) if importlib.util.find_spec(needs)]
    for name in ("ray", "dask"):
        if name not in rivals:
            yield table.left_out(f"{letter} against {name}", "not installed")
    measured = [
        ("apply p50", "us", "apply", "p50_us", ratio_at_most(0.2)),
        ("apply_async", "calls/s", "apply_async", "per_s", ratio_at_least(10)),
        *((name, "calls/s", measurement, "per_s", ratio_at_least(10)) for name, measurement in EACH_CALL),
        ("map, its own chunks", "calls/s", "map_default", "per_s", None),
        ("heavy tail", "x ideal makespan", "heavy_tail", "makespan", None),
        *((name, "MiB/s", measurement, "mib_per_s", None) for name, measurement, _ in LARGE),
        *((f"20 MiB held by a {name}", "calls/s", measurement, "per_s", None) for name, measurement in HELD),
    ]
    for name, unit, measurement, figure, target in measured:
        # These take half a minute to start.
        compared = rivals if target else []
        turns = RIVAL_TURNS if compared else None
        mine, stdlib, *others = runs.interleave(measurement, ours, STDLIB, *compared, turns=turns)
        yield against(f"{letter} {name}, over QUIC", unit, mine[figure], "stdlib", stdlib[figure], None)
        for rival, other in zip(compared, others):
            yield against(f"{letter} {name}, over QUIC", unit, mine[figure], rival, other[figure], target)


def case_i(runs, letter):
    [ours] = runs.interleave("memory", runs.ours)
    yield alone(f"{letter} caller's memory, 1,000,000 lazy inputs", "MiB grown", ours["grown_mib"], at_most(8))


CASES = {name[-1]: case for name, case in sorted(globals().items()) if name.startswith("case_")}

if __name__ == "__main__":
    main()
