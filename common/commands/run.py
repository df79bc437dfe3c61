"""The command `run`, and `status`, which says what `run` would train."""

import argparse
import math
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from common.commands.asked import Asked
from common.commands.check import tell
from common.commands.devices import place
from common.errors import InputError
from common.reports.write import Fresh, draw_figures
from common.runs import workers
from common.runs.parts import Part, train_part
from common.runs.progress import doing, shown
from common.runs.store import Run, variant_of
from common.runs.training import Devices, Place, TimeIsUp, network_steps, train
from common.specs.fields import DECIDED
from common.specs.papers import load_papers
from common.specs.sweep import Shard
from common.system.terminal import Terminal
from common.system.text import counted
from common.verdicts import record as records
from common.verdicts.deciding import Standing, standing
from common.verdicts.judge import Replication, judge, load_all
from common.verdicts.rehearsal import rehearse


def run(options: argparse.Namespace, asked: Asked, console: Terminal) -> int:
    """Train what is missing, judge the claims, draw the figures; the exit code of `tell`."""
    part = None if options.part is None else Part.parse(options.part)
    until = _until(options, asked.profile)
    if part is not None and asked.profile == DECIDED:
        raise InputError(
            "--part: in the profile decided, what is trained next depends on what all parts have trained; "
            "expected a profile of fixed size: --seeds N --part I/N trains the networks of a look in parts"
        )
    replications = load_all(asked.replications, asked.root, asked.out, asked.keep_weights)
    roots = [one.files.root for one in replications if not one.files.installed]
    chosen = place(options, roots)
    for replication in replications:
        records.load(replication.files.record)  # a mistake in it is known before training
    for root in asked.suites:
        load_papers(root)  # and so is a mistake in citation.bib
    asked.n_claims()
    if options.keep_weights is not None:
        _tell_of_weights(replications, console)
    if part is not None:
        return _train_part(part, replications, chosen, console)
    not_judged: list[str] = []
    if asked.profile == DECIDED:
        replications, not_judged = _decide(replications, chosen, console, until)
        if not replications:
            console.print("Nothing was judged: the networks of a first look, or of controls, are missing.")
            return 1
    else:
        runs = [run for replication in replications for run in replication.runs]
        lacking = _rehearsed(replications, runs)
        if any(lacking.values()):
            _train(runs, lacking, chosen, _recorded(replications), console)
        else:
            console.print("Nothing to train: all results are stored.")
            # parts, or a stopped run, may have stored all shards without joining them
            train(runs, Devices("cpu", 1))
    with doing(console, "judging"):
        fresh = _judge(asked, replications, console)
    code = tell(asked, replications, console, fresh)
    if not_judged:
        names = ", ".join(not_judged)
        console.print(f"Not judged, as networks of a first look or of controls are missing: {names}.")
        return max(code, 1)
    return code


def _until(options: argparse.Namespace, profile: str) -> float:
    """The time, as of `time.monotonic`, at which training stops.

    Raises:
        InputError: if --hours is not a time, or the profile has a fixed number of networks.
    """
    if options.hours is None:
        return math.inf
    if profile != DECIDED:
        raise InputError(f"--hours: only the profile decided stops at a time; got --profile {profile}")
    if not 0 < options.hours < math.inf:
        raise InputError(f"--hours {options.hours:g}: expected a number of hours above 0, as in --hours 2.5")
    return time.monotonic() + 3600 * float(options.hours)


def _rehearsed(replications: list[Replication], runs: list[Run]) -> dict[Run, list[Shard]]:
    """What `runs` of these replications lack; what has something to train is rehearsed."""
    lacking = {run: run.lacking() for run in runs}
    named = {run.spec.name for run, some in lacking.items() if some}
    for replication in replications:
        if replication.name in named:
            rehearse(replication)
    return lacking


def _recorded(replications: list[Replication]) -> dict[Path, float]:
    """The processor seconds of the runs whose records have them, with all seeds of their specs, by folder.

    The profile decided has the networks of full, and more where needed: what full took is known per network.
    """
    seconds = {}
    for one in replications:
        if one.overridden:
            continue
        profile = "full" if one.run.spec.profile == DECIDED else one.run.spec.profile
        if (record := records.load(one.files.record).get(profile)) is not None:
            for run in one.runs:
                took = record.core_s.get(variant_of(profile, run.spec.control), 0.0)
                if took > 0:
                    seconds[run.folder] = took
    return seconds


def _train(
    runs: list[Run],
    lacking: Mapping[Run, list[Shard]],
    chosen: AbstractContextManager[Place],
    recorded: Mapping[Path, float],
    console: Terminal,
) -> None:
    todo = {run: steps for run, some in lacking.items() if (steps := network_steps(run, some))}
    start = time.monotonic()
    with chosen as where, shown(console, recorded) as progress:
        train(runs, where, progress)
        _tell_of_time(todo, where, start, console)


def _tell_of_time(todo: Mapping[Run, int], where: Place, start: float, console: Terminal) -> None:
    seconds = time.monotonic() - start
    console.print(
        f"Trained in {seconds:.0f} s on {where.n} x {where}: {sum(todo.values()) / seconds:,.0f} "
        "networks x steps per second, including startup and compiling."
    )


