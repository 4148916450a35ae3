"""Runs programs as a user would: a process of this interpreter, with a time limit, whose whole group ends with it.

Programs say `fleetpool`; with FLEETPOOL_TEST_STDLIB=1 they are run with `multiprocessing` in its place.
"""

import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import dataclass

from under_test import NAME, STDLIB

LIMIT_S = 55


@dataclass
class Ended:
    """A program that has ended."""

    status: int
    out: str
    err: str

    @property
    def lines(self):
        return self.out.splitlines()

    def succeeded(self):
        """Itself, if it ended well."""
        assert self.status == 0, f"exit {self.status}\n--- stdout\n{self.out}\n--- stderr\n{self.err}"
        return self


def source(text):
    """A program's text, with the module under test for `fleetpool`."""
    return textwrap.dedent(text).replace("fleetpool", NAME)


def write(path, text):
    """Write a program, and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source(text))
    return path


def start(arguments, *, cwd, env=None, stdin=subprocess.DEVNULL, program=sys.executable):
    """Start Python with these arguments, in a session of its own."""
    return subprocess.Popen(
        [program, *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def run(arguments, *, cwd, env=None, text_in=None, limit_s=LIMIT_S):
    """Run Python with these arguments to its end."""
    stdin = subprocess.DEVNULL if text_in is None else subprocess.PIPE
    return finish(start(arguments, cwd=cwd, env=env, stdin=stdin), text_in=text_in, limit_s=limit_s)


def finish(process, *, text_in=None, limit_s=LIMIT_S):
    """Wait for the end of a started program."""
    try:
        out, err = process.communicate(text_in, timeout=limit_s)
    except subprocess.TimeoutExpired:
        end_group(process)
        out, err = process.communicate()
        raise AssertionError(f"not ended in {limit_s} s\n--- stdout\n{out}\n--- stderr\n{err}") from None
    return Ended(process.returncode, out, err)


def end_group(process):
    """Kill a program and what it started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def run_text(folder, text, *, name="script.py", env=None, limit_s=LIMIT_S):
    """Run a program given as text from a file in `folder`."""
    return run([write(folder / name, text)], cwd=folder, env=env, limit_s=limit_s)


__all__ = ["STDLIB", "Ended", "end_group", "finish", "run", "run_text", "source", "start", "write"]
