"""Kills runs at random moments, again and again, and sees that they end with the tables of one left alone.

    python -m tests.kills --kills 50

Runs are stopped `--kills` times by each signal of `--mode`: SIGKILL ends the run's own process or, as often,
its workers with it; SIGTERM and SIGINT are sent to the run. Four of five come within the time that training
takes, the fifth at any time. One that was stopped is started again, and then mostly left alone if all is
trained; another begins whenever it has come to its end. Exits with 1 if a table differs, a process is left,
or a run ends otherwise than it should.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from tests import often

ROOT = Path(__file__).parents[1]

QUICK = ["--profile", "quick"]

CASES = [
    # hooks of its own, a schedule in steps, the optimiser's state cleared in the middle
    ["incidental_polysemanticity/duplication", *QUICK, "--set", "trainer.max_steps=3000"],
    # random draws, a compiled step, and what it records in Python
    ["incidental_polysemanticity/noise", *QUICK, "--set", "trainer.max_steps=2000", "--set", "shard_size=32"],
    # networks that settle one by one
    ["incidental_polysemanticity/start_correlation", *QUICK, "--set", "trainer.max_steps=2500"],
]
"""What `replicate run` gets: replications of seconds, each of several shards."""

TRAINED = "with all trained"

SIGNALS = {name: getattr(signal, name) for name in ("SIGKILL", "SIGTERM", "SIGINT")}

ENDS = {"SIGKILL": [-9], "SIGTERM": [143, -15], "SIGINT": [130, -2]}
"""How a run may end; negative: by the signal itself, while it is still importing modules."""


@dataclass
class Tally:
    """What came of the kills by one signal."""

    kills: Counter[str] = field(default_factory=Counter)
    finished: int = 0
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        moments = ", ".join(f"{n} {when}" for when, n in self.kills.items())
        return f"{self.kills.total()} kills ({moments}); {self.finished} runs to their end"


def main(arguments: Sequence[str] | None = None) -> int:
    """Kill runs as the command line says; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.kills", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--kills", type=int, default=50, help="by each signal (default: 50)")
    parser.add_argument(
        "--mode", choices=SIGNALS, action="append", help="may be repeated (default: all three)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    parser.add_argument("--devices", type=int, default=2, help="workers of a run (default: 2)")
    options = parser.parse_args(arguments)
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # in the background it would be passed on as ignored
    with tempfile.TemporaryDirectory() as folder:
        kills = Kills(Path(folder), CASES, options.devices, options.seed)
        failed = False
        for mode in options.mode or SIGNALS:
            start = time.monotonic()
            tally = kills.run(mode, options.kills)
            print(f"{mode}: {tally}, {time.monotonic() - start:.0f} s", flush=True)  # noqa: T201
            for problem in tally.problems or [
                "every table as undisturbed, no process left, every end as it should be"
            ]:
                print(f"  {problem}", flush=True)  # noqa: T201
            failed |= bool(tally.problems)
    return int(failed)


class Kills:
    """Runs of some replications in folders below `folder`, each first once undisturbed.

    Args:
        folder: where all results go
        cases: what each run gets on its command line
        devices: workers of a run
        seed: of the moments
    """

    def __init__(self, folder: Path, cases: list[list[str]], devices: int, seed: int) -> None:
        self.folder = folder
        self.cases = cases
        self.devices = devices
        self.random = random.Random(seed)
        self.n_folders = 0
        self.seconds: list[tuple[float, float]] = []
        """Of each case, until all is trained and until its end."""
        self.undisturbed: list[dict[str, pd.DataFrame]] = []
        for case in cases:
            for _ in range(2):  # the second finds what the first compiled
                out, start = self._new_folder(), time.monotonic()
                with self._started(case, out) as process:
                    while moment_of(out) != TRAINED and process.poll() is None:
                        time.sleep(0.05)
                    trained = time.monotonic() - start
                    if process.wait() != 0:
                        raise RuntimeError(f"{case[0]}: {(out / 'log').read_text(encoding='utf-8')}")
            self.seconds.append((trained, time.monotonic() - start))
            self.undisturbed.append(tables(out))

    def run(self, mode: str, n_kills: int) -> Tally:
        """Kill runs of one replication after the other, `n_kills` times in all."""
        tally = Tally()
        position = 0
        while True:
            case = self.cases[position % len(self.cases)]
            out = self._new_folder()
            while self._one(mode, case, self.seconds[position % len(self.cases)], out, n_kills, tally):
                pass
            if difference(tables(out), self.undisturbed[position % len(self.cases)]):
                tally.problems.append(f"{case[0]}: another table than undisturbed, in {out}")
            if list(out.glob("**/partial/*")) or list(out.glob("**/.*.tmp")):
                tally.problems.append(f"{case[0]}: something is left in {out}")
            tally.finished += 1
            position += 1
            if tally.kills.total() >= n_kills and position >= len(self.cases):
                return tally

    def _one(
        self, mode: str, case: list[str], seconds: tuple[float, float], out: Path, n_kills: int, tally: Tally
    ) -> bool:
        """Start a run and kill it at some moment; False if it came to its end before."""
        # with nothing left to train a run takes as long again: most are left to end, so that others begin
        spared = moment_of(out) == TRAINED and self.random.random() < 0.8
        with self._started(case, out) as process:
            moment = self.random.uniform(0, seconds[self.random.random() < 0.2])
            group = self.random.random() < 0.5
            if spared or tally.kills.total() >= n_kills:
                moment = 600
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=moment)
            if process.poll() is not None:
                if process.returncode != 0:
                    log = (out / "log").read_text(encoding="utf-8")
                    tally.problems.append(
                        f"{case[0]}: exit code {process.returncode}, in {out}: {log[-2000:]}"
                    )
                return False
            tally.kills[moment_of(out)] += 1
            if mode == "SIGKILL" and group:
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.send_signal(SIGNALS[mode])
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                tally.problems.append(f"{case[0]}: not ended 60 s after {mode}")
            log = (out / "log").read_text(encoding="utf-8")
            # 0: the signal came when all was done
            if process.returncode is None or process.returncode not in [*ENDS[mode], 0]:
                tally.problems.append(
                    f"{case[0]}: exit code {process.returncode} after {mode}: {log[-2000:]}"
                )
            elif process.returncode > 0 and (
                "stopped; run the same command" not in log or "Traceback" in log
            ):
                tally.problems.append(f"{case[0]}: after {mode} it said: {log[-2000:]}")
            if not ends(process.pid):
                tally.problems.append(f"{case[0]}: processes outlive {mode} by 60 s")
        return True

    @contextmanager
    def _started(self, case: list[str], out: Path) -> Iterator["subprocess.Popen[bytes]"]:
        """A run in a group of its own, of which nothing is left afterwards."""
        arguments = ["run", *case, "--out", str(out), "--devices", str(self.devices), "--accelerator", "cpu"]
        command = [sys.executable, "-m", often.__name__, *arguments]
        with (out / "log").open("wb") as log:
            process = subprocess.Popen(
                command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _new_folder(self) -> Path:
        self.n_folders += 1
        folder = self.folder / str(self.n_folders)
        folder.mkdir()
        return folder


def moment_of(out: Path) -> str:
    """How far a run is, from what it has written."""
    locks, manifests = len(list(out.glob("*/*/*/*/lock"))), len(list(out.glob("*/*/*/*/manifest.json")))
    if not locks:
        return "at the start"
    if manifests == locks:
        return TRAINED
    if list(out.glob("*/*/*/*/partial/*.ckpt")):
        return "inside a shard, with a checkpoint"
    if list(out.glob("*/*/*/*/shards/*")):
        return "with shards stored"
    return "starting workers, compiling, first steps"


def tables(out: Path) -> dict[str, pd.DataFrame]:
    """All final tables below a folder, by the folder that each is in."""
    paths = out.glob("*/*/*/*/instances.parquet")
    return {str(path.parent.relative_to(out)): pd.read_parquet(path) for path in paths}


def difference(some: dict[str, pd.DataFrame], others: dict[str, pd.DataFrame]) -> bool:
    """Whether two runs' tables differ, in any bit of any number."""
    try:
        assert some.keys() == others.keys() != set()
        for name, table in some.items():
            pd.testing.assert_frame_equal(table, others[name], check_exact=True)
    except AssertionError:
        return True
    return False


def ends(group: int, seconds: float = 60) -> bool:
    """Whether all processes of a group end within some time."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.02)
    return False


if __name__ == "__main__":
    sys.exit(main())
