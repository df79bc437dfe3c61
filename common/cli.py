"""The command `replicate`: its arguments, its exit codes, and which code each command runs."""

import argparse
import importlib.metadata
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from common.errors import InputError, blame, one_line, told
from common.runs.workers import WORTH_WORKERS
from common.specs.find import find_root
from common.system import streams
from common.system.files import given_path
from common.system.terminal import Terminal
from common.system.text import visible

Prepare = Callable[[bool], None]
"""Called before torch is imported, with whether workers will be needed."""


def main(arguments: Sequence[str] | None = None, prepare: Prepare = lambda needs_workers: None) -> int:
    """Run `replicate` with these arguments (default: the command line's); the exit code.

    A command that needs large packages calls `prepare` before it imports them.

    0: all results match the record; 1: a verdict or value differs; 2: bad input or an error, reported in one
    line; 130 and 143: stopped by SIGINT and SIGTERM. A closed output pipe changes nothing.
    """
    with streams.guarded() as lost:
        errors = Terminal(stderr=True, soft_wrap=True)
        code = _main(arguments, prepare, Terminal(), errors)
        sys.stdout.flush()
        if lost and code != 2:
            why = lost[0].strerror
            errors.print(f"replicate: standard output: {why}; finished work is kept")
        return 2 if lost else code


def _main(arguments: Sequence[str] | None, prepare: Prepare, console: Terminal, errors: Terminal) -> int:
    before, form = signal.getsignal(signal.SIGTERM), warnings.formatwarning
    warnings.formatwarning = lambda *parts: visible(form(*parts))
    with suppress(ValueError):  # not in the main thread
        signal.signal(signal.SIGTERM, _terminate)
    options = None
    try:
        try:
            options = _parser().parse_args(arguments)
        except SystemExit:  # the help or the version is printed
            return 0
        return _run(options, prepare, console)
    except KeyboardInterrupt as interrupt:
        errors.print("replicate: stopped; run the same command again to continue")
        return 143 if isinstance(interrupt, _Terminated) else 130
    except BaseException as error:  # SystemExit too: whatever ends a command early is an error
        if options is not None and options.traceback:
            errors.verbatim(traceback.format_exc())
        errors.print(f"replicate: {_in_a_line(error)}")
        return 2
    finally:
        warnings.formatwarning = form
        with suppress(ValueError):
            signal.signal(signal.SIGTERM, before)


def _run(options: argparse.Namespace, prepare: Prepare, console: Terminal) -> int:
    """Run a command; the exit code.

    The code of each is imported only here: what most of them need takes seconds to import, and mistakes in
    the arguments and in the files of what is asked for are reported without it.
    """
    from common.commands import light

    if options.command == "new":  # which makes the folder
        return light.new(options, options.root or Path.cwd(), console)
    root = find_root(options.root)
    match options.command:
        case "list":
            return light.list_all(options, root, console)
        case "cite":
            return light.cite(options, root, console)
        case "compare":
            return light.compare(options, console)
        case "report" if options.schema:
            return light.print_schema(console)
    from common.commands.asked import read_asked, read_specs

    if options.command == "bench":
        specs = read_specs(options, root)
        prepare(False)
        from common.commands.bench import bench

        return bench(options, specs, console)
    asked = read_asked(options, root)
    prepare(_needs_workers(options, len(asked.replications)))
    match options.command:
        case "run":
            from common.commands.run import run

            return run(options, asked, console)
        case "status":
            from common.commands.run import status

            return status(asked, console)
        case "check":
            from common.commands.check import check

            return check(asked, console)
        case "record":
            from common.commands.record import record

            return record(asked, console)
        case _:
            from common.commands.report import report

            return report(options, asked, console)


def _needs_workers(options: argparse.Namespace, n_replications: int) -> bool:
    """Whether a command has enough to do to start worker processes."""
    many = n_replications >= WORTH_WORKERS
    if options.command == "run":
        return many or (options.devices != 1 and options.on is None)
    return many and options.command in ("check", "record", "report")


def _in_a_line(error: BaseException) -> str:
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, OSError):
        return f"{one_line(error)}; finished work is kept"
    frame = traceback.extract_tb(error.__traceback__)[-1]
    place = blame(error) or f"{frame.filename}:{frame.lineno}"
    return f"{place}: {told(error)}; `replicate --traceback` shows more; finished work is kept"


class _Terminated(KeyboardInterrupt):
    """SIGTERM was received: everything ends as with an interrupt."""


