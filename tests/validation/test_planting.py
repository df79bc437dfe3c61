import argparse
import copy
import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from common import metrics
from common.errors import InputError
from common.specs.find import find_specs
from common.system.terminal import Terminal
from common.verdicts import evaluate
from replications.toy_models_of_superposition import model as toy
from tests.conftest import ROOT, pytest_configure
from tests.validation import faults, planting
from tests.validation.faults import DEFINITIONS, EVERYTHING, FAULTS, NONE, Fault, fault, swap
from tests.validation.planting import Trial, run, sources, summary, table_of


def test_faults_are_many_and_of_all_replications() -> None:
    assert len(FAULTS) - 1 >= 24
    assert set(EVERYTHING) == set(find_specs(ROOT)) == set(FAULTS[NONE].touches)
    of_training = [one for name, one in FAULTS.items() if name != NONE and not one.judging]
    assert {name for one in of_training for name in one.touches} == set(EVERYTHING)
    for one in FAULTS.values():
        assert one.what.endswith((".", "caught."))
        assert not inspect.signature(one.plant).parameters


def test_a_fault_is_entered_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "FAULTS", {})

    @fault("a/b", judging=True)
    def something() -> None:
        """What is
        wrong."""

    found = Fault("something", "What is wrong.", ("a/b",), something, True, False)
    assert found == faults.FAULTS["something"]


def test_swap_replaces_a_function_under_all_its_names() -> None:
    original, other = metrics.feature_norm, lambda weight: weight

    def known() -> list[Any]:
        models = toy.ToyModel, toy.LinearModel
        modules = (vars(module)["feature_norm"] for module in (toy, metrics))
        return [*modules, *(model.measures["feature_norm"] for model in models)]

    assert known() == 4 * [original]
    swap(original, other)
    try:
        assert known() == 4 * [other]
    finally:
        swap(other, original)
    assert known() == 4 * [original]


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that runs the definitions with an attribute changed, under the name of some fault."""

    def result(like: str, *change: Any) -> dict[str, Any]:
        with monkeypatch.context() as patch:
            if change:
                patch.setattr(*change)
            return run(FAULTS[like], ROOT, DEFINITIONS, 402, tmp_path)

    return result


def test_a_fault_is_caught_by_claims_and_by_the_record_and_none_is_not(planted: Any, tmp_path: Path) -> None:
    unbroken = planted(NONE)
    assert (unbroken["claims"], unbroken["record"], unbroken["error"]) == ([], [], "")
    wrong = planted(
        "superposition_the_other_way",
        metrics,
        "_beyond",
        lambda represented, n: (n - represented).clamp(min=0),
    )
    assert "antipodal_count (not reproduced)" in wrong["claims"]
    assert any(change.startswith("antipodal_count: verdict changed from") for change in wrong["record"])
    assert wrong["table"] != unbroken["table"]

    def fails(*arguments: Any) -> Any:
        raise ZeroDivisionError("nothing there")

    # of a fault in judging the unbroken suite's results are judged
    failed = planted("overlap_is_enough", evaluate, "fraction_interval", fails)
    assert failed["error"] == "ZeroDivisionError: nothing there"
    assert failed["table"] == unbroken["table"]
    assert not (tmp_path / "results" / "overlap_is_enough").exists()


def trial(name: str, **changes: Any) -> Trial:
    return Trial(name, DEFINITIONS, [], [], "", True)._replace(**changes)


def test_the_summary_says_what_noticed_each_fault_and_which_are_not_noticed() -> None:
    trials = [
        trial(NONE, acts=False),
        trial(
            "no_relu", claims=["a (invalid)", "b (invalid)", "c (invalid)", "d (invalid)"], record=["a: x"]
        ),
        trial("no_bias", record=["a: moved"]),
        trial("no_bias", error="ValueError: no"),
        trial("not_turned"),
        trial("half_precision", acts=False),
    ]
    lines = summary(trials)
    assert (
        "no_relu in "
        + DEFINITIONS
        + ": 4 claims (a (invalid), b (invalid), c (invalid)), 1 changes to the record"
        in lines
    )
    assert "noticed by a claim, a control or an error: 2 of 4 faults, 2 of 5 trials" in lines
    assert "noticed by these or the record: 2 of 4 faults, 3 of 5 trials" in lines
    assert lines[-2:] == [
        "faults that nothing notices: not_turned, half_precision",
        "faults that change no number: half_precision",
    ]
    table = table_of(trials)
    assert table["caught"].tolist() == [False, True, True, True, False, False]
    assert table["claims"][1] == "a (invalid); b (invalid); c (invalid); and 1 more"


def test_a_suite_that_is_caught_without_a_fault_shows_nothing(tmp_path: Path) -> None:
    for name, lost in ((NONE, ["a"]), ("not_turned", [])):
        path = tmp_path / sources(ROOT) / "trials" / name / f"{DEFINITIONS}.json"
        path.parent.mkdir(parents=True)
        found = {"outcomes": {}, "table": "", "claims": lost, "record": [], "error": ""}
        path.write_text(json.dumps(found), encoding="utf-8")
    with pytest.raises(InputError, match="without any fault polysemanticity_definitions/definitions came"):
        planting.study(ROOT, ["not_turned"], [], 1, tmp_path, Terminal(quiet=True))


def test_pytest_plants_a_fault_and_its_tests_notice_it() -> None:
    of_metrics = str(ROOT / "tests" / "common" / "test_metrics.py")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "scale or length"]
    found = subprocess.run(
        [*command, "--fault", "norm_not_rooted", of_metrics],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert found.returncode == 1, found.stdout + found.stderr
    assert "FAILED tests/common/test_metrics.py::test_scale" in found.stdout


def test_pytest_refuses_a_fault_that_does_not_exist(pytestconfig: pytest.Config) -> None:
    asked = copy.copy(pytestconfig)
    asked.option = argparse.Namespace(**vars(pytestconfig.option) | {"fault": "norm_not_roted"})
    with pytest.raises(pytest.UsageError, match="did you mean 'norm_not_rooted'"):
        pytest_configure(asked)


def test_trials_are_tied_to_the_code_and_the_claims(tmp_path: Path) -> None:
    path = tmp_path / "expected" / "paper" / "result.yaml"
    path.parent.mkdir(parents=True)
    path.write_text("claims: {}", encoding="utf-8")
    before = sources(tmp_path)
    path.with_suffix(".png").write_bytes(b"a figure")
    assert sources(tmp_path) == before
    path.write_text("claims: {a: {}}", encoding="utf-8")
    changed = sources(tmp_path)
    path.rename(path.with_name("other.yaml"))
    assert len({before, changed, sources(tmp_path)}) == 3


def test_an_unknown_fault_or_replication_is_named_with_its_nearest(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no_rel: no such fault; did you mean 'no_relu'"):
        planting.study(ROOT, ["no_rel"], [], 1, tmp_path, Terminal(quiet=True))
    with pytest.raises(InputError, match="definition: no such replication; did you mean"):
        planting.study(ROOT, [], [DEFINITIONS[:-1]], 1, tmp_path, Terminal(quiet=True))
