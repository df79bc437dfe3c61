"""Where systems differ: how many processors there are, how workers start, what a drawing command needs."""

import importlib.util
import multiprocessing
import os
import sys
from pathlib import Path

UNSUPPORTED = "this system has no fcntl to lock files with; on Windows, run it in WSL, Windows' Linux"
"""What is said where runs could not be kept from each other's files."""

START_METHOD = (
    # on macOS a process must not be forked once its libraries have started threads
    "forkserver"
    if sys.platform != "darwin" and "forkserver" in multiprocessing.get_all_start_methods()
    else "spawn"
)


def processors() -> int:
    """How many processors this process may use; all of the machine where the system does not say."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def drawing_to_files() -> dict[str, str]:
    """The environment in which matplotlib draws to files, in its own style, whatever is set for notebooks."""
    environment = {"MPLBACKEND": "agg"}
    package = importlib.util.find_spec("matplotlib")
    for folder in (package and package.submodule_search_locations) or []:
        environment["MATPLOTLIBRC"] = str(Path(folder, "mpl-data", "matplotlibrc"))
    return environment