def _terminate(number: int, frame: object) -> None:
    raise _Terminated


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Raise a mistake in the arguments like any other mistake, without printing the usage."""
        raise InputError(f"{one_line(message)}; `{self.prog} --help` shows what is valid")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="replicate", description="Replicate published results on superposition, and judge each claim."
    )
    parser.add_argument(
        "--root", type=_path,
        help="the folder that holds replications/ and expected/ (default: this folder, or else the suite's)",
    )  # fmt: skip
    parser.add_argument("--traceback", action="store_true", help="after an error, show the Python traceback")
    parser.add_argument("--version", action="version", version=_version(), help="print the name and version")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")

    def add(name: str, text: str, *, names: bool = True) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        if names:
            sub.add_argument(
                "names", nargs="*", metavar="NAME", help="PAPER/RESULT or a spec's file (default: all)"
            )
        return sub

    add("list", "list the replications, what they replicate and how much they train", names=False)
    made = add("new", "create the files of a new replication, a small example that runs at once", names=False)
    made.add_argument(
        "name", metavar="PAPER/RESULT", help="two lower-case names that are valid for Python modules"
    )
    trained = {
        "run": add("run", "train what is missing, judge the claims, draw the figures"),
        "check": add("check", "judge the claims on stored results, without training"),
        "record": add("record", "make the stored results the reference, and show what changes"),
        "status": add("status", "say what a run would train, and why"),
    }
    benches = add("bench", "time training against a plain loop and against the machine's ceiling")
    benches.add_argument(
        "--scaling", action="store_true",
        help="measure instead how time and memory grow with networks, steps and the size of shards",
    )  # fmt: skip
    for sub in (*trained.values(), benches):
        sub.add_argument("--profile", default="full", help="full (default) or a profile of the spec")
    for name, sub in trained.items():
        sub.add_argument(
            "--out",
            type=_path,
            help="where results are stored (default: ROOT/results, or ./results if ROOT is installed)",
        )
        if name == "record":
            continue
        sub.add_argument(
            "--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
            help="change a key of the spec, as in trainer.max_steps=100 or "
            "trainer.logger.class_path=lightning.pytorch.loggers.CSVLogger; may be repeated",
        )  # fmt: skip
        sub.add_argument("--seeds", help="change the seeds: how many, or which, as in 3,4,5")
    trained["run"].add_argument(
        "--keep-weights", metavar="QUERY",
        help="also store the weights of the networks that QUERY selects: a condition such as "
        "'seed == 0 and density > .5', or all",
    )  # fmt: skip
    trained["run"].add_argument(
        "--part", metavar="I/N",
        help="train only part I of N parts of the work, I from 1 to N, and judge nothing; a run without "
        "--part then judges what all parts have stored in one folder",
    )  # fmt: skip
    # its former name
    trained["run"].add_argument("--shard", dest="part", help=argparse.SUPPRESS)
    trained["run"].add_argument(
        "--hours",
        type=float,
        help="with --profile decided: stop after so many hours, if claims are still open",
    )
    trained["run"].add_argument("--on", choices=["ray"], help="train on a Ray cluster")
    trained["run"].add_argument(
        "--address",
        help="address of the Ray cluster (default: RAY_ADDRESS, else a cluster on this machine for this run)",
    )
    reports = add("report", "write the report on stored results, as a web page and machine-readable files")
    reports.add_argument("--profile", default="full", help="full (default) or a profile of the spec")
    reports.add_argument(
        "--out",
        type=_path,
        help="where results are stored (default: ROOT/results, or ./results if ROOT is installed)",
    )
    reports.add_argument("--to", type=_path, help="the folder to write into (default: OUT/report)")
    reports.add_argument("--schema", action="store_true", help="print the JSON schema of report.json instead")
    compares = add("compare", "show how two reports differ", names=False)
    for name in ("a", "b"):
        compares.add_argument(
            name, type=_path, metavar=f"RUN_{name.upper()}", help="a report.json, or its folder"
        )
    add("cite", "print the papers behind the replications, as BibTeX")
    for sub in (trained["run"], benches):
        sub.add_argument("--accelerator", choices=["auto", "cpu", "cuda"], default="auto")
        sub.add_argument("--devices", type=int, help="how many GPUs, or workers on the CPU (default: all)")
    return parser


def _version() -> str:
    """The name of this package and its installed version."""
    name = "superposition-replications"
    with suppress(importlib.metadata.PackageNotFoundError):
        return f"{name} {importlib.metadata.version(name)}"
    return f"{name}, not installed"


def _path(text: str) -> Path:
    try:
        return given_path(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
