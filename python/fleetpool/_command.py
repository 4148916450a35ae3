"""The `fleetpool` command, as pip installs it: becomes the binary that came with the package."""

from __future__ import annotations

import os
import sys

from ._context import binary


def main() -> None:
    path = binary()
    os.execv(path, [sys.argv[0], *sys.argv[1:]])
