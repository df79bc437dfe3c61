"""Tests of common/workers.py: what workers have when they start, and that none outlives its command."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from common.workers import PACKAGES, workers
from tests.kills import ends

ROOT = Path(__file__).parents[2]

COMMAND = """
import time
from common.workers import workers
pool = workers(2)
jobs = [pool.submit(time.sleep, seconds) for seconds in (0, 0, 0, 600, 600)]
jobs[0].result()
print("started", flush=True)
time.sleep(600)
"""


def loaded() -> tuple[set[str], set[int]]:
    """The modules of this process, and the signals that it does not get."""
    return set(sys.modules), set(signal.pthread_sigmask(signal.SIG_BLOCK, []))


def test_workers_start_with_the_packages_and_get_no_signals_for_the_command() -> None:
    with workers(1) as pool:
        modules, blocked = pool.submit(loaded).result()
    assert modules >= set(PACKAGES)
    assert blocked >= {signal.SIGINT, signal.SIGTERM}
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, []) & {signal.SIGINT, signal.SIGTERM}


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
