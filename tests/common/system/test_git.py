"""Tests of system/git.py: the commit of a root, and that nothing is recorded that is not committed."""

from collections.abc import Callable
from pathlib import Path

import pytest

from common.cli import main
from common.specs.new import make
from common.system.git import commit
from tests.conftest import commit_all, git


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root, committed."""
    make(tmp_path / "root", "paper/result")
    commit_all(tmp_path / "root")
    return tmp_path / "root"


def write(path: Path, text: str = "changed") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def test_a_commit_is_marked_where_code_was_changed_since(root: Path) -> None:
    clean = commit(root)
    assert len(clean) == 12
    write(root / "expected/paper/result.record.yaml")
    write(root / "expected/paper/result.samples.parquet")
    write(root / "replications/paper/README.md")
    write(root / "results/table")  # ignored
    assert commit(root) == clean
    git(root, "config", "status.showUntrackedFiles", "no")
    write(root / "helper.py")
    assert commit(root) == f"{clean}+"
    (root / "helper.py").unlink()
    write(root / ".gitignore", "results/\n*helper.py")
    git(root, "commit", "--quiet", "--all", "--message", "ignore")
    assert not commit(root).endswith("+")
    write(root / "replications/paper/helper.py")
    assert commit(root).endswith("+")


def test_a_repository_around_a_root_is_not_the_root_s(tmp_path: Path) -> None:
    root = tmp_path / "somebody" / ".venv" / "lib"
    make(root, "paper/result")
    assert commit(root) == "unknown"
    write(tmp_path / "somebody" / ".gitignore", ".venv/")
    commit_all(tmp_path / "somebody")
    assert commit(root) == "unknown"


def test_git_s_own_variables_are_those_of_another_repository(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "other", "paper/other")
    commit_all(tmp_path / "other")
    expected = git(root, "rev-parse", "HEAD")[:12]
    assert not git(tmp_path / "other", "rev-parse", "HEAD").startswith(expected)
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other" / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(tmp_path / "other"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "none"))
    assert commit(root) == expected


def _no_git(root: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setenv("PATH", str(root))


def _no_repository(root: Path, patch: pytest.MonkeyPatch) -> None:
    (root / ".git").rename(root.with_name("gone"))


def _no_commit(root: Path, patch: pytest.MonkeyPatch) -> None:
    git(root, "update-ref", "-d", "HEAD")


def _nothing_added(root: Path, patch: pytest.MonkeyPatch) -> None:
    git(root, "update-ref", "-d", "HEAD")
    git(root, "rm", "-r", "--quiet", "--cached", ".")


def _damaged(root: Path, patch: pytest.MonkeyPatch) -> None:
    (root / ".git/index").write_bytes(b"nonsense")


def _changed(name: str) -> Callable[[Path, pytest.MonkeyPatch], None]:
    return lambda root, patch: write(root / name, (root / name).read_text(encoding="utf-8") + "\n")


def _staged(root: Path, patch: pytest.MonkeyPatch) -> None:
    write(root / "replications/paper/new.py", "")
    git(root, "add", ".")


def _ignored(*names: str) -> Callable[[Path, pytest.MonkeyPatch], None]:
    def ignore(root: Path, patch: pytest.MonkeyPatch) -> None:
        git(root, "rm", "--quiet", "--cached", *names)
        write(root / ".gitignore", "\n".join(["results/", *names]))
        git(root, "add", ".gitignore")
        git(root, "commit", "--quiet", "--message", "ignored")

    return ignore


def _installed(root: Path, patch: pytest.MonkeyPatch) -> None:
    write(root / "some-1.dist-info/RECORD", "replications/paper/result.yaml,sha256=0,0\n")


@pytest.mark.parametrize(
    ("make_bad", "message"),
    [
        (_no_git, "git was not found; code and claims must be committed before a record, as acceptance"),
        (_no_repository, "not in a git repository; code and claims must be committed before a record"),
        (_no_commit, "nothing is committed yet; code and claims must"),
        (_nothing_added, "nothing is committed yet; code and claims must"),
        (_damaged, "git says: "),
        (_staged, "replications/paper/new.py has uncommitted changes; "),
        (_changed("replications/paper/result.yaml"), "replications/paper/result.yaml has uncommitted"),
        (_changed("replications/paper/model.py"), "replications/paper/model.py has uncommitted changes; "),
        (_changed("expected/paper/result.yaml"), "expected/paper/result.yaml has uncommitted changes; "),
        (_ignored("replications/paper/result.yaml"), "git does not track replications/paper/result.yaml; "),
        (_ignored("replications/paper/model.py"), "git does not track replications/paper/model.py; "),
        (_ignored("expected/paper/result.yaml"), "git does not track expected/paper/result.yaml; "),
        (_installed, "is installed; "),
    ],
)  # fmt: skip
def test_what_is_not_committed_is_not_recorded(
    root: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    make_bad: Callable[[Path, pytest.MonkeyPatch], None],
    message: str,
) -> None:
    make_bad(root, monkeypatch)
    assert main(["--root", str(root), "record"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"replicate: {root}: {message}")
    assert not list(root.glob("expected/*/*.record.yaml"))
