"""Tests of `replicate new`: what it makes runs at once and is clean; what exists is left alone."""

import subprocess
import sys
from pathlib import Path

import pytest

from common.cli import main
from common.errors import InputError
from common.specs.document import Document
from common.specs.new import make

ROOT = Path(__file__).parents[3]
OWN = [
    "replications/paper/result.yaml",
    "replications/paper/result.py",
    "expected/paper/result.yaml",
    "tests/replications/paper/test_result.py",
]
SHARED = [f"replications/paper/{name}" for name in ("README.md", "citation.bib", "model.py")] + [".gitignore"]


def files(root: Path) -> dict[str, str]:
    return {str(p.relative_to(root)): p.read_text(encoding="utf-8") for p in root.rglob("*") if p.is_file()}


def test_the_made_test_passes_in_a_folder_of_its_own(tmp_path: Path) -> None:
    assert {str(path.relative_to(tmp_path)) for path in make(tmp_path, "paper/result")} == {*OWN, *SHARED}
    assert set(files(tmp_path)) == {*OWN, *SHARED}
    # from there, and with nothing of ours but what is installed
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"],
        cwd=tmp_path, env={"PATH": "", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True,
    )  # fmt: skip
    assert "1 passed" in done.stdout, done.stdout + done.stderr


# names as short, as long and in the order of the alphabet as they come
@pytest.mark.parametrize("name", ["a/b", "z_paper_with_a_rather_long_name/result_with_a_rather_long_name_2"])
def test_what_is_made_passes_the_linter(tmp_path: Path, name: str) -> None:
    make(tmp_path, name)
    make(tmp_path, f"{name}2")
    scripts = sorted(tmp_path.rglob("*.py"))
    assert len(scripts) == 6
    for path in scripts:
        place = ["--stdin-filename", str(path.relative_to(tmp_path)), "-"]
        for command in (["check", "--no-cache"], ["format", "--diff"]):
            done = subprocess.run(
                [sys.executable, "-m", "ruff", *command, *place],
                cwd=ROOT, input=path.read_text(encoding="utf-8"), capture_output=True, text=True,
            )  # fmt: skip
            assert done.returncode == 0, done.stdout


def test_a_second_result_leaves_the_paper_s_files_and_has_a_model_of_its_own(tmp_path: Path) -> None:
    make(tmp_path, "paper/result")
    bib, readme = (tmp_path / "replications/paper" / name for name in ("citation.bib", "README.md"))
    bib.write_text("@article{someone2022, title = {A}}\n", encoding="utf-8")
    readme.write_text("mine\n", encoding="utf-8")
    before = files(tmp_path)
    made = make(tmp_path, "paper/second")
    assert tmp_path / "replications/paper/second_model.py" in made
    now = files(tmp_path)
    assert {path: now[path] for path in before} == before
    spec = now["replications/paper/second.yaml"]
    assert "paper: someone2022 " in spec
    assert "replications.paper.second_model.Autoencoder" in spec
    assert main(["--root", str(tmp_path), "status"]) == 0  # which reads specs and claims


def test_in_a_package_modules_are_named_as_installed(tmp_path: Path) -> None:
    package = tmp_path / "outer" / "inner"
    package.mkdir(parents=True)
    for folder in (package, package.parent):
        (folder / "__init__.py").touch()
    make(package, "paper/result")
    spec = (package / "replications/paper/result.yaml").read_text(encoding="utf-8")
    assert "code: outer.inner.replications.paper.result\n" in spec


@pytest.mark.parametrize(
    "path", [*OWN, "expected/paper/result.record.yaml", "expected/paper/result.samples.parquet"]
)
def test_an_existing_file_of_the_result_is_an_error(
    tmp_path: Path, path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).touch()
    assert main(["--root", str(tmp_path), "new", "paper/result"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert (
        line
        == f"replicate: paper/result: {tmp_path / path} already exists; choose another name, or remove it"
    )
    assert files(tmp_path) == {path: ""}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("paper", "expected PAPER/RESULT"),
        ("a/b/c", "expected PAPER/RESULT"),
        ("Paper/result", "'Paper' is not a valid name for a Python module"),
        ("paper/my-result", "'my-result' is not a valid name"),
        ("paper/", "'' is not a valid name"),
        ("paper/2d", "'2d' is not a valid name"),
        ("paper/class", "'class' is not a valid name"),
        ("../result", "'..' is not a valid name"),
        ("paper/é", "'é' is not a valid name"),
        ("paper/result\n", "is not a valid name"),
        ("paper/model", "model.py is reserved for the paper's model"),
    ],
)
def test_a_bad_name_is_an_error(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make(tmp_path, name)
    assert not list(tmp_path.iterdir())


def test_what_is_made_and_what_comes_next_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "a folder"
    assert main(["--root", str(root), "new", "paper/result"]) == 0
    said = capsys.readouterr().out
    assert said.count("made: ") == len(OWN) + len(SHARED)
    for command in ("run", "record", "check"):
        assert f"  replicate --root '{root}' {command} paper/result  #" in said


@pytest.mark.parametrize("key", ["a:b-2024", "2024", "no", "*a", "a#b", "'a'", "[a]", "ä", "-", "a:", "1e3"])
def test_any_key_of_a_paper_is_text_in_what_is_made(tmp_path: Path, key: str) -> None:
    bib = tmp_path / "replications/paper/citation.bib"
    bib.parent.mkdir(parents=True)
    bib.write_text(f"@misc{{{key}, title = {{A}}}}\n", encoding="utf-8")
    make(tmp_path, "paper/result")
    spec = Document.load(bib.with_name("result.yaml")).data
    claims = Document.load(tmp_path / "expected/paper/result.yaml").data
    assert spec["paper"] == claims["claims"]["squared_norm"]["source"]["paper"] == key
