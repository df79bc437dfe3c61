"""Tests of what the suite depends on: declared, needed, pinned and hashed, and installable from nothing."""

import ast
import functools
import importlib.metadata
import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
NOT_LOCKED = {"torch", "pip"}  # the Makefile says why, and a virtual environment has pip

MODULES = {"pyyaml": "yaml", "pytest-xdist": "xdist"}
"""What is imported, where it is not called as its package is."""

USED_BY_NAME = {
    "pyarrow": r"to_parquet",
    "pytest-xdist": r"pytest -n ",
    "ruff": r"/ruff check",
    "mypy": r"/mypy ",
    "pip-audit": r"/pip-audit ",
    "uv": r"/uv pip compile",
    "pandas-stubs": r"import pandas",
    "scipy-stubs": r"from scipy",
    "types-jsonschema": r"from jsonschema",
    "types-pyyaml": r"import yaml",
    "sphinx": r"/sphinx-build ",
    "myst-nb": r"\"myst_nb\"",
    "furo": r"html_theme = \"furo\"",
}
"""Packages that no code imports, and what shows that they are used."""

LOCKED: dict[str, re.Match[str]] = {
    canonicalize_name(match[1]): match
    for match in re.finditer(
        r"^(\S+?)==(\S+)(?: ; ([^\\\n]+))?((?: \\\n    --hash=sha256:[0-9a-f]{64})*)$", LOCK, re.M
    )
}


def declared(*extras: str) -> dict[str, Requirement]:
    """The requirements of pyproject.toml by name: those of all, or of these extras."""
    texts = (
        [t for e in extras for t in PROJECT["optional-dependencies"][e]]
        if extras
        else PROJECT["dependencies"]
    )
    requirements = map(Requirement, texts)
    return {canonicalize_name(requirement.name): requirement for requirement in requirements}


@functools.cache
def imported(*folders: str) -> dict[str, set[Path]]:
    """The modules that are not Python's or ours and that Python files in these folders import, and where."""
    found: dict[str, set[Path]] = {}
    for path in itertools.chain.from_iterable((ROOT / folder).rglob("*.py") for folder in folders):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [str(node.module)]
            for name in names:
                found.setdefault(name.split(".")[0], set()).add(path)
    ours = {"common", "docs", "replications", "tests"}
    return {name: paths for name, paths in found.items() if name not in ours | sys.stdlib_module_names}


def extras() -> list[str]:
    """The extras that pyproject.toml declares."""
    return list(PROJECT["optional-dependencies"])


def sources() -> str:
    """All text in which a use by name may stand."""
    folders = ("common", "docs", "replications", "tests")
    files = (path for folder in folders for path in (ROOT / folder).rglob("*.py") if path != Path(__file__))
    return MAKEFILE + "".join(path.read_text(encoding="utf-8") for path in files)


def test_nothing_is_imported_that_is_not_declared() -> None:
    # a replication and the spine do without the packages of developers; pytest itself imports its plugin
    names = {MODULES.get(name, name) for name in declared()}
    optional = {MODULES.get(n, n) for extra in extras() if extra != "dev" for n in declared(extra)}
    plugin = {ROOT / "common" / "pytest_plugin.py"}
    undeclared = {
        name: paths
        for name, paths in imported("common", "replications").items()
        if name not in names | optional and not (name == "pytest" and paths == plugin)
    }
    assert not undeclared
    everything = names | {MODULES.get(name, name) for name in declared(*extras())}
    # pytest brings packaging, which only these tests read requirements with, and rich a parser of Markdown
    assert set(imported("tests")) - {"packaging", "markdown_it"} <= everything


def test_nothing_is_declared_that_is_not_used() -> None:
    text = sources()
    run = set(imported("common", "replications"))
    both = run | set(imported("tests"))
    for requirements, modules in ((declared(), run), (declared(*extras()), both)):
        for name in requirements:
            how = USED_BY_NAME.get(name)
            assert MODULES.get(name, name) in modules if how is None else re.search(how, text), name


def test_the_lock_pins_and_hashes_all_that_is_declared() -> None:
    lines = [line for line in LOCK.splitlines() if not line.startswith(("#", "    --hash="))]
    assert len(lines) == len(LOCKED) > 50
    assert all(match[4] for match in LOCKED.values())
    for name, requirement in {**declared(), **declared(*extras())}.items():
        if name not in NOT_LOCKED:
            assert requirement.specifier.contains(str(LOCKED[name][2])), name
    pinned = re.search(r"^TORCH := torch==([0-9.]+)$", MAKEFILE, re.M)
    assert pinned
    assert pinned[1] in declared()["torch"].specifier


