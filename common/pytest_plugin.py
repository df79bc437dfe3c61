"""Replications as tests, for those who prefer it: `pytest --replications`.

Each claim is a test that it matches the record, each control a test that it fails the claims that it must
fail. Every test run imports this module: nothing slow is imported before the option is given.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from common.verdicts.judge import Replication
    from common.verdicts.record import Change
    from common.verdicts.suite import Suite


class NotAsRecordedError(Exception):
    """What `replicate check` would print about a claim or control."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of this plugin."""
    group = parser.getgroup("replications")
    group.addoption(
        "--replications", action="store_true",
        help="run replications as tests, in place of other tests: train what is missing, and check that each "
        "claim matches the record and that each control fails the claims that it must fail",
    )  # fmt: skip
    group.addoption("--replications-profile", default="quick", help="full, or a profile of the specs (quick)")
    group.addoption(
        "--replications-out", type=Path,
        help="where results are stored (default: ROOT/results, or ./results if ROOT is installed); write it "
        "with an equals sign",
    )  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    """Collect from the replications if the command line names no files."""
    if config.getoption("replications"):
        from common.errors import InputError
        from common.specs.find import find_own, find_root
        from common.system import compiling
        from common.system.text import line
        from common.verdicts.suite import Suite

        if note := compiling.prepare():
            config.issue_config_time_warning(UserWarning(note), stacklevel=2)
        try:
            root = find_root()
            if config.args_source is not pytest.Config.ArgsSource.ARGS:
                find_own(root)
        except InputError as error:
            raise pytest.UsageError(line(str(error))) from None
        config.stash[_SUITE] = Suite(root)
        if config.args_source is not pytest.Config.ArgsSource.ARGS:
            config.args = [str(root / "replications")]


_SUITE: "pytest.StashKey[Suite]" = pytest.StashKey()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Ignore all files except specs."""
    if config.getoption("replications") and collection_path.is_file():
        return collection_path.suffix != ".yaml"
    return None


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """The tests of one spec."""
    if not parent.config.getoption("replications") or file_path.suffix != ".yaml":
        return None
    for name, files in parent.config.stash[_SUITE].replications.items():
        if files.path.resolve() == file_path.resolve():
            spec: _Spec = _Spec.from_parent(parent, path=file_path, name=name, nodeid=name)
            return spec
    return None


class _Spec(pytest.File):
    """One replication: its tests share its training and judging."""

    def collect(self) -> Iterable[pytest.Item]:
        from common.system.text import line
        from common.verdicts import record

        self.replication = self._load()
        stored = record.load(self.replication.files.record).get(self.config.getoption("replications_profile"))
        claims, controls = (stored.claims, stored.controls) if stored else ({}, {})
        for claim in {**claims, **self.replication.claims}:
            yield _Test.from_parent(self, name=line(claim), about=claim)
        for control in {**controls, **self.replication.controls}:
            yield _Test.from_parent(self, name=f"control:{control}", about=f"{control}: ")

    def _load(self) -> "Replication":
        from common.verdicts.judge import load_all

        config, suite = self.config, self.config.stash[_SUITE]
        written = suite.read(suite.replications[self.name], config.getoption("replications_profile"))
        return load_all([written], suite.root, config.getoption("replications_out"))[0]

    def setup(self) -> None:
        """Train what is missing, and judge."""
        from common.runs.training import Devices, train
        from common.verdicts.judge import judge
        from common.verdicts.rehearsal import rehearse

        # with pytest-xdist, this is one of many processes
        count = 1 if hasattr(self.config, "workerinput") else None
        if any(run.lacking() for run in self.replication.runs):
            rehearse(self.replication)
        train(self.replication.runs, Devices.choose(count=count))
        self.problems: list[Change] = judge(self.replication, self.config.stash[_SUITE].n_claims).problems

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Report a mistake in spec or claims in one line."""
        from common.errors import InputError
        from common.system.text import line

        known = isinstance(excinfo.value, InputError)
        return line(str(excinfo.value)) if known else super().repr_failure(excinfo)


class _Test(pytest.Item):
    """One claim, or one control (its name and a colon in `about`): fails if it differs from the record."""

    def __init__(self, *, about: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.about = about

    def runtest(self) -> None:
        assert isinstance(self.parent, _Spec)
        is_control = self.about.endswith(": ")
        lines = [
            f"differs from the record: {change.claim}: {change.problem}"
            for change in self.parent.problems
            if change.claim == self.about or (is_control and change.claim.startswith(self.about))
        ]
        if lines:
            raise NotAsRecordedError("\n".join(lines))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """The lines that `replicate check` would print."""
        from common.system.text import visible

        known = isinstance(excinfo.value, NotAsRecordedError)
        return visible(str(excinfo.value)) if known else super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """The spec, and the test's name."""
        return self.path, None, self.nodeid
