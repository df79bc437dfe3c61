from pathlib import Path

import pandas as pd
import pytest

from common.runs.training import Devices, train
from common.system.terminal import Terminal
from common.verdicts.evaluate import evaluate
from common.verdicts.judge import load_replication
from tests.conftest import ROOT
from tests.validation import seeds

ONE = Devices("cpu", 1)
PROJECTION = "example/projection"


def table_of(root: Path, name: str, of: list[int], out: Path) -> pd.DataFrame:
    """The instances table of a run that has these seeds only."""
    replication = load_replication(root, name, "quick", {"seeds": (of, "the test")}, out)
    train([replication.run], ONE)
    table = replication.run.table()
    assert table is not None
    return table


def test_groups_have_seeds_of_their_own_that_are_cut_as_those_from_zero() -> None:
    own = list(range(0, 4096, 32))
    lists = seeds.groups_of(own, 100)
    every = [seed for of in lists for seed in of]
    assert len(set(every)) == 100 * len(own)
    assert min(every) > 4096  # as many as the suite has
    for size in (8, 10, 64):
        assert [seed // size - lists[7][0] // size for seed in lists[7]] == [seed // size for seed in own]


def test_a_group_of_a_shared_run_is_a_run_of_its_own_to_the_bit(example: Path, tmp_path: Path) -> None:
    replication, lists = seeds.load(example, PROJECTION, 2, tmp_path / "together")
    train([replication.run], ONE)
    together = replication.run.table()
    assert together is not None
    assert len(together) == 2 * 3 * 2
    alone = table_of(example, PROJECTION, lists[1], tmp_path / "alone")
    pd.testing.assert_frame_equal(seeds.cut(together, lists[1]), alone, check_exact=True)
    others = seeds.cut(together, lists[0])
    assert not others["loss"].isin(alone["loss"]).any()


def test_a_group_of_calculated_networks_is_a_run_of_its_own_to_the_bit(tmp_path: Path) -> None:
    name = "polysemanticity_definitions/definitions"
    replication, lists = seeds.load(ROOT, name, 2, tmp_path / "together")
    train([replication.run], ONE)
    together = replication.run.table()
    assert together is not None
    alone = table_of(ROOT, name, lists[1], tmp_path / "alone")
    pd.testing.assert_frame_equal(seeds.cut(together, lists[1]), alone, check_exact=True)
    first, second = (
        table[["part", "case"]].reset_index(drop=True) for table in (seeds.cut(together, lists[0]), alone)
    )
    pd.testing.assert_frame_equal(first, second, check_exact=True)


def test_groups_are_judged_as_runs_are_and_the_study_goes_on_where_it_was(
    example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    counted = seeds.study(example, [PROJECTION], 2, ONE, tmp_path, Terminal(width=200))
    (path,) = (tmp_path / PROJECTION).glob("verdicts-*.csv")
    verdicts = pd.read_csv(path)
    replication, lists = seeds.load(example, PROJECTION, 2, tmp_path)
    for group, of in enumerate(lists[:1]):
        table = table_of(example, PROJECTION, of, tmp_path / "alone")
        alone = evaluate(replication.claims, replication.run.spec.code, table)["squared_norm"]
        row = verdicts[verdicts["group"] == group].iloc[0]
        assert (row["verdict"], row["value"]) == (str(alone.verdict), pytest.approx(alone.value, rel=1e-12))
    assert counted[seeds.SUMMED].sum(axis=1).tolist() == [2]
    assert "2 groups of 3 seeds, trained in" in capsys.readouterr().out
    monkeypatch.setattr(seeds, "evaluate", lambda *arguments: pytest.fail("judged again"))
    again = seeds.study(example, [PROJECTION], 2, ONE, tmp_path, Terminal(width=200))
    pd.testing.assert_frame_equal(again, counted)


def test_the_summary_counts_true_claims_only() -> None:
    counted = pd.DataFrame(
        [
            {"claim": "a", "reproduced": 3, "not reproduced": 1, "true": True, "from_seeds": True},
            {"claim": "b", "reproduced": 0, "not reproduced": 4, "true": False, "from_seeds": True},
            {"claim": "c", "reproduced": 4, "not reproduced": 0, "true": True, "from_seeds": False},
        ]
    ).assign(replication="r", inconclusive=0, undecidable=0, invalid=0, recorded_full="", recorded_quick="")
    verdicts = pd.DataFrame(
        {"replication": "r", "claim": claim, "group": group, "verdict": "reproduced"}
        for claim in "abc"
        for group in range(4)
    )
    verdicts.loc[verdicts["claim"] == "b", "verdict"] = "not reproduced"
    verdicts.loc[2, "verdict"] = "not reproduced"
    lines = list(seeds.summary(counted, verdicts))
    assert lines[0].startswith("1 claims are true")
    assert "1 more are true and calculated" in lines[0]
    assert "not reproduced 1 of 4, 25.00%, between 0" in lines[1]
    assert "Runs with so many true claims falsely not reproduced (of 4): 0: 3, 1: 1" in lines
    assert any(line.startswith("  r a: reproduced 3, not reproduced 1") for line in lines)
    assert not any(line.startswith("  r b") for line in lines)


def test_no_false_verdict_has_an_interval_from_zero() -> None:
    claims = pd.DataFrame([{"replication": "r", "claim": "a"}])
    verdicts = pd.DataFrame(
        {"replication": "r", "claim": "a", "group": group, "verdict": "reproduced"} for group in range(100)
    )
    # Wilson's interval of 0 of 100, by the t quantile of 99 degrees of freedom
    assert seeds.share(claims, verdicts, "not reproduced") == "0 of 100, 0.00%, between 0.00% and 3.79%"
