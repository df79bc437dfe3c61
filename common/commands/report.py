"""The command `report`."""

import argparse

from common.commands.asked import Asked
from common.errors import InputError
from common.reports.write import publish
from common.specs.find import results_folder
from common.system.terminal import Terminal
from common.verdicts.judge import load_all


def report(options: argparse.Namespace, asked: Asked, console: Terminal) -> int:
    """Write the report on stored results; what no earlier report judged is judged now."""
    within = options.to or asked.out or results_folder(asked.root)
    to = options.to or within / "report"
    replications = load_all(asked.replications, asked.root, asked.out)
    commands = asked.commands(one.name for one in replications)
    written = publish(asked.profile, replications, to, {}, commands, asked.n_claims(), within=within)
    for left_out in written.not_run:
        console.print(f"not run: {left_out.name}: {left_out.why}")
    if not written.replications:
        raise InputError(f"nothing to report: no replication has results in profile {asked.profile}")
    console.print(f"report: {to / 'report.html'}")
    return 0