def test_other_platforms_find_their_files_in_the_lock() -> None:
    # numpy has no file that fits all: so many hashes are those of several platforms and versions of Python
    assert LOCKED["numpy"][4].count("--hash") > 20
    assert not re.search("nvidia|triton", "".join(LOCKED))


def test_what_is_installed_is_what_the_lock_says() -> None:
    if Path(sys.prefix) != ROOT / ".venv":
        pytest.skip("not the environment that the Makefile makes")
    installed: dict[str, str] = {
        canonicalize_name(found.metadata["Name"]): found.version
        for found in importlib.metadata.distributions()
    }
    for name, match in LOCKED.items():
        if Requirement(match[0].split("\\")[0].strip()).marker is None:
            assert installed[name] == match[2], name


def test_what_is_declared_is_what_ci_is_set_up_for() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    workflow = (ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8")
    tested = re.findall(r'"(3\.\d+)"', re.findall(r"python: \[(.*)\]", workflow)[0])
    prefix = "Programming Language :: Python :: "
    assert [c.removeprefix(prefix) for c in PROJECT["classifiers"] if c.startswith(prefix)] == tested
    assert f"Python {tested[0]} to {tested[-1]}, " in readme
    assert f"CI is set up for Python {tested[0]} to {tested[-1]} on Ubuntu and macOS" in readme
    assert re.findall(r"os: \[(.*)\]", workflow) == ["ubuntu-latest, macos-latest"]
    assert {"Operating System :: MacOS", "Operating System :: POSIX :: Linux"} < set(PROJECT["classifiers"])
    assert SpecifierSet(PROJECT["requires-python"]) == SpecifierSet(f">={tested[0]}")
    assert f'"Python {tested[0]} or newer is needed' in MAKEFILE
    assert f"sys.version_info < ({tested[0].replace('.', ', ')})" in MAKEFILE
    assert ".".join(map(str, sys.version_info[:2])) in tested


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command that needs the package index, and skip the test where that is not reached."""
    patience = {
        "PIP_RETRIES": "0",
        "PIP_DEFAULT_TIMEOUT": "10",
        "UV_HTTP_TIMEOUT": "10",
        "UV_HTTP_RETRIES": "0",
    }
    environment = {**os.environ, **patience, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    if re.search(
        "NewConnectionError|ConnectTimeout|Read timed out|Failed to fetch|error sending", done.stderr
    ):
        pytest.skip("the package index is not reached")
    return done


@pytest.mark.network
def test_the_lock_is_what_make_lock_writes(tmp_path: Path) -> None:
    uv = Path(sys.executable).with_name("uv")
    if not uv.exists():
        pytest.skip("no uv in this environment")
    for name in ("pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, tmp_path)
    recipe = re.search(r"^lock: .*\n((?:\t.*\n)+)", MAKEFILE, re.M)
    assert recipe
    assert recipe[1].count(".venv/bin/uv") == 1
    done = run("sh", "-ec", recipe[1].replace(".venv/bin/uv", shlex.quote(str(uv))), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    again = (tmp_path / "requirements.lock").read_text(encoding="utf-8")
    # there may be new files of a version; none that was there may be another
    assert set(re.findall(r"^[^ #].*==.*$", again, re.M)) == {
        line for line in LOCK.splitlines() if "==" in line and not line.startswith(" ")
    }
    assert set(re.findall("sha256:[0-9a-f]+", LOCK)) <= set(re.findall("sha256:[0-9a-f]+", again))


@pytest.mark.network
def test_the_lock_installs_where_there_is_nothing(tmp_path: Path) -> None:
    # a few small packages, one of them with compiled code; CI has the Makefile install all from nothing
    names = ("iniconfig", "mdurl", "pyyaml")
    some = "\n".join(LOCKED[name][0] for name in names) + "\n"
    (tmp_path / "requirements.lock").write_text(some, encoding="utf-8")
    recipe = re.search(r"^\t\$\(PIP\) (.* requirements\.lock)$", MAKEFILE, re.M)
    assert recipe
    assert {"--require-hashes", "--no-deps"} < set(recipe[1].split())
    pip = (sys.executable, "-m", "pip", "install", "--no-compile", "--target", "new")
    done = run(*pip, *recipe[1].split(), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for name in names:
        assert len(list(tmp_path.glob(f"new/{name}-{LOCKED[name][2]}.dist-info"))) == 1, name
