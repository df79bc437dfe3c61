"""Results in Python, for a notebook: `result(name)` has the table, claims, figures and trained networks."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from matplotlib.figure import Figure

from common.ensemble import Ensemble
from common.errors import InputError, one_line
from common.reports import tables
from common.runs.shard import build
from common.runs.training import Devices, train
from common.specs.find import announce, find_root, find_spec
from common.specs.sweep import choose
from common.system.files import given_path
from common.verdicts.evaluate import draw, evaluate
from common.verdicts.judge import Replication, load_all
from common.verdicts.rehearsal import rehearse
from common.verdicts.suite import Suite


class Result:
    """The results of one replication in one profile, as `result` returns them."""

    def __init__(self, replication: Replication) -> None:
        self.replication = replication

    @functools.cached_property
    def table(self) -> pd.DataFrame:
        """The instances table: a row per trained network with its factors, seed, loss and metrics.

        Raises:
            InputError: if the results are incomplete.
        """
        run = self.replication.run
        table = run.table()
        if table is None:
            why = run.why_incomplete()
            how = "result(..., train=True) or `replicate run` trains what is missing"
            raise InputError(f"{self.replication.name} ({run.variant.name}): {why}; {how}")
        return table

    @functools.cached_property
    def claims(self) -> pd.DataFrame:
        """A row per claim, by name: what was published, our estimate, and the verdict.

        `low` and `high` are the interval of `value`, `region_low` and `region_high` the acceptance region;
        `investigated` is what was found out about a claim that was not reproduced, otherwise None. With
        `overrides` of more than seeds, verdicts do not apply to the paper, and claims without rows are left
        out.
        """
        outcomes = evaluate(
            self.replication.claims, self.replication.run.spec.code, self.table, looks=self.replication.looks
        )
        rows = {
            name: {
                "statement": one_line(outcome.claim.statement),
                "kind": outcome.claim.kind,
                "published": tables.published(outcome.claim),
                "value": outcome.value,
                "low": outcome.low,
                "high": outcome.high,
                "region_low": outcome.region[0],
                "region_high": outcome.region[1],
                "verdict": str(outcome.verdict),
                "reason": outcome.reason,
                "investigated": None if self.replication.for_reference else outcome.claim.investigated,
            }
            for name, outcome in outcomes.items()
        }
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("claim")

    def figures(self) -> dict[str, Figure]:
        """The figures by name, newly drawn."""
        return draw(self.replication.run.spec.code, self.table, self.replication.all_claims)

    @torch.inference_mode(False)  # in inference mode the weights could never be trained again
    def model(self, query: str = "all") -> Ensemble:
        """The trained networks that `query` selects, in the order of the table: a LightningModule.

        `query` is a pandas query over the columns of the sweep, as in "seed == 0 and density > .5". The
        networks' weights must have been kept. Whatever else a model records while it trains is not restored,
        only weights and buffers.

        Raises:
            InputError: if the query does not fit the sweep, the networks do not have one shape, or their
                weights were not kept.
        """
        run = self.replication.run
        if not issubclass(run.spec.model_class, Ensemble):
            raise InputError(f"{self.replication.name} is calculated, so there are no weights")
        rows = choose(run.spec, query)
        structural = run.spec.structural()
        if structural and len(rows[structural].drop_duplicates()) > 1:
            raise InputError(
                f"{query!r}: selects networks of several shapes; choose one value of {', '.join(structural)}"
            )
        states: dict[int, dict[str, torch.Tensor]] = {}
        for shard in run.cut.shards(rows):
            kept, state = run.weights(shard)
            states |= {row: {k: v[i] for k, v in state.items()} for i, row in enumerate(kept)}
        if missing := sum(row not in states for row in rows.index):
            how = f"`replicate run {self.replication.name} --keep-weights QUERY` or keep_weights= keeps them"
            raise InputError(f"{query!r}: weights of {missing} of {len(rows)} networks were not kept; {how}")
        model = build(run.spec, rows)
        assert isinstance(model, Ensemble)
        chosen = [states[row] for row in rows.index]
        model.restore({name: torch.stack([state[name] for state in chosen]) for name in chosen[0]})
        return model


def result(
    name: str,
    profile: str = "full",
    overrides: Mapping[str, Any] | None = None,
    *,
    root: Path | str | None = None,
    out: Path | str | None = None,
    train: bool = False,
    keep_weights: str | None = None,
    devices: int = 1,
) -> Result:
    """The stored results of the replication `name`, PAPER/RESULT.

    Args:
        name: as `replicate list` shows it
        profile: full, or a profile of its spec
        overrides: keys of the spec to change, as in {"trainer.max_steps": 100}
        root: the folder of the suite (default: the working directory, or else where this package is)
        out: the folder of the results (default: results/ in `root`, in the working directory if `root` is
            installed)
        train: first train what is missing, without controls
        keep_weights: with `train`, keep the weights of these networks, a query as in `Result.model`
        devices: how many GPUs, or processes on the CPU, train; a script that asks for several needs
            `if __name__ == "__main__":`

    Raises:
        InputError: for the first mistake in these arguments, the spec or the claims.
    """
    given = {key: (value, f"overrides[{key!r}]") for key, value in (overrides or {}).items()}
    folder = find_root(None if root is None else given_path(root))
    where = None if out is None else given_path(out)
    files = find_spec(folder, name)
    announce([files], folder)
    written = Suite(files.root).read(files, profile, given)
    (replication,) = load_all([written], folder, where, keep_weights if train else None)
    if train:
        _train(replication, devices)
    return Result(replication)


def _train(replication: Replication, devices: int) -> None:
    if devices < 1:
        raise InputError(f"devices={devices}: expected at least 1")
    try:
        chosen = Devices.choose(count=devices)
    except ValueError as error:
        raise InputError(f"devices: {error}") from None
    if replication.run.lacking():
        rehearse(replication)
    train([replication.run], chosen)
