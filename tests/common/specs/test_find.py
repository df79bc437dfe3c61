"""Tests of finding replications: below a root, in an installed package, at a path."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.cli import main
from common.errors import InputError
from common.specs.find import Files, find_all, find_named, find_spec, find_specs, results_folder
from common.specs.new import make

ROOT = Path(__file__).parents[3]
PACKAGE = """\
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "others-replications"
version = "1"

[project.entry-points.replications]
others = "others.replications"

[tool.setuptools.package-data]
"*" = ["*.yaml", "*.parquet", "*.bib"]
"""
SHORT = ["--profile", "quick", "--set", "trainer.max_steps=2", "--seeds", "2", "--devices", "1"]


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A root with one replication, `mine/result`."""
    make(tmp_path / "own", "mine/result")
    return tmp_path / "own"


def install(target: Path, name: str, value: str = "others.replications") -> None:
    """Put a package `others` with the replication `name` where Python finds it, without its installer."""
    (target / "others").mkdir(parents=True)
    (target / "others" / "__init__.py").touch()
    make(target / "others", name)
    metadata = target / "others_replications-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: others-replications\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text(f"[replications]\nothers = {value}\n")


@pytest.fixture(autouse=True)
def _no_module_of_another_test() -> Iterator[None]:
    yield
    for name in [name for name in sys.modules if name.split(".")[0] == "others"]:
        del sys.modules[name]


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of an installed package whose replication is `theirs/result`."""
    install(tmp_path / "site", "theirs/result")
    monkeypatch.syspath_prepend(tmp_path / "site")
    return tmp_path / "site" / "others"


def test_the_replications_below_a_root(tmp_path: Path) -> None:
    for name in ("b/two.yaml", "a/one.yaml", "a/notes.txt", "a/inner/three.yaml"):
        path = tmp_path / "replications" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert list(find_specs(tmp_path)) == ["a/one", "b/two"]
    two = find_spec(tmp_path, "b/two")
    assert two == Files("b/two", tmp_path / "replications/b/two.yaml", tmp_path)
    assert two.expected == tmp_path / "expected/b/two.yaml"
    assert two.record == tmp_path / "expected/b/two.record.yaml"
    assert two.samples == tmp_path / "expected/b/two.samples.parquet"
    with pytest.raises(InputError, match=r"^b/tow: no such replication; did you mean 'b/two'\?$"):
        find_spec(tmp_path, "b/tow")


def test_a_path_is_its_own_root_s(own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path / "other", "theirs/result")
    path = tmp_path / "other/replications/theirs/result.yaml"
    assert find_spec(own, str(path)) == Files("theirs/result", path, tmp_path / "other")
    monkeypatch.chdir(own)
    assert find_spec(own, "replications/mine/result.yaml") == find_spec(own, "mine/result")
    assert find_spec(Path(), "replications/mine/result.yaml").root == Path()


def test_a_path_runs_with_its_own_code_claims_and_results(
    own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    make(other, "theirs/result")
    path = str(other / "replications/theirs/result.yaml")
    assert main(["--root", str(own), "run", path, "mine/result", *SHORT]) == 0
    said = capsys.readouterr()
    assert said.err.splitlines().count(f"replicate: importing code from {other}") == 1
    assert list(other.glob("results/theirs/result/quick/*/figures/result.png"))
    assert list(own.glob("results/mine/result/quick/*/figures/result.png"))
    assert not (own / "results/theirs").exists()
    # of the root itself nothing needs to be said
    assert main(["--root", str(own), "status", str(own / "replications/mine/result.yaml")]) == 0
    assert not capsys.readouterr().err


def test_an_installed_package_is_found_and_runs(own: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "others").mkdir(parents=True)
    (source / "others" / "__init__.py").touch()
    (source / "pyproject.toml").write_text(PACKAGE, encoding="utf-8")
    make(source / "others", "theirs/result")
    target = tmp_path / "target"
    # setuptools is there: no index is asked
    pip = ["pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([sys.executable, "-m", *pip, "--target", str(target), str(source)], check=True)

    paths = os.pathsep.join(map(str, (ROOT, target)))
    env = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    code = "import sys; from common.cli import main; sys.exit(main(['list']) or main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "run", "theirs/result", *SHORT]
    done = subprocess.run(command, cwd=own, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    listed = [line.split(":")[0] for line in done.stdout.splitlines() if "networks of" in line]
    assert listed == ["mine/result", "theirs/result"]
    assert f"in {target / 'others'}" in " ".join(done.stdout.split())
    assert list(own.glob("results/theirs/result/quick/*/figures/result.png"))
    assert "importing" not in done.stderr


def test_without_a_name_only_the_root_s_own_are_meant(
    own: Path, installed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert [found.name for found in find_all(own)] == ["mine/result", "theirs/result"]
    assert main(["--root", str(own), "status"]) == 0
    assert "theirs" not in capsys.readouterr().out
    assert main(["--root", str(own), "status", "theirs/result"]) == 0
    assert capsys.readouterr().out.startswith("theirs/result full ")
    assert main(["--root", str(own), "cite", "theirs/result"]) == 0
    assert capsys.readouterr().out.startswith("@misc{theirs,")
    # given as the root, it is not found twice
    assert find_all(installed) == list(find_specs(installed).values())


def one_line(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    assert main(arguments) == 2
    *before, line = capsys.readouterr().err.splitlines()
    assert all(said.startswith("replicate: importing code from ") for said in before)
    return line


def test_a_name_in_two_roots_is_an_error(
    own: Path, installed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(own, "theirs/result")
    line = one_line(capsys, ["--root", str(own), "run", "theirs/result"])
    where = f"found in {own} and in {installed}"
    assert line == f"replicate: theirs/result: {where}; choose one of these folders with --root"
    # of two papers' folders of one name, either one's modules would be taken for the other's
    other = tmp_path / "other"
    make(other, "mine/second")
    path = str(other / "replications/mine/second.yaml")
    line = one_line(capsys, ["--root", str(own), "run", "mine/result", path])
    assert line == f"replicate: mine is in both {own} and {other}; give only one of them"


def test_code_of_another_root_is_never_taken_for_its_own(
    own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--root", str(own), "status"]) == 0  # imports replications.mine
    make(tmp_path / "other", "mine/result")
    path = str(tmp_path / "other/replications/mine/result.yaml")
    line = one_line(capsys, ["--root", str(own), "status", path])
    found = r"'replications.mine.model' was imported from /.*/own/.*, not from /.*/other/"
    assert re.search(rf"result.yaml:\d+: model.class_path: {found}", line)


def test_a_record_is_made_in_its_own_root(
    own: Path, installed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = one_line(capsys, ["--root", str(own), "record", "theirs/result"])
    where = f"record it with --root {installed}"
    assert line == f"replicate: record: theirs/result belongs to another root; {where}"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("theirs/resutl", "theirs/resutl: no such replication; did you mean 'theirs/result'?"),
        ("mine/result.yaml", "mine/result.yaml: expected ROOT/replications/PAPER/RESULT.yaml"),
        ("/none.yaml", "/none.yaml: expected ROOT/replications/PAPER/RESULT.yaml"),
        ("OWN/replications/mine/resutl.yaml", "resutl.yaml: no such file; did you mean 'mine/result'?"),
        ("OWN/expected/mine/result.yaml", "result.yaml: expected ROOT/replications/PAPER/RESULT.yaml"),
        ("OWN/replications/elsewhere/x.yaml", "x.yaml: no such file"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("installed")
def test_an_unknown_name_or_path_is_one_line(
    own: Path, capsys: pytest.CaptureFixture[str], name: str, message: str
) -> None:
    for command in ("run", "check", "record", "status", "cite", "bench"):
        assert message in one_line(capsys, ["--root", str(own), command, name.replace("OWN", str(own))])


@pytest.mark.parametrize("value", ["others", "nothing.replications", "os.path", "others.replications.theirs"])
def test_an_entry_point_that_names_no_such_package_is_one_line(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], value: str
) -> None:
    install(tmp_path / "site", "theirs/result", value)
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert main(["--root", str(own), "list"]) == 0
    expected = f"entry point 'others': {value!r} is not a package PACKAGE.replications"
    assert capsys.readouterr().err == f"replicate: others-replications: {expected}\n"


COMMANDS = ["list", "run", "check", "status", "report", "record", "bench", "cite"]
SPEC = "title: x\n"
NOTHING_NEAR = "; `replicate new PAPER/RESULT` creates one"


def put(root: Path, *names: str) -> Path:
    """Make these files below `root`; a folder where there is a slash at the end."""
    for name in names:
        path = root / name
        (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            path.write_text(SPEC, encoding="utf-8")
    return root


@pytest.mark.parametrize(
    ("files", "near"),
    [
        (["replications/"], NOTHING_NEAR),
        (["replications/paper/"], NOTHING_NEAR),
        (["replications/paper/model.py", "replications/notes.txt"], NOTHING_NEAR),
        (["replications/paper/res.yml"], ", only paper/res.yml"),
        (["replications/res.yaml"], ", only res.yaml"),
        (["replications/paper/inner/res.yaml"], ", only paper/inner/res.yaml"),
        (["replications/paper/RES.YAML"], ", only paper/RES.YAML"),
        (["replications/paper/res.Yml"], ", only paper/res.Yml"),
        (["replications/paper/res.yaml.txt"], ", only paper/res.yaml.txt"),
        (["replications/paper/._res.yaml"], NOTHING_NEAR),
    ],
)  # fmt: skip
def test_where_there_is_no_spec_nothing_is_judged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], files: list[str], near: str
) -> None:
    put(tmp_path, *files)
    where = tmp_path / "replications"
    expected = f"replicate: {where}: nothing to judge: it contains no spec PAPER/RESULT.yaml{near}\n"
    for command in COMMANDS:
        assert main(["--root", str(tmp_path), command]) == 2, command
        assert capsys.readouterr().err == expected, command


def test_a_new_replication_needs_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for paper, root in (("one", tmp_path / "none"), ("two", put(tmp_path / "empty", "replications/two/"))):
        assert main(["--root", str(root), "new", f"{paper}/result"]) == 0
        assert main(["--root", str(root), "status"]) == 0
    capsys.readouterr()
    assert main(["--root", str(tmp_path / "none" / "replications"), "list"]) == 2
    assert f"give the folder around it, --root {tmp_path / 'none'}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("replications/mine/second.yml", "would be ignored: a spec is replications/PAPER/RESULT.yaml"),
        ("replications/second.yaml", "would be ignored: a spec is"),
        ("replications/mine/inner/second.yaml", "would be ignored: a spec is"),
        ("replications/mine/SECOND.YAML", "would be ignored: a spec is"),
        ("replications/yours/second.yml", "would be ignored: a spec is"),
        ("expected/mine/resutl.yaml", "claims without a spec: no replications/mine/resutl.yaml; did"),
        ("expected/yours/second.yaml", "claims without a spec: no replications/yours/second.yaml"),
        ("expected/mine/gone.record.yaml", "claims without a spec: no replications/mine/gone.yaml"),
        ("expected/mine/result.yml", "would be ignored: only expected/PAPER/RESULT.yaml, RESULT.record"),
        ("expected/result.yaml", "would be ignored: only"),
        ("expected/mine/inner/result.yaml", "would be ignored: only"),
        ("expected/mine/gone.samples.parquet", "samples without a spec: no replications/mine/gone.yaml"),
        ("expected/mine/result.parquet", "would be ignored: only"),
        ("expected/result.samples.parquet", "would be ignored: only"),
        ("expected/mine/result.samples.parquet", "samples without their record: no result.record.yaml"),
    ],
)  # fmt: skip
def test_no_spec_or_claims_are_passed_over_in_silence(
    own: Path, capsys: pytest.CaptureFixture[str], name: str, message: str
) -> None:
    put(own, name)
    for command in COMMANDS:
        line = one_line(capsys, ["--root", str(own), command])
        assert line.startswith(f"replicate: {own / name}: {message}"), command
    # the one that is there is not the matter where it is asked for by name
    assert main(["--root", str(own), "status", "mine/result"]) == 0
    assert main(["--root", str(own), "list"]) == 2
    assert capsys.readouterr().out.splitlines()[-1].count("controls")
    put(own, "replications/third.yaml")
    assert one_line(capsys, ["--root", str(own), "status"]).endswith("(and 1 more such files)")


def test_files_of_other_programs_are_not_specs(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(own, "replications/mine/._result.yaml", "replications/mine/.result.yaml.swp")
    put(own, "replications/.ipynb_checkpoints/x.yaml", "expected/mine/result.yaml~", "expected/.x/y.yaml")
    assert main(["--root", str(own), "status"]) == 0
    assert "._result" not in capsys.readouterr().out


def test_a_broken_spec_does_not_hide_the_others(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(own, "replications/mine/broken.yaml", "expected/mine/broken.yaml")
    (own / "replications/mine/worse.yaml").write_text("a: [", encoding="utf-8")
    assert main(["--root", str(own), "list"]) == 2
    said = capsys.readouterr()
    assert said.out.startswith("mine/result: ")
    assert [re.sub(r"yaml:\d+:.*", "yaml", line) for line in said.err.splitlines()] == [
        f"replicate: {own}/replications/mine/{name}.yaml" for name in ("broken", "worse")
    ]


IMPORTS = [
    "raise RuntimeError('two\\nlines')",
    "raise ImportError('no such thing')",
    "import not_there",
    "import sys; sys.exit(3)",
    "1 / 0",
    "syntax error",
]


@pytest.mark.parametrize("text", IMPORTS)
def test_a_package_that_cannot_be_imported_does_not_hide_the_others(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    install(tmp_path / "site", "theirs/result")
    (tmp_path / "site/others/__init__.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path / "site")
    for command in (["list"], ["status", "mine/result"]):
        assert main(["--root", str(own), *command]) == 0
        said = capsys.readouterr()
        assert said.out.startswith("mine/result")
        (line,) = said.err.splitlines()
        assert line.startswith("replicate: others-replications: entry point 'others': 'others.replications' ")
    assert main(["--root", str(own), "status"]) == 0
    assert not capsys.readouterr().err


@pytest.mark.parametrize("value", ["", "!!", "..", "a b", ":x", "others.replications:x", "nothing"])
def test_an_entry_point_of_any_text_does_not_hide_the_others(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], value: str
) -> None:
    install(tmp_path / "site", "theirs/result", value)
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert main(["--root", str(own), "list"]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("mine/result: ")
    assert len(said.err.splitlines()) == (value != "others.replications:x")


def test_damaged_metadata_do_not_hide_the_others(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(tmp_path / "site", "theirs/result")
    entries = tmp_path / "site/others_replications-1.dist-info/entry_points.txt"
    entries.write_text("[replications]\nno equals sign\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert main(["--root", str(own), "list"]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("mine/result: ")
    assert said.err.startswith("replicate: installed packages: entry points cannot be read: ")


def test_an_installed_package_s_broken_spec_does_not_hide_the_others(
    own: Path, installed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(installed, "replications/theirs/broken.yaml")
    assert main(["--root", str(own), "list"]) == 0
    said = capsys.readouterr()
    assert [line.split(":")[0] for line in said.out.splitlines() if "networks of" in line] == [
        "mine/result",
        "theirs/result",
    ]
    (line,) = said.err.splitlines()
    assert line.startswith(f"replicate: {installed}/replications/theirs/broken.yaml:")
    assert main(["--root", str(own), "status", "mine/result", "theirs/result"]) == 0


def test_one_that_is_named_twice_is_taken_once(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(own / "replications/mine/result.yaml")
    for names in (["mine/result"] * 2, ["mine/result", path], [path, path, "mine/result"]):
        assert [found.name for found in find_named(own, names)] == ["mine/result"]
        assert main(["--root", str(own), "run", *names, *SHORT]) == 0
        assert capsys.readouterr().out.count("control decayed") == 1


def test_where_results_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert results_folder(tmp_path / "suite") == tmp_path / "suite/results"
    packages = put(tmp_path / "lib/site-packages", "replications/paper/result.yaml")
    assert results_folder(packages) == results_folder(packages / "others") == tmp_path / "results"
    # with `pip install --target`, beside what is one's own
    target = put(tmp_path / "target", "replications/paper/result.yaml", "own/replications/paper/result.yaml")
    assert results_folder(target) == target / "results"
    put(tmp_path / "second", "replications/paper/result.yaml", "own/replications/paper/result.yaml")
    record = tmp_path / "second/suite-1.dist-info/RECORD"
    record.parent.mkdir()
    record.write_text("common/specs/find.py,,\nreplications/paper/result.yaml,sha256=x,1\n", encoding="utf-8")
    assert results_folder(tmp_path / "second") == tmp_path / "results"
    assert results_folder(tmp_path / "second/own") == tmp_path / "second/own/results"


@pytest.mark.parametrize("name", ["caf\udce9", "\x1b[31m", "\u202e"])
def test_a_name_that_no_report_can_hold_is_an_error(tmp_path: Path, name: str) -> None:
    for folder, result in ((name, "result"), ("paper", name)):
        path = tmp_path / folder / "replications" / folder / f"{result}.yaml"
        path.parent.mkdir(parents=True)
        path.touch()
        with pytest.raises(InputError, match="a report cannot hold this name; rename the file or its folder"):
            find_specs(tmp_path / folder)
