"""What git says of a root: at which commit its code is, and whether its claims are older than its results."""

import os
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

from common.errors import InputError, one_line
from common.system.files import is_installed

_WHOLE = [".", ":!expected/*.record.yaml", ":!expected/*.samples.parquet", ":!*README.md"]
"""What may be changed: all but what `replicate record` writes."""

_DECIDING = ["replications", "expected", "common"]
"""The folders whose files decide what comes out, as far as a root has them."""


def commit(root: Path) -> str:
    """The commit that the code at `root` is at, with `+` if it was changed since; `unknown` outside git.

    A repository that only lies around a root is not the root's: git must have its replications.
    """
    try:
        if not _git(root, "ls-files", "--", "replications"):
            return "unknown"
        head = _git(root, "rev-parse", "--short=12", "HEAD").strip()
        return head + ("+" if _changed(root) or _left_out(root) else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def committed(root: Path, files: Sequence[Path]) -> str:
    """The commit of `root`, in which all its code and claims are, `files` among them.

    Raises:
        InputError: if they are not, or git cannot say so.
    """
    why = "a record needs code and claims that are committed, as margins come before results"
    first = f"`git -C {shlex.quote(str(root))} add .`, and commit"
    if is_installed(root):
        raise InputError(f"{root}: is installed; {why}: record in a clone of its repository, with --root")
    names = [os.path.relpath(path, root) for path in files]
    try:
        _git(root, "rev-parse", "--git-dir")
        tracked = _names(_git(root, "ls-files", "-z", "--", *names))
        changed, left_out = _changed(root), _left_out(root)
    except FileNotFoundError:
        raise InputError(f"{root}: git is not found; {why}: install git") from None
    except OSError as error:
        raise InputError(f"{root}: git cannot be run: {one_line(error)}; {why}") from None
    except subprocess.CalledProcessError as error:
        said = one_line(error.stderr)
        if "not a git repository" in said:
            raise InputError(f"{root}: in no git repository; {why}: `git init` there, then {first}") from None
        raise InputError(f"{root}: git says: {said}; {why}") from None
    try:
        head = _git(root, "rev-parse", "--short=12", "--verify", "HEAD").strip()
    except subprocess.CalledProcessError:
        raise InputError(f"{root}: nothing is committed yet; {why}: {first}") from None
    if untracked := [*(name for name in names if name not in tracked), *left_out]:
        how = f"`git -C {shlex.quote(str(root))} add --force {shlex.quote(untracked[0])}`, and commit"
        raise InputError(f"{root}: git does not track {untracked[0]}; {why}: {how}")
    if changed:
        raise InputError(f"{root}: {changed[0]} is not as committed; {why}: {first}")
    return head


def _changed(root: Path) -> list[str]:
    """What is not as in the last commit, or is new; whatever the user's own settings leave out."""
    asked = ("--untracked-files=normal", "--ignore-submodules=none", "--no-renames", "-z")
    return [name[3:] for name in _names(_git(root, "status", "--porcelain", *asked, "--", *_WHOLE))]


def _left_out(root: Path) -> list[str]:
    """The code and claims that git does not track, also where it is told to ignore them."""
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
    # what is set for another repository, in a hook, say, is not of this one
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment |= {"GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    done = subprocess.run(
        ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True, env=environment,
        errors="surrogateescape",
    )  # fmt: skip
    return done.stdout
