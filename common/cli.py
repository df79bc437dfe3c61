"""The command `replicate`."""

import argparse
import os
import re
import shlex
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

from rich.table import Table
from rich.text import Text

from common.errors import InputError, blame, one_line, told
from common.reports import schema, tables
from common.reports.compare import compare
from common.reports.schema import NotRun
from common.reports.write import Fresh, draw_figures, publish
from common.runs import workers
from common.runs.cluster import cluster
from common.runs.parts import Part, train_part
from common.runs.progress import shown
from common.runs.shard import tell_of_diverged
from common.runs.store import Run
from common.runs.training import Devices, Place, missing, network_steps, train
from common.specs.document import parse_value
from common.specs.fields import load_fields, n_networks
from common.specs.find import (
    Found,
    announce,
    find_all,
    find_named,
    find_own,
    find_root,
    find_specs,
    results_folder,
)
from common.specs.new import make
from common.specs.papers import load_citations, load_papers
from common.specs.spec import Spec
from common.specs.sweep import shards
from common.speed.bench import Bench, bench
from common.speed.ceiling import Machine
from common.speed.scaling import scaling
from common.system import streams
from common.system.files import given_path, write
from common.system.git import committed
from common.system.terminal import Terminal
from common.system.text import visible
from common.verdicts import record as records
from common.verdicts.claims import Verdict
from common.verdicts.judge import Replication, claims_of, count_claims, judge, judge_all, load_replication
from common.verdicts.rehearsal import rehearse


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `replicate` with these arguments (default: the command line's); the exit code.

    0: all as recorded; 1: a verdict or value is not; 2: bad input or a fault, said in one line; 130 and 143:
    stopped by SIGINT and SIGTERM. That nobody reads what is printed changes nothing.
    """
    with streams.guarded() as lost:
        errors = Terminal(stderr=True, soft_wrap=True)
        code = _main(arguments, Terminal(), errors)
        sys.stdout.flush()
        if lost and code != 2:
            why = lost[0].strerror
            errors.print(f"replicate: standard output: {why}; nothing that was finished is lost")
        return 2 if lost else code


def _main(arguments: Sequence[str] | None, console: Terminal, errors: Terminal) -> int:
    before, form = signal.getsignal(signal.SIGTERM), warnings.formatwarning
    warnings.formatwarning = lambda *parts: visible(form(*parts))
    with suppress(ValueError):  # not in the main thread
        signal.signal(signal.SIGTERM, _terminate)
    options = None
    try:
        try:
            options = _parser().parse_args(arguments)
        except SystemExit:  # the help is printed
            return 0
        new = options.command is _new  # which makes the folder
        root = options.root or Path.cwd() if new else find_root(options.root)
        return int(options.command(options, root, console))
    except KeyboardInterrupt as interrupt:
        errors.print("replicate: stopped; the same command goes on from here")
        return 143 if isinstance(interrupt, _Terminated) else 130
    except BaseException as error:  # an exit too: whatever ends a command before its end is an error
        if options is not None and options.traceback:
            errors.verbatim(traceback.format_exc())
        errors.print(f"replicate: {_in_a_line(error)}")
        return 2
    finally:
        warnings.formatwarning = form
        with suppress(ValueError):
            signal.signal(signal.SIGTERM, before)


def _in_a_line(error: BaseException) -> str:
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, OSError):
        return f"{one_line(error)}; nothing that was finished is lost"
    frame = traceback.extract_tb(error.__traceback__)[-1]
    place = blame(error) or f"{frame.filename}:{frame.lineno}"
    return f"{place}: {told(error)}; `replicate --traceback` shows more; nothing that was finished is lost"


class _Terminated(KeyboardInterrupt):
    """SIGTERM has come: everything ends as it does with an interrupt."""


def _terminate(number: int, frame: object) -> None:
    raise _Terminated


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Raise a mistake in the arguments as any other mistake, without the usage in front."""
        raise InputError(f"{one_line(message)}; `{self.prog} --help` lists what there is")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="replicate", description="Replicate published results on superposition, and judge each claim."
    )
    parser.add_argument(
        "--root", type=_path,
        help="the folder that holds replications/ and expected/ (default: this one, or else the suite's)",
    )  # fmt: skip
    parser.add_argument(
        "--traceback", action="store_true", help="after an error show how Python came there, for its author"
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: Any, text: str, *, names: bool = True) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        sub.set_defaults(command=command)
        if names:
            sub.add_argument(
                "names", nargs="*", metavar="NAME", help="PAPER/RESULT or a spec's file (default: all)"
            )
        return sub

    add("list", _list, "list the replications, what they replicate and how much they train", names=False)
    made = add("new", _new, "make the files of a new replication, a small one that runs at once", names=False)
    made.add_argument("name", metavar="PAPER/RESULT", help="lower-case names, as of Python modules")
    trained = {
        "run": add("run", _run, "train what is missing, judge the claims, draw the figures"),
        "check": add("check", _check, "judge the claims on stored results, without training"),
        "record": add("record", _record, "make the stored results the reference, and show what changes"),
        "status": add("status", _status, "say what a run would train, and why"),
    }
    benches = add("bench", _bench, "time training beside the plain way, and beside the machine's ceiling")
    benches.add_argument(
        "--scaling", action="store_true",
        help="instead, how time and memory grow with more networks, more steps and larger shards",
    )  # fmt: skip
    for sub in (*trained.values(), benches):
        sub.add_argument("--profile", default="full", help="full (default) or a profile of the spec")
    for name, sub in trained.items():
        sub.add_argument(
            "--out",
            type=_path,
            help="where results are stored (default: ROOT/results, here if ROOT is installed)",
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
        help="store the weights of these networks too, as in 'seed == 0 and density > .5'; all for all",
    )  # fmt: skip
    trained["run"].add_argument(
        "--part", metavar="I/N",
        help="train only part I of N parts of the work, I from 1 to N, and judge nothing; without --part "
        "a run then judges what all parts have stored in one folder",
    )  # fmt: skip
    # what it was called before
    trained["run"].add_argument("--shard", dest="part", help=argparse.SUPPRESS)
    trained["run"].add_argument("--on", choices=["ray"], help="train on a Ray cluster")
    trained["run"].add_argument(
        "--address", help="of the Ray cluster (default: RAY_ADDRESS, else one on this machine for this run)"
    )
    reports = add("report", _report, "write the report on stored results, as a page and for machines")
    reports.add_argument("--profile", default="full", help="full (default) or a profile of the spec")
    reports.add_argument(
        "--out",
        type=_path,
        help="where results are stored (default: ROOT/results, here if ROOT is installed)",
    )
    reports.add_argument("--to", type=_path, help="the folder to write into (default: OUT/report)")
    reports.add_argument("--schema", action="store_true", help="print the JSON schema of tables.json instead")
    compares = add("compare", _compare, "say in what two reports differ", names=False)
    for name in ("a", "b"):
        compares.add_argument(
            name, type=_path, metavar=f"RUN_{name.upper()}", help="a tables.json, or its folder"
        )
    add("cite", _cite, "print the papers behind the replications, as BibTeX")
    for sub in (trained["run"], benches):
        sub.add_argument("--accelerator", choices=["auto", "cpu", "cuda"], default="auto")
        sub.add_argument("--devices", type=int, help="how many GPUs, or workers on the CPU (default: all)")
    return parser


