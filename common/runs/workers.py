"""Worker processes, forked from a server that has imported the large packages: no worker imports them again.

Where forking is not safe, each worker is a new process and imports them itself.

This module imports none of them: the command starts the server before it imports them itself.
"""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing import forkserver, resource_tracker
from pathlib import Path
from typing import Any

from common.system import compiling, streams
from common.system.machine import START_METHOD, drawing_to_files, processors

WORTH_WORKERS = 4
"""From this many tasks on, worker processes save more time than it takes to start them."""

PACKAGES = ["lightning", "matplotlib.pyplot", "pandas", "scipy.stats", "torch._inductor.compile_fx"]
"""Not `common`: a worker imports it from where the command does."""

ENVIRONMENT = {
    # there is one worker per processor: numpy and torch read these when they are imported
    **{"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
    # make glibc keep freed memory, up to 32 MB at once and 1 GB in all: in some processes it returned the
    # arrays of each step to the system, whose new pages then took four times as long as the step
    **{"MALLOC_MMAP_THRESHOLD_": str(32 * 2**20), "MALLOC_TRIM_THRESHOLD_": str(2**30)},
    **drawing_to_files(),
}
"""Variables in the environment of workers; C libraries other than glibc ignore its variables."""

CONTEXT = multiprocessing.get_context(START_METHOD)

_PUT_OFF = (signal.SIGINT, signal.SIGTERM)

_UNGUARDED = 83
"""The exit code of a worker that would have to run a script that starts workers; used for nothing else."""

_CANNOT_START = (OSError, ImportError, NotImplementedError)
"""What Python raises where the system lacks the shared memory, semaphores or processes needed."""


def prepare() -> None:
    """Start the server that workers are forked from, which imports packages for seconds in parallel."""
    compiling.prepare()
    _track_resources()
    if START_METHOD == "forkserver":
        CONTEXT.set_forkserver_preload(PACKAGES)
        with starting():
            forkserver.ensure_running()


def _track_resources() -> None:
    """Start the process that frees what ended workers leave behind, which it would warn of every time."""
    name, before = "PYTHONWARNINGS", os.environ.get("PYTHONWARNINGS")
    os.environ[name] = ",".join(filter(None, [before, "ignore:resource_tracker:UserWarning"]))
    try:
        resource_tracker.ensure_running()  # when it starts, it unblocks signals again
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def prepare_early() -> None:
    """`prepare` if possible; if not, whoever needs workers later gets the error."""
    with suppress(*_CANNOT_START):
        prepare()


def workers(n: int, start: Callable[..., Any] | None = None, *arguments: Any) -> ProcessPoolExecutor:
    """A pool of `n` processes, each of which first calls `start` with these arguments.

    They get no SIGINT or SIGTERM, which are for the command, and end when it ends, in whatever way. Submit
    tasks inside `starting`, because submitting starts them.

    Raises:
        InputError: if this system cannot start any.
    """
    end_if_starting()
    with startable():
        prepare()
        return ProcessPoolExecutor(n, CONTEXT, _begin, (start, *arguments))


@contextmanager
def startable(instead: str = "`--devices 1` trains in one process") -> Iterator[None]:
    """Report in one line an error in this context: workers cannot be started, and what can be done.

    Raises:
        InputError: for such an error.
    """
    try:
        yield
    except _CANNOT_START as error:
        from common.errors import InputError, one_line

        raise InputError(
            f"worker processes cannot be started: {one_line(error)} (on Linux, does /dev/shm exist, and is "
            f"it writable?); {instead}"
        ) from error


def end_if_starting() -> None:
    """End this process if it is a worker that is still starting and runs the command's script to do so.

    A script must have its work below `if __name__ == "__main__":`, and this one does not.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        os._exit(_UNGUARDED)


@contextmanager
def spread(n: int) -> Iterator[Callable[..., Iterator[Any]]]:
    """A `map` for `n` tasks: Python's own for few, one that uses all processors for many.

    It is also Python's own where no workers can be started. An error in this context ends the workers.

    Raises:
        InputError: if a worker ends before its work is done.
    """
    pool = _pool(min(processors(), n)) if n >= WORTH_WORKERS else None
    if pool is None:
        yield map
        return

    def start_all(*of: Any) -> Iterator[Any]:
        with starting():  # until all workers are known, so that they can be ended
            return pool.map(*of)

    with pool:
        try:
            yield start_all
        except BrokenProcessPool:
            raise broken(pool) from None
        except BaseException:
            kill(pool)
            raise


def _pool(n: int) -> ProcessPoolExecutor | None:
    """A pool of `n` workers, one of them started; None if the system cannot start any."""
    from common.errors import InputError

    with suppress(InputError):
        pool = workers(n)
        with startable(), starting():
            pool.submit(os.getpid)
        return pool
    return None


def kill(pool: ProcessPoolExecutor) -> None:
    """End the processes of `pool` at once; Python 3.14 has a method for it."""
    for worker in list(pool._processes.values()):
        worker.kill()


def broken(pool: ProcessPoolExecutor) -> Exception:
    """End `pool`, one of whose workers ended unexpectedly; returns the error that says how."""
    from common.errors import InputError

    processes = list(pool._processes.values())
    kill(pool)
    pool.shutdown()  # its own thread collects the exit codes, which can be read only once
    return InputError(_why_ended([code for process in processes if (code := process.exitcode) is not None]))


def _why_ended(codes: list[int]) -> str:
    """Why workers ended, judging by the exit codes of all; negative ones are signals."""
    if _UNGUARDED in codes:
        return (
            "workers run the script that starts them: put its code below `if __name__ == '__main__':`, "
            "or train in one process (devices=1)"
        )
    kept = "finished work is kept"
    # the others were killed by `kill`; the one that ended by itself has another exit code
    itself = [code for code in codes if code not in (-signal.SIGKILL, -signal.SIGTERM)]
    if not itself:
        return (
            "a worker process was killed, most likely by the system because memory ran out; fewer workers "
            f"need less (--devices); {kept}"
        )
    how = f"by signal {-itself[0]}" if itself[0] < 0 else f"with exit code {itself[0]}"
    with suppress(ValueError):
        how = f"by {signal.Signals(-itself[0]).name}"
    return f"a worker process ended before its work was done, {how}; its output is above; {kept}"


def _begin(start: Callable[..., Any] | None, *arguments: Any) -> None:
    threading.Thread(target=_end_with_the_command, daemon=True).start()
    streams.guard()  # a model may print where nobody reads
    if start is not None:
        start(*arguments)


def _end_with_the_command() -> None:
    command = multiprocessing.parent_process()
    assert command is not None
    command.join()
    os._exit(1)


@contextmanager
def starting() -> Iterator[None]:
    """Processes started in this context have the workers' environment, and never get SIGINT or SIGTERM."""
    before = dict(os.environ)
    os.environ.update(ENVIRONMENT)
    main = sys.modules["__main__"]
    script = getattr(main, "__file__", None)
    try:
        if script is not None and not Path(script).exists():
            main.__file__ = None  # a script from standard input, <stdin>, which no worker can run
        with uninterrupted():
            yield
    finally:
        if script is not None:
            main.__file__ = script
        for name in ENVIRONMENT:
            os.environ.pop(name, None)
        os.environ.update(before)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Postpone SIGINT and SIGTERM; processes started in this context never get them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _PUT_OFF)
    came: list[int] = []
    # another thread, such as one of numpy's, may take a signal that this one blocks; Python handles it here
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
