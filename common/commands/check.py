"""The command `check`, and how all judging ends: verdicts, what differs from the record, then the report."""

from collections.abc import Mapping

from common.commands.asked import Asked
from common.errors import InputError
from common.reports import tables
from common.reports.schema import NotRun
from common.reports.write import Fresh, publish
from common.runs.shard import tell_of_diverged
from common.specs.fields import BUILT_IN
from common.specs.find import results_folder
from common.system.terminal import Terminal
from common.system.text import counted
from common.verdicts.claims import Verdict
from common.verdicts.judge import Replication, judge_all, load_all
from common.verdicts.suite import Suite, Written


def check(asked: Asked, console: Terminal) -> int:
    """Judge the claims on stored results; the exit code of `tell`."""
    replications = load_all(asked.replications, asked.root, asked.out)
    judged = judge_all(replications, asked.n_claims())
    fresh = {one.name: Fresh(verdicts) for one, verdicts in zip(replications, judged, strict=True)}
    return tell(asked, replications, console, fresh)


def tell(
    asked: Asked,
    replications: list[Replication],
    console: Terminal,
    fresh: Mapping[str, Fresh],
) -> int:
    """Print verdicts and what differs from the record, and write the report; returns the exit code."""
    problems = 0
    for replication in replications:
        judged = fresh[replication.name].judged
        problems += len(judged.problems)
        title = f"{replication.name}, {asked.profile}"
        if replication.for_reference:
            title += ", changed spec: for reference only; the verdicts do not apply to the paper"
        console.print(tables.table(title, judged.outcomes, judged.changes))
        for line in tables.remarks(judged.outcomes, is_explained=not replication.for_reference):
            console.print(f"- {line}")
        if replication.not_asked:
            names = ", ".join(replication.not_asked)
            console.print(f"not judged, because the changed sweep has no networks for them: {names}")
        for name, verdicts in judged.controls.items():
            failed = sum(verdict is Verdict.NOT_REPRODUCED for verdict in verdicts.values())
            why = replication.run.spec.controls[name].why
            console.print(f"control {name} ({why}): {tables.control_result(failed, len(verdicts))}")
        if judged.other_hash:
            console.print(
                "The record is of another spec or other versions, so values may differ within its spread."
            )
        for run in replication.runs:
            if why_diverged := tell_of_diverged(run):
                console.print(why_diverged, style="red")
        for change in judged.changes or []:
            chance = change.by_chance
            how, style = ("differs within chance", None) if chance else ("differs from the record", "red")
            console.print(f"{how}: {change.claim}: {change.problem}", style=style)
    if any(replication.overridden for replication in replications):
        console.print("The spec was changed on the command line, so nothing is compared with the record.")
    else:
        chances = sum(len(fresh[one.name].judged.changes or []) for one in replications) - problems
        console.print(_conclusion(problems, chances))
    _write_report(asked, replications, console, fresh)
    for replication in replications:
        outcomes = fresh[replication.name].judged.outcomes
        if all(outcome.verdict is Verdict.INVALID for outcome in outcomes.values()) and not problems:
            raise InputError(
                f"{replication.name}: no claim could be judged: {next(iter(outcomes.values())).reason}"
            )
    return 1 if problems else 0


def _conclusion(problems: int, chances: int) -> str:
    """What is printed at the end: whether all results match the record."""
    if problems:
        differ = "differs" if problems == 1 else "differ"
        return f"{counted(problems, 'result')} {differ} from the record."
    if not chances:
        return "All results match the record."
    differ = "differs" if chances == 1 else "differ"
    exceptions = f"{counted(chances, 'verdict')} that {differ} within chance"
    return f"All results match the record, except {exceptions}."


def _write_report(
    asked: Asked, replications: list[Replication], console: Terminal, fresh: Mapping[str, Fresh]
) -> None:
    """Write the report at the end of a run: on the whole suite, or only on what was changed for this run.

    Of replications that were not asked for, only the files are read; no spec is resolved.

    Raises:
        InputError: if it cannot be written: a run without its report is not complete.
    """
    roots = {one.files.root for one in replications if not one.files.installed}
    home = roots.pop() if len(roots) == 1 else asked.root
    suite = asked.suites.setdefault(home, Suite(home))
    within = asked.out or results_folder(home)
    to = within / "report"
    shown: list[Replication | Written] = []
    not_read: list[NotRun] = []
    judged = {replication.name: replication for replication in replications}
    if any(replication.overridden for replication in replications):
        to = to / "changed"
    else:
        for name, files in suite.replications.items():
            try:
                if name in judged:
                    shown.append(judged.pop(name))
                elif asked.profile in (*BUILT_IN, *suite.fields(files).profiles):
                    shown.append(suite.read(files, asked.profile))
            except InputError as error:  # a mistake in a replication that was not asked for
                not_read.append(NotRun(name=name, title="", why=str(error)))
    shown += judged.values()
    commands = asked.commands(one.name for one in shown)
    n_claims = {one.files.root: asked.suites[one.files.root].n_claims for one in shown}
    publish(asked.profile, shown, to, fresh, commands, n_claims, within=within, not_read=not_read)
    console.print(f"report: {to / 'report.html'}")
