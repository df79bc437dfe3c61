"""Files of results: written whole or not at all, and never through a link."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from common.document import InputError


def write(path: Path, data: bytes | str, within: Path) -> None:
    """Write the file `path`, all at once; `within` is the folder that the user named, above it.

    Raises:
        InputError: if it cannot be written, or a folder on the way from `within` is a link. What was there
            before is then as it was.
    """
    with told_of(path.parent):
        refuse_links(path.parent, within)
        path.parent.mkdir(parents=True, exist_ok=True)
        # of its own name, so that two writers cannot mix; renamed once it is whole
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
        try:
            temporary.write_bytes(data.encode("utf-8") if isinstance(data, str) else data)
            temporary.replace(path)
        finally:
            with suppress(OSError):  # it was never made
                temporary.unlink(missing_ok=True)


def refuse_links(folder: Path, within: Path) -> None:
    """See that no folder from `within`, which may be a link, down to `folder` is one.

    Results that came from somebody else may hold links to anywhere.

    Raises:
        InputError: for the first link.
    """
    for part in (folder, *folder.parents):
        if part == within:
            return
        if part.is_symlink():
            raise _link(part)


def refuse_links_in(folder: Path) -> None:
    """See that neither `folder` nor anything in it is a link.

    Raises:
        InputError: for the first link.
    """
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            if (path := Path(parent, name)).is_symlink():
                raise _link(path)


def _link(path: Path) -> InputError:
    return InputError(f"{path}: is a link, and results are never written through one; remove it")


@contextmanager
def told_of(folder: Path) -> Iterator[None]:
    """Say of an error of the file system that it is one, and where, in one line."""
    try:
        yield
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else str(error)
        raise InputError(
            f"{folder}: cannot be written: {why}; what is finished is kept, the same command goes on from it"
        ) from error
