"""Worker processes, forked from one that has imported the large packages: no worker imports them again.

This module imports none of them: the command starts that process before it imports them itself.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker
from typing import Any

from common import streams

WORTH_WORKERS = 4
"""For so many things to do and more, worker processes save more time than it takes to start them."""

PACKAGES = ["lightning", "matplotlib.pyplot", "pandas", "scipy.stats", "torch._inductor.compile_fx"]
"""Not `common`: a worker has that from where the command has it."""

ENVIRONMENT = {
    # there is a worker for each processor: numpy and torch read this when they are imported
    **{"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
    # glibc is to keep what is freed, here up to 32 MB at once and 1 GB in all: in some processes it gave the
    # arrays of each step back to the system, whose new pages then took four times as long as the step
    **{"MALLOC_MMAP_THRESHOLD_": str(32 * 2**20), "MALLOC_TRIM_THRESHOLD_": str(2**30)},
}
"""What workers have in their environment."""

_PUT_OFF = (signal.SIGINT, signal.SIGTERM)

CONTEXT = multiprocessing.get_context("forkserver")


def prepare() -> None:
    """Start the process that workers are forked from, which imports for seconds beside what goes on."""
    CONTEXT.set_forkserver_preload(PACKAGES)
    resource_tracker.ensure_running()  # when it starts it lets signals come through again
    before = dict(os.environ)
    os.environ.update(ENVIRONMENT)
    try:
        with uninterrupted():
            forkserver.ensure_running()
    finally:
        for name in ENVIRONMENT:
            del os.environ[name]
        os.environ.update(before)


def workers(n: int, start: Callable[..., Any] | None = None, *arguments: Any) -> ProcessPoolExecutor:
    """A pool of `n` processes, each of which first calls `start` with these arguments.

    They get no SIGINT or SIGTERM, which are for the command, and end with it, however that ends.
    """
    prepare()
    return ProcessPoolExecutor(n, CONTEXT, _begin, (start, *arguments))


@contextmanager
def spread(n: int) -> Iterator[Callable[..., Iterator[Any]]]:
    """A `map` for `n` things to do: with few Python's own, with many one that starts all on all processors.

    An error in this context ends the workers.
    """
    if n < WORTH_WORKERS:
        yield map
        return
    with workers(min(len(os.sched_getaffinity(0)), n)) as pool:

        def start_all(*of: Any) -> Iterator[Any]:
            with uninterrupted():  # until all workers are known, so that they can be ended
                return pool.map(*of)

        try:
            yield start_all
        except BaseException:
            kill(pool)
            raise


def kill(pool: ProcessPoolExecutor) -> None:
    """End the processes of `pool` at once; Python 3.14 has a method for it."""
    for worker in list(pool._processes.values()):
        worker.kill()


def _begin(start: Callable[..., Any] | None, *arguments: Any) -> None:
    threading.Thread(target=_end_with_the_command, daemon=True).start()
    streams.guard()  # what a model prints may have no reader
    if start is not None:
        start(*arguments)


def _end_with_the_command() -> None:
    command = multiprocessing.parent_process()
    assert command is not None
    command.join()
    os._exit(1)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Put SIGINT and SIGTERM off; processes started meanwhile never get them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _PUT_OFF)
    came: list[int] = []
    # another thread, one of numpy's, say, takes a signal that this one blocks, and Python handles it here
    handlers = {
        number: signal.signal(number, lambda number, frame: came.append(number))
        for number in (_PUT_OFF if threading.current_thread() is threading.main_thread() else ())
    }
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for taken in came:
            signal.raise_signal(taken)
