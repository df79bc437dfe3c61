"""The command `replicate`."""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from common import record as records
from common import report
from common.bench import bench
from common.claims import Claim, Outcome, Verdict, evaluate, load_claims
from common.document import Document, InputError, nearest, parse_value
from common.progress import shown
from common.results import Run, commit
from common.spec import Spec, find_spec, find_specs, load_spec
from common.sweep import shards
from common.training import Devices, train, work


class Replication(NamedTuple):
    """A replication's run in one profile, its controls' runs, and its claims."""

    name: str
    run: Run
    controls: dict[str, Run]
    claims: dict[str, Claim]
    record_path: Path

    @property
    def runs(self) -> list[Run]:
        """The run and those of the controls."""
        return [self.run, *self.controls.values()]


class Judged(NamedTuple):
    """What became of a replication's claims, and of those that its controls must lose."""

    outcomes: dict[str, Outcome]
    controls: dict[str, dict[str, Verdict]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `replicate` with these arguments (default: the command line's); the exit code.

    0: all as recorded; 1: a verdict or value is not; 2: bad input, said in one line; 130: interrupted.
    """
    options = _parser().parse_args(arguments)
    console = Console() if sys.stdout.isatty() else Console(width=170)
    try:
        root = _root(options.root)
        return int(options.command(options, root, console))
    except InputError as error:
        print(f"replicate: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("replicate: stopped; the same command goes on from here", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="replicate", description="Replicate published results on superposition, and judge each claim."
    )
    parser.add_argument("--root", type=Path, help="the folder that holds replications/ and expected/")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: Any, text: str, *, names: bool = True) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        sub.set_defaults(command=command)
        if names:
            sub.add_argument("names", nargs="*", metavar="NAME", help="PAPER/RESULT (default: all)")
        return sub

    add("list", _list, "list the replications, what they replicate and how much they train", names=False)
    trained = {
        "run": add("run", _run, "train what is missing, judge the claims, draw the figures"),
        "check": add("check", _check, "judge the claims on stored results, without training"),
        "record": add("record", _record, "make the stored results the reference, and show what changes"),
        "status": add("status", _status, "say what a run would train, and why"),
    }
    benches = add("bench", _bench, "time training against the plain way, in networks x steps per second")
    for sub in (*trained.values(), benches):
        sub.add_argument("--profile", default="full", help="full (default) or a profile of the spec")
    for name, sub in trained.items():
        sub.add_argument("--out", type=Path, help="where results are stored (default: ROOT/results)")
        if name == "record":
            continue
        sub.add_argument(
            "--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
            help="change a key of the spec, as in trainer.max_steps=100; may be repeated",
        )  # fmt: skip
        sub.add_argument("--seeds", help="change the seeds: how many, or a list as in [3,4,5]")
    add("cite", _cite, "print the papers behind the replications, as BibTeX")
    for sub in (trained["run"], benches):
        sub.add_argument("--accelerator", choices=["auto", "cpu", "cuda"], default="auto")
        sub.add_argument("--devices", type=int, help="how many GPUs, or workers on the CPU (default: all)")
    return parser


def _root(given: Path | None) -> Path:
    package = Path(__file__).resolve().parent.parent
    root = given or (Path.cwd() if (Path.cwd() / "replications").is_dir() else package)
    if not (root / "replications").is_dir():
        raise InputError(f"{root}: no folder replications/ in it; give the suite's folder with --root")
    if str(root.resolve()) not in sys.path:
        sys.path.insert(0, str(root.resolve()))  # specs name their classes by module
    return root


def _names(options: argparse.Namespace, root: Path) -> list[str]:
    for name in options.names:
        find_spec(root, name)
    return options.names or list(find_specs(root))


def _replications(options: argparse.Namespace, root: Path) -> list[Replication]:
    """The replications asked for, in their profile, with the overrides given."""
    overrides: dict[str, tuple[Any, str]] = {}
    for text in getattr(options, "overrides", []):
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise InputError(f"--set {text}: expected KEY=VALUE, as in --set trainer.max_steps=100")
        overrides[key] = (parse_value(value), f"--set {text}")
    if getattr(options, "seeds", None) is not None:
        overrides["seeds"] = (parse_value(options.seeds), f"--seeds {options.seeds}")
    out = options.out or root / "results"
    found = []
    for name in _names(options, root):
        path = find_spec(root, name)
        spec = load_spec(path, options.profile, overrides=overrides)
        expected = root / "expected" / name
        claims = _judged_in(spec, expected.with_name(f"{expected.name}.yaml"))
        for control, breaks in spec.controls.items():
            for i, claim in enumerate(breaks.rejects):
                if claim not in claims:
                    place = ("controls", control, "rejects", i)
                    hint = f"in profile {spec.profile}; {nearest(claim, list(claims))}"
                    raise Document.load(path).error(place, f"no claim {claim!r} {hint}")
        controls = {
            control: Run(load_spec(path, options.profile, control, overrides), out)
            for control in spec.controls
        }
        record_path = expected.with_name(f"{expected.name}.record.yaml")
        found.append(Replication(name, Run(spec, out), controls, claims, record_path))
    return found


def _judged_in(spec: Spec, path: Path) -> dict[str, Claim]:
    """The claims in the file `path` that are judged in the profile of `spec`.

    Raises:
        InputError: if one names a profile that the spec has not.
    """
    profiles = ["full", *spec.fields.profiles]
    claims = load_claims(path, spec.code)
    for name, claim in claims.items():
        for i, profile in enumerate(claim.profiles or []):
            if profile not in profiles:
                place = ("claims", name, "profiles", i)
                hint = nearest(profile, profiles)
                raise Document.load(path).error(place, f"no profile {profile!r} in {spec.path}; {hint}")
    return {name: claim for name, claim in claims.items() if spec.profile in (claim.profiles or profiles)}


def _judge(replication: Replication) -> Judged:
    """The verdicts on stored results.

    Raises:
        InputError: if they are not complete.
    """
    spec = replication.run.spec
    tables = {}
    for run in replication.runs:
        table = run.table()
        if table is None:
            why = run.why_incomplete(shards(run.spec))
            raise InputError(f"{replication.name} ({run.variant.name}): {why}; `replicate run` trains it")
        tables[run.spec.control] = table
    controls = {}
    for name, control in spec.controls.items():
        broken = {claim: replication.claims[claim] for claim in control.rejects}
        lost = evaluate(broken, spec.code, tables[name])
        controls[name] = {claim: outcome.verdict for claim, outcome in lost.items()}
    return Judged(evaluate(replication.claims, spec.code, tables[None]), controls)


def _devices(options: argparse.Namespace) -> Devices:
    if options.devices is not None and options.devices < 1:
        raise InputError(f"--devices {options.devices}: expected at least 1")
    try:
        return Devices.choose(options.accelerator, options.devices)
    except ValueError as error:
        raise InputError(f"--accelerator/--devices: {error}") from None


def _run(options: argparse.Namespace, root: Path, console: Console) -> int:
    replications = _replications(options, root)
    devices = _devices(options)
    runs = [run for replication in replications for run in replication.runs]
    total = sum(map(work, runs))
    if not total:
        console.print("Nothing to train: all results are stored.")
    else:
        start = time.monotonic()
        with shown(console, [run for run in runs if work(run)]) as progress:
            train(runs, devices, progress)
        seconds = time.monotonic() - start
        console.print(
            f"Trained in {seconds:.0f} s on {devices.n} x {devices}: "
            f"{total / seconds:,.0f} networks x steps per second, starting and compiling included."
        )
    for replication in replications:
        table = replication.run.table()
        assert table is not None
        folder = replication.run.folder / "figures"
        for path in report.save_figures(replication.run.spec.code.figures(table), folder):
            console.print(f"figure: {path}")
    return _tell(options, root, replications, console)


def _check(options: argparse.Namespace, root: Path, console: Console) -> int:
    return _tell(options, root, _replications(options, root), console)


def _tell(options: argparse.Namespace, root: Path, replications: list[Replication], console: Console) -> int:
    """Print verdicts and what is not as recorded; the exit code."""
    overridden = bool(options.overrides or options.seeds)
    n_claims = sum(len(_claims(root, name)) for name in find_specs(root))
    problems = 0
    for replication in replications:
        judged = _judge(replication)
        stored = records.load(replication.record_path)
        record = stored.get(options.profile)
        changes: list[records.Change] = []
        if not overridden:
            changes = records.differences(record, judged.outcomes, judged.controls, n_claims)
            changes += records.uninvestigated(stored, replication.claims)
        problems += len(changes)
        title = f"{replication.name}, {options.profile}"
        console.print(report.table(title, judged.outcomes, None if overridden else changes))
        for line in report.remarks(judged.outcomes):
            console.print(f"- {line}", highlight=False, markup=False)
        for name, verdicts in judged.controls.items():
            lost = sum(verdict is Verdict.NOT_REPRODUCED for verdict in verdicts.values())
            why = replication.run.spec.controls[name].why
            console.print(
                f"control {name} ({why}): loses {lost} of the {len(verdicts)} claims that it must lose"
            )
        if record is not None and record.hash != replication.run.hash and not overridden:
            console.print("spec or versions are not those of the record: values may differ within its spread")
        for change in changes:
            console.print(f"not as recorded: {change.claim}: {change.problem}", style="red", markup=False)
    if overridden:
        console.print("The spec was changed on the command line: nothing is compared with the record.")
    else:
        console.print("All as recorded." if not problems else f"{problems} things are not as recorded.")
    return 1 if problems else 0


def _claims(root: Path, name: str) -> dict[str, Claim]:
    return load_claims(root / "expected" / f"{name}.yaml", load_spec(find_spec(root, name)).code)


def _record(options: argparse.Namespace, root: Path, console: Console) -> int:
    if os.environ.get("CI"):
        raise InputError("record: never in CI: a record is made where someone looks at what changes")
    at = commit(root)
    if at.endswith("+"):
        raise InputError("record: commit the code and the claims first: margins come before results")
    n_claims = sum(len(_claims(root, name)) for name in find_specs(root))
    for replication in _replications(options, root):
        judged = _judge(replication)
        manifest = replication.run.manifest()
        assert manifest is not None
        stored = records.load(replication.record_path)
        old = stored.get(options.profile)
        for change in records.differences(old, judged.outcomes, judged.controls, n_claims):
            console.print(f"{replication.name}: {change.claim}: {change.problem}", markup=False)
        stored[options.profile] = records.Record(
            hash=replication.run.hash,
            versions=manifest["versions"],
            device=manifest["device"],
            commit=at,
            date=datetime.now(UTC).date().isoformat(),
            claims={name: records.recorded(outcome) for name, outcome in judged.outcomes.items()},
            controls=judged.controls,
        )
        records.save(replication.record_path, stored)
        console.print(f"written: {replication.record_path}")
    for path, text in readmes(root).items():
        path.write_text(text, encoding="utf-8")
    return 0


def readmes(root: Path) -> dict[Path, str]:
    """The READMEs that there are, with the claims as recorded: counts in the suite's, each in its paper's."""
    stored = {name: records.load(root / "expected" / f"{name}.record.yaml") for name in find_specs(root)}
    lines = {root / "README.md": report.summary(stored)}
    for name, record in stored.items():
        path = root / "replications" / name.split("/")[0] / "README.md"
        lines.setdefault(path, []).extend(report.claims_table(name, _claims(root, name), record))
    return {
        path: report.with_claims(path.read_text(encoding="utf-8"), claims)
        for path, claims in lines.items()
        if path.exists()
    }


def _list(options: argparse.Namespace, root: Path, console: Console) -> int:
    for name, path in find_specs(root).items():
        spec: Spec = load_spec(path)
        networks = sum(len(shard.rows) for shard in shards(spec))
        profiles = ", ".join(["full", *spec.fields.profiles])
        console.print(
            f"[bold]{name}[/]: {spec.fields.title} ({spec.fields.paper}): {networks:,} networks of "
            f"{spec.fields.trainer.max_steps:,} steps; profiles: {profiles}; "
            f"controls: {', '.join(spec.controls)}",
            highlight=False,
        )
    return 0


def _status(options: argparse.Namespace, root: Path, console: Console) -> int:
    for replication in _replications(options, root):
        for run in replication.runs:
            why = run.why_incomplete(shards(run.spec))
            state = f"would run: {why}" if why else f"complete, in {run.folder}"
            console.print(f"{replication.name} {run.variant.name} {run.hash}: {state}", markup=False)
    return 0


def _cite(options: argparse.Namespace, root: Path, console: Console) -> int:
    papers = {find_spec(root, name).parent for name in _names(options, root)}
    texts = [(paper / "citation.bib").read_text(encoding="utf-8").strip() for paper in sorted(papers)]
    for text in dict.fromkeys(texts):  # two folders may be of one paper
        console.print(text, markup=False, highlight=False)
    return 0


def _bench(options: argparse.Namespace, root: Path, console: Console) -> int:
    devices = _devices(options)
    for name in _names(options, root):
        path = find_spec(root, name)
        if load_spec(path, options.profile).fields.plain is None:
            continue
        console.print(f"{name}, on {devices.n} x {devices}, in networks x steps per second:")
        plain, ours = 0.0, 0.0
        for speed in bench(path, devices, options.profile):
            plain, ours = plain + speed.work / speed.plain, ours + speed.work / speed.ours
            console.print(
                f"{speed.structure}: plain {speed.plain:,.0f}, ours {speed.ours:,.0f} ({speed.networks:,} "
                f"networks), ratio {speed.ours / speed.plain:.3g}",
                highlight=False,
            )
        console.print(
            f"at these rates the sweep takes {plain / 3600:.1f} hours the plain way, {ours / 60:.1f} minutes "
            f"ours, ratio {plain / ours:.3g}",
            highlight=False,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
