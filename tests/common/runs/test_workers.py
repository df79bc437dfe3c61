"""Tests of runs/workers.py: what workers have when they start, and that none outlives its command."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from common.runs.workers import ENVIRONMENT, PACKAGES, WORTH_WORKERS, spread, starting, uninterrupted, workers
from common.system.machine import START_METHOD
from tests.kills import ends

ROOT = Path(__file__).parents[3]

COMMAND = """
import time
from common.runs.workers import workers
pool = workers(2)
jobs = [pool.submit(time.sleep, seconds) for seconds in (0, 0, 0, 600, 600)]
jobs[0].result()
print("started", flush=True)
time.sleep(600)
"""


def loaded() -> tuple[set[str], set[int], dict[str, str], int]:
    """The modules of this process, the signals that it does not get, its environment, torch's threads."""
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    return set(sys.modules), set(blocked), dict(os.environ), torch.get_num_threads()


def test_workers_have_the_packages_and_one_thread_and_get_no_signals_for_the_command() -> None:
    before = dict(os.environ)
    with workers(1) as pool:
        with starting():
            future = pool.submit(loaded)
        modules, blocked, environment, threads = future.result()
    assert START_METHOD != "forkserver" or modules >= set(PACKAGES)
    assert threads == 1
    assert environment.items() >= ENVIRONMENT.items()
    assert os.environ == before
    assert blocked >= {signal.SIGINT, signal.SIGTERM}
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, []) & {signal.SIGINT, signal.SIGTERM}


def test_few_things_are_done_here_and_many_in_workers_in_order() -> None:
    def processes(n: int) -> list[int]:
        with spread(n) as spread_map:
            return list(spread_map(_process, range(n)))

    assert processes(WORTH_WORKERS - 1) == [os.getpid()] * (WORTH_WORKERS - 1)
    assert os.getpid() not in processes(WORTH_WORKERS)
    with spread(WORTH_WORKERS) as spread_map:
        assert list(spread_map(str, range(WORTH_WORKERS))) == ["0", "1", "2", "3"]


def _process(number: int) -> int:
    return os.getpid()


def test_an_error_ends_what_workers_are_doing() -> None:
    def fail() -> None:
        with spread(WORTH_WORKERS) as spread_map:
            spread_map(time.sleep, [600] * WORTH_WORKERS)
            raise KeyError

    began = time.monotonic()
    with pytest.raises(KeyError):
        fail()
    assert time.monotonic() - began < 300


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_put_off_also_where_another_thread_takes_it(number: signal.Signals) -> None:
    """Which one takes a signal is the system's to choose, of those that do not block it."""
    came: list[bool] = []
    before = signal.signal(number, lambda taken, frame: came.append(True))
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        with uninterrupted():
            os.kill(os.getpid(), number)
            time.sleep(0.1)
            assert not came
        assert came
    finally:
        signal.signal(number, before)
        done.set()
        thread.join()


def test_no_worker_outlives_a_command_that_is_killed() -> None:
    command = subprocess.Popen(
        [sys.executable, "-c", COMMAND], cwd=ROOT, stdout=subprocess.PIPE, start_new_session=True, text=True
    )
    assert command.stdout is not None
    assert command.stdout.readline() == "started\n"
    os.kill(command.pid, signal.SIGKILL)
    command.wait()
    command.stdout.close()
    assert ends(command.pid)
