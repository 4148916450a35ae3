"""Pools on a real cluster: a coordinator and three agents of two slots, on loopback."""

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
import venv
from pathlib import Path

import pytest

import scripts
import tasks
from loopback import Cluster, path_with
from scripts import run_text
from under_test import Executor, Pool, module
from waiting import is_alive, pids_marked, until

pytestmark = pytest.mark.beyond

# Hosts do not have the tests' own modules: what tasks need of them is brought along.
MODULES = {"py_modules": [str(Path(__file__).with_name("tasks.py"))]}


def test_the_cluster_is_up(cluster):
    assert cluster.hosts_up() == 3


def test_a_pool_by_address_has_every_slot(on_cluster, monkeypatch, tmp_path):
    monkeypatch.delenv("FLEETPOOL_CLUSTER")
    with Pool(address=on_cluster.address, **MODULES) as pool:
        assert {(host.name, host.slots, host.state) for host in pool.hosts()} == {
            (name, 2, "up") for name in ("a1", "a2", "a3")
        }
        assert len(set(tasks.full_size(pool, 6, tmp_path / "meeting"))) == 6
        assert pool.map(tasks.square, range(1000)) == [x * x for x in range(1000)]


def test_the_environment_names_the_cluster(on_cluster, tmp_path):
    with Pool(4, **MODULES) as pool:
        assert len(set(tasks.full_size(pool, 4, tmp_path / "meeting"))) == 4
        assert set(pool.map(tasks.where, range(100), 1)) <= {"a1", "a2", "a3"}


def test_hosts_are_logged_in_to_for_one_pool(tmp_path, monkeypatch, caplog):
    ssh = Path(__file__).resolve().parents[2] / "tests/bin/local-ssh"
    monkeypatch.setenv("FLEETPOOL_SSH", str(ssh))
    monkeypatch.setenv("LOCAL_SSH_DIR", str(tmp_path))
    monkeypatch.setenv("FLEETPOOL_PYTHON", sys.executable)
    with Pool(hosts="web[1-2],no1", **MODULES) as pool:
        until("both hosts are there", lambda: [host.name for host in pool.hosts()] == ["web1", "web2"])
        assert set(pool.map(tasks.where, range(100), 1)) <= {"web1", "web2"}
        assert pool.apply(lambda x: x + 1, (1,)) == 2
        pids = set(pool.map(tasks.pid, range(20), 1))
    until("the workers are gone", lambda: not any(map(is_alive, pids)))
    route = "no1: ssh: connect to host no1 port 22: No route to host"
    until("it is told", lambda: route in caplog.text)
    # That nobody is there may be known before there is a pool, or after.
    with pytest.raises(module.PoolError, match="no host can be had: no1: ssh: connect to host no1"):
        with Pool(hosts="no[1-2]") as pool:
            pool.apply(abs, (1,))


def test_n_is_n_over_all_hosts(on_cluster, tmp_path):
    log = str(tmp_path / "log")
    with Pool(3, **MODULES) as pool:
        tasks.full_size(pool, 3, tmp_path / "meeting")
        pool.map(tasks.note_begin_and_end, [log] * 30, 1)
    running = most = 0
    for line in (tmp_path / "log").read_text().split():
        running += 1 if line == "begin" else -1
        most = max(most, running)
    assert most <= 3


def test_on_chooses_hosts(on_cluster):
    for chosen, names in (("a2", {"a2"}), ("a[1-2]", {"a1", "a2"}), ("a*!a1", {"a2", "a3"})):
        with Pool(on=chosen, **MODULES) as pool:
            assert {host.name for host in pool.hosts()} == names
            assert set(pool.map(tasks.where, range(50), 1)) <= names


