"""Functions that the tests give to pools."""

import os
import signal
import sys
import time
from pathlib import Path

PATIENCE_S = 30


def echo(x):
    return x


def square(x):
    return x * x


def add(x, y=0):
    return x + y


def pid(_=None):
    return os.getpid()


def fail(x):
    raise ValueError(x)


def fail_on(bad, x):
    if x in bad:
        raise ValueError(x)
    return x


def sleep_for(seconds):
    time.sleep(seconds)
    return seconds


def touch(path):
    Path(path).touch()
    return path


def append_line(path, line):
    """One write, so that lines of several processes do not mix."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(fd, f"{line}\n".encode())
    os.close(fd)


def await_file(path):
    """Run until a file is there."""
    end = time.monotonic() + PATIENCE_S
    while not Path(path).exists():
        if time.monotonic() > end:
            raise RuntimeError(f"waited in vain for {path}")
        time.sleep(0.005)
    return path


def note_and_await(started, released):
    """Say with one file that it runs, and run until another is there."""
    Path(started).write_text(str(os.getpid()))
    return await_file(released)


def meet(folder, number, count):
    """Run until `count` of these run at the same time, and give the process."""
    (Path(folder) / f"here-{number}").touch()
    end = time.monotonic() + PATIENCE_S
    while len(list(Path(folder).glob("here-*"))) < count:
        if time.monotonic() > end:
            raise RuntimeError(f"{count} tasks never ran at the same time")
        time.sleep(0.005)
    return os.getpid()


def die_by_signal():
    os.kill(os.getpid(), signal.SIGKILL)


def die_by_segfault():
    import ctypes

    ctypes.string_at(0)


def exit_hard():
    os._exit(1)


def exit_politely():
    sys.exit("no more")


def interrupt():
    raise KeyboardInterrupt


def return_lambda():
    return lambda: 42


class Stubborn(Exception):
    """Cannot be unpickled: its arguments are not those of its constructor."""

    def __init__(self, code, text):
        super().__init__(f"{code}: {text}")


def raise_stubborn():
    raise Stubborn(7, "stubborn")


class Misbehaviour:
    """One task of many misbehaves, the others square their numbers."""

    def __init__(self, deed, at):
        self.deed = deed
        self.at = at

    def __call__(self, x):
        return self.deed() if x == self.at else x * x


def full_size(pool, count, folder):
    """The processes of `count` tasks that all run at the same time."""
    folder = Path(folder)
    folder.mkdir()
    meetings = [(str(folder), number, count) for number in range(count)]
    return pool.starmap_async(meet, meetings, chunksize=1).get(timeout=PATIENCE_S)


def where(_):
    return os.environ["FLEETPOOL_HOST"]


def note_begin_and_end(log):
    append_line(log, "begin")
    time.sleep(0.02)
    append_line(log, "end")


def note_and_nap(log_and_number):
    """Write down that it runs, and give the process after a moment."""
    log, number = log_and_number
    append_line(log, str(number))
    time.sleep(0.02)
    return os.getpid()


def note_host_and_await(log_and_released):
    log, released = log_and_released
    append_line(log, os.environ["FLEETPOOL_HOST"])
    await_file(released)
    return os.environ["FLEETPOOL_HOST"]
