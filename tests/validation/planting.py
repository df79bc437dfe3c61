"""Faults planted one by one, each in a process of its own, and what notices them: `study`."""

import hashlib
import json
import multiprocessing
import traceback
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from common.errors import InputError
from common.runs.training import Devices, train
from common.specs.document import nearest
from common.system.machine import START_METHOD
from common.system.terminal import Terminal
from common.verdicts import evaluate as judging
from common.verdicts import record as records
from common.verdicts.claims import Verdict
from common.verdicts.judge import Replication, judge, load_replication
from common.verdicts.suite import Suite
from tests.validation.faults import EVERYTHING, FAULTS, NONE, Fault

PROFILE = "quick"

ONE = Devices("cpu", 1)
"""Training in the process itself: a worker would be a new one, without the fault."""

NAMED = 3
"""So many claims are named in a row; the file of each trial has all."""


class Trial(NamedTuple):
    """A fault planted in one replication.

    `claims`: those recorded as reproduced, and those that a control must fail, whose verdict differs.
    `record`: what `replicate check` would report, verdicts and values. `error`: what stopped it, or empty.
    `acts`: whether any number differs from the run without the fault.
    """

    fault: str
    replication: str
    claims: list[str]
    record: list[str]
    error: str
    acts: bool

    @property
    def caught(self) -> bool:
        """Whether anything notices the fault."""
        return bool(self.claims or self.record or self.error)


def show(console: Terminal) -> None:
    """Print what faults there are, and what each one breaks."""
    for fault in FAULTS.values():
        console.print(f"{fault.name}: {fault.what} ({', '.join(fault.touches)})")


def study(
    root: Path, names: list[str], on: list[str], workers: int, out: Path, console: Terminal
) -> list[Trial]:
    """Plant these faults, or all, and print and write to a faults.csv in `out` what notices each.

    `on` names the replications that they are tried on, of those that they touch; none for all of these. A
    trial that is stored in `out` is not made again, unless code or claims have changed since.

    Raises:
        InputError: if there is no such fault or replication, or the unbroken suite is caught.
    """
    for given, known, what in ((names, list(FAULTS), "fault"), (on, list(EVERYTHING), "replication")):
        for name in given:
            if name not in known:
                raise InputError(f"{name}: no such {what}; {nearest(name, known)}")
    chosen = [FAULTS[name] for name in names or FAULTS if name != NONE]
    pairs = [(fault.name, name) for fault in chosen for name in fault.touches if not on or name in on]
    touched = [name for name in EVERYTHING if any(name == other for _, other in pairs)]
    out /= sources(root)
    # what is not broken first: the rest is compared with it, and judged from it
    _make(root, [(NONE, name) for name in touched], workers, out, console)
    unbroken = [_read(root, (NONE, name), out) for name in touched]
    _make(root, pairs, workers, out, console)
    trials = unbroken + [_read(root, pair, out) for pair in pairs]
    table = table_of(trials)
    table.to_csv(out / "faults.csv", index=False)
    console.print(f"written: {out / 'faults.csv'}", soft_wrap=True)
    for line in summary(trials):
        console.print(line, soft_wrap=True)
    if wrong := [trial.replication for trial in unbroken if trial.caught]:
        raise InputError(f"without any fault {', '.join(wrong)} came out otherwise; nothing is shown")
    return trials


def sources(root: Path) -> str:
    """A digest of what a trial depends on: code, specs, claims, records and faults."""
    digest = hashlib.sha256()
    for folder in ("common", "replications", "expected", "tests/validation"):
        for path in sorted((root / folder).rglob("*")):
            if path.suffix in (".py", ".yaml", ".parquet"):
                digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def _make(root: Path, pairs: list[tuple[str, str]], workers: int, out: Path, console: Terminal) -> None:
    todo: dict[str, list[str]] = {}
    for fault, name in pairs:
        if not _path(out, (fault, name)).exists():
            todo.setdefault(fault, []).append(name)
    # one process for each fault; without any there is nothing that would stay in it
    jobs = [(fault, [name]) for fault in todo if fault == NONE for name in todo[fault]]
    jobs += [(fault, names) for fault, names in todo.items() if fault != NONE]
    if not jobs:
        return
    n_claims = Suite(root).n_claims
    # each is forked from one that has imported all and done nothing: most trials take less than imports
    context = multiprocessing.get_context(START_METHOD)
    context.set_forkserver_preload([__name__])
    with ProcessPoolExecutor(min(workers, len(jobs)), context, max_tasks_per_child=1) as pool:
        futures = {pool.submit(_trials, root, *job, n_claims, out): job for job in jobs}
        try:
            for number, future in enumerate(as_completed(futures), 1):
                future.result()
                fault, names = futures[future]
                console.print(f"{number} of {len(jobs)}: {fault} in {', '.join(names)}")
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _path(out: Path, pair: tuple[str, str]) -> Path:
    return out / "trials" / pair[0] / f"{pair[1]}.json"


def _trials(root: Path, fault: str, names: list[str], n_claims: int, out: Path) -> None:
    """Plant a fault in this process, run these replications, and store what became of each."""
    folder = _results(FAULTS[fault], out)
    for name in names:
        load_replication(root, name, PROFILE, out=folder)  # what the fault replaces is first to be there
    FAULTS[fault].plant()
    for name in names:
        found = run(FAULTS[fault], root, name, n_claims, out)
        path = _path(out, (fault, name))
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(found, indent=1), encoding="utf-8")
        temporary.replace(path)