def _path(text: str) -> Path:
    try:
        return given_path(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _seeds(text: str) -> Any:
    """How many seeds, or which: a list also without its brackets."""
    several = re.fullmatch(r"\s*[0-9]+\s*(,\s*[0-9]+\s*)+,?\s*", text)
    return parse_value(f"[{text}]" if several else text)


def _named(options: argparse.Namespace, root: Path) -> list[Found]:
    """The replications asked for, each once.

    Raises:
        InputError: as `find_named`; also if two are of one paper's folder in two roots, as their modules
            would have the same names.
    """
    found = find_named(root, options.names, _tell_aside)
    roots: dict[str, Path] = {}
    for one in found:
        first = roots.setdefault(one.path.parent.name, one.root)
        if first != one.root:
            raise InputError(f"{one.path.parent.name}: in {first} and in {one.root}; one at a time")
    return found


def _tell_aside(line: str) -> None:
    """Say what stops nothing."""
    Terminal(stderr=True, soft_wrap=True).print(f"replicate: {line}")


def _imported(options: argparse.Namespace, root: Path) -> list[Found]:
    """The replications asked for, after saying whose code will run that is not the root's or installed."""
    found = _named(options, root)
    announce(found, root)
    return found


def _replications(options: argparse.Namespace, root: Path) -> list[Replication]:
    """The replications asked for, in their profile, with the overrides given."""
    overrides: dict[str, tuple[Any, str]] = {}
    for text in getattr(options, "overrides", []):
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise InputError(f"--set {text}: expected KEY=VALUE, as in --set trainer.max_steps=100")
        overrides[key] = (parse_value(value), f"--set {text}")
    if getattr(options, "seeds", None) is not None:
        overrides["seeds"] = (_seeds(options.seeds), f"--seeds {options.seeds}")
    found = _imported(options, root)
    keep = getattr(options, "keep_weights", None)
    names = [one.name if one.installed else str(one.path) for one in found]
    return [load_replication(root, name, options.profile, overrides, options.out, keep) for name in names]


def _devices(options: argparse.Namespace) -> Devices:
    if options.devices is not None and options.devices < 1:
        raise InputError(f"--devices {options.devices}: expected at least 1")
    try:
        return Devices.choose(options.accelerator, options.devices)
    except ValueError as error:
        raise InputError(f"--accelerator/--devices: {error}") from None


def _place(options: argparse.Namespace, replications: list[Replication]) -> AbstractContextManager[Place]:
    """Where a run trains: this machine's devices, or a cluster while it is connected to."""
    if options.on is None:
        if options.address is not None:
            raise InputError(f"--address {options.address}: only with --on ray")
        return nullcontext(_devices(options))
    if options.devices is not None and options.devices < 1:
        raise InputError(f"--devices {options.devices}: expected at least 1")
    roots = [one.found.root for one in replications if not one.found.installed]
    return cluster(options.address, roots, options.accelerator, options.devices)


def _run(options: argparse.Namespace, root: Path, console: Terminal) -> int:
    part = None if options.part is None else Part.parse(options.part)
    replications = _replications(options, root)
    chosen = _place(options, replications)
    for replication in replications:
        records.load(replication.found.record)  # a mistake in it is known before training
    for found in {one.found.root for one in replications}:
        load_papers(found)  # and so is one in citation.bib
    n_claims = _claims_of_roots(replications)
    runs = [run for replication in replications for run in replication.runs]
    if options.keep_weights is not None:
        _tell_of_weights(replications, console)
    lacking = {run: missing(run) for run in runs} if part is None else part.missing(runs)
    for replication in replications:
        if any(lacking[run] for run in replication.runs):
            rehearse(replication)
    todo = {run: steps for run, some in lacking.items() if (steps := network_steps(run, some))}
    if not todo:
        console.print("Nothing to train: all results are stored.")
        if part is None:  # parts, or a run that was stopped, may have stored all and joined nothing
            train(runs, _devices(options) if options.on is None else Devices("cpu", 1))
    else:
        start = time.monotonic()
        with chosen as place, shown(console, todo) as progress:
            if part is None:
                train(runs, place, progress)
            else:
                train_part(lacking, place, progress)
            where = f"{place.n} x {place}"
        seconds = time.monotonic() - start
        rate = sum(todo.values()) / seconds
        console.print(
            f"Trained in {seconds:.0f} s on {where}: "
            f"{rate:,.0f} networks x steps per second, starting and compiling included."
        )
    if part is not None:
        return _tell_of_part(part, runs, console)
    with workers.spread(len(replications)) as spread_map:
        counts = [n_claims[replication.found.root] for replication in replications]
        judged, drawn = spread_map(judge, replications, counts), spread_map(draw_figures, replications)
        fresh: dict[str, Fresh] = {}
        for replication, found, figures in zip(replications, judged, drawn, strict=True):
            fresh[replication.name] = Fresh(found, figures.exhibit)
            if figures.problem:
                console.print(f"{replication.name}: no figures: {figures.problem}")
            for path in figures.files:
                console.print(f"figure: {path}")
    return _tell(options, root, replications, console, fresh)


def _tell_of_part(part: Part, runs: list[Run], console: Terminal) -> int:
    left, whole = sum(len(missing(run)) for run in runs), sum(len(shards(run.spec)) for run in runs)
    console.print(
        f"part {part} is stored; {left} of {whole} shards of the sweep are missing"
        + ("" if left else ": the same command without --part judges them"),
    )
    return 0


def _tell_of_weights(replications: list[Replication], console: Terminal) -> None:
    for name, run in ((replication.name, replication.run) for replication in replications):
        again = sum(run.stored(shard) is not None for shard in missing(run))
        if run.keep.empty:
            console.print(f"{name} is calculated: there are no weights to keep.")
        if again:
            console.print(f"{name}: {again} shards are stored without these weights, and are trained again.")


def _check(options: argparse.Namespace, root: Path, console: Terminal) -> int:
    replications = _replications(options, root)
    judged = judge_all(replications, _claims_of_roots(replications))
    fresh = {one.name: Fresh(found) for one, found in zip(replications, judged, strict=True)}
    return _tell(options, root, replications, console, fresh)


def _claims_of_roots(replications: list[Replication]) -> dict[Path, int]:
    """How many claims each root has that one of these is of."""
    return {found: count_claims(found) for found in {one.found.root for one in replications}}


def _tell(
    options: argparse.Namespace,
    root: Path,
    replications: list[Replication],
    console: Terminal,
    fresh: Mapping[str, Fresh],
) -> int:
    """Print verdicts and what is not as recorded, and write the report; the exit code."""
    problems = 0
    for replication in replications:
        judged = fresh[replication.name].judged
        problems += len(judged.problems)
        title = f"{replication.name}, {options.profile}"
        if replication.for_reference:
            title += ", changed: for reference only, no verdict is one on the paper"
        console.print(tables.table(title, judged.outcomes, judged.changes))
        for line in tables.remarks(judged.outcomes, is_explained=not replication.for_reference):
            console.print(f"- {line}")
        if replication.not_asked:
            names = ", ".join(replication.not_asked)
            console.print(f"not asked, as the changed sweep has no networks for them: {names}")
        for name, found in judged.controls.items():
            lost = sum(verdict is Verdict.NOT_REPRODUCED for verdict in found.values())
            why = replication.run.spec.controls[name].why
            console.print(
                f"control {name} ({why}): loses {lost} of the {len(found)} claims that it must lose"
            )
        if judged.other_hash:
            console.print("spec or versions are not those of the record: values may differ within its spread")
        for run in replication.runs:
            if why_diverged := tell_of_diverged(run):
                console.print(why_diverged, style="red")
        for change in judged.changes or []:
            how, style = ("within chance", None) if change.by_chance else ("not as recorded", "red")
            console.print(f"{how}: {change.claim}: {change.problem}", style=style)
    if any(replication.overridden for replication in replications):
        console.print("The spec was changed on the command line: nothing is compared with the record.")
    else:
        chances = sum(len(fresh[one.name].judged.changes or []) for one in replications) - problems
        verdicts = "verdict" if chances == 1 else "verdicts"
        but = f", but for {chances} {verdicts} that chance explains" if chances else ""
        console.print(f"{problems} things are not as recorded." if problems else f"All as recorded{but}.")
    _write_report(options, root, replications, console, fresh)
    for replication in replications:
        outcomes = fresh[replication.name].judged.outcomes
        if all(outcome.verdict is Verdict.INVALID for outcome in outcomes.values()) and not problems:
            raise InputError(
                f"{replication.name}: no claim could be judged: {next(iter(outcomes.values())).reason}"
            )
    return 1 if problems else 0


def _write_report(
    options: argparse.Namespace,
    root: Path,
    replications: list[Replication],
    console: Terminal,
    fresh: Mapping[str, Fresh],
) -> None:
    """Write the report at the end of a run: on the whole suite, or only on what was changed for this run.

    Raises:
        InputError: if it cannot be written: a run whose report is missing has not done what it was to do.
    """
    roots = {one.found.root for one in replications if not one.found.installed}
    home = roots.pop() if len(roots) == 1 else root
    within = options.out or results_folder(home)
    to = within / "report"
    known: list[Replication] = []
    not_loaded: list[NotRun] = []
    judged = {replication.name: replication for replication in replications}
    if any(replication.overridden for replication in replications):
        to = to / "changed"
    else:
        for name, found in find_specs(home).items():
            try:
                if name in judged:
                    known.append(judged.pop(name))
                elif options.profile in ("full", *load_fields(found.path).profiles):
                    path = str(found.path)
                    known.append(load_replication(home, path, options.profile, None, options.out))
            except InputError as error:  # a mistake in another replication, which nobody asked for
                not_loaded.append(NotRun(name=name, title="", why=str(error)))
    known += judged.values()
    commands = _commands(options, known)
    publish(
        options.profile, known, to, fresh, commands, within=within, judge_rest=False, not_loaded=not_loaded
    )
    console.print(f"report: {to / 'report.html'}")


def _commands(options: argparse.Namespace, replications: list[Replication]) -> dict[str, str]:
    """What reruns each replication."""
    changes = [part for text in getattr(options, "overrides", []) for part in ("--set", text)]
    if getattr(options, "seeds", None) is not None:
        changes += ["--seeds", options.seeds]
    start = ["replicate", "run"]
    return {
        one.name: shlex.join([*start, one.name, "--profile", options.profile, *changes])
        for one in replications
    }


def _report(options: argparse.Namespace, root: Path, console: Terminal) -> int:
    if options.schema:
        console.verbatim(schema.json_schema())
        return 0
    within = options.to or options.out or results_folder(root)
    to = options.to or within / "report"
    replications = _replications(options, root)
    commands = _commands(options, replications)
    written = publish(options.profile, replications, to, {}, commands, within=within, judge_rest=True)
    for left_out in written.not_run:
        console.print(f"not run: {left_out.name}: {left_out.why}")
    if not written.replications:
        raise InputError(f"nothing to report: no replication has results in profile {options.profile}")
    console.print(f"report: {to / 'report.html'}")
    return 0


def _compare(options: argparse.Namespace, root: Path, console: Terminal) -> int:
    lines = list(compare(schema.load(options.a), schema.load(options.b)))
    for line in lines:
        console.print(line)
    if not lines:
        console.print("The same verdicts and values.")
    return 1 if lines else 0


def _record(options: argparse.Namespace, root: Path, console: Terminal) -> int:
    if os.environ.get("CI"):
        raise InputError("record: never in CI: a record is made where someone looks at what changes")
    named = _named(options, root)
    for other in (one for one in named if one.root != root):
        raise InputError(f"record: {other.name} is not of this root; give its own with --root {other.root}")
    at = committed(root, [path for one in named for path in (one.path, one.expected)])
    replications = _replications(options, root)
    n_claims = count_claims(root)
    for replication, judged in zip(replications, judge_all(replications, {root: n_claims}), strict=True):
        manifest = replication.run.manifest()
        assert manifest is not None
        stored = records.load(replication.found.record)
        old = stored.get(options.profile)
        for change in records.differences(old, judged.outcomes, judged.controls, n_claims):
            console.print(f"{replication.name}: {change.claim}: {change.problem}")
        stored[options.profile] = records.Record(
            hash=replication.run.hash,
            versions=manifest["versions"],
            device=manifest["device"],
            commit=at,
            date=datetime.now(UTC).date().isoformat(),
            claims={name: records.recorded(outcome) for name, outcome in judged.outcomes.items()},
            controls=judged.controls,
        )
        records.save(replication.found.record, stored)
        console.print(f"written: {replication.found.record}")
    for path, text in readmes(root).items():
        write(path, text, within=root)
    return 0


def readmes(root: Path) -> dict[Path, str]:
    """The READMEs that there are, with the claims as recorded: counts in the suite's, all in their paper's.

    Raises:
        InputError: if one cannot be read.
    """
    specs = find_specs(root)
    stored = {name: records.load(found.record) for name, found in specs.items()}
    titles = {key: paper.title for key, paper in load_papers(root).items()}
    papers: dict[str, tables.PaperClaims] = {}
    lines: dict[Path, list[str]] = {}
    for name, found in specs.items():
        folder, claims = found.path.parent, claims_of(found)
        key = load_fields(found.path).paper
        paper = papers.setdefault(folder.name, tables.PaperClaims(folder.name, titles.get(key, key), []))
        paper.add(claims, stored[name])
        lines.setdefault(folder / "README.md", []).extend(tables.claims_table(name, claims, stored[name]))
    lines[root / "README.md"] = tables.summary(papers.values())
    return {path: tables.with_claims(_text(path), claims) for path, claims in lines.items() if path.exists()}


def _text(path: Path) -> str:
    """The text of a file, with the ends of lines that it has."""
    try:
        return path.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {one_line(error)}") from None


def _new(options: argparse.Namespace, root: Path, console: Terminal) -> int:
    for path in make(root, options.name):
        console.print(f"made: {path}", soft_wrap=True)
    command = "replicate" if root == Path.cwd() else f"replicate --root {shlex.quote(str(root))}"
    console.print("It runs as it is; each file says what to fill in. Then:")
    for then, why in (
        ("run", "trains, judges, draws; all is new, so it exits with 1"),
        ("record", "makes this the reference, once all is committed"),
        ("check", "all as recorded: exits with 0"),
    ):
        line = f"  {command} {then} {options.name}  # {why}"
        console.print(line, soft_wrap=True)
    return 0


def _list(options: argparse.Namespace, root: Path, console: Terminal) -> int:
    problems = []
    try:
        find_own(root)
    except InputError as error:
        problems.append(error)
    for found in find_all(root, _tell_aside):
        try:
            fields = load_fields(found.path)  # without its code
            networks = n_networks(fields)
        except InputError as error:
            if found.root == root:
                problems.append(error)
            else:
                _tell_aside(str(error))
            continue
        profiles = ", ".join(["full", *fields.profiles])
        console.print(
            Text(found.name, "bold"),
            f": {fields.title} ({fields.paper}): {networks:,} networks of "
            f"{fields.trainer.max_steps:,} steps; profiles: {profiles}; "
            f"controls: {', '.join(fields.controls)}" + (f"; in {found.root}" if found.installed else ""),
            sep="",
        )
    for problem in problems:
        _tell_aside(str(problem))
    return 2 if problems else 0


def _status(options: argparse.Namespace, root: Path, console: Terminal) -> int:
    for replication in _replications(options, root):
        for run in replication.runs:
            why = run.why_incomplete(shards(run.spec))
            state = f"would run: {why}" if why else f"complete, in {run.folder}"
            console.print(f"{replication.name} {run.variant.name} {run.hash}: {state}")
    return 0


def _cite(options: argparse.Namespace, root: Path, console: Terminal) -> int:
    papers = {found.path.parent for found in _named(options, root)}
    texts = [load_citations(paper / "citation.bib").text for paper in sorted(papers)]
    for text in dict.fromkeys(texts):  # two folders may be of one paper
        console.verbatim(f"{text}\n")
    return 0


def _bench(options: argparse.Namespace, root: Path, console: Terminal) -> int:
    found = _imported(options, root)
    specs = [one.spec(options.profile) for one in found]
    devices = _devices(options)
    if options.scaling:
        for spec in specs:
            _scaling(spec, devices, console)
        return 0
    table = Table(
        title=f"Networks x steps per second on {devices.n} x {devices}, "
        "and how long the whole sweep takes at these rates, without controls",
        caption="of the ceiling: our rate, as a share of what this machine could do at most if what takes it "
        "longest were all that there is to do. The ceiling, per device, was measured just now.",
    )
    for column in ("replication", "networks"):
        table.add_column(column, overflow="fold")
    for column in ("at once", "ours", "plain", "ratio", "of the ceiling"):
        table.add_column(column, justify="right")
    table.add_column("ceiling")
    for column in ("sweep, ours", "plain"):
        table.add_column(column, justify="right")
    # timing ends workers in the middle of training; what they leave behind is freed, with a warning
    os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker:UserWarning")
    try:
        with Machine(devices) as machine, console.status("") as status:
            for spec in specs:
                status.update(Text(f"timing {spec.name}"))
                _add_speeds(table, spec.name, bench(spec, machine))
    finally:
        console.print(table)
    return 0


def _add_speeds(table: Table, name: str, timed: Bench | None) -> None:
    if timed is None:
        table.add_row(name, "calculated, not trained")
        return
    most = "at most " if timed.at_most else ""
    sweep = [most + _duration(timed.ours), most + _duration(timed.plain)]
    for speed in timed.speeds:
        rates = [f"{speed.ours:,.0f}", f"{speed.plain:,.0f}", f"{speed.ours / speed.plain:.3g}"]
        share = f"{speed.ours / speed.bound.rate:.0%}"
        table.add_row(name, speed.shape, f"{speed.networks:,}", *rates, share, speed.bound.by, *sweep)
        name, sweep = "", ["", ""]


def _scaling(spec: Spec, devices: Devices, console: Terminal) -> None:
    table = Table(title=f"{spec.name}: what grows with the sweep, in one process")
    for column in ("more", "networks", "steps", "seconds", "peak memory, MB"):
        table.add_column(column, justify="left" if column == "more" else "right")
    for axis in scaling(spec, devices):
        for run in axis.runs:
            seconds, memory = f"{run.seconds:.2f}", f"{run.memory / 1e6:,.0f}"
            table.add_row(axis.name, f"{run.networks:,}", f"{run.steps:,}", seconds, memory)
        powers = f"^{axis.time_exponent:.2f}", f"^{axis.memory_exponent:.2f}"
        table.add_row("", "", "fitted power", *powers, end_section=True)
    console.print(table)


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"
