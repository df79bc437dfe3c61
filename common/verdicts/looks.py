"""Looks: the fixed numbers of seeds at which the profile `decided` judges a claim.

A claim that 16 seeds leave open may be decided by 48, and one that 48 leave open by 160. Judging again and
again until an interval happens to lie on one side would decide falsely more often than an interval says, so
the procedure is fixed before the first network is trained:

- at most three looks, at numbers of seeds that the spec sets;
- at look k a claim is judged on the first N_k seeds of the rows that it reads, whatever else is there, by
  intervals with the share `SHARES[k]` of the error on each side;
- the first look at which the claim is not inconclusive decides; later networks do not change that.

A false verdict needs an interval at one of the looks that misses the true value on one and the same side. The
shares sum to 2.5 %, so by the union bound a claim is reproduced while its true value lies outside its region,
or not reproduced while it lies inside, with a probability of at most 2.5 % each: wherever the true value
lies, and however much the looks, which share networks, depend on each other. The bound is that of the
intervals: what they are worth with few seeds is simulated by `python -m tests.validation looks`.

The last look has the largest share, because a claim gets there only if it is hard to decide. Shares of error
at interim looks: Pocock (1977), O'Brien & Fleming (1979); that they may simply be added: Bonferroni.
"""

from typing import NamedTuple

from common.specs.fields import Fields
from common.statistics import TAIL

SHARES = (0.005, 0.005, 0.015)
"""The probability that the interval of each look may miss the true value on one side; together 2.5 %."""

_FACTORS = (1, 3, 10)
"""The default looks: so many times the seeds of the profile."""


class Looks(NamedTuple):
    """The numbers of seeds at which claims are judged: increasing, at most three."""

    seeds: list[int]

    @property
    def tails(self) -> list[float]:
        """The share of the error of each look; fewer than three share the same 2.5 %, as the last ones do."""
        shares = SHARES[-len(self.seeds) :]
        return [TAIL] if len(shares) == 1 else [share * TAIL / sum(shares) for share in shares]


def looks_of(fields: Fields) -> Looks:
    """The looks of a spec; by default at its number of seeds (at least 2), and at 3 and 10 times as many."""
    if fields.looks is not None:
        return Looks(list(fields.looks))
    seeds = max(2, fields.seeds if isinstance(fields.seeds, int) else len(fields.seeds))
    return Looks([factor * seeds for factor in _FACTORS])
