"""Standard output and error as the command has them: whoever reads them may go away at any moment.

This module imports nothing that takes time.
"""

import errno
import io
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO


def guard() -> list[OSError]:
    """Guard the streams of this process from now on, see `guarded`, which this gives the list of."""
    if isinstance(raw := getattr(getattr(sys.stdout, "buffer", None), "raw", None), _Guarded):
        return raw.lost
    _reopen()
    lost: list[OSError] = []
    sys.stdout = _guard(sys.stdout, sys.__stdout__, 1, lost)
    sys.stderr = _guard(sys.stderr, sys.__stderr__, 2, [])
    return lost


@contextmanager
def guarded() -> Iterator[list[OSError]]:
    """Let nobody notice within that a stream's reader goes away: what is written from then on is dropped.

    So is it where a stream cannot be written for another reason, such as a full disk. The list that is given
    then holds why, if that is standard output. Streams that were put in place of the process's own are left
    as they are.
    """
    before = sys.stdout, sys.stderr
    try:
        yield guard()
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        sys.stdout, sys.stderr = before


def _reopen() -> None:
    """Put the null device where the process was started without a standard stream.

    Else the next file that is opened takes its number, and gets what is printed.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # it takes the lowest free number


def _guard(stream: TextIO | None, own: TextIO | None, number: int, lost: list[OSError]) -> TextIO:
    """The stream of this number, guarded if it is the process's own; `lost` gets why it cannot be written."""
    if stream is not None and stream is not own:
        return stream
    if stream is not None:
        stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(_Guarded(number, lost)),
        encoding=stream.encoding if stream else "utf-8",
        errors="backslashreplace",  # a name that the encoding lacks is no reason to end
        line_buffering=stream is None or stream.isatty() or number == 2,
    )


class _Guarded(io.FileIO):
    def __init__(self, number: int, lost: list[OSError]) -> None:
        super().__init__(number, "w", closefd=False)
        self.lost = lost

    def write(self, data: Any) -> int:
        """Write, or drop from now on what cannot be written."""
        try:
            return super().write(data)
        except OSError as error:
            if not self._is_gone(error):
                self.lost.append(error)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self.fileno())
        os.close(null)
        return memoryview(data).nbytes

    def _is_gone(self, error: OSError) -> bool:
        """Whether nobody reads what would be written: a pipe's other end, or a terminal, was closed."""
        if isinstance(error, ConnectionError) or error.errno == errno.EBADF:
            return True
        return error.errno == errno.EIO and stat.S_ISCHR(os.fstat(self.fileno()).st_mode)
