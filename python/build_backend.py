"""Builds the wheel: the `fleetpool` command first, which goes into the package, then the extension, by maturin.

pip calls the functions of this module (PEP 517). `FLEETPOOL_PROFILE` names another cargo profile than `release`.
"""

import os
import shutil
import subprocess
from pathlib import Path

import maturin
from maturin import *  # noqa: F403 - the other hooks are maturin's own

HERE = Path(__file__).resolve().parent
PROFILE = os.environ.get("FLEETPOOL_PROFILE", "release")


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    _bring_command()
    return maturin.build_wheel(wheel_directory, _settings(config_settings), metadata_directory)


def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    _bring_command()
    return maturin.build_editable(wheel_directory, _settings(config_settings), metadata_directory)


def _settings(given):
    settings = dict(given or {})
    settings.setdefault("build-args", f"--profile {PROFILE}" + (" --strip" if is_shipped() else ""))
    return settings


def is_shipped():
    """Whether users get it: then without what only a debugger reads, which is most of it."""
    return PROFILE != "dev"


def _bring_command():
    """Puts the binary where maturin packs it. A running one is not written over: it is replaced."""
    arguments = ["cargo", "build", "--locked", "--profile", PROFILE, "-p", "fleetpool-cli"]
    subprocess.run(arguments, cwd=HERE, check=True)
    target = Path(os.environ.get("CARGO_TARGET_DIR", HERE.parent / "target"))
    built = target / ("debug" if PROFILE == "dev" else PROFILE) / "fleetpool"
    place = HERE / "fleetpool" / "bin" / "fleetpool"
    place.parent.mkdir(exist_ok=True)
    part = place.with_suffix(".part")
    shutil.copy2(built, part)
    if is_shipped() and shutil.which("strip"):
        subprocess.run(["strip", part], check=True)
    part.replace(place)
