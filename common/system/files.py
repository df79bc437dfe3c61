"""Files of results: written whole or not at all, and never through a link."""

import functools
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from common.errors import InputError

SUITE = Path(__file__).resolve().parents[2]
"""The folder that contains this `common/`."""


def given_path(text: str | Path) -> Path:
    """The path that a user gave, with ~ expanded even where no shell did it.

    Raises:
        InputError: if it is empty, or there is no such user.
    """
    if not str(text).strip():
        raise InputError("empty path; expected a folder or a file, such as . for this folder")
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise InputError(f"{text}: {error}") from None


def write(path: Path, data: bytes | str, within: Path) -> None:
    """Write the file `path` atomically; `within` is the folder above it that the user named.

    Raises:
        InputError: if it cannot be written, or a folder on the way from `within` is a link. The old file is
        then
            unchanged.
    """
    write_all({path: data}, within)


def write_all(files: Mapping[Path, bytes | str], within: Path) -> None:
    """Write `files`, each as `write` does, and none before all are complete on the disk.

    Only a process killed between two renames leaves some of them new and the rest old.

    Raises:
        InputError: as `write`.
    """
    temporaries: dict[Path, Path] = {}
    try:
        for path, data in files.items():
            with told_of(path.parent):
                refuse_links(path.parent, within)
                path.parent.mkdir(parents=True, exist_ok=True)
                # with its own name, so that two writers cannot mix; renamed once it is complete
                temporaries[path] = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
                temporaries[path].write_bytes(data.encode("utf-8") if isinstance(data, str) else data)
        for path, temporary in temporaries.items():
            with told_of(path.parent):
                temporary.replace(path)
    finally:
        for temporary in temporaries.values():
            with suppress(OSError):  # it was never made
                temporary.unlink(missing_ok=True)


def refuse_links(folder: Path, within: Path) -> None:
    """Check that no folder below `within` (itself allowed to be a link) down to `folder` is a link.

    Results from somebody else may contain links to anywhere.

    Raises:
        InputError: for the first link.
    """
    for part in (folder, *folder.parents):
        if part == within:
            return
        if part.is_symlink():
            raise _link(part)


def refuse_links_in(folder: Path) -> None:
    """Check that neither `folder` nor anything in it is a link.

    Raises:
        InputError: for the first link.
    """
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            if (path := Path(parent, name)).is_symlink():
                raise _link(path)


def _link(path: Path) -> InputError:
    return InputError(f"{path}: is a link, and results are never written through links; remove it")


@contextmanager
def told_of(folder: Path) -> Iterator[None]:
    """Report an error of the file system in one line, with its place."""
    try:
        yield
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else str(error)
        raise InputError(
            f"{folder}: cannot be written: {why}; finished work is kept; run the same command to continue"
        ) from error


def is_installed(root: Path) -> bool:
    """Whether an installer put the replications of `root` there, to be read and not written."""
    return _is_installed(root.resolve())


@functools.cache
def _is_installed(whole: Path) -> bool:
    for folder in (whole, *whole.parents):
        if folder.name in ("site-packages", "dist-packages"):
            return True
        start = (whole / "replications").relative_to(folder).as_posix() + "/"
        for record in folder.glob(
            "*.dist-info/RECORD"
        ):  # a package may also be installed anywhere, with --target
            if f"\n{start}" in "\n" + record.read_text(encoding="utf-8", errors="replace"):
                return True
    return False
