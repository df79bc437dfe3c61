"""All that a GPU has to show, in at most 8 minutes and one folder: `make gpu`, or `python -m tests.gpu OUT`.

Four steps: the tests marked gpu; all quick profiles on the GPU; their verdicts beside those of the CPU, from
`--cpu` or else trained here meanwhile; and the rate of each replication beside the ceilings of the GPU, with
what bounds it. Each has its time, after which it is stopped, and each is taken even if one before it failed.
`summary.md` says what came of them. Results that an earlier run left in the folder are used again. Exits with
0 if all is well, with 1 if not, and with 2 if there is no GPU.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]

BUDGETS = {"tests": 120.0, "quick": 210.0, "compare": 50.0, "rates": 80.0}
"""Seconds that each step may take; together they leave some of the 8 minutes for starting and ending."""

PROFILE = ["--profile", "quick"]

VERSIONED = [
    "torch",
    "triton",
    "lightning",
    "torchmetrics",
    "numpy",
    "scipy",
    "pandas",
    "pydantic",
    "jaxtyping",
]

INCONCLUSIVE = "inconclusive"


class Done(NamedTuple):
    """What came of a step: `problem` in a line, None if all is well; `said` goes into the summary."""

    name: str
    seconds: float
    problem: str | None
    said: str = ""


class Check:
    """The steps, with their common settings.

    Args:
        out: the folder for everything
        accelerator: cuda, or cpu to try this script
        names: the replications; none: all
        cpu: the folder of the CPU's report; None: it is made here
    """

    def __init__(self, out: Path, accelerator: str, names: list[str], cpu: Path | None) -> None:
        self.out = out
        self.accelerator = accelerator
        self.names = names
        self.cpu = cpu or out / "cpu" / "report"
        self.training: subprocess.Popen[bytes] | None = None
        self.makes_cpu = cpu is None

    def run(self) -> list[Done]:
        """Take all steps; what is still running at the end is stopped."""
        steps: dict[str, Callable[[float], tuple[str | None, str]]] = {
            "tests": self.tests, "quick": self.quick, "compare": self.compare, "rates": self.rates,
        }  # fmt: skip
        done = []
        try:
            if self.makes_cpu:
                self.training = self.start(
                    "cpu", self.replicate("run", "cpu", "--accelerator", "cpu", "--devices", str(_share(2)))
                )
            for name, step in steps.items():
                print(f"{name}: at most {BUDGETS[name]:.0f} s", flush=True)  # noqa: T201
                began = time.monotonic()
                try:
                    problem, said = step(began + BUDGETS[name])
                except Exception as error:  # the next step is to be taken
                    problem, said = f"{type(error).__name__}: {error}", ""
                done.append(Done(name, time.monotonic() - began, problem, said))
                print(f"{name}: {problem or 'well'}", flush=True)  # noqa: T201
        finally:
            if self.training is not None:
                _end(self.training)
        return done

    def tests(self, until: float) -> tuple[str | None, str]:
        """The tests marked gpu."""
        command = ["pytest", "-m", "gpu", "--accelerator", self.accelerator, "-p", "no:cacheprovider", "-rs"]
        if importlib.util.find_spec("xdist"):  # compiling takes most of their time
            command += ["-n", str(_share(4))]
        chosen = ["-k", " or ".join(name.split("/")[1] for name in self.names)] if self.names else []
        code = self.finish("tests", [*command, "--durations=10", *chosen, "tests"], until)
        last = _last_line(self.out / "tests.txt")
        if code is None:
            return _stopped("tests"), last
        return (None if code == 0 and "skipped" not in last else f"exit code {code}"), last

    def quick(self, until: float) -> tuple[str | None, str]:
        """All quick profiles on the GPU. Whether results match the record is said, but `compare` decides."""
        command = self.replicate("run", "gpu", "--accelerator", self.accelerator)
        if self.accelerator == "cpu":
            command += ["--devices", "1"]
        code = self.finish("quick", command, until)
        if code is None:
            return _stopped("quick"), ""
        return (None if code in (0, 1) else f"exit code {code}: {_last_line(self.out / 'quick.txt')}"), (
            "all results match the record" if code == 0 else "results differ from the record"
        )

    def compare(self, until: float) -> tuple[str | None, str]:
        """The verdicts on the GPU beside those on the CPU: equal, or different within chance."""
        if self.training is not None:
            with suppress(subprocess.TimeoutExpired):
                self.training.wait(max(until - time.monotonic() - 15, 1))  # the reports take seconds
            if self.training.poll() is None:
                return "the CPU's quick profiles were not trained in time: give a report with --cpu", ""
        for where in ["gpu", *(["cpu"] if self.makes_cpu else [])]:
            if code := self.finish(f"report_{where}", self.replicate("report", where), until):
                last = _last_line(self.out / f"report_{where}.txt")
                return f"no report on the results in {where}/: exit code {code}, {last}", ""
        gpu = self.out / "gpu" / "report"
        self.finish(
            "compare", ["common", "compare", str(self.cpu), str(gpu)], until
        )  # which shows all values
        lines = list(differences(_report(self.cpu), _report(gpu)))
        (self.out / "verdicts.txt").write_text("".join(f"{line}\n" for line, _ in lines), encoding="utf-8")
        n, by_chance = len(verdicts(_report(gpu))), sum(chance for _, chance in lines)
        said = f"of {n} claims, {n - len(lines)} have the same verdict, {by_chance} differ within chance"
        wrong = [line for line, chance in lines if not chance]
        return (f"{len(wrong)} verdicts differ beyond chance, the first: {wrong[0]}" if wrong else None), said

    def rates(self, until: float) -> tuple[str | None, str]:
        """The rate of each replication, and what bounds it."""
        path = self.out / "rates.json"
        path.unlink(missing_ok=True)
        code = self.finish("rates", ["tests.gpu_rates", str(path), self.accelerator, *self.names], until)
        found = (
            json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"ceilings": {}, "rates": []}
        )
        said = _table_of_rates(found)
        if code is None:
            return _stopped("rates"), said
        return (None if code == 0 else f"exit code {code}: {_last_line(self.out / 'rates.txt')}"), said

    def replicate(self, command: str, where: str, *arguments: str) -> list[str]:
        """The command `replicate` on the results in a folder of `out`."""
        return ["common", command, *self.names, *PROFILE, "--out", str(self.out / where), *arguments]

    def start(self, name: str, module: list[str]) -> subprocess.Popen[bytes]:
        """Start `python -m` these, in a group of its own; what it prints goes into a file of that name."""
        with (self.out / f"{name}.txt").open("wb") as file:
            return subprocess.Popen(
                [sys.executable, "-m", *module], cwd=ROOT, stdout=file, stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip

    def finish(self, name: str, module: list[str], until: float) -> int | None:
        """Run `python -m` these; the exit code, None if it was stopped because its time was up."""
        process = self.start(name, module)
        try:
            return process.wait(max(until - time.monotonic(), 1))
        except subprocess.TimeoutExpired:
            return None
        finally:
            _end(process)


def _share(of: int) -> int:
    """One in so many of the processors, at least one: training on the CPU goes on beside the other steps."""
    n = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, n // of)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and those that it started; nothing if it has ended."""
    if process.poll() is None:
        for number, seconds in ((signal.SIGTERM, 5), (signal.SIGKILL, 5)):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with suppress(subprocess.TimeoutExpired):
                process.wait(seconds)
                break


