"""Worker processes, forked from one that has imported the large packages: no worker imports them again.

Where forking is not safe, each is a new process, and imports them.

This module imports none of them: the command starts that process before it imports them itself.
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
"""For so many things to do and more, worker processes save more time than it takes to start them."""

PACKAGES = ["lightning", "matplotlib.pyplot", "pandas", "scipy.stats", "torch._inductor.compile_fx"]
"""Not `common`: a worker has that from where the command has it."""

ENVIRONMENT = {
    # there is a worker for each processor: numpy and torch read this when they are imported
    **{"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
    # glibc is to keep what is freed, here up to 32 MB at once and 1 GB in all: in some processes it gave the
    # arrays of each step back to the system, whose new pages then took four times as long as the step
    **{"MALLOC_MMAP_THRESHOLD_": str(32 * 2**20), "MALLOC_TRIM_THRESHOLD_": str(2**30)},
    **drawing_to_files(),
}
"""What workers have in their environment; other C libraries than glibc do not know its variables."""

CONTEXT = multiprocessing.get_context(START_METHOD)

_PUT_OFF = (signal.SIGINT, signal.SIGTERM)

_UNGUARDED = 83
"""The exit code of a worker that, to begin, would run a script that starts workers: no other of ours."""

_CANNOT_START = (OSError, ImportError, NotImplementedError)
"""What Python raises where the system lacks the shared memory, semaphores or processes that it needs."""


def prepare() -> None:
    """Start the process that workers are forked from, which imports for seconds beside what goes on."""
    compiling.prepare()
    resource_tracker.ensure_running()  # when it starts it lets signals come through again
    if START_METHOD == "forkserver":
        CONTEXT.set_forkserver_preload(PACKAGES)
        with starting():
            forkserver.ensure_running()


def prepare_early() -> None:
    """`prepare`, where that is possible: where it is not, whoever then needs workers is told."""
    with suppress(*_CANNOT_START):
        prepare()


def workers(n: int, start: Callable[..., Any] | None = None, *arguments: Any) -> ProcessPoolExecutor:
    """A pool of `n` processes, each of which first calls `start` with these arguments.

    They get no SIGINT or SIGTERM, which are for the command, and end with it, however that ends. Submit to it
    while `starting`, as that starts them.

    Raises:
        InputError: if this system cannot start any.
    """
    end_if_starting()
    with startable():
        prepare()
        return ProcessPoolExecutor(n, CONTEXT, _begin, (start, *arguments))


@contextmanager
def startable(instead: str = "`--devices 1` trains in one process") -> Iterator[None]:
    """Say in one line of an error in here that this system cannot start workers, and what can be done.

    Raises:
        InputError: for such an error.
    """
    try:
        yield
    except _CANNOT_START as error:
        from common.errors import InputError, one_line

        raise InputError(
            f"worker processes cannot be started: {one_line(error)} (on Linux: is /dev/shm there, and can "
            f"one write to it?); {instead}"
        ) from error


def end_if_starting() -> None:
    """End this process if it is a worker that still begins, and runs the command's script to do so.

    The script must have its work below `if __name__ == "__main__":`, and this one has not.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        os._exit(_UNGUARDED)


@contextmanager
def spread(n: int) -> Iterator[Callable[..., Iterator[Any]]]:
    """A `map` for `n` things to do: with few Python's own, with many one that starts all on all processors.

    Where no workers can be started it is Python's own as well. An error in this context ends the workers.

    Raises:
        InputError: if a worker ends before its work does.
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
    """A pool of `n` workers, one of them started; None where the system cannot start any."""
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
    """End `pool`, of which a worker has ended by itself; the error that says how."""
    from common.errors import InputError

    processes = list(pool._processes.values())
    kill(pool)
    pool.shutdown()  # its own thread asks for the exit codes, which can be had once; then they are known
    return InputError(_why_ended([code for process in processes if (code := process.exitcode) is not None]))


def _why_ended(codes: list[int]) -> str:
    """Why workers ended, as the exit codes of all tell; below 0 they are signals."""
    if _UNGUARDED in codes:
        return (
            "workers run the script that starts them: put what it does below `if __name__ == '__main__':`, "
            "or train in one process (devices=1)"
        )
    kept = "what is finished is kept"
    # the rest were killed here, or all were and one of them was not
    itself = [code for code in codes if code not in (-signal.SIGKILL, -signal.SIGTERM)]
    if not itself:
        return (
            "a worker process was killed, most likely by the system as memory ran out; fewer at once need "
            f"less (--devices); {kept}"
        )
    how = f"by signal {-itself[0]}" if itself[0] < 0 else f"with exit code {itself[0]}"
    with suppress(ValueError):
        how = f"by {signal.Signals(-itself[0]).name}"
    return f"a worker process has ended before its work was done, {how}; what it said stands above; {kept}"


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
def starting() -> Iterator[None]:
    """Processes started in here have the workers' environment, and never get SIGINT and SIGTERM."""
    before = dict(os.environ)
    os.environ.update(ENVIRONMENT)
    main = sys.modules["__main__"]
    script = getattr(main, "__file__", None)
    try:
        if script is not None and not Path(script).exists():
            main.__file__ = None  # a script that came as input, <stdin>, which no worker can run
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
