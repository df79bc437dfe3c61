"""Tests of pytest_plugin.py: a claim is a test, and without its option the plugin does nothing."""

import re
from pathlib import Path

# pyarrow takes what this registers once only, and `pytester` forgets modules that come while it is used
import pandas.core.arrays.arrow.extension_types  # type: ignore[import-not-found]  # noqa: F401
import pytest

from common.cli import main
from tests.conftest import ROOT, commit_all

pytest_plugins = ["pytester"]

PLUGIN = ("-p", "common.pytest_plugin")


def test_claims_and_controls_are_tests(
    example: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = example / "replications/example/projection.yaml"
    text = spec.read_text(encoding="utf-8").replace("  quick:", "  fast:")
    spec.with_name("unprofiled.yaml").write_text(text, encoding="utf-8")
    claims = example / "expected/example/projection.yaml"
    claims.with_name("unprofiled.yaml").write_text(claims.read_text(encoding="utf-8"), encoding="utf-8")
    what = ["example/projection", "--profile", "quick"]
    assert main(["--root", str(example), "run", *what, "--devices", "1"]) == 1
    commit_all(example)
    assert main(["--root", str(example), "record", *what]) == 0
    record = example / "expected/example/projection.record.yaml"
    stored = record.read_text(encoding="utf-8")
    record.write_text(re.sub("verdict: [a-z ]+", "verdict: invalid", stored), encoding="utf-8")

    pytester.makepyfile("def test_left_out(): assert False")
    monkeypatch.chdir(example)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    run = pytester.runpytest_subprocess(
        *PLUGIN, "--replications", "--continue-on-collection-errors", "-v", "-k", "projection or unprofiled"
    )
    run.assert_outcomes(passed=1, failed=1, errors=1)
    run.stdout.fnmatch_lines(
        [
            "example/projection::squared_norm FAILED*",
            "example/projection::control:decayed PASSED*",
            "*unprofiled.yaml:*: profiles: no profile 'quick'; valid: decided, fast, full",
            "differs from the record: squared_norm: verdict changed from invalid to *",
        ]
    )
    run.stdout.no_fnmatch_line("*Traceback*")


def test_without_the_option_nothing_happens(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (pytester.path / "replications").mkdir()
    (pytester.path / "replications" / "spec.yaml").write_text("not: a spec")
    pytester.makepyfile(
        """
        import sys

        def test_nothing_is_imported():
            assert "common.pytest_plugin" in sys.modules
            assert not {"torch", "lightning", "pandas", "numpy"} & set(sys.modules)
        """
    )
    # without jaxtyping's plugin, where it is installed: that one imports numpy
    pytester.runpytest_subprocess(*PLUGIN, "-p", "no:jaxtyping").assert_outcomes(passed=1)
