"""The profile `decided`: how far its claims have got, and which networks open ones need: `standing`."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from common.runs.numerics import one_thread
from common.runs.store import Run
from common.specs.spec import Spec
from common.specs.sweep import instances
from common.verdicts.claims import Claim, Verdict
from common.verdicts.estimates import reads
from common.verdicts.evaluate import Outcome, evaluate
from common.verdicts.looks import Looks

Numbers = NDArray[np.int64]


class Standing(NamedTuple):
    """How far the claims of a run in the profile `decided` have got.

    `outcomes`: the verdicts on what is stored; none if networks of the first look are missing. `judged` asks
    for the networks that they read, `needed` also for those of the next look of each claim that is `open`.
    """

    outcomes: dict[str, Outcome]
    judged: Run
    needed: Run
    open: list[str]


@one_thread()
def standing(run: Run, claims: Mapping[str, Claim], looks: Looks) -> Standing:
    """How far the `claims` have got with the networks that are stored for `run`, whatever it asks for."""
    spec, points = run.spec, run.cut.points.assign(seed=0)
    read = {name: reads(claim, spec.code, points) for name, claim in claims.items()}
    seeds = np.array([0, *looks.seeds])
    asked, before = np.ones(len(points), np.int64), np.zeros(len(points), np.int64)
    outcomes: dict[str, Outcome] = {}
    while True:
        needed = run.asking(_first_seeds(spec, seeds[asked]))
        there = needed.there()
        complete = _complete_looks(there, points, asked, seeds)
        if not complete.all():
            return Standing({}, run.asking(_first_seeds(spec, seeds[np.ones_like(asked)])), needed, [*claims])
        if (complete > before).any():
            ids = _first_seeds(spec, seeds[complete]).index
            outcomes = evaluate(dict(claims), spec.code, there.loc[ids], looks=looks)
        open_ = [name for name, outcome in outcomes.items() if _is_open(outcome, looks)]
        wanted = asked.copy()
        for name in open_:
            wanted[read[name]] = np.maximum(wanted[read[name]], (outcomes[name].look or 0) + 1)
        if (wanted == asked).all():
            used = np.ones_like(asked)
            for name, outcome in outcomes.items():
                used[read[name]] = np.maximum(used[read[name]], outcome.look or 1)
            return Standing(outcomes, run.asking(_first_seeds(spec, seeds[used])), needed, open_)
        asked, before = wanted, complete


def _is_open(outcome: Outcome, looks: Looks) -> bool:
    """Whether another look may decide a claim."""
    return outcome.verdict is Verdict.INCONCLUSIVE and (outcome.look or 0) < len(looks.seeds)


def _first_seeds(spec: Spec, n_seeds: Numbers) -> pd.DataFrame:
    """The instances of each point of the sweep with its first `n_seeds` seeds: 0, 1, 2 and so on."""
    most = spec._replace(
        seeds=[*range(int(n_seeds.max()))], grids=[grid._replace(seeds=None) for grid in spec.grids]
    )
    rows = instances(most)
    seed, point = np.divmod(rows.index.to_numpy(), len(n_seeds))
    return rows[seed < n_seeds[point]]


def _complete_looks(there: pd.DataFrame, points: pd.DataFrame, asked: Numbers, seeds: Numbers) -> Numbers:
    """For each point the number of the last look, up to the one `asked`, of which all networks are there."""
    seed, point = np.divmod(there.index.to_numpy(np.int64), len(points))
    complete = np.zeros(len(points), np.int64)
    for look in range(1, len(seeds)):
        count: NDArray[Any] = np.bincount(point[seed < seeds[look]], minlength=len(points))
        complete[(count == seeds[look]) & (asked >= look)] = look
    return complete
