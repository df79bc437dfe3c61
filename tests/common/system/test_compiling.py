"""Tests of system/compiling.py: it compiles wherever it can, to the same bits, and else says why, once."""

import os
import shlex
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest
from torch._inductor import config, cpp_builder
from torch._inductor.exc import CppCompileError

from common.system import compiling
from common.system.compiling import CACHE, UNCOMPILED

ROOT = Path(__file__).parents[3]

SPECIAL = ["a b", "it's", '"q" (p) & $HOME;#%,*[z]', "back\\slash `id` | < >", "é ü 漢", " "]

PREPARE = """
import os, sys, tempfile
from common.system import compiling
print(compiling.prepare())
print(os.environ.get("TORCHINDUCTOR_CACHE_DIR"), tempfile.gettempdir(), os.environ.get("CXX"), sep="\\n")
sys.stdout.flush()
if "wait" in sys.argv:
    sys.stdin.read()
"""

TRAIN = """
import os, sys, sysconfig
from pathlib import Path
from common.system import compiling
assert compiling.prepare() is None
import torch
from torch.utils import cpp_extension
if len(sys.argv) > 1:  # torch and Python are in such a folder
    libraries = {"lib": cpp_extension.TORCH_LIB_PATH, "libdir": sysconfig.get_config_var("LIBDIR")}
    for name, folder in libraries.items():
        os.symlink(folder, f"{sys.argv[1]}/{name}")
    cpp_extension.TORCH_LIB_PATH = f"{sys.argv[1]}/lib"
    sysconfig.get_config_vars()["LIBDIR"] = f"{sys.argv[1]}/libdir"
from tests.common.test_ensemble import fit, step, toy
model = toy([0, 1, 2, 3])
losses, gradients = step(model)
assert model.compiled
print(losses.numpy().tobytes().hex(), *(g.numpy().tobytes().hex() for g in gradients.values()))
"""


def python(code: str, *arguments: str, **environment: str | Path | None) -> str:
    """What such code prints, with these variables set, or unset where None is given."""
    set_ = {name: str(value) for name, value in environment.items() if value is not None}
    kept = {name: value for name, value in os.environ.items() if name not in environment}
    ran = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        env={**kept, **set_},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr == ""
    return ran.stdout


def script(path: Path, text: str) -> Path:
    """An executable file."""
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