def test_on_names_groups_of_the_users(on_cluster, monkeypatch, tmp_path):
    config = tmp_path / ".config/fleetpool/config.toml"
    config.parent.mkdir(parents=True)
    config.write_text('[groups]\nweb = "a[1-2]"\n')
    monkeypatch.setenv("HOME", str(tmp_path))
    with Pool(on="@web!a1", **MODULES) as pool:
        assert {host.name for host in pool.hosts()} == {"a2"}
        assert set(pool.map(tasks.where, range(20), 1)) == {"a2"}
    with pytest.raises(ValueError, match=r"there is no group `nobody`.*it has web"):
        Pool(on="@nobody", **MODULES)


def test_on_that_matches_no_host_is_a_pool_error(on_cluster):
    with pytest.raises(module.PoolError):
        with Pool(on="nowhere", **MODULES) as pool:
            pool.apply_async(abs, (1,)).get(30)


SCRIPT = """
import dataclasses
import enum
import os
from fleetpool import Pool

class Color(enum.Enum):
    RED = 1

@dataclasses.dataclass
class Point:
    x: int
    color: Color

class Bad(Exception):
    pass

prefix = None

def start(given):
    global prefix
    prefix = given

def work(x):
    if x == 13:
        raise Bad(x)
    print("working on", x)
    return Point(x, Color.RED), f"{prefix}{x}", os.environ["FLEETPOOL_HOST"]

with Pool(4, start, ("x",)) as pool:
    got = pool.map(work, range(10))
    for number, (point, text, host) in enumerate(got):
        assert type(point) is Point and point == Point(number, Color.RED) and point.color is Color.RED
        assert text == f"x{number}"
    try:
        pool.apply(work, (13,))
    except Bad as error:
        assert "in work" in str(error.__cause__)
    print("hosts", sorted({host for *_, host in got}) <= ["a1", "a2", "a3"])
    pool.close()
    pool.join()
print("joined")
"""


def test_a_script_runs_on_the_cluster_as_on_this_machine(cluster, tmp_path):
    ended = run_text(tmp_path, SCRIPT, env=cluster.client_env()).succeeded()
    assert sorted(ended.lines[:-1]) == sorted([*(f"working on {x}" for x in range(10)), "hosts True"])
    assert ended.lines[-1] == "joined"


def test_a_script_from_stdin_and_a_notebook_run_on_the_cluster(cluster, tmp_path):
    text = "from fleetpool import Pool\ndef f(x):\n    return x + 1\nprint(Pool(4).map(f, range(3)))\n"
    ended = scripts.run(["-"], cwd=tmp_path, text_in=text, env=cluster.client_env()).succeeded()
    assert ended.lines == ["[1, 2, 3]"]


def test_neighbours_of_a_script_are_brought_along(cluster, tmp_path):
    """A script's own modules are as much a part of the program as its main file."""
    (tmp_path / "neighbour.py").write_text("def twice(x):\n    return 2 * x\n")
    text = "import neighbour\nfrom fleetpool import Pool\n"
    text += "with Pool(4, py_modules=['neighbour.py']) as pool:\n    print(pool.map(neighbour.twice, range(3)))\n"
    assert run_text(tmp_path, text, env=cluster.client_env()).succeeded().lines == ["[0, 2, 4]"]


def test_a_module_that_the_hosts_lack_is_an_error_that_names_it(cluster, tmp_path):
    (tmp_path / "lacking_there.py").write_text("def twice(x):\n    return 2 * x\n")
    text = """
    import lacking_there
    from fleetpool import Pool
    with Pool(2) as pool:
        try:
            print(pool.apply_async(lacking_there.twice, (1,)).get(20))
        except Exception as error:
            print(2 if "lacking_there" in str(error) else error)
        print(pool.map(abs, [-1]))
    """
    assert run_text(tmp_path, text, env=cluster.client_env()).succeeded().lines == ["2", "[1]"]


def test_large_arguments_and_results(on_cluster):
    data = os.urandom(8 * 2**20)
    with Pool(4, **MODULES) as pool:
        assert pool.map(len, [data] * 8) == [len(data)] * 8
        assert pool.apply(tasks.echo, (data,)) == data


