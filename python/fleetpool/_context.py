"""What every worker of a pool begins with, and what is known of this process."""

from __future__ import annotations

import io
import os
import pickle
import sys
import types
from typing import Any, Callable, Iterable, Optional

from ._shipping import Shipper

# What a worker may need and a host may lack, or have of another version. Pure Python, one file each.
_SPARE = ("cloudpickle", "cloudpickle.cloudpickle")
# Larger folders are no code.
_ZIP_BYTES_MAX = 512 << 20


def binary() -> str:
    """The `fleetpool` command that came with this package; `$FLEETPOOL_BINARY` names another."""
    named = os.environ.get("FLEETPOOL_BINARY")
    path = named or os.path.join(os.path.dirname(os.path.abspath(__file__)), "bin", "fleetpool")
    if not os.access(path, os.X_OK):
        raise FileNotFoundError(f"the fleetpool command is not at {path}: install the package anew")
    return path


def in_worker() -> bool:
    """Whether this process is a worker of a pool."""
    return worker() is not None


def worker() -> Optional[types.ModuleType]:
    """The worker's program, in a worker."""
    module = sys.modules.get("_fleetpool_worker")
    return module if module is not None and hasattr(module, "current") else None


def cpu_count() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# Variables that libraries size their thread pools by: a worker has its share of the machine.
_THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMBA_NUM_THREADS",
    "RAYON_NUM_THREADS",
)


def threads(processes: int) -> dict[str, Optional[str]]:
    """How many threads each of so many workers should start, for the libraries that nobody has told."""
    share = str(max(1, cpu_count() // processes))
    return {name: share for name in _THREADS if name not in os.environ}


def main_globals() -> dict[str, Any]:
    return sys.modules["__main__"].__dict__


def program_name() -> str:
    return os.path.basename(sys.argv[0]) if sys.argv and sys.argv[0] else "python"


def pack(
    shipper: Shipper,
    *,
    remote: bool,
    initializer: Optional[Callable[..., object]],
    initargs: tuple[Any, ...],
    py_modules: Iterable[Any],
    working_dir: Optional[str],
) -> bytes:
    """The context of a pool's workers: a pickle of builtin types alone, which every version reads."""
    main = main_globals()
    context: dict[str, Any] = {
        "version": tuple(sys.version_info[:2]),
        "remote": remote,
        "path": _own_folders() if remote else [os.path.abspath(folder) for folder in sys.path],
        "argv": list(sys.argv),
        "main": {
            name: main.get(name)
            for name in ("__file__", "__package__", "__doc__")
            if isinstance(main.get(name), (str, type(None)))
        },
        "authkey": _authkey(),
        "folders": [_zipped_module(module) for module in py_modules],
        "working_dir": _zipped(working_dir, "") if working_dir is not None else None,
        "modules": _spare() if remote else {},
    }
    if initializer is not None:
        context["initializer"] = shipper.ship_call(initializer, initargs)
    return pickle.dumps(context, 4)


def _own_folders() -> list[str]:
    """Where this program's own modules are: of use to hosts that share folders with it. Installed packages are not among
    them: every host has its own."""
    folders = [os.path.abspath(folder) for folder in sys.path]
    prefixes = {os.path.realpath(prefix) + os.sep for prefix in (sys.prefix, sys.base_prefix, sys.exec_prefix)}
    installed = ("site-packages", "dist-packages")
    return [
        folder
        for folder in folders
        if os.path.basename(folder) not in installed
        and not any(os.path.realpath(folder).startswith(prefix) for prefix in prefixes)
    ]


def _authkey() -> bytes:
    process = sys.modules.get("multiprocessing.process")
    return bytes(process.current_process().authkey) if process is not None else b""


def _spare() -> dict[str, str]:
    import importlib.util

    modules = {}
    for name in _SPARE:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin is not None:
            with open(spec.origin, encoding="utf-8") as file:
                modules[name] = file.read()
    return modules


def _zipped_module(module: Any) -> tuple[str, bytes]:
    """A module, a name of one, or a path of one, as a folder of it alone."""
    if isinstance(module, str) and not os.path.exists(module):
        import importlib

        module = importlib.import_module(module)
    if isinstance(module, types.ModuleType):
        if getattr(module, "__file__", None) is None:
            raise ValueError(f"py_modules: {module.__name__} has no file that could be sent")
        path = os.path.abspath(str(module.__file__))
        if hasattr(module, "__path__"):
            path = os.path.dirname(path)
        package = module.__name__.rpartition(".")[0]
        if package:
            raise ValueError(f"py_modules: give the whole package {package.partition('.')[0]}, not {module.__name__}")
    else:
        path = os.path.abspath(os.fspath(module))
    return _zipped(path, os.path.basename(path))


def _zipped(path: str, inside: str) -> tuple[str, bytes]:
    """A file or folder as a zip file, and a name for it that tells its content."""
    import hashlib
    import zipfile

    path = os.path.abspath(path)
    if not os.path.exists(path):
        raise FileNotFoundError(f"{path} does not exist, and cannot be sent")
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as archive:
        for file, name in _files(path, inside):
            # Always the same time, so that the same content has the same hash.
            entry = zipfile.ZipInfo(name)
            entry.external_attr = (os.stat(file).st_mode & 0xFFFF) << 16
            with open(file, "rb") as opened:
                archive.writestr(entry, opened.read(), zipfile.ZIP_DEFLATED)
            if packed.tell() > _ZIP_BYTES_MAX:
                raise ValueError(f"{path} is over {_ZIP_BYTES_MAX >> 20} MiB when packed: too much to send as code")
    content = packed.getvalue()
    return hashlib.sha256(content).hexdigest()[:32], content


def _files(path: str, inside: str) -> Iterable[tuple[str, str]]:
    if os.path.isfile(path):
        yield path, inside
        return
    for folder, folders, names in os.walk(path):
        folders[:] = sorted(name for name in folders if name != "__pycache__" and not name.startswith("."))
        for name in sorted(names):
            file = os.path.join(folder, name)
            if os.path.isfile(file) and not name.endswith(".pyc"):
                yield file, os.path.join(inside, os.path.relpath(file, path))
