"""Pools and clusters for the tests."""

import os

import pytest

from under_test import STDLIB, Pool

SLOTS = 4


def pytest_collection_modifyitems(config, items):
    if not STDLIB:
        return
    beyond = [item for item in items if item.get_closest_marker("beyond")]
    config.hook.pytest_deselected(items=beyond)
    items[:] = [item for item in items if item not in beyond]


@pytest.fixture(scope="session", autouse=True)
def no_settings_from_elsewhere(tmp_path_factory):
    """No cluster but the one that a test names, and none of the user's files."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("FLEETPOOL_CLUSTER", raising=False)
        patch.delenv("FLEETPOOL_HOSTS", raising=False)
        patch.delenv("FLEETPOOL_IDENTITY", raising=False)
        patch.delenv("PYTHONUNBUFFERED", raising=False)
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
        # Scripts of other folders find the modules of the tests.
        here = os.path.dirname(__file__)
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")])))
        yield


@pytest.fixture
def pool():
    """A pool of four on this machine."""
    with Pool(SLOTS) as pool:
        yield pool
    pool.join()


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    """A real cluster on loopback: a coordinator and three agents of two slots."""
    from loopback import Cluster

    with Cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        for name in ("a1", "a2", "a3"):
            cluster.add_agent(name, slots=2)
        cluster.await_hosts(3)
        yield cluster


@pytest.fixture
def on_cluster(cluster, monkeypatch):
    """This process is a client of the cluster, whatever a pool is told."""
    for name, value in cluster.client_env().items():
        monkeypatch.setenv(name, value)
    return cluster
