"""Of every replication: its profiles and controls can be loaded, it has a control, and a record of each."""

from pathlib import Path

import pytest

from common.specs.find import find_specs
from common.specs.sweep import shards
from common.verdicts import record
from common.verdicts.judge import load_replication
from tests.conftest import ROOT


@pytest.mark.parametrize("profile", ["full", "quick"])
@pytest.mark.parametrize("name", find_specs(ROOT))
def test_each_profile_has_controls_that_lose_claims_of_it_and_a_record(
    name: str, profile: str, tmp_path: Path
) -> None:
    replication = load_replication(ROOT, name, profile, out=tmp_path)  # refuses one that is to lose no claim
    assert all(shards(run.spec) for run in replication.runs)
    controls = replication.run.spec.controls
    assert controls
    kept = record.load(replication.files.record)[profile]
    assert set(kept.claims) == set(replication.claims)
    assert {name: set(lost) for name, lost in kept.controls.items()} == {
        name: set(control.rejects) for name, control in controls.items()
    }
