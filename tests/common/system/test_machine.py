"""Tests of system/machine.py: the command where Linux's own calls are missing, and whatever notebooks set."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from common import cli
from common.__main__ import main
from common.system import machine
from tests.conftest import ROOT

# as on macOS; with that name only while workers.py is imported: torch would look for that system's libraries
OTHER_SYSTEM = """
import importlib.metadata, os, sys
del os.sched_getaffinity
sys.modules["resource"] = None
linux, sys.platform = sys.platform, "darwin"
import common.runs.workers
sys.platform = linux
assert common.runs.workers.START_METHOD == "spawn"
from common.__main__ import main
sys.exit(main())
"""
DENORMAL = "cannot treat denormal numbers as 0"
SHORT = ["--set", "trainer.max_steps=2", "--set", "trainer.compile=false", "--set", "shard_size=2"]


def replicate(
    root: Path, *arguments: str, code: str = OTHER_SYSTEM, **environment: str
) -> tuple[int, str, str]:
    """Exit code, output and errors of `replicate`, in a process of its own that begins with `code`."""
    done = subprocess.run(
        [sys.executable, "-c", code, "--root", str(root), *arguments],
        cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def test_it_runs_without_what_only_linux_has(
    example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said, errors = replicate(example, "list")
    assert (code, errors) == (0, "")
    assert said.startswith("example/projection: ")
    there, here = (["--out", str(tmp_path / name)] for name in ("there", "here"))
    code, said, errors = replicate(example, "run", *SHORT, "--devices", "2", *there)
    assert (code, errors) == (0, "")
    assert DENORMAL not in said  # a worker is a new process, on this processor
    monkeypatch.setattr(torch, "set_flush_denormal", lambda on: False)
    assert cli.main(["--root", str(example), "run", *SHORT, "--devices", "1", *here]) == 0
    assert capsys.readouterr().out.count(DENORMAL) == 1  # of the run and its control
    digests = []
    for out in (there[1], here[1]):
        manifests = [json.loads(path.read_text()) for path in sorted(Path(out).rglob("manifest.json"))]
        digests.append([manifest["instances_digest"] for manifest in manifests])
    assert digests[0] == digests[1]
    assert len(digests[0]) == 2
    code, said, errors = replicate(example, "check", *SHORT, *there)
    assert (code, errors) == (0, "")
    assert "squared_norm" in said


def test_where_files_cannot_be_locked_wsl_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "fcntl", None)
    monkeypatch.setattr(sys, "argv", ["replicate", "list"])
    assert main() == 2
    assert capsys.readouterr().err == f"replicate: {machine.UNSUPPORTED}\n"
    assert "WSL" in machine.UNSUPPORTED
    # also on a system whose workers cannot be forked, before anything of them is imported
    code = "import sys; sys.modules['fcntl'] = sys.modules['multiprocessing.forkserver'] = None\n"
    code += "from common.__main__ import main; sys.exit(main())"
    assert replicate(ROOT, "list", code=code) == (2, "", f"replicate: {machine.UNSUPPORTED}\n")


@pytest.mark.parametrize(
    "setting",
    [
        {"MPLBACKEND": "module://matplotlib_inline.not_installed"},
        {"MPLBACKEND": "nonsense"},
        {"MPLBACKEND": "tkagg"},
        {"MPLBACKEND": ""},
        {"MATPLOTLIBRC": "/nowhere/at/all"},
        {"MATPLOTLIBRC": "NONSENSE"},
    ],
)
def test_what_notebooks_set_for_matplotlib_is_not_the_command_s(
    example: Path, tmp_path: Path, setting: dict[str, str]
) -> None:
    (tmp_path / "NONSENSE").write_bytes(b"backend: nonsense\nfont.size: \xff\xfe many\n")
    setting = {name: value.replace("NONSENSE", str(tmp_path / "NONSENSE")) for name, value in setting.items()}
    code = "import sys; from common.__main__ import main; sys.exit(main())"
    # which both import it; the style decides how figures come out, in workers too
    command = ["list"] if "MPLBACKEND" in setting else ["run", *SHORT, "--devices", "2"]
    exit_code, _, errors = replicate(example, *command, code=code, **setting)
    assert (exit_code, errors) == (0, "")
    assert ("run" in command) == bool(list(example.glob("results/*/*/*/*/figures/*.png")))
