"""Tests of the profile `decided`: which networks are needed, by claims that are still open (deciding.py)."""

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from common.cli import main
from common.runs import training
from common.runs.store import Run
from common.runs.training import Devices, TimeIsUp, train
from common.verdicts.claims import Claim, Verdict
from common.verdicts.deciding import Standing, standing
from common.verdicts.looks import Looks
from tests.common.verdicts.test_looks import claim

LOOKS = Looks([4, 12, 40])


@pytest.fixture
def run(small: Any, tmp_path: Path) -> Run:
    return Run(small(seeds="4"), tmp_path)


def store(of: Standing, values: Callable[[pd.DataFrame], Any]) -> None:
    """Store results for all networks that are needed and not stored."""
    for shard in of.needed.lacking():
        of.needed.write_shard(shard.rows.assign(loss=1.0, x=values(shard.rows)))


def at(density: float) -> Claim:
    """That the mean of x at a density and importance 2 is 0 to within 1."""
    return claim(estimate={"metric": "x", "at": {"density": density, "extra_importance": 2.0}})


CLAIMS = {"clear": at(1.0), "open": at(0.5), "far": at(0.1)}


def values(rows: pd.DataFrame) -> Any:
    """Clearly inside at density 1, clearly outside at 0.1, and with a mean of 0.9 and much spread at 0.5."""
    seed = rows["seed"].to_numpy()
    noise = np.where(seed % 2, 1.0, -1.0) * (1 + seed % 5 / 10)
    centre = rows["density"].map({1.0: 0.0, 0.5: 0.9, 0.1: 50.0}).to_numpy()
    return centre + noise * np.where(rows["density"] == 0.5, 1.0, 0.01)


def test_before_the_first_look_all_of_the_sweep_is_needed(run: Run) -> None:
    now = standing(run, CLAIMS, LOOKS)
    assert now.outcomes == {}
    assert now.open == ["clear", "open", "far"]
    assert now.needed.rows.index.equals(run.rows.index)
    assert now.judged.table() is None


def test_each_look_needs_networks_of_open_claims_only(run: Run) -> None:
    for look, seeds in enumerate(LOOKS.seeds, start=1):
        store(standing(run, CLAIMS, LOOKS), values)
        now = standing(run, CLAIMS, LOOKS)
        assert {name: outcome.verdict for name, outcome in now.outcomes.items()} == {
            "clear": Verdict.REPRODUCED, "open": Verdict.INCONCLUSIVE, "far": Verdict.NOT_REPRODUCED,
        }  # fmt: skip
        assert (now.outcomes["clear"].look, now.outcomes["open"].look) == (1, look)
        assert now.open == (["open"] if look < 3 else [])
        read = now.judged.rows.query("density == .5 and extra_importance == 2")
        assert sorted(read["seed"]) == list(range(seeds))
        assert len(now.judged.rows) == 6 * 4 + seeds - 4
        lacking = [shard.rows for shard in now.needed.lacking()]
        if look < 3:
            new = pd.concat(lacking)
            assert set(zip(new["density"], new["extra_importance"], strict=True)) == {(0.5, 2.0)}
            assert sorted(new["seed"]) == list(range(seeds, LOOKS.seeds[look]))
        else:
            assert not lacking


def test_a_look_counts_once_all_of_its_networks_are_stored(run: Run) -> None:
    store(standing(run, CLAIMS, LOOKS), values)
    now = standing(run, CLAIMS, LOOKS)
    every = pd.concat([shard.rows for shard in now.needed.lacking()])
    for row in every.index[1:]:  # the last ones first do not help
        part = every.loc[[row]]
        run.write_shard(part.assign(loss=1.0, x=values(part)))
    after = standing(run, CLAIMS, LOOKS)
    assert after.outcomes["open"].look == 1
    assert [row for shard in after.needed.lacking() for row in shard.rows.index] == [every.index[0]]
    store(after, values)
    assert standing(run, CLAIMS, LOOKS).outcomes["open"].look == 2


