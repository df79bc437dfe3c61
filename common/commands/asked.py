"""What a command line asks for, read and checked before anything large is imported: `read_asked`."""

import argparse
import re
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from common.errors import InputError
from common.specs.document import Document, parse_value
from common.specs.draft import Draft, read_draft
from common.specs.find import Files, announce, find_named
from common.system.terminal import Terminal
from common.verdicts.suite import Suite, Written


class SpecAsked(NamedTuple):
    """A spec that a command is about, without its controls and claims."""

    files: Files
    draft: Draft


class Asked(NamedTuple):
    """The replications that a command is about, as their files describe them, and the suites they belong to.

    `root` is the folder given to the command. `out`: where results are stored, None for the default.
    """

    root: Path
    profile: str
    replications: list[Written]
    suites: dict[Path, Suite]
    out: Path | None
    keep_weights: str | None
    changes: list[str]

    def n_claims(self) -> dict[Path, int]:
        """How many claims each suite has.

        Raises:
            InputError: for the first mistake in a file of claims.
        """
        return {root: suite.n_claims for root, suite in self.suites.items()}

    def commands(self, names: Iterable[str]) -> dict[str, str]:
        """The command that reruns each of these replications."""
        start = ["replicate", "run"]
        return {name: shlex.join([*start, name, "--profile", self.profile, *self.changes]) for name in names}


def read_asked(options: argparse.Namespace, root: Path) -> Asked:
    """What is asked for; code that will run from other folders is announced.

    Raises:
        InputError: for the first mistake in the arguments, or in the files of these replications.
    """
    overrides: dict[str, tuple[Any, str]] = {}
    changes: list[str] = []
    for text in getattr(options, "overrides", []):
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise InputError(f"--set {text}: expected KEY=VALUE, as in --set trainer.max_steps=100")
        overrides[key] = (parse_value(value), f"--set {text}")
        changes += ["--set", text]
    if (seeds := getattr(options, "seeds", None)) is not None:
        overrides["seeds"] = (_seeds(seeds), f"--seeds {seeds}")
        changes += ["--seeds", seeds]
    _check_devices(options)
    files = named(options, root)
    suites = {one.root: Suite(one.root) for one in files}
    written = [suites[one.root].read(one, options.profile, overrides) for one in files]
    announce(files, root)
    out, keep = getattr(options, "out", None), getattr(options, "keep_weights", None)
    return Asked(root, options.profile, written, suites, out, keep, changes)


def read_specs(options: argparse.Namespace, root: Path) -> list[SpecAsked]:
    """Only the specs of what is asked for, as in `read_asked`.

    Raises:
        InputError: for the first mistake in the arguments, or in these files.
    """
    _check_devices(options)
    files = named(options, root)
    specs = [SpecAsked(one, read_draft(Document.load(one.path), options.profile)) for one in files]
    announce(files, root)
    return specs


def _check_devices(options: argparse.Namespace) -> None:
    devices = getattr(options, "devices", None)
    if devices is not None and devices < 1:
        raise InputError(f"--devices {devices}: expected at least 1")


def named(options: argparse.Namespace, root: Path) -> list[Files]:
    """The replications asked for, each once.

    Raises:
        InputError: as `find_named`; also if two roots have a folder of the same paper, because their modules
            would have the same names.
    """
    replications = find_named(root, options.names, tell_aside)
    roots: dict[str, Path] = {}
    for one in replications:
        first = roots.setdefault(one.path.parent.name, one.root)
        if first != one.root:
            raise InputError(
                f"{one.path.parent.name} is in both {first} and {one.root}; give only one of them"
            )
    return replications


def tell_aside(line: str) -> None:
    """Print a note that stops nothing."""
    Terminal(stderr=True, soft_wrap=True).print(f"replicate: {line}")


def _seeds(text: str) -> Any:
    """How many seeds, or which: a list may be written without brackets."""
    several = re.fullmatch(r"\s*[0-9]+\s*(,\s*[0-9]+\s*)+,?\s*", text)
    return parse_value(f"[{text}]" if several else text)