def _train_part(
    part: Part, replications: list[Replication], chosen: AbstractContextManager[Place], console: Terminal
) -> int:
    runs = [run for replication in replications for run in replication.runs]
    lacking = part.missing(runs)
    for replication in replications:
        if any(lacking[run] for run in replication.runs):
            rehearse(replication)
    todo = {run: steps for run, some in lacking.items() if (steps := network_steps(run, some))}
    if not todo:
        console.print("Nothing to train: all results of this part are stored.")
        return _tell_of_part(part, runs, console)
    start = time.monotonic()
    with chosen as where, shown(console, _recorded(replications)) as progress:
        train_part(lacking, where, progress)
        _tell_of_time(todo, where, start, console)
    return _tell_of_part(part, runs, console)


def _decide(
    replications: list[Replication],
    chosen: AbstractContextManager[Place],
    console: Terminal,
    until: float,
) -> tuple[list[Replication], list[str]]:
    """Train look by look until no claim is open that another look may decide, or until the time is up.

    Returns the replications that can be judged, and the names of those that cannot: networks of their first
    look or of their controls are missing.
    """
    recorded = _recorded(replications)
    with chosen as where:
        while True:
            standings = _standings(replications)
            pairs = list(zip(replications, standings, strict=True))
            runs = [run for one, now in pairs for run in (now.needed, *one.controls.values())]
            lacking = _rehearsed(replications, runs)
            todo = {run: steps for run, some in lacking.items() if (steps := network_steps(run, some))}
            for one, now in pairs:
                if now.outcomes and now.open:
                    _tell_of_open(one.name, now, lacking[now.needed], console)
            if not todo:
                break
            start = time.monotonic()
            try:
                with shown(console, recorded, _title(pairs, todo)) as progress:
                    train(runs, where, progress, until)
                    _tell_of_time(todo, where, start, console)
            except TimeIsUp:
                console.print("The time is up. What was trained is stored; the same command continues.")
                standings = _standings(replications)
                break
    judged = [one._replace(run=now.judged) for one, now in zip(replications, standings, strict=True)]
    incomplete = [any(run.lacking() for run in one.runs) for one in judged]
    complete = [one for one, lacks in zip(judged, incomplete, strict=True) if not lacks]
    train([run for one in complete for run in one.runs], Devices("cpu", 1))  # joins the shards
    return complete, [one.name for one, lacks in zip(judged, incomplete, strict=True) if lacks]


def _standings(replications: list[Replication]) -> list[Standing]:
    """How far each replication has got; if there are many, found on all processors."""
    asked = [(one.run, one.claims, one.looks) for one in replications if one.looks]
    with workers.spread(len(asked)) as spread_map:
        return list(spread_map(standing, *zip(*asked, strict=True)))


def _tell_of_open(name: str, now: Standing, lacking: list[Shard], console: Terminal) -> None:
    networks = sum(len(shard.rows) for shard in lacking)
    console.print(f"{name}: {networks:,} more networks may decide: {', '.join(now.open)}")


def _title(pairs: list[tuple[Replication, Standing]], todo: Mapping[Run, int]) -> str:
    """Which looks are trained, and how many claims are open: `look 2 of 3, 14 claims open`."""
    trained = [(one.looks, now) for one, now in pairs if one.looks and now.needed in todo]
    looks = {
        (now.outcomes[name].look or 0) + 1 if now.outcomes else 1 for _, now in trained for name in now.open
    }
    n_open = counted(sum(len(now.open) for _, now in pairs), "claim") + " open"
    if not looks:  # only controls are
        return n_open
    which = f"look {min(looks)}" if len(looks) == 1 else f"looks {min(looks)} to {max(looks)}"
    return f"{which} of {max(len(of.seeds) for of, _ in trained)}, {n_open}"


def _judge(asked: Asked, replications: list[Replication], console: Terminal) -> dict[str, Fresh]:
    n_claims = asked.n_claims()
    with workers.spread(len(replications)) as spread_map:
        counts = [n_claims[replication.files.root] for replication in replications]
        judged, drawn = spread_map(judge, replications, counts), spread_map(draw_figures, replications)
        fresh: dict[str, Fresh] = {}
        for replication, verdicts, figures in zip(replications, judged, drawn, strict=True):
            fresh[replication.name] = Fresh(verdicts, figures.exhibit)
            if figures.problem:
                console.print(f"{replication.name}: no figures: {figures.problem}")
            for path in figures.files:
                console.print(f"figure: {path}")
    return fresh


def _tell_of_part(part: Part, runs: list[Run], console: Terminal) -> int:
    left, whole = sum(len(run.lacking()) for run in runs), sum(len(run.shards) for run in runs)
    console.print(
        f"part {part} is stored; {left} of {whole} shards of the sweep are missing"
        + ("" if left else ": the same command without --part judges the results"),
    )
    return 0


def _tell_of_weights(replications: list[Replication], console: Terminal) -> None:
    for name, run in ((replication.name, replication.run) for replication in replications):
        again = sum(run.stored(shard) is not None for shard in run.lacking())
        if run.keep.empty:
            console.print(f"{name} is calculated: there are no weights to keep.")
        if again:
            shards_are = "1 shard is" if again == 1 else f"{again} shards are"
            console.print(f"{name}: {shards_are} stored without these weights and trained again.")


def status(asked: Asked, console: Terminal) -> int:
    """Say what a run would train, and why."""
    for replication in load_all(asked.replications, asked.root, asked.out):
        for run in replication.runs:
            why = run.why_incomplete()
            state = f"would run: {why}" if why else f"complete, in {run.folder}"
            console.print(f"{replication.name} {run.variant.name} {run.hash}: {state}")
        if replication.looks is not None:
            now = standing(replication.run, replication.claims, replication.looks)
            if now.outcomes and now.open:
                _tell_of_open(replication.name, now, now.needed.lacking(), console)
    return 0
