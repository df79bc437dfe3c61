"""Standard output and error as the command uses them: their reader may disappear at any moment.

This module imports nothing slow.
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
    """Guard the streams of this process from now on; returns the list that `guarded` yields."""
    if isinstance(raw := getattr(getattr(sys.stdout, "buffer", None), "raw", None), _Guarded):
        return raw.lost
    _reopen()
    lost: list[OSError] = []
    sys.stdout = _guard(sys.stdout, sys.__stdout__, 1, lost)
    sys.stderr = _guard(sys.stderr, sys.__stderr__, 2, [])
    return lost


@contextmanager
def guarded() -> Iterator[list[OSError]]:
    """A context in which it goes unnoticed that a stream's reader disappears: later output is dropped.

    So it is when a stream cannot be written for another reason, such as a full disk; if that stream is
    standard output, the reason is added to the list that is yielded. Streams that replace the process's own
    are not changed.
    """
    before = sys.stdout, sys.stderr
    try:
        yield guard()
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        sys.stdout, sys.stderr = before


def _reopen() -> None:
    """Open the null device for each standard stream that the process was started without.

    Otherwise the next file to be opened would take the stream's number, and receive what is printed.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # it takes the lowest free number


def _guard(stream: TextIO | None, own: TextIO | None, number: int, lost: list[OSError]) -> TextIO:
    """The stream with this number, guarded if it is the process's own; errors are appended to `lost`."""
    if stream is not None and stream is not own:
        return stream
    if stream is not None:
        stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(_Guarded(number, lost)),
        encoding=stream.encoding if stream else "utf-8",
        errors="backslashreplace",  # a character that the encoding lacks is no reason to fail
        line_buffering=stream is None or stream.isatty() or number == 2,
    )


class _Guarded(io.FileIO):
    def __init__(self, number: int, lost: list[OSError]) -> None:
        super().__init__(number, "w", closefd=False)
        self.lost = lost

    def write(self, data: Any) -> int:
        """Write; after an error, drop everything from now on."""
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
        """Whether the reader is gone: the other end of a pipe, or a terminal, was closed."""
        if isinstance(error, ConnectionError) or error.errno == errno.EBADF:
            return True
        return error.errno == errno.EIO and stat.S_ISCHR(os.fstat(self.fileno()).st_mode)
