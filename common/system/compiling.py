"""Compiling with torch.inductor where it works, and otherwise the reason in one line.

Nothing here imports torch before it is needed: importing it fails without a folder for compiled code.
"""

import functools
import getpass
import os
import re
import shlex
import shutil
import signal
import stat
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any, TextIO

from common.system.machine import UNSUPPORTED

try:
    import fcntl
except ImportError:
    raise ImportError(UNSUPPORTED) from None

CACHE = "TORCHINDUCTOR_CACHE_DIR"
"""The variable that names the folder for compiled code; torch has its own if it is not set."""

UNCOMPILED = "training runs uncompiled, slower"
"""The start of every line that says why."""

PROBE_BYTES = 2**20
"""The space that a folder must have; the compiled code of a model takes about a tenth."""

_CURE = "set CXX to the path of a compiler that works"

_MOST_BYTES = 75
"""The longest path of a folder for temporary files: workers have sockets there, of at most 107 bytes."""

_NOWHERE = os.sep
"""Stands for a folder for compiled code where none can be written: it exists, as importing torch requires."""

_PRIVATE = "replicate-"
_OF_USER = {"XDG_CACHE_HOME": "", "HOME": ".cache"}
_FRESH_S = 60.0
_LAST = -1000
_locks: list[TextIO] = []


def prepare() -> str | None:
    """Choose a folder for compiled code, before torch is imported; a line if it is not the one asked for.

    If torch's own folder cannot be used, a private one is, which is removed when this process ends.
    """
    for name in ("CXX", CACHE):  # as elsewhere, empty means not set
        if not os.environ.get(name, "").strip():
            os.environ.pop(name, None)
    if os.sep in (compiler := os.environ.get("CXX", "")):  # compilers are started in other folders
        os.environ["CXX"] = str(Path(compiler).absolute())
    asked = os.environ.get(CACHE)
    if asked == _NOWHERE:
        return None
    refused = why_not(Path(asked)) if asked else None
    if refused:
        del os.environ[CACHE]
    if not _temporary_folder_serves() and not _use_private_folder():
        os.environ[CACHE] = _NOWHERE
        return None  # reported when something is to be compiled
    if refused:
        instead = os.environ.get(CACHE, tempfile.gettempdir())
        return f"{CACHE}: {asked} cannot be used ({refused}): compiled code goes to {instead} instead"
    return None


def why_not(folder: Path, *, ours: bool = False) -> str | None:
    """Why compiled code cannot be kept in `folder`, which is made if need be; None if it can.

    A folder of `ours` must belong to this user: others know its name and could have put code there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        status = folder.stat()
        if ours and status.st_uid != os.getuid():
            return "it belongs to another user"
        if ours and status.st_mode & stat.S_IWOTH:
            return "others can write into it"
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(bytes(PROBE_BYTES))
            probe.flush()
        if os.statvfs(folder).f_flag & os.ST_NOEXEC:
            return "its file system is mounted noexec, so nothing on it can be run"
    except OSError as error:
        return error.strerror or type(error).__name__
    return None


def _temporary_folder_serves() -> bool:
    """Whether torch's own folder, inside the one for temporary files, can be used; sets TMPDIR if needed."""
    try:
        base = Path(tempfile.gettempdir())
    except FileNotFoundError:
        return False
    asked = os.environ.get("TMPDIR")
    if base == Path.cwd() and (asked is None or Path(asked).absolute() != base):
        return False  # Python's last resort, the working directory, where it would lie among other files
    if len(os.fsencode(base)) > _MOST_BYTES:
        return False
    try:
        user = getpass.getuser()
    except (KeyError, ModuleNotFoundError, OSError):
        user = f"uid_{os.getuid()}"
    # headers are compiled there whatever the variable is set to
    own = base / ("torchinductor_" + re.sub(r'[\\/:*?"<>|]', "_", user))
    if why_not(own, ours=True):
        return False
    if asked is not None and Path(asked).absolute() != base:
        os.environ["TMPDIR"] = str(base)
    return True


