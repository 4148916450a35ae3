"""A real cluster on loopback: a coordinator and agents as processes of the `fleetpool` binary, joined by token.

The binary is the one that came with the package, or $FLEETPOOL_BINARY. Everything lives in one folder and is ended with the cluster.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from fleetpool._context import binary
from waiting import until


class Cluster:
    """A coordinator and its agents; a context manager."""

    def __init__(self, folder, *coordinator_options):
        self.folder = Path(folder)
        self.binary = binary()
        self.agents = {}
        self.spawners = {}
        self.coordinator = None
        self.coordinator_options = coordinator_options
        self.address = None

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_):
        self.stop()

    def start(self):
        """Make the authority, start the coordinator and wait until it answers."""
        self.run("init", "--name", "test")
        self.coordinator = self.spawn(
            "coordinator", ["coordinator", "--listen", "127.0.0.1:0", *self.coordinator_options], self.own_env()
        )
        self.address = until("the coordinator says where it listens", self.listens_on)
        until("the coordinator answers", lambda: self.command("status").returncode == 0)

    def stop(self):
        """End every process."""
        processes = [*self.agents.values(), *self.spawners.values(), *([self.coordinator] if self.coordinator else [])]
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()

    def add_agent(self, name, slots, env=None, outlived=False):
        """Join an agent by a token of its own. If it is to be `outlived`, its tasks go on when it is killed, until the next of its name."""
        token = self.folder / f"{name}.token"
        token.write_text(self.run("token", "create"))
        home = str(self.folder / name)
        arguments = ["agent", "--coordinator", self.address, "--name", name, "--slots", str(slots)]
        arguments += ["--token-file", str(token)]
        own = {"FLEETPOOL_IDENTITY": home, "XDG_CONFIG_HOME": home, "PATH": path_with(sys.executable)}
        # Not the tests' folder: what tasks need of it is to be brought to the hosts.
        inherited = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "FLEETPOOL_CLUSTER")}
        env = {**inherited, **own, **(env or {})}
        if outlived:
            arguments.append("--with-spawner")
            if name not in self.spawners:
                self.spawners[name] = self.spawn(f"{name}-spawner", ["spawner"], env, cwd=self.folder)
        self.agents[name] = self.spawn(name, arguments, env, cwd=self.folder)

    def await_hosts(self, count):
        """Wait until so many hosts are up."""
        until(f"{count} hosts are up", lambda: self.hosts_up() == count)

    def hosts_up(self):
        """How many hosts are up."""
        listed = self.command("hosts", "--json")
        if listed.returncode != 0:
            return 0
        return sum(host["state"] == "up" for host in json.loads(listed.stdout))

    def kill_agent(self, name):
        """Kill an agent as a power cut would, and forget it."""
        process = self.agents.pop(name)
        process.kill()
        process.wait()

    def client_env(self):
        """What makes a process a client of this cluster."""
        return {"FLEETPOOL_CLUSTER": self.address, "FLEETPOOL_IDENTITY": str(self.folder / "identity")}

    def own_env(self):
        """The environment of the binary: its files in the folder, no settings from elsewhere."""
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("FLEETPOOL_")}
        own = {"FLEETPOOL_IDENTITY": str(self.folder / "identity"), "XDG_CONFIG_HOME": str(self.folder)}
        if self.address:
            own["FLEETPOOL_CLUSTER"] = self.address
        return {**inherited, **own}

    def command(self, *arguments):
        """Run the binary as the cluster's admin."""
        return subprocess.run(
            [self.binary, *arguments],
            env=self.own_env(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )

    def run(self, *arguments):
        """Run the binary as the cluster's admin; it must succeed."""
        ended = self.command(*arguments)
        assert ended.returncode == 0, f"fleetpool {arguments}: {ended.stderr}{self.logs()}"
        return ended.stdout

    def spawn(self, name, arguments, env, cwd=None):
        """Start a process of the cluster with a log of its name."""
        with open(self.folder / f"{name}.out", "wb") as out, open(self.folder / f"{name}.log", "wb") as log:
            return subprocess.Popen(
                [self.binary, *arguments], env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=out, stderr=log
            )

    def listens_on(self):
        """The address that the coordinator has written to its log, or None."""
        said = re.search(r" listens on (\S+)\n", (self.folder / "coordinator.log").read_text())
        assert self.coordinator.poll() is None, f"the coordinator ended{self.logs()}"
        return said and said[1]

    def logs(self):
        """All logs, to be shown when something fails."""
        return "".join(f"\n--- {log.name}\n{log.read_text()}" for log in sorted(self.folder.glob("*.log")))


def path_with(python):
    """A PATH on which `python3` is that interpreter's."""
    return os.pathsep.join([os.path.dirname(python), os.environ.get("PATH", os.defpath)])