def _results(fault: Fault, out: Path) -> Path:
    return out / "results" / (NONE if fault.judging else fault.name)


def run(fault: Fault, root: Path, name: str, n_claims: int, out: Path) -> dict[str, Any]:
    """What becomes of a replication's quick profile in this process, where the fault is planted.

    `outcomes` has the verdict and the numbers of each claim, `table` the digest of the instances table;
    `claims`, `record` and `error` are as in `Trial`.
    """
    found: dict[str, Any] = {"outcomes": {}, "table": "", "claims": [], "record": [], "error": ""}
    try:
        replication = load_replication(root, name, PROFILE, out=_results(fault, out))
        train(replication.runs if fault.controls else [replication.run], ONE)
        manifest = replication.run.manifest()
        assert manifest is not None
        found["table"] = manifest["instances_digest"]
        found |= _judged(replication, n_claims, fault.controls)
    except Exception as error:  # whatever a fault does, it is noticed by that
        found["error"] = traceback.format_exception_only(error)[-1].strip()
    return found


def _judged(replication: Replication, n_claims: int, controls: bool) -> dict[str, Any]:
    """The outcomes, and what differs from the record; of controls only where they were run."""
    recorded = records.load(replication.files.record)[PROFILE]
    if controls:
        judged = judge(replication, n_claims)
        outcomes, lost = judged.outcomes, judged.controls
    else:
        table = replication.run.table()
        assert table is not None
        # by its module, so that a fault in it holds here
        outcomes, lost = judging.evaluate(replication.claims, replication.run.spec.code, table), {}
        recorded = recorded.model_copy(update={"controls": {}})
    was = recorded.claims
    other = [
        f"{name} ({outcome.verdict})"
        for name, outcome in outcomes.items()
        if name in was and was[name].verdict is Verdict.REPRODUCED is not outcome.verdict
    ]
    other += [
        f"{control}: {name} ({verdict})"
        for control, verdicts in lost.items()
        for name, verdict in verdicts.items()
        if verdict is not Verdict.NOT_REPRODUCED
    ]
    changes = records.differences(recorded, outcomes, lost, n_claims)
    return {
        "outcomes": {
            name: [str(outcome.verdict), repr(outcome.value), repr(outcome.low), repr(outcome.high)]
            for name, outcome in outcomes.items()
        },
        "claims": other,
        "record": [f"{change.claim}: {change.problem}" for change in changes if not change.by_chance],
    }


def _read(root: Path, pair: tuple[str, str], out: Path) -> Trial:
    fault, name = pair
    found, unbroken = (
        json.loads(_path(out, (which, name)).read_text(encoding="utf-8")) for which in (fault, NONE)
    )
    acts = any(found[key] != unbroken[key] for key in ("outcomes", "table", "claims", "error"))
    return Trial(fault, name, found["claims"], found["record"], found["error"], acts)


def table_of(trials: list[Trial]) -> pd.DataFrame:
    """A row per trial: counts, and the names of the first claims."""

    def first(names: list[str]) -> str:
        return "; ".join(names[:NAMED]) + (f"; and {len(names) - NAMED} more" if len(names) > NAMED else "")

    return pd.DataFrame(
        {
            "fault": trial.fault,
            "what": FAULTS[trial.fault].what,
            "replication": trial.replication,
            "caught": trial.caught,
            "acts": trial.acts,
            "n_claims": len(trial.claims),
            "claims": first(trial.claims),
            "n_record": len(trial.record),
            "record": first(trial.record),
            "error": trial.error,
        }
        for trial in trials
    )


def summary(trials: list[Trial]) -> list[str]:
    """What is printed: a line for each trial, then counts, and the faults that nothing noticed."""
    lines = []
    for trial in trials:
        by = [
            f"error {trial.error}" if trial.error else "",
            f"{len(trial.claims)} claims ({', '.join(trial.claims[:NAMED])})" if trial.claims else "",
            f"{len(trial.record)} changes to the record" if trial.record else "",
        ]
        shown = ", ".join(filter(None, by)) or ("not noticed" if trial.acts else "no number differs")
        lines.append(f"{trial.fault} in {trial.replication}: {shown}")
    planted = [trial for trial in trials if trial.fault != NONE]
    counts: list[tuple[str, Callable[[Trial], bool]]] = [
        ("by a claim, a control or an error", lambda trial: bool(trial.claims or trial.error)),
        ("by these or the record", lambda trial: trial.caught),
    ]
    faults = dict.fromkeys(trial.fault for trial in planted)
    for how, holds in counts:
        in_trials = sum(map(holds, planted))
        caught = {trial.fault for trial in planted if holds(trial)}
        lines.append(
            f"noticed {how}: {len(caught)} of {len(faults)} faults, {in_trials} of {len(planted)} trials"
        )
    missed = [name for name in faults if not any(t.caught for t in planted if t.fault == name)]
    lines.append(f"faults that nothing notices: {', '.join(missed) or 'none'}")
    idle = [name for name in faults if not any(t.acts for t in planted if t.fault == name)]
    lines.append(f"faults that change no number: {', '.join(idle) or 'none'}")
    return lines
