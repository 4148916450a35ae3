"""Waiting for a condition, never for a time; and looking at what processes there are."""

import os
import time
from pathlib import Path

PATIENCE_S = 20
PAUSE_S = 0.01


def until(what, condition, patience_s=PATIENCE_S):
    """Wait until `condition()` is true, and return what it gave."""
    end = time.monotonic() + patience_s
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < end, f"waited in vain for {patience_s} s: {what}"
        time.sleep(PAUSE_S)


def is_alive(pid):
    """Whether a process is there and not a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def pids_marked(mark):
    """Processes whose environment holds `mark`, without this one."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            environment = (entry / "environ").read_bytes()
        except OSError:
            continue
        if mark.encode() in environment and is_alive(entry.name):
            found.append(int(entry.name))
    return found


def rss_bytes(pid="self"):
    """Resident memory of a process."""
    fields = Path(f"/proc/{pid}/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")
