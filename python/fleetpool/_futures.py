"""Errors of tasks that are also those of `concurrent.futures`, which takes longer to import than a pool to start: imported
when somebody names one, or one is raised."""

from __future__ import annotations

import concurrent.futures
import concurrent.futures.process
from typing import Optional

from ._errors import TaskError


class WorkerLost(TaskError, concurrent.futures.process.BrokenProcessPool):
    """The process that ran the task died under it. The pool goes on with a new one.

    `signal` is what killed it, `exit` the status it exited with (one of them is `None`); `memory` the most that it held,
    in KiB (0: not known); `stderr_tail` the last that it wrote to stderr.
    """

    def __init__(
        self,
        message: str,
        index: int = 0,
        host: str = "",
        pid: int = 0,
        signal: Optional[int] = None,
        exit: Optional[int] = None,
        memory: int = 0,
        stderr_tail: str = "",
    ) -> None:
        super().__init__(message, index, host, pid)
        self.signal = signal
        self.exit = exit
        self.memory = memory
        self.stderr_tail = stderr_tail


class TaskCancelled(TaskError, concurrent.futures.CancelledError):
    """The task was cancelled, by `cancel()` or with its pool."""
