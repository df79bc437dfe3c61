"""The command `run`, and `status`, which says what `run` would train."""

import argparse
import time

from common.commands.asked import Asked
from common.commands.check import tell
from common.commands.devices import devices, place
from common.reports.write import Fresh, draw_figures
from common.runs import workers
from common.runs.parts import Part, train_part
from common.runs.progress import shown
from common.runs.store import Run
from common.runs.training import Devices, network_steps, train
from common.specs.papers import load_papers
from common.system.terminal import Terminal
from common.verdicts import record as records
from common.verdicts.judge import Replication, judge, load_all
from common.verdicts.rehearsal import rehearse


def run(options: argparse.Namespace, asked: Asked, console: Terminal) -> int:
    """Train what is missing, judge the claims, draw the figures; the exit code of `tell`."""
    part = None if options.part is None else Part.parse(options.part)
    replications = load_all(asked.replications, asked.root, asked.out, asked.keep_weights)
    roots = [one.files.root for one in replications if not one.files.installed]
    chosen = place(options, roots)
    for replication in replications:
        records.load(replication.files.record)  # a mistake in it is known before training
    for root in asked.suites:
        load_papers(root)  # and so is a mistake in citation.bib
    n_claims = asked.n_claims()
    runs = [run for replication in replications for run in replication.runs]
    if options.keep_weights is not None:
        _tell_of_weights(replications, console)
    lacking = {run: run.lacking() for run in runs} if part is None else part.missing(runs)
    for replication in replications:
        if any(lacking[run] for run in replication.runs):
            rehearse(replication)
    todo = {run: steps for run, some in lacking.items() if (steps := network_steps(run, some))}
    if not todo:
        console.print("Nothing to train: all results are stored.")
        if part is None:  # parts, or a stopped run, may have stored all shards without joining them
            train(runs, devices(options) if options.on is None else Devices("cpu", 1))
    else:
        start = time.monotonic()
        with chosen as chosen_place, shown(console, todo) as progress:
            if part is None:
                train(runs, chosen_place, progress)
            else:
                train_part(lacking, chosen_place, progress)
            where = f"{chosen_place.n} x {chosen_place}"
        seconds = time.monotonic() - start
        rate = sum(todo.values()) / seconds
        console.print(
            f"Trained in {seconds:.0f} s on {where}: "
            f"{rate:,.0f} networks x steps per second, including startup and compiling."
        )
    if part is not None:
        return _tell_of_part(part, runs, console)
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
    return tell(asked, replications, console, fresh)


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
    return 0