def _stopped(name: str) -> str:
    return f"stopped after its {BUDGETS[name]:.0f} s; {name}.txt has what it printed until then"


def _last_line(path: Path) -> str:
    lines = [line for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else "no output"


def _report(folder: Path) -> dict[str, Any]:
    path = folder if folder.suffix == ".json" else folder / "report.json"
    report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return report


def verdicts(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The claims of a report by replication and name, and of its controls those that they must fail."""
    found: dict[str, dict[str, Any]] = {}
    for one in report["replications"]:
        for control in (None, *one["controls"]):
            judged, prefix = (one, "") if control is None else (control, f"{control['name']}: ")
            found |= {f"{one['name']}: {prefix}{claim['name']}": claim for claim in judged["claims"]}
    return found


def differences(cpu: dict[str, Any], gpu: dict[str, Any]) -> Iterator[tuple[str, bool]]:
    """The verdicts that differ between two reports, in words, and whether chance may explain it.

    It may if one of the two is inconclusive, and the 95 % intervals of the two estimates overlap. Networks
    agree to rounding over their first steps, but not to the end: chaos makes other samples of them.
    """
    was, now = verdicts(cpu), verdicts(gpu)
    for name in {**was, **now}:
        if name not in was or name not in now:
            yield f"{name}: only in the report of the {'GPU' if name in now else 'CPU'}", False
        elif was[name]["verdict"] != now[name]["verdict"]:
            one, other = was[name], now[name]
            said = ", ".join(
                f"{side} {claim['verdict']}"
                + (f" {[claim[n] for n in _NUMBERS]}" if "value" in claim else "")
                for side, claim in (("CPU", one), ("GPU", other))
            )
            is_near = INCONCLUSIVE in (one["verdict"], other["verdict"])
            yield f"{name}: {said}", is_near and _overlap(one, other)


def _overlap(one: dict[str, Any], other: dict[str, Any]) -> bool:
    if any(claim.get(end) is None for claim in (one, other) for end in ("low", "high")):
        return (
            True  # an interval without an end, or the claim of a control, whose numbers are not in the report
        )
    return bool(max(one["low"], other["low"]) <= min(one["high"], other["high"]))


_NUMBERS = ("value", "low", "high")


def _table_of_rates(found: dict[str, Any]) -> str:
    lines = [f"{name}: {said}" for name, said in found["ceilings"].items()]
    lines += [
        "",
        "| replication | networks | at once | per s | of the ceiling | bounded by |",
        "|" + "---|" * 6,
    ]
    for row in found["rates"]:
        shares = ", ".join(f"{what} {share:.0%}" for what, share in row["shares"].items())
        cells = [row["name"], row["shape"], f"{row['networks']:,}", f"{row['rate']:,.0f}"]
        lines.append("| " + " | ".join([*cells, f"{row['of_the_ceiling']:.0%}", shares]) + " |")
    lines += [f"{name}: {why}" for name, why in found.get("failed", {}).items()]
    return "\n".join(lines)


def machine(accelerator: str) -> dict[str, str]:
    """What all of this ran on."""
    import torch

    found = {"python": platform.python_version(), "system": platform.platform()}
    for name in VERSIONED:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    found["CUDA of torch"] = str(torch.version.cuda)
    found["processors"] = str(os.cpu_count())
    if accelerator == "cuda":
        device = torch.cuda.get_device_properties(0)
        found["GPU"] = f"{torch.cuda.device_count()} x {device.name}, {device.total_memory / 2**30:.0f} GiB"
        with suppress(OSError, subprocess.SubprocessError):
            asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
            said = subprocess.run(asked, capture_output=True, text=True, timeout=20, check=True).stdout
            found["driver"] = ", ".join(sorted(set(said.split())))
    return found


def summary(done: list[Done], ran_on: dict[str, str]) -> str:
    """What came of all steps, as Markdown."""
    failed = [one for one in done if one.problem]
    lines = [
        "# GPU check",
        "",
        f"{len(failed)} of {len(done)} steps failed." if failed else "All is well.",
        "",
    ]
    lines += ["| step | seconds | result |", "|---|---|---|"]
    lines += [f"| {one.name} | {one.seconds:.0f} | {one.problem or 'well'} |" for one in done]
    lines += ["", f"Together {sum(one.seconds for one in done):.0f} s.", ""]
    for one in done:
        lines += [f"## {one.name}", "", one.said or "Nothing to say.", ""]
    return "\n".join([*lines, "## Machine", "", *(f"- {name}: {is_}" for name, is_ in ran_on.items()), ""])


@contextmanager
def _no_time_lost() -> Iterator[None]:
    """SIGTERM ends the steps as an interrupt does, so that no process is left."""

    def interrupted(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupted)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def main(arguments: list[str] | None = None) -> int:
    """Take all steps, and write the summary; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.gpu", description=__doc__)
    parser.add_argument("out", nargs="?", type=Path, default=ROOT / "results" / "gpu", metavar="OUT")
    what = "the report of the CPU on the same quick profiles, a folder with report.json; default: made here"
    parser.add_argument("--cpu", type=Path, metavar="REPORT", help=what)
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="one of the replications")
    # to try this script where there is no GPU
    parser.add_argument("--accelerator", choices=["cuda", "cpu"], default="cuda", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    import torch

    if options.accelerator == "cuda" and not torch.cuda.is_available():
        print(f"gpu: torch {torch.__version__} sees no CUDA GPU on this machine", file=sys.stderr)  # noqa: T201
        return 2
    if options.cpu is not None and not (options.cpu / "report.json").is_file():
        print(f"gpu: --cpu {options.cpu}: there is no report.json in this folder", file=sys.stderr)  # noqa: T201
        return 2
    out: Path = options.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    ran_on = machine(options.accelerator)
    cpu = options.cpu.absolute() if options.cpu else None
    try:
        with _no_time_lost():
            done = Check(out, options.accelerator, options.only, cpu).run()
    except KeyboardInterrupt:
        print("gpu: stopped", file=sys.stderr)  # noqa: T201
        return 130
    (out / "summary.md").write_text(summary(done, ran_on), encoding="utf-8")
    print(summary(done, ran_on))  # noqa: T201
    return 1 if any(one.problem for one in done) else 0


if __name__ == "__main__":
    sys.exit(main())