def test_losses_are_told_as_on_this_machine(on_cluster, tmp_path):
    with Pool(4, **MODULES) as pool:
        results = [pool.apply_async(tasks.Misbehaviour(tasks.die_by_signal, 42), (number,)) for number in range(100)]
        with pytest.raises(module.WorkerLost) as caught:
            results[42].get(20)
        assert caught.value.host in {"a1", "a2", "a3"}
        assert (caught.value.index, caught.value.signal) == (0, signal.SIGKILL), "the first and only of its call"
        assert [result.get(20) for n, result in enumerate(results) if n != 42] == [n * n for n in range(100) if n != 42]
        assert len(set(tasks.full_size(pool, 4, tmp_path / "meeting"))) == 4


def test_cancelling_and_time_limits(on_cluster):
    with Pool(2, **MODULES) as pool:
        with pytest.raises(module.TaskTimeout):
            pool.apply_async(tasks.sleep_for, (1000,), timeout=0.3).get(20)
        running = pool.apply_async(tasks.sleep_for, (1000,))
        running.cancel()
        with pytest.raises(module.TaskCancelled):
            running.get(20)
        assert pool.apply(tasks.square, (3,)) == 9


def test_the_executor_runs_on_the_cluster(on_cluster):
    with Executor(4, **MODULES) as executor:
        assert set(executor.map(tasks.where, range(50))) <= {"a1", "a2", "a3"}


def test_joblib_runs_on_the_cluster(on_cluster):
    import fleetpool.joblib  # noqa: F401, registers the backend
    from joblib import Parallel, delayed, parallel_config

    with parallel_config("fleetpool", n_jobs=-1):
        assert Parallel()(delayed(abs)(-x) for x in range(50)) == list(range(50))


def test_two_programs_share_the_cluster(cluster, tmp_path):
    text = "from fleetpool import Pool\nwith Pool() as pool:\n    print(sum(pool.map(abs, range(10_000), 1)))\n"
    script = scripts.write(tmp_path / "script.py", text)
    both = [scripts.start([script], cwd=tmp_path, env=cluster.client_env()) for _ in range(2)]
    assert [scripts.finish(one).succeeded().lines for one in both] == [["49995000"]] * 2


def test_nothing_is_left_on_the_hosts_after_a_pool(on_cluster, tmp_path):
    with Pool(4, **MODULES) as pool:
        pids = set(tasks.full_size(pool, 4, tmp_path / "meeting"))
    pool.join()
    until("no worker is left", lambda: not any(is_alive(pid) for pid in pids))


def test_nothing_is_left_on_the_hosts_when_the_caller_is_killed(cluster, tmp_path):
    mark = f"FLEETPOOL_TEST_MARK={tmp_path.name}-{os.getpid()}"
    script = scripts.write(
        tmp_path / "script.py",
        f"""
        import os, subprocess, time
        from fleetpool import Pool

        def busy(number):
            name, value = {mark!r}.split("=")
            subprocess.Popen(["sleep", "1000"], start_new_session=True, env={{**os.environ, name: value}})
            print("begun", flush=True)
            time.sleep(1000)

        Pool(3).map(busy, range(3), 1)
        """,
    )
    process = scripts.start([script], cwd=tmp_path, env=cluster.client_env())
    try:
        assert [process.stdout.readline() for _ in range(3)] == ["begun\n"] * 3
        assert len(pids_marked(mark)) == 3
        process.kill()
        process.wait()
        until("nothing is left", lambda: not pids_marked(mark))
    finally:
        scripts.end_group(process)
        process.stdout.close()
        process.stderr.close()


def test_a_caller_without_an_identity_is_refused(cluster, tmp_path, monkeypatch):
    monkeypatch.setenv("FLEETPOOL_IDENTITY", str(tmp_path / "none"))
    start = time.monotonic()
    with pytest.raises(module.PoolError):
        with Pool(2, address=cluster.address) as pool:
            pool.apply_async(abs, (1,)).get(30)
    assert time.monotonic() - start < 30


# --- these have a cluster of their own, which they harm


