"""Errors in a replication's own code, reported in one line with the file and line of that code."""

import inspect
import os
import sysconfig
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

_SUITE = Path(__file__).resolve().parent
_PYTHON = {Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib")}
_INSTALLED = {"site-packages", "dist-packages"}
_MOST = 500
"""The most characters of a message that are shown: some of torch's take pages."""


class InputError(ValueError):
    """Bad input, reported in one line: where it is, what is wrong, what is expected."""


def one_line(text: object) -> str:
    """A text or the message of an error, without line breaks."""
    return " ".join(str(text).split())


@contextmanager
def blamed(what: str, at: str | None = None, after: str = "") -> Iterator[None]:
    """Report in one line an error in a replication's code during `what`; a call to exit counts as one.

    `at` is the place reported if no line of the replication caused the error; if that is None, such an error
    passes unchanged, as input errors and interrupts do. `after` is appended, as in "; what was trained is
    stored".

    Raises:
        InputError: for an error in the code.
    """
    try:
        with staying():
            yield
    except (InputError, KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:
        place = blame(error) or at
        if place is None:
            raise
        raise InputError(f"{place}: {what} failed: {told(error)}{after}") from error


@contextmanager
def staying() -> Iterator[None]:
    """Let code that would end the process at once, by `os._exit`, raise SystemExit instead."""
    end, here = os._exit, (os.getpid(), threading.get_ident())

    def leave(status: int) -> NoReturn:
        if (os.getpid(), threading.get_ident()) == here:
            raise SystemExit(status)
        end(status)  # a process forked here ends like this, and so does a worker whose command has ended

    os._exit = leave
    try:
        yield
    finally:
        os._exit = end


def blame(error: BaseException) -> str | None:
    """FILE:LINE of the last line of a replication's or other user's code that led to `error`, or None."""
    if isinstance(error, SyntaxError) and error.filename and not error.filename.startswith("<"):
        return f"{error.filename}:{error.lineno or 1}"
    frames = traceback.extract_tb(error.__traceback__)
    for is_theirs in (_is_of_a_replication, _is_a_users):
        for frame in reversed(frames):
            if is_theirs(frame.filename):
                return f"{frame.filename}:{frame.lineno}"
    return None


def told(error: BaseException) -> str:
    """The class and message of an error, in one line."""
    if isinstance(error, SystemExit):
        return f"the code ended the program (exit code {error.code}), which it must not do"
    said = one_line(error.msg if isinstance(error, SyntaxError) else error)
    if len(said) > _MOST:
        said = f"{said[:_MOST]} ..."
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def line_of(what: Callable[..., object]) -> str:
    """FILE:LINE of where a function or class is defined."""
    if isinstance(what, type):
        return f"{inspect.getsourcefile(what)}:{inspect.getsourcelines(what)[1]}"
    code = inspect.unwrap(what).__code__
    return f"{code.co_filename}:{code.co_firstlineno}"


def _is_of_a_replication(file: str) -> bool:
    path = Path(file).resolve()
    if path.is_relative_to(_SUITE) or "replications" not in path.parts:
        return False
    below = path.parts[len(path.parts) - path.parts[::-1].index("replications") :]
    return not _INSTALLED & set(below)


def _is_a_users(file: str) -> bool:
    path = Path(file).resolve()
    known = path.is_relative_to(_SUITE) or any(path.is_relative_to(folder) for folder in _PYTHON)
    return path.suffix == ".py" and not known and not _INSTALLED & set(path.parts)