@pytest.fixture
def base() -> Iterator[Path]:
    """A folder for temporary files, with a path short enough for workers."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.mark.parametrize("name", SPECIAL)
def test_all_paths_reach_the_compiler_whole(name: str, tmp_path: Path) -> None:
    compiling._quote_paths()
    folder = str(tmp_path / name)
    options = cpp_builder.BuildOptionsBase(
        compiler=f"{folder}/g++", include_dirs=[f"{folder}/include"], libraries_dirs=[f"{folder}/lib"]
    )
    options.precompiled_header = f"{folder}/all.h"
    builder = cpp_builder.CppBuilder("made", [f"{folder}/1.cpp", f"{folder}/2.cpp"], options, folder)
    command = shlex.split(builder.get_command_line())
    assert command == [
        f"{folder}/g++", f"{folder}/1.cpp", f"{folder}/2.cpp", "-include", f"{folder}/all.h",
        f"-I{folder}/include", "-o", f"{folder}/made.so", f"-L{folder}/lib",
    ]  # fmt: skip


def test_command_lines_are_torch_s_own_where_no_path_is_special(tmp_path: Path) -> None:
    """They are part of the key under which compiled code is kept."""
    make = cpp_builder.CppBuilder.__init__
    own = getattr(make, "__wrapped__", make)
    options = cpp_builder.CppTorchDeviceOptions(device_type="cpu")
    lines = []
    for function in (own, compiling._quote_paths() or cpp_builder.CppBuilder.__init__):
        builder = object.__new__(cpp_builder.CppBuilder)
        function(builder, "made", "source.cpp", options, str(tmp_path))
        lines.append(builder.get_command_line())
    assert lines[0] == lines[1]


def test_in_folders_with_special_characters_it_compiles_to_the_same_bits(base: Path) -> None:
    special = base / "'a b' é $HOME & (x);"
    (special / "ho me").mkdir(parents=True)
    compiler = script(special / "g++", 'exec g++ "$@"')
    plain = python(TRAIN)
    moved = {CACHE: special / "ca che", "TMPDIR": special, "HOME": special / "ho me", "CXX": compiler}
    assert python(TRAIN, str(special), **moved) == plain


@pytest.mark.parametrize("bad", ["file/x", "file"])
def test_where_the_folder_asked_for_is_no_use_torch_s_own_is_used(
    bad: str, base: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    said, cache, used, _ = python(PREPARE, **{CACHE: tmp_path / bad, "TMPDIR": base}).splitlines()
    assert said.startswith(f"{CACHE}: {tmp_path / bad} cannot be used (")
    assert said.endswith(f": compiled code goes to {base} instead")
    assert (cache, used) == ("None", str(base))


@pytest.mark.parametrize("asked", [None, "", " "])
def test_a_folder_that_others_could_have_filled_is_not_used(asked: str | None, base: Path) -> None:
    own = base / "torchinductor_somebody"
    own.mkdir()
    own.chmod(0o777)
    other = python(PREPARE, **{CACHE: asked, "TMPDIR": base, "LOGNAME": "else"}).splitlines()
    assert other[2] == str(base)
    said, cache, used, _ = python(
        PREPARE, **{CACHE: asked, "TMPDIR": base, "LOGNAME": "somebody"}
    ).splitlines()
    assert (said, cache) == ("None", "None")
    assert Path(used).parent == base
    assert sorted(path.name for path in base.iterdir()) == ["torchinductor_else", "torchinductor_somebody"]


def test_a_private_folder_is_closed_to_others_and_what_a_kill_left_is_removed(base: Path) -> None:
    (base / "torchinductor_somebody").touch()
    environment = {**os.environ, "TMPDIR": str(base), "LOGNAME": "somebody"}
    environment.pop(CACHE, None)
    commands = []
    for _ in range(2):
        command = subprocess.Popen(
            [sys.executable, "-c", PREPARE, "wait"], cwd=ROOT, env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert command.stdout is not None
        commands.append((command, Path([command.stdout.readline() for _ in range(4)][2].strip())))
    (killed, left), (alive, used) = commands
    assert [folder.stat().st_mode & 0o777 for folder in (left, used)] == [0o700, 0o700]
    killed.kill()
    killed.communicate()
    long_ago = time.time() - 2 * compiling._FRESH_S
    for folder in (left, used):
        os.utime(folder / "lock", (long_ago, long_ago))
    python(PREPARE, **{CACHE: None, "TMPDIR": base, "LOGNAME": "somebody"})
    assert [folder.exists() for folder in (left, used)] == [False, True]
    alive.communicate("")
    assert not used.exists()


def test_a_folder_with_a_path_too_long_for_workers_is_not_used(base: Path) -> None:
    for length, serves in ((compiling._MOST_BYTES, True), (compiling._MOST_BYTES + 1, False)):
        folder = base / ("x" * (length - len(str(base)) - 1))
        folder.mkdir()
        used = python(PREPARE, **{CACHE: None, "TMPDIR": folder}).splitlines()[2]
        assert (used == str(folder)) == serves
        assert len(used) <= compiling._MOST_BYTES


def test_without_any_folder_torch_is_imported_and_nothing_is_compiled(base: Path) -> None:
    code = """
