"""The command `bench`."""

import argparse

from rich.table import Table
from rich.text import Text

from common.commands.asked import SpecAsked
from common.commands.devices import devices
from common.reports.tables import duration
from common.runs.training import Devices
from common.specs.find import make_importable
from common.specs.spec import Spec, resolve
from common.speed.bench import Bench
from common.speed.bench import bench as time_spec
from common.speed.ceiling import Machine
from common.speed.scaling import scaling
from common.system.terminal import Terminal


def bench(options: argparse.Namespace, asked: list[SpecAsked], console: Terminal) -> int:
    """Time training against a plain loop and the machine's ceiling, or how time and memory grow."""
    for one in asked:
        make_importable(one.files)
    specs = [resolve(one.draft) for one in asked]
    ours = devices(options)
    if options.scaling:
        for spec in specs:
            _scaling(spec, ours, console)
        return 0
    table = Table(
        title=f"Networks x steps per second on {ours.n} x {ours}, "
        "and how long the whole sweep takes at these rates, without controls",
        caption="of the ceiling: our rate as a share of the highest rate that this machine could reach if it "
        "had to do only its slowest task. The ceiling, per device, was measured just now. bounded by: "
        "what takes the largest share of a step's time; overhead does not grow with the number of networks.",
    )
    for column in ("replication", "networks"):
        table.add_column(column, overflow="fold")
    for column in ("at once", "ours", "plain", "ratio", "of the ceiling"):
        table.add_column(column, justify="right")
    for column in ("ceiling", "bounded by"):
        table.add_column(column)
    for column in ("sweep, ours", "plain"):
        table.add_column(column, justify="right")
    try:
        with Machine(ours) as machine, console.status("") as status:
            for spec in specs:
                status.update(Text(f"timing {spec.name}"))
                _add_speeds(table, spec.name, time_spec(spec, machine))
    finally:
        console.print(table)
    return 0


def _add_speeds(table: Table, name: str, timed: Bench | None) -> None:
    if timed is None:
        table.add_row(name, "calculated, not trained")
        return
    sweep = [duration(timed.ours), duration(timed.plain)]
    for speed in timed.speeds:
        rates = [f"{speed.ours:,.0f}", f"{speed.plain:,.0f}", f"{speed.ours / speed.plain:.3g}"]
        share = f"{speed.ours / speed.bound.rate:.0%}"
        by = "{} {:.0%}".format(*next(iter(speed.shares.items())))
        table.add_row(name, speed.shape, f"{speed.networks:,}", *rates, share, speed.bound.by, by, *sweep)
        name, sweep = "", ["", ""]


def _scaling(spec: Spec, ours: Devices, console: Terminal) -> None:
    table = Table(title=f"{spec.name}: how time and memory grow with the sweep, in one process")
    for column in ("more", "networks", "steps", "seconds", "peak memory, MB"):
        table.add_column(column, justify="left" if column == "more" else "right")
    for axis in scaling(spec, ours):
        for run in axis.runs:
            seconds, memory = f"{run.seconds:.2f}", f"{run.memory / 1e6:,.0f}"
            table.add_row(axis.name, f"{run.networks:,}", f"{run.steps:,}", seconds, memory)
        powers = f"^{axis.time_exponent:.2f}", f"^{axis.memory_exponent:.2f}"
        table.add_row("", "", "fitted power", *powers, end_section=True)
    console.print(table)