def test_tasks_of_a_lost_host_run_elsewhere(tmp_path, monkeypatch):
    with Cluster(tmp_path, "--lease", "1s") as cluster:
        for name in ("a1", "a2"):
            cluster.add_agent(name, slots=1)
        cluster.await_hosts(2)
        point_to(cluster, monkeypatch)
        with Pool(2, **MODULES) as pool:
            log, released = str(tmp_path / "log"), tmp_path / "released"
            result = pool.map_async(tasks.note_host_and_await, [(log, str(released))] * 2, 1)
            until("both run", lambda: Path(log).exists() and len(Path(log).read_text().split()) == 2)
            cluster.kill_agent("a1")
            released.touch()
            assert len(result.get(40)) == 2
            assert pool.apply_async(tasks.where, (0,)).get(40) == "a2"


def test_workers_and_what_they_run_outlive_their_agent(tmp_path, monkeypatch):
    """Nothing that was begun ends or runs again, though it might not, and the workers are the first ones to the end."""
    with Cluster(tmp_path) as cluster:
        cluster.add_agent("a1", slots=2, outlived=True)
        cluster.await_hosts(1)
        point_to(cluster, monkeypatch)
        begun, ran = tmp_path / "begun", tmp_path / "ran"
        with Pool(2, tasks.append_line, (str(begun), "worker"), retries=0, **MODULES) as pool:
            results = pool.imap_unordered(tasks.note_and_nap, [(str(ran), number) for number in range(120)])
            pids = []
            for _ in range(4):
                pids += [next(results) for _ in range(20)]
                cluster.kill_agent("a1")
                cluster.add_agent("a1", slots=2, outlived=True)
            pids += results
        assert len(pids) == 120 and len(set(pids)) == 2, cluster.logs()
        assert sorted(int(line) for line in ran.read_text().split()) == list(range(120))
        assert begun.read_text().split() == ["worker"] * 2


def test_a_lost_host_that_is_all_there_is_ends_in_host_lost_or_waits(tmp_path, monkeypatch):
    """A task that may not run again is told as lost; one that may waits for another host."""
    with Cluster(tmp_path, "--lease", "1s", "--lost-after", "2s") as cluster:
        cluster.add_agent("a1", slots=1)
        cluster.await_hosts(1)
        point_to(cluster, monkeypatch)
        with Pool(1, retries=0, **MODULES) as pool:
            log = str(tmp_path / "log")
            result = pool.apply_async(tasks.note_host_and_await, ((log, str(tmp_path / "released")),))
            until("it runs", Path(log).exists)
            cluster.kill_agent("a1")
            (tmp_path / "released").touch()
            cluster.add_agent("a2", slots=1)
            try:
                assert result.get(40) == "a2"
            except module.HostLost as lost:
                assert "a1" in str(lost)
            assert pool.apply_async(tasks.where, (0,)).get(40) == "a2"


def test_a_pool_grows_with_the_cluster(tmp_path, monkeypatch):
    with Cluster(tmp_path) as cluster:
        cluster.add_agent("a1", slots=1)
        cluster.await_hosts(1)
        point_to(cluster, monkeypatch)
        with Pool(**MODULES) as pool:
            assert pool.apply(tasks.where, (0,)) == "a1"
            cluster.add_agent("a2", slots=1)
            assert len(set(tasks.full_size(pool, 2, tmp_path / "meeting"))) == 2


def test_the_end_of_the_coordinator_is_told_and_nothing_hangs(tmp_path, monkeypatch):
    with Cluster(tmp_path) as cluster:
        cluster.add_agent("a1", slots=1)
        cluster.await_hosts(1)
        point_to(cluster, monkeypatch)
        with Pool(1, **MODULES) as pool:
            assert pool.apply(tasks.where, (0,)) == "a1"
            cluster.coordinator.kill()
            cluster.coordinator.wait()
            result = pool.apply_async(tasks.sleep_for, (1000,))
            pool.terminate()
            with pytest.raises(Exception):
                result.get(20)
            pool.join()