def test_networks_that_no_look_asks_for_change_nothing(run: Run) -> None:
    store(standing(run, CLAIMS, LOOKS), values)
    before = standing(run, CLAIMS, LOOKS)
    more = run.asking(run.cut.rows(np.arange(6 * 200, 6 * 210)))
    for shard in more.shards:
        more.write_shard(shard.rows.assign(loss=1.0, x=1e6))
    after = standing(run, CLAIMS, LOOKS)
    assert {n: o.value for n, o in after.outcomes.items()} == {n: o.value for n, o in before.outcomes.items()}
    assert after.needed.rows.index.equals(before.needed.rows.index)


def test_training_stops_when_the_time_is_up_and_goes_on_later(
    small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uncompiled: None
) -> None:
    run = Run(small(trainer__max_steps="200"), tmp_path)
    with pytest.raises(TimeIsUp):
        train([run], Devices("cpu", 1), until=time.monotonic() - 1)
    assert len(run.lacking()) == len(run.shards)
    told: list[int] = []

    class Told(training.Progress):
        def finished(self, run: Run, shard: Any, table: pd.DataFrame) -> None:
            told.append(len(table))

    train([run], Devices("cpu", 1), Told(), until=time.monotonic() + 1e6)
    assert sum(told) == 18
    assert run.is_joined()


@pytest.fixture
def asking(example: Path) -> Path:
    """A root with a claim that 2 seeds do not decide, and a control."""
    spec = example / "replications/example/projection.yaml"
    text = spec.read_text(encoding="utf-8")
    text = text.replace("max_steps: 800", "max_steps: 30")
    spec.write_text(re.sub(r"\nseeds: \d+", "\nseeds: 2\nlooks: [2, 6, 9]", text), encoding="utf-8")
    return example


def test_the_command_trains_look_by_look(
    asking: Path, capsys: pytest.CaptureFixture[str], uncompiled: None
) -> None:
    run = ["--root", str(asking), "run", "--devices", "1"]
    main([*run, "--profile", "decided", "--hours", "5"])
    said = capsys.readouterr().out
    assert "more networks may decide: squared_norm" in said
    folder = asking / "results/example/projection"
    tables = {path.parts[-3]: len(pd.read_parquet(path)) for path in folder.glob("*/*/instances.parquet")}
    assert tables["decided"] in (2 + 6, 2 + 9)  # of two densities, one is read by the claim
    # again: nothing is left to train; full finds its networks
    main([*run, "--profile", "decided"])
    assert "Trained" not in capsys.readouterr().out
    main(run)
    assert "Nothing to train" not in said
    assert not list(folder.glob("full/*/shards/*"))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--hours", "1"], "--hours: only the profile decided stops at a time; got --profile full"),
        (["--profile", "decided", "--hours", "0"], "--hours 0: expected a number of hours above 0"),
        (["--profile", "decided", "--hours", "nan"], "--hours nan: expected a number of hours above 0"),
        (["--profile", "decided", "--seeds", "7"], "--seeds 7: the profile decided takes the seeds that its"),
        (["--profile", "decided", "--set", "seeds=[1, 2]"], "--set seeds=[1, 2]: the profile decided takes"),
        (["--profile", "decided", "--part", "1/2"], "--part: in the profile decided, what is trained next"),
    ],
)
def test_what_decided_does_not_take_is_said_in_one_line(
    asking: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    assert main(["--root", str(asking), "run", *arguments]) == 2
    assert says in capsys.readouterr().err


def test_when_the_time_is_up_nothing_that_is_missing_counts_as_judged(
    asking: Path, capsys: pytest.CaptureFixture[str], uncompiled: None
) -> None:
    run = ["--root", str(asking), "run", "--devices", "1", "--profile", "decided"]
    assert main([*run, "--hours", "1e-9"]) == 1
    said = capsys.readouterr().out
    assert "The time is up. What was trained is stored; the same command continues." in said
    assert "Nothing was judged: the networks of a first look, or of controls, are missing." in said
    assert "match the record" not in said
    main(run)
    assert "squared_norm" in capsys.readouterr().out
