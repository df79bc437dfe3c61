"""Worker processes, forked from one that has imported the large packages: no worker imports them again."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker
from typing import Any

import torch

PACKAGES = ["lightning", "matplotlib.pyplot", "pandas", "scipy.stats"]
"""Not `common`: a worker has that from where the command has it."""

CONTEXT = multiprocessing.get_context("forkserver")


def prepare() -> None:
    """Start the process that workers are forked from, which imports for seconds beside what goes on."""
    CONTEXT.set_forkserver_preload(PACKAGES)
    resource_tracker.ensure_running()  # when it starts it lets signals come through again
    with uninterrupted():
        forkserver.ensure_running()


def workers(n: int, start: Callable[..., Any] | None = None, *arguments: Any) -> ProcessPoolExecutor:
    """A pool of `n` processes, each of which first calls `start` with these arguments.

    They get no SIGINT or SIGTERM, which are for the command, and end with it, however that ends.
    """
    prepare()
    return ProcessPoolExecutor(n, CONTEXT, _begin, (start, *arguments))


def _begin(start: Callable[..., Any] | None, *arguments: Any) -> None:
    threading.Thread(target=_end_with_the_command, daemon=True).start()
    if start is not None:
        start(*arguments)


def _end_with_the_command() -> None:
    command = multiprocessing.parent_process()
    assert command is not None
    command.join()
    os._exit(1)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread: several are slower on arrays this small, many times on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Put SIGINT and SIGTERM off; processes started meanwhile never get them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
