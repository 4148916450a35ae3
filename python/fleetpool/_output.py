"""What tasks print, put where the program's own output goes."""

from __future__ import annotations

import sys
from typing import Any


def flush() -> None:
    """What the program has printed so far comes before what its tasks will."""
    for stream in (sys.stdout, sys.stderr):
        _flush(stream)


def _flush(stream: Any) -> None:
    try:
        stream.flush()
    except (AttributeError, OSError, ValueError):
        pass


def sink(is_stderr: bool, printed: bytes) -> bool:
    """Takes what a task has printed; whether it is to be written to the file descriptor as it is.

    That is so where the program's stream still leads there. In a notebook, and wherever else the stream was replaced, it
    goes through the stream.
    """
    stream = sys.stderr if is_stderr else sys.stdout
    if stream is None:
        return False
    try:
        plain = stream.fileno() == (2 if is_stderr else 1)
    except (AttributeError, OSError, ValueError):
        plain = False
    if not plain:
        stream.write(printed.decode(getattr(stream, "encoding", None) or "utf-8", "replace"))
    _flush(stream)
    return plain


def note(text: str) -> None:
    """Takes what is to be known of a pool as a whole: the log of the name `fleetpool`, which is stderr unless the program
    says otherwise."""
    import logging

    logging.getLogger("fleetpool").warning("fleetpool: %s", text)
