"""Differences between systems: the number of processors, how workers start, what drawing needs."""

import importlib.util
import multiprocessing
import os
import sys
from pathlib import Path

UNSUPPORTED = "this system cannot lock files (Python has no fcntl here); on Windows, use WSL"
"""The message where runs could not be kept from each other's files."""

START_METHOD = (
    # on macOS a process must not be forked once its libraries have started threads
    "forkserver"
    if sys.platform != "darwin" and "forkserver" in multiprocessing.get_all_start_methods()
    else "spawn"
)


def processors() -> int:
    """The number of processors that this process may use, or all if the system does not say."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def drawing_to_files() -> dict[str, str]:
    """The environment in which matplotlib draws to files in its own style, whatever notebooks set."""
    environment = {"MPLBACKEND": "agg"}
    package = importlib.util.find_spec("matplotlib")
    for folder in (package and package.submodule_search_locations) or []:
        environment["MATPLOTLIBRC"] = str(Path(folder, "mpl-data", "matplotlibrc"))
    return environment
