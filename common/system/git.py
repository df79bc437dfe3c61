"""What git knows about a root: the commit of its code, and whether its claims are older than its results."""

import os
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

from common.errors import InputError, one_line
from common.system.files import is_installed

_WHOLE = [".", ":!expected/*.record.yaml", ":!expected/*.samples.parquet", ":!*README.md"]
"""The files whose changes count: all except those that `replicate record` writes."""

_DECIDING = ["replications", "expected", "common"]
"""The folders whose files decide the results, as far as a root has them."""


def commit(root: Path) -> str:
    """The commit of the code at `root`, with `+` if it was changed since; `unknown` outside git.

    A repository around a root counts only if git tracks the root's replications.
    """
    try:
        if not _git(root, "ls-files", "--", "replications"):
            return "unknown"
        head = _git(root, "rev-parse", "--short=12", "HEAD").strip()
        return head + ("+" if _changed(root) or _left_out(root) else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def committed(root: Path, files: Sequence[Path]) -> str:
    """The commit of `root`, which must contain all its code and claims, including `files`.

    Raises:
        InputError: if it does not, or git cannot tell.
    """
    why = "code and claims must be committed before a record, as acceptance regions come before results"
    first = f"`git -C {shlex.quote(str(root))} add .`, and commit"
    if is_installed(root):
        raise InputError(f"{root}: is installed; {why}: record in a clone of its repository, with --root")
    names = [os.path.relpath(path, root) for path in files]
    try:
        _git(root, "rev-parse", "--git-dir")
        tracked = _names(_git(root, "ls-files", "-z", "--", *names))
        changed, left_out = _changed(root), _left_out(root)
    except FileNotFoundError:
        raise InputError(f"{root}: git was not found; {why}: install git") from None
    except OSError as error:
        raise InputError(f"{root}: git cannot be run: {one_line(error)}; {why}") from None
    except subprocess.CalledProcessError as error:
        said = one_line(error.stderr)
        if "not a git repository" in said:
            raise InputError(
                f"{root}: not in a git repository; {why}: run `git init` there, then {first}"
            ) from None
        raise InputError(f"{root}: git says: {said}; {why}") from None
    try:
        head = _git(root, "rev-parse", "--short=12", "--verify", "HEAD").strip()
    except subprocess.CalledProcessError:
        raise InputError(f"{root}: nothing is committed yet; {why}: {first}") from None
    if untracked := [*(name for name in names if name not in tracked), *left_out]:
        how = f"`git -C {shlex.quote(str(root))} add --force {shlex.quote(untracked[0])}`, and commit"
        raise InputError(f"{root}: git does not track {untracked[0]}; {why}: {how}")
    if changed:
        raise InputError(f"{root}: {changed[0]} has uncommitted changes; {why}: {first}")
    return head


def _changed(root: Path) -> list[str]:
    """The files that differ from the last commit or are new, whatever the user's settings exclude."""
    asked = ("--untracked-files=normal", "--ignore-submodules=none", "--no-renames", "-z")
    return [name[3:] for name in _names(_git(root, "status", "--porcelain", *asked, "--", *_WHOLE))]


def _left_out(root: Path) -> list[str]:
    """The code and claims that git does not track, including ignored files."""
    others = _names(_git(root, "ls-files", "-z", "--others", "--", *_DECIDING))
    return [
        name
        for name in others
        if (name.endswith((".py", ".yaml", "/")) and not name.endswith(".record.yaml"))
        and not any(part.startswith(".") for part in name.split("/"))
    ]


def _names(text: str) -> list[str]:
    return [name for name in text.split("\0") if name]


def _git(root: Path, *arguments: str) -> str:
    # variables set for another repository, as in a hook, must not apply here
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment |= {"GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    done = subprocess.run(
        ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True, env=environment,
        errors="surrogateescape",
    )  # fmt: skip
    return done.stdout