def _use_private_folder() -> bool:
    """Make a private folder for all temporary files, wherever that works."""
    bases = [Path("/tmp"), Path("/var/tmp"), Path("/dev/shm")]
    bases += [Path(os.environ[name], inside) for name, inside in _OF_USER.items() if os.environ.get(name)]
    with suppress(FileNotFoundError):
        if (first := Path(tempfile.gettempdir())) != Path.cwd():
            bases.insert(0, first)
    for base in dict.fromkeys(bases):
        try:
            base.mkdir(parents=True, exist_ok=True)
            folder = Path(tempfile.mkdtemp(prefix=_PRIVATE, dir=base))
        except OSError:
            continue
        if len(os.fsencode(folder)) > _MOST_BYTES or why_not(folder):
            shutil.rmtree(folder, ignore_errors=True)
            continue
        _remove_left(base)
        lock = (folder / "lock").open("w")
        fcntl.flock(lock, fcntl.LOCK_EX)
        _locks.append(lock)  # for as long as this process lives
        # after multiprocessing has removed its own files there
        Finalize(None, shutil.rmtree, (folder,), {"ignore_errors": True}, exitpriority=_LAST)
        os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
        return True
    return False


def _remove_left(base: Path) -> None:
    """Remove what killed processes left in `base`."""
    for lock in base.glob(f"{_PRIVATE}*/lock"):
        try:
            mine = lock.parent.lstat().st_uid == os.getuid()
            if not mine or time.time() - lock.lstat().st_mtime < _FRESH_S:
                continue
            with lock.open("a") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(lock.parent, ignore_errors=True)
        except OSError:  # it is in use
            continue


@functools.cache
def obstacle(device_type: str) -> str | None:
    """Why nothing can be compiled for such a device here, as far as this is known before trying."""
    if os.environ.get(CACHE) == _NOWHERE:
        return (
            "no folder for compiled code or temporary files can be written; "
            f"free some space, or set {CACHE} and TMPDIR to writable folders"
        )
    from torch._dynamo import config

    if config.disable:
        return "torch.compile is switched off in this process (TORCH_COMPILE_DISABLE); switch it on again"
    _quote_paths()
    return _why_no_compiler() if device_type == "cpu" else None


@functools.cache
def _quote_paths() -> None:
    """Make torch quote all paths in its command lines, not only those of headers."""
    from torch._inductor import config, cpp_builder

    if shutil.which("openssl") is None:  # which torch uses to tell precompiled headers apart
        config.cpp_cache_precompile_headers = False
    make = cpp_builder.CppBuilder.__init__

    @functools.wraps(make)
    def make_quoted(
        self: Any,
        name: str,
        sources: str | list[str],
        BuildOption: Any,  # noqa: N803  # its name in torch
        output_dir: str = "",
    ) -> None:
        names = [sources] if isinstance(sources, str) else sources
        make(self, name, [shlex.quote(source) for source in names], BuildOption, output_dir)
        self._compiler = shlex.quote(self._compiler)
        self._output = self._output.replace(self._target_file, shlex.quote(self._target_file))
        self._libraries_dirs_args = "".join(
            f"-L{shlex.quote(folder)} " for folder in BuildOption.get_libraries_dirs()
        )
        if header := BuildOption.precompiled_header:
            self._include_dirs_args = self._include_dirs_args.replace(
                f"-include {header} ", f"-include {shlex.quote(header)} "
            )

    cpp_builder.CppBuilder.__init__ = make_quoted  # type: ignore[method-assign]


def _compiler() -> str:
    from torch._inductor import config

    compiler: str = config.cpp.cxx[-1]
    return f"CXX={compiler}" if "CXX" in os.environ else compiler


def _compiles() -> bool:
    """Whether the compiler produces output for an empty file."""
    from torch._inductor import config

    with tempfile.TemporaryDirectory() as folder:
        source, made = Path(folder, "nothing.cpp"), Path(folder, "nothing.o")
        source.touch()
        command = [config.cpp.cxx[-1], "-c", str(source), "-o", str(made)]
        subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        return made.exists()


