"""The commands that need no large packages: `list`, `new`, `cite`, `compare` and `report --schema`."""

import argparse
import shlex
from pathlib import Path

from rich.text import Text

from common.commands.asked import named, tell_aside
from common.errors import InputError
from common.reports import schema
from common.reports.compare import compare as differences
from common.specs.fields import DECIDED, load_fields, n_networks
from common.specs.find import find_all, find_own
from common.specs.new import make
from common.specs.papers import load_citations
from common.system.terminal import Terminal


def list_all(options: argparse.Namespace, root: Path, console: Terminal) -> int:
    """List the replications; a mistake in one of the root's own makes the exit code 2."""
    problems = []
    try:
        find_own(root)
    except InputError as error:
        problems.append(error)
    for files in find_all(root, tell_aside):
        try:
            fields = load_fields(files.path)  # without its code
            networks = n_networks(fields)
        except InputError as error:
            if files.root == root:
                problems.append(error)
            else:
                tell_aside(str(error))
            continue
        profiles = ", ".join(dict.fromkeys(["full", *fields.profiles, DECIDED]))
        console.print(
            Text(files.name, "bold"),
            f": {fields.title} ({fields.paper}): {networks:,} networks of "
            f"{fields.trainer.max_steps:,} steps; profiles: {profiles}; "
            f"controls: {', '.join(fields.controls)}" + (f"; in {files.root}" if files.installed else ""),
            sep="",
        )
    for problem in problems:
        tell_aside(str(problem))
    return 2 if problems else 0


def new(options: argparse.Namespace, root: Path, console: Terminal) -> int:
    """Make the files of a new replication."""
    for path in make(root, options.name):
        console.print(f"made: {path}", soft_wrap=True)
    command = "replicate" if root == Path.cwd() else f"replicate --root {shlex.quote(str(root))}"
    console.print("It runs as generated; each file says what to fill in. Next:")
    for then, why in (
        ("run", "trains, judges and draws; nothing is recorded yet, so it exits with 1"),
        ("record", "makes this the reference; commit all files first"),
        ("check", "all results match the record, so it exits with 0"),
    ):
        line = f"  {command} {then} {options.name}  # {why}"
        console.print(line, soft_wrap=True)
    return 0


def cite(options: argparse.Namespace, root: Path, console: Terminal) -> int:
    """Print the papers behind replications."""
    papers = {files.path.parent for files in named(options, root)}
    texts = [load_citations(paper / "citation.bib").text for paper in sorted(papers)]
    for text in dict.fromkeys(texts):  # two folders may have the same paper
        console.verbatim(f"{text}\n")
    return 0


def compare(options: argparse.Namespace, console: Terminal) -> int:
    """Say how two reports differ; returns 1 if they do."""
    lines = list(differences(schema.load(options.a), schema.load(options.b)))
    for line in lines:
        console.print(line)
    if not lines:
        console.print("The two reports have the same verdicts and values.")
    return 1 if lines else 0


def print_schema(console: Terminal) -> int:
    """Print the JSON schema of a report."""
    console.verbatim(schema.json_schema())
    return 0
