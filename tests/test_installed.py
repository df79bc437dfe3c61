"""Tests of the wheel and the sdist: whole, and a suite installed from them runs as its checkout does."""

import os
import shutil
import site
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from common.cli import main
from common.reports import schema
from tests.conftest import ROOT, git

NAME = "polysemanticity_definitions/definitions"
"""It is calculated, in seconds."""

BUILD = """
import sys
from setuptools import build_meta
print(getattr(build_meta, sys.argv[1])(sys.argv[2]))
"""
"""What `uv build` does, without its isolation, which asks an index; the file's name is said last."""


def sources() -> list[str]:
    """The files of this checkout, or of this sdist."""
    if (ROOT / ".git").exists():
        listed = git(ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
        return sorted(name for name in listed if name and (ROOT / name).exists())
    ours = {"common", "docs", "expected", "replications", "tests", ".ci", ".github"}
    ours |= {"CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "LICENSE", "MANIFEST.in", "Makefile"}
    ours |= {".gitattributes", ".gitignore", "README.md", "pyproject.toml", "requirements.lock"}
    names = (path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*") if path.is_file())
    return sorted(
        name
        for name in names
        if name.split("/")[0] in ours and not {"__pycache__", "_build"} & set(name.split("/"))
    )


def build(source: Path, what: str, to: Path) -> Path:
    to.mkdir(exist_ok=True)
    command = [sys.executable, "-c", BUILD, what, str(to)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return to / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("copy")
    for name in sources():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, copy / name)
    return build(copy, "build_sdist", tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as packed:
        packed.extractall(folder, filter="data")
    (unpacked,) = folder.iterdir()
    return build(unpacked, "build_wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python of a new environment in which the wheel is installed; what it needs is taken from this one."""
    environment = tmp_path_factory.mktemp("new") / ".venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    python = environment / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check", "--quiet"]
    subprocess.run([*pip, "install", "--no-deps", "--no-index", str(wheel)], check=True)
    (packages,) = environment.glob("lib/python*/site-packages")
    # files that name folders are not read in the folders that they name: nothing of this checkout is found
    (packages / "needed.pth").write_text("\n".join(site.getsitepackages()) + "\n", encoding="utf-8")
    return python


def test_the_sdist_has_all_that_a_checkout_has(sdist: Path) -> None:
    with tarfile.open(sdist) as packed:
        names = {member.name.partition("/")[2]: member.mode for member in packed if member.isfile()}
    assert set(sources()) <= set(names)
    assert names[".ci/run"] & 0o100
    made = {name for name in names if not name.startswith("superposition_replications.egg-info/")}
    assert made - set(sources()) == {"PKG-INFO", "setup.cfg"}


def test_the_wheel_has_all_that_a_run_needs(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as packed:
        names = {name for name in packed.namelist() if ".dist-info/" not in name}
    assert names == {n for n in sources() if n.split("/")[0] in ("common", "expected", "replications")}


def test_an_installed_suite_runs_as_its_checkout_does(python: Path, tmp_path: Path) -> None:
    here = tmp_path / "empty"
    here.mkdir()
    # an environment often lies in somebody's own repository
    project = python.parents[2]
    git(project, "init", "--quiet")
    (project / "notes").touch()
    git(project, "add", "notes")
    git(project, "commit", "--quiet", "--message", "notes")
    left_out = ("PYTHONPATH", "PYTHONSAFEPATH", "CI")
    environment = {name: value for name, value in os.environ.items() if name not in left_out}

    def replicate(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(python.with_name("replicate")), *arguments]
        return subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True, check=False)

    listed = replicate("list")
    assert (listed.returncode, listed.stderr) == (0, "")
    assert listed.stdout.count(": full, quick, decided; controls: ") >= 1
    for path in ROOT.glob("replications/*/*.yaml"):
        assert f"{path.parent.name}/{path.stem}: " in listed.stdout
    before = sorted(python.parents[1].glob("lib/*/site-packages/*"))
    done = replicate("run", NAME, "--profile", "quick", "--devices", "1")
    assert (done.returncode, done.stderr) == (0, "")
    assert "All results match the record." in done.stdout
    assert [path.name for path in here.iterdir()] == ["results"]
    assert sorted(python.parents[1].glob("lib/*/site-packages/*")) == before

    own_out = ["--profile", "quick", "--devices", "1", "--out", str(tmp_path / "own")]
    assert main(["--root", str(ROOT), "run", NAME, *own_out]) == 0
    reports = [tmp_path / "own/report", here / "results/report"]
    compared = replicate("compare", *map(str, reports))
    assert (compared.returncode, compared.stdout) == (
        0,
        "The two reports have the same verdicts and values.\n",
    )
    ((own,), (theirs,)) = (schema.load(report).replications for report in reports)
    assert own.run.hash == theirs.run.hash
    assert theirs.commit == "unknown"

    refused = replicate("record", NAME, "--profile", "quick")
    assert refused.returncode == 2
    (line,) = refused.stderr.splitlines()
    assert "site-packages: is installed; " in line
