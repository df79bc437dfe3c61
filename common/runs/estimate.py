"""How much of the work is done, and how long the rest takes: from what each shard was expected to take."""

from collections import defaultdict
from collections.abc import Hashable, Sequence
from typing import NamedTuple

TRUST = 0.01
"""The share of all work, done for a run, from which its own pace counts more than that of all runs."""

OVERDUE = 0.1
"""What is left of a shard that takes longer than expected, as a share of the time since its last report."""


class Work(NamedTuple):
    """One shard: `expected` is what it takes, in a unit of all shards, of which the share `done` is done.

    `spent`: the seconds of a device until this was reported. `since`: those from then until now, in training.
    """

    run: Hashable
    expected: float
    done: float = 0.0
    spent: float = 0.0
    since: float = 0.0


class Estimate(NamedTuple):
    """The share of all work that is done, and the seconds until all is; None while nothing is known."""

    share: float
    seconds: float | None


def estimate(work: Sequence[Work], devices: int) -> Estimate:
    """The progress of all `work` on `devices`, each of which takes one shard at a time.

    The expectation, which may come from another machine, is calibrated by what was done here so far: for each
    run by its own shards, and as long as few of them are done, by those of all runs.
    """
    spent, earned = defaultdict[Hashable, float](float), defaultdict[Hashable, float](float)
    for one in work:
        spent[one.run] += one.spent
        earned[one.run] += one.expected * one.done
    if not (sum(spent.values()) > 0 and sum(earned.values()) > 0):
        return Estimate(0.0, None)
    pace = sum(spent.values()) / sum(earned.values())
    prior = TRUST * sum(one.expected for one in work)
    paces = {run: (spent[run] + pace * prior) / (earned[run] + prior) for run in spent}
    whole = [paces[one.run] * one.expected for one in work]
    left = [
        max(seconds * (1 - one.done) - one.since, OVERDUE * one.since) if one.done < 1 else 0.0
        for one, seconds in zip(work, whole, strict=True)
    ]
    # shards cannot be shared between devices, so the longest may decide
    return Estimate(max(0.0, 1 - sum(left) / sum(whole)), max(sum(left) / devices, *left))
