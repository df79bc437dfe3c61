"""A replication as its tests use it: its spec with changes, networks trained here, claims judged at will."""

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from common.runs.shard import fit_shard
from common.specs.spec import Spec, load_spec
from common.specs.sweep import shards
from common.verdicts.claims import Verdict
from common.verdicts.evaluate import Outcome, draw, evaluate
from tests.conftest import ROOT, load_claims


class UnderTest:
    """The replication `name`, paper/result, and its claims in all profiles."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.code = self.spec().code
        self.claims = load_claims(ROOT / "expected" / f"{name}.yaml", self.code)

    def spec(
        self, profile: str = "full", control: str | None = None, changes: Mapping[str, Any] | None = None
    ) -> Spec:
        overrides = {key: (value, "the test") for key, value in (changes or {}).items()}
        return load_spec(ROOT / "replications" / f"{self.name}.yaml", profile, control, overrides)

    def judged(self, table: pd.DataFrame, names: Iterable[str] | None = None) -> dict[str, Outcome]:
        """What becomes of these claims, or of all."""
        return evaluate({name: self.claims[name] for name in names or self.claims}, self.code, table)

    def figures(self, table: pd.DataFrame) -> dict[str, Figure]:
        """The figures as the suite draws them."""
        return draw(self.code, table, self.claims)


def trained(a_spec: Spec) -> pd.DataFrame:
    return pd.concat([fit_shard(a_spec, shard).table for shard in shards(a_spec)])


def with_verdict(verdict: Verdict, outcomes: Mapping[str, Outcome]) -> set[str]:
    return {name for name, outcome in outcomes.items() if outcome.verdict is verdict}
