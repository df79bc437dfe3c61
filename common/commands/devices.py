"""Where a command trains: this machine's devices, or a cluster."""

import argparse
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from common.errors import InputError
from common.runs.cluster import cluster
from common.runs.training import Devices, Place


def devices(options: argparse.Namespace) -> Devices:
    """The devices of this machine that a command line asks for.

    Raises:
        InputError: if this machine does not have them.
    """
    try:
        return Devices.choose(options.accelerator, options.devices)
    except ValueError as error:
        raise InputError(f"--accelerator/--devices: {error}") from None


def place(options: argparse.Namespace, roots: list[Path]) -> AbstractContextManager[Place]:
    """Where a run trains: this machine's devices, or a cluster, which gets the code of these roots.

    Raises:
        InputError: as `devices` and `cluster`, or for an address without a cluster.
    """
    if options.on is None:
        if options.address is not None:
            raise InputError(f"--address {options.address}: allowed only with --on ray")
        return nullcontext(devices(options))
    return cluster(options.address, roots, options.accelerator, options.devices)