from common.system import compiling
compiling.why_not = lambda *of, **options: "No space left on device"
assert compiling.prepare() is None
from tests.common.test_ensemble import step, toy
model = toy([0, 1])
model.note = print
step(model)
step(model)
assert not model.compiled
"""
    said = python(code, **{CACHE: None, "TMPDIR": base})
    assert said.startswith(f"{UNCOMPILED}: no folder for compiled code or temporary files can be written")
    assert said.count("\n") == 1


def test_a_compiler_s_relative_path_holds_in_all_folders(base: Path) -> None:
    for given, used in (("tools/g++", str(ROOT / "tools/g++")), ("g++", "g++"), (" ", "None")):
        assert python(PREPARE, CXX=given, TMPDIR=base).splitlines()[3] == used


class SetCompiler(Protocol):
    def __call__(self, text: str, *, named: str | None = None) -> str: ...


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[SetCompiler]:
    """A function that makes a script the compiler, or a name."""
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))

    def set_(text: str, *, named: str | None = None) -> str:
        name = named or str(script(tmp_path / "cxx", text))
        monkeypatch.setenv("CXX", name)
        config.cpp.cxx = (None, name)
        return name

    with config.patch("cpp.cxx", config.cpp.cxx):
        yield set_


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("exit 3", "does not work, `--version` ended with exit code 3"),
        ("kill -9 $$", "does not work, `--version` was killed by SIGKILL"),
        ("exit 0", "does not work, `--version` prints nothing"),
        ("echo noise >&2; exit 1", "does not work, `--version` ended with exit code 1"),
    ],
)
def test_a_compiler_that_does_not_run_is_found_before_it_is_needed(
    text: str, says: str, compiler: SetCompiler, capfd: pytest.CaptureFixture[str]
) -> None:
    name = compiler(text)
    why = compiling._why_no_compiler()
    assert why == f"no C++ compiler: CXX={name} {says}; set CXX to the path of a compiler that works"
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["/nowhere/g++", "no-such-compiler", "/", "ccache g++", "g++ -m64"])
def test_a_compiler_that_there_is_not(
    name: str, compiler: SetCompiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler("", named=name)
    why = compiling._why_no_compiler()
    assert why is not None
    assert why.startswith(f"no C++ compiler: CXX={name}, but there is no such program; set CXX to ")
    assert ("takes no arguments" in why) == (" " in name)
    monkeypatch.delenv("CXX")
    config.cpp.cxx = (None, "g++")
    monkeypatch.setenv("PATH", "/nowhere")
    why = compiling._why_no_compiler()
    assert why is not None
    assert why.startswith("no C++ compiler: g++ is not in PATH; install it, or set CXX")


@pytest.mark.parametrize(
    ("output", "status", "says"),
    [
        (
            "a.cpp:1: warning: x\na.cpp:2: error: no such thing\nerror: more",
            1,
            "exit code 1: a.cpp:2: error: no",
        ),
        ("what?", 2, "ended with exit code 2: what?; set CXX"),
        ("", 1, "ended with exit code 1: no message; set CXX"),
        ("", -9, "was stopped (was killed by SIGKILL), most likely because memory ran out"),
        (
            "g++: fatal error: Killed signal terminated program cc1plus",
            1,
            "was stopped (g++: fatal error: Killed",
        ),
        ("x.h:3:10: fatal error: 'omp.h' file not found", 1, "has no OpenMP; install it"),
        ("x.h:3:10: fatal error: omp.h: No such file or directory", 1, "has no OpenMP; install it"),
        ("clang: error: unsupported option '-fopenmp'", 1, "has no OpenMP; install it"),
        ("/usr/bin/ld: cannot find -lgomp: No such file", 1, "has no OpenMP; install it"),
        ("ld: library 'omp' not found\nld: library not found for -lomp", 1, "has no OpenMP; install it"),
        (
            "a.cpp:1: fatal error: cstdlib: No such file or directory",
            1,
            "exit code 1: a.cpp:1: fatal error: cstd",
        ),
        ("g++: fatal error: cannot execute 'cc1plus'", 1, "exit code 1: g++: fatal error: cannot execute"),
    ],
)
def test_what_a_compiler_says_is_told_in_a_line(
    output: str, status: int, says: str, compiler: SetCompiler
) -> None:
    name = compiler("echo version 1")
    error = CppCompileError([name, "-O3", "a.cpp"], output)
    error.__cause__ = subprocess.CalledProcessError(status, [name])
    why = compiling.explain(error)
    assert why.startswith(f"the C++ compiler {name} ")
    assert says in why
    assert "\n" not in why


def test_without_python_s_headers(
    compiler: SetCompiler, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    name = compiler("echo version 1")
    output = "a.cpp:1:10: schwerwiegender Fehler: Python.h: Datei oder Verzeichnis nicht gefunden"
    monkeypatch.setattr(sysconfig, "get_path", lambda *of, **options: str(tmp_path))
    why = compiling.explain(CppCompileError([name], output))
    assert why.startswith(f"Python's headers are missing, {tmp_path}/Python.h; install them")


def test_what_is_no_compiler_at_all(compiler: SetCompiler) -> None:
    name = compiler("echo version 1")
    for error in (IndexError("list index out of range"), FileNotFoundError(2, "No such file", "x.so")):
        assert compiling.explain(error) == (
            f"no C++ compiler: CXX={name} reports success but compiles nothing; "
            "set CXX to the path of a compiler that works"
        )
    why = compiling.explain(ImportError("/cache/x.so: undefined symbol: _ZTTN"))
    assert why.startswith(f"code compiled by CXX={name} cannot be loaded; is it a C++ compiler?")


def test_compiled_code_that_is_damaged_or_cannot_be_kept(
    compiler: SetCompiler, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    compiler("", named="g++")
    cache = tmp_path / "cache"
    why = compiling.explain(ImportError(f"{cache}/x.so: file too short"))
    assert why.startswith(f"compiled code cannot be loaded ({cache}/x.so: file too short); remove {cache}")
    why = compiling.explain(PermissionError(13, "Permission denied", f"{cache}/fxgraph"))
    assert why.startswith(f"{cache}/fxgraph: Permission denied; remove {cache} and try again")
    cache.rmdir()
    cache.touch()
    monkeypatch.setattr("torch._inductor.runtime.cache_dir_utils.cache_dir", lambda: str(cache))
    assert compiling.explain(RuntimeError("any")) == (
        f"{cache} cannot be used (File exists); fix that, or set {CACHE} to another folder"
    )


@pytest.mark.parametrize("devices", [1, 2])
def test_a_command_says_once_why_it_runs_uncompiled(
    devices: int, example: Path, base: Path, tmp_path: Path
) -> None:
    """Also where torch's own folder is no use, and a private one is removed in the end."""
    failing = script(tmp_path / "failing", "echo Traceback >&2; exit 1")
    (tmp_path / "file").touch()
    (base / "torchinductor_somebody").touch()
    asked = {CACHE: f"{tmp_path}/file/x", "CXX": str(failing), "TMPDIR": str(base), "LOGNAME": "somebody"}
    changes = ("--set", "trainer.max_steps=5", "--set", "trainer.compile=true")
    command = ["--root", str(example), "run", "example/projection", *changes, "--devices", str(devices)]
    ran = subprocess.run(
        [sys.executable, "-m", "common", *command], cwd=ROOT, env={**os.environ, **asked},
        capture_output=True, text=True,
    )  # fmt: skip
    assert ran.returncode == 0
    (line,) = ran.stderr.splitlines()
    assert line.startswith(f"replicate: {CACHE}: {tmp_path}/file/x cannot be used (Not a directory)")
    (line,) = [line for line in ran.stdout.splitlines() if "uncompiled" in line]
    assert f"{UNCOMPILED}: no C++ compiler: CXX={failing} does not work" in line
    assert line.endswith("; set CXX to the path of a compiler that works")
    assert "Traceback" not in ran.stdout
    assert [path.name for path in base.iterdir()] == ["torchinductor_somebody"]
