"""Every example runs, on this machine alone and on a cluster of three agents, and prints what it says."""

import re
from collections import Counter
from pathlib import Path

import pytest

from scripts import run, source
from under_test import STDLIB

EXAMPLES = Path(__file__).parents[2] / "examples" / "python"
MARK = "Mark~ Mark~ Mark~~~~~~~~~~~~~~~~~~~~~~"


def four_messages_at_once(lines):
    assert Counter(lines) == Counter([f"msg: hello {n}" for n in range(4)] + ["end"] * 4 + [MARK, lines[-1]])
    assert lines[-1] == "Sub-process(es) done."
    running = most = 0
    for line in lines:
        running += line.startswith("msg: ") - (line == "end")
        most = max(most, running)
    assert STDLIB or most <= 3, "never more than three at once"


def four_messages_one_by_one(lines):
    told = [line for n in range(4) for line in (f"msg: hello {n}", "end")]
    expected = [*told, MARK, "Sub-process(es) done."]
    # Those of the standard library come when the worker ends, if stdout is no terminal.
    assert lines == expected or (STDLIB and Counter(lines) == Counter(expected))


def ten_results_in_order(lines):
    assert Counter(lines[:-11]) == Counter([f"msg: hello {n}" for n in range(10)] + ["end"] * 10)
    assert lines[-11:] == [*(f"::: done hello {n}" for n in range(10)), "Sub-process(es) done."]


def four_functions(lines):
    text = "\n".join(lines)
    for name in ("Lee", "Marlon", "Allen", "Frank"):
        assert len(re.findall(rf"^Run task {name}-\d+$", text, re.MULTILINE)) == 1
        assert len(re.findall(rf"^Task {name},? runs \d+\.\d\d seconds\.$", text, re.MULTILINE)) == 1
    assert lines[-1] == "All subprocesses done."
    pids = re.findall(r"^Run task \w+-(\d+)$", text, re.MULTILINE)
    assert re.search(r"^parent process (\d+)$", text, re.MULTILINE)[1] not in pids


def squares(lines):
    assert lines == ["[0, 1, 4, 9, 16, 25, 36, 49]"]


def log_lines(lines):
    assert lines == ["INFO fleet: one", "INFO fleet: two", "INFO fleet: three"]


def samples(lines):
    assert lines == ["800 samples of 3 dimensions", "every mean is within 1 of 0: True"]


def best_parameters(lines):
    assert lines == ["best of 6: ['C', 'gamma']", "better than 0.9: True"]


def sum_of_squares(lines):
    assert lines == [f"sum of 50 squares: {sum(x * x for x in range(50))}"]


CHECKS = {
    "1_apply_async": four_messages_at_once,
    "2_apply": four_messages_one_by_one,
    "3_results": ten_results_in_order,
    "4_four_functions": four_functions,
    "5_map": squares,
    "6_map_object": log_lines,
    "7_emcee": samples,
    "8_scikit_learn": best_parameters,
    "9_tqdm": sum_of_squares,
}


@pytest.mark.parametrize("name", CHECKS)
def test_an_example_runs_on_this_machine_alone(tmp_path, name):
    CHECKS[name](run_example(name, tmp_path).lines)


@pytest.mark.beyond
@pytest.mark.parametrize("name", CHECKS)
def test_an_example_runs_on_three_agents(cluster, tmp_path, name):
    CHECKS[name](run_example(name, tmp_path, cluster.client_env()).lines)


def test_every_example_is_run():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(CHECKS)


def test_one_line_is_all_that_differs_from_the_standard_library():
    for path in EXAMPLES.glob("[1-79]*.py"):
        code = path.read_text().split('"""')[2]
        assert code.count("fleetpool") == 1, path.name


def run_example(name, folder, env=None):
    """With the standard library, the same text with another import is run."""
    path = EXAMPLES / f"{name}.py"
    if STDLIB:
        text = path.read_text().replace("import fleetpool.joblib", "#").replace('"fleetpool"', '"loky"')
        path = folder / path.name
        path.write_text(source(text))
    return run([path], cwd=folder, env=env).succeeded()