def test_a_host_needs_python_and_no_package_of_ours(tmp_path, monkeypatch):
    venv.create(tmp_path / "bare", with_pip=False)
    with Cluster(tmp_path) as cluster:
        cluster.add_agent("a1", slots=1, env={"PATH": path_with(str(tmp_path / "bare" / "bin" / "python3"))})
        cluster.await_hosts(1)
        point_to(cluster, monkeypatch)
        with Pool(1) as pool:
            assert pool.apply(importlib.util.find_spec, ("fleetpool",)) is None
        ended = run_text(tmp_path / "script", SCRIPT.replace("apply(work", "apply(lambda x: work(x)"))
        assert ended.succeeded().lines[-1] == "joined"


def test_a_host_may_have_another_version_of_cloudpickle(tmp_path, monkeypatch):
    venv.create(tmp_path / "bare", with_pip=False)
    [packages] = (tmp_path / "bare").glob("lib/python*/site-packages")
    (packages / "cloudpickle.py").write_text("raise RuntimeError('of another version')\n")
    with Cluster(tmp_path) as cluster:
        cluster.add_agent("a1", slots=1, env={"PATH": path_with(str(tmp_path / "bare" / "bin" / "python3"))})
        cluster.await_hosts(1)
        point_to(cluster, monkeypatch)
        ended = run_text(
            tmp_path / "script",
            """
            import fleetpool

            class Box:
                def __init__(self, x):
                    self.x = x

                def times(self, y):
                    return Box(self.x * y)

            with fleetpool.Pool(1) as pool:
                print(pool.apply(Box(4).times, (2,)).x)
            """,
        )
        assert ended.succeeded().lines == ["8"]


def test_a_host_with_another_python_runs_what_goes_by_name_and_refuses_the_rest(tmp_path, monkeypatch):
    other = another_python()
    # Not its own folder, where `python3` may be yet another.
    named = tmp_path / "bin/python3"
    named.parent.mkdir()
    named.symlink_to(other)
    with Cluster(tmp_path) as cluster:
        cluster.add_agent("a1", slots=1, env={"PATH": path_with(named)})
        cluster.await_hosts(1)
        point_to(cluster, monkeypatch)
        with Pool(1) as pool:
            assert pool.apply_async(abs, (-5,)).get(20) == 5
            with pytest.raises(module.PoolError) as refused:
                pool.apply_async(lambda x: x, (5,)).get(20)
        assert "{}.{}".format(*sys.version_info) in str(refused.value)
        assert version_of(other) in str(refused.value) and "a1" in str(refused.value)


def test_a_pool_whose_calls_have_nowhere_to_run_says_so(tmp_path, monkeypatch, caplog):
    with Cluster(tmp_path) as cluster:
        point_to(cluster, monkeypatch)
        with Pool(1, **MODULES) as pool:
            result = pool.apply_async(tasks.where, (0,))
            until("it is said", lambda: "no host is connected" in caplog.text)
            cluster.add_agent("a1", slots=1)
            assert result.get(20) == "a1"


def point_to(cluster, monkeypatch):
    for name, value in cluster.client_env().items():
        monkeypatch.setenv(name, value)


def another_python():
    """An interpreter of another minor version."""
    names = [f"python3.{minor}" for minor in range(10, 15)]
    folders = [*Path.home().glob(".pyenv/versions/*/bin"), Path("/usr/bin"), Path("/usr/local/bin")]
    found = [str(folder / name) for folder in folders for name in names if (folder / name).exists()]
    found += filter(None, map(shutil.which, names))
    ours = "{}.{}".format(*sys.version_info)
    others = [python for python in found if version_of(python) not in (None, ours)]
    assert others, "no interpreter of another minor version (3.10 to 3.14) is installed beside this one"
    return others[0]


def version_of(python):
    ended = subprocess.run(
        [python, "-c", "import sys; print('{}.{}'.format(*sys.version_info))"],
        capture_output=True,
        text=True,
        check=False,
    )
    return ended.stdout.strip() or None