def _why_no_compiler() -> str | None:
    from torch._inductor import config

    compiler = config.cpp.cxx[-1]
    named = "CXX" in os.environ
    what = f"CXX={compiler}" if named else compiler
    if shutil.which(compiler) is None:
        if not named:
            return f"no C++ compiler: {compiler} is not in PATH; install it, or {_CURE}"
        alone = ", which takes no arguments" if len(compiler.split()) > 1 else ""
        return f"no C++ compiler: {what}, but there is no such program; {_CURE}{alone}"
    try:
        asked = subprocess.run(
            [compiler, "--version"], stdin=subprocess.DEVNULL, capture_output=True, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        why = getattr(error, "strerror", None) or "no answer within a minute"
        return f"no C++ compiler: {what} cannot be run ({why}); {_CURE}"
    if asked.returncode or not asked.stdout.strip():
        said = _ended(asked.returncode) if asked.returncode else "prints nothing"
        return f"no C++ compiler: {what} does not work, `--version` {said}; {_CURE}"
    return None


def explain(error: BaseException) -> str:
    """Why compiling failed, in one line, and what to do about it."""
    from torch._inductor.exc import CppCompileError
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    cause: BaseException = getattr(error, "inner_exception", error)
    if why := _why_no_compiler():
        return why
    for folder, variable in ((cache_dir(), CACHE), (tempfile.gettempdir(), "TMPDIR")):
        if why := why_not(Path(folder)):
            return f"{folder} cannot be used ({why}); fix that, or set {variable} to another folder"
    if isinstance(cause, CppCompileError):
        return _explain_compiler(cause)
    first = (str(cause).splitlines() or [""])[0].strip() or type(cause).__name__
    if not isinstance(cause, ImportError) and not _compiles():
        return f"no C++ compiler: {_compiler()} reports success but compiles nothing; {_CURE}"
    if "undefined symbol" in first:
        return f"code compiled by {_compiler()} cannot be loaded; is it a C++ compiler? {_CURE}"
    other = f"remove {cache_dir()} and try again, or set {CACHE} to another folder"
    if isinstance(cause, ImportError):
        return f"compiled code cannot be loaded ({first}); {other}"
    if isinstance(cause, OSError) and cause.filename and str(cause.filename).startswith(cache_dir()):
        return f"{cause.filename}: {cause.strerror}; {other}"
    return first if cause is error else f"{type(cause).__name__}: {first}"


def _explain_compiler(error: Any) -> str:
    """Why the C++ compiler failed."""
    what = f"the C++ compiler {error.cmd[0]}"
    include = sysconfig.get_path("include")
    if "Python.h" in error.output and not Path(include, "Python.h").exists():
        version = sysconfig.get_python_version()
        return (
            f"Python's headers are missing, {include}/Python.h; install them "
            f"(on Debian and Ubuntu the package python{version}-dev)"
        )
    status = getattr(error.__cause__, "returncode", 1)
    lines = [line.strip() for line in error.output.splitlines() if line.strip()]
    if status < 0 or "signal terminated program" in error.output:
        how = _ended(status) if status < 0 else lines[0]
        return f"{what} was stopped ({how}), most likely because memory ran out; fewer --devices need less"
    if re.search(r"\bomp\.h|-l[gi]?omp\b|lib[gi]?omp|fopenmp", "\n".join(_errors(lines))):
        return (
            f"{what} has no OpenMP; install it (on macOS `brew install libomp`, on Debian and Ubuntu "
            "libomp-dev), or set CXX to the path of a compiler that has it"
        )
    said = next(_errors(lines), lines[0] if lines else "no message")
    return f"{what} {_ended(status)}: {said}; {_CURE}"


def _errors(lines: list[str]) -> Iterator[str]:
    """The lines of a compiler's output that say what is wrong."""
    return (line for line in lines if re.search(r"error|cannot|not found|unsupported", line, re.IGNORECASE))


def _ended(status: int) -> str:
    if status >= 0:
        return f"ended with exit code {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"
