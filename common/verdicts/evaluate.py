"""Verdicts on claims from an instances table: `evaluate`.

A verdict is that of an equivalence test (two one-sided tests of 2.5 % each): a claim is reproduced when the
95 % interval of its estimate lies inside the acceptance region, so few seeds can never make a claim pass.
Source: Schuirmann (1987). At several looks, those 2.5 % are shared between them: see `looks`.
"""

import math
from bisect import bisect_left
from dataclasses import dataclass, replace
from types import ModuleType
from typing import NamedTuple

import pandas as pd
from matplotlib.figure import Figure

from common.errors import InputError
from common.statistics import (
    TAIL,
    Interval,
    Z,
    agreeing,
    fraction_interval,
    jackknife,
    t_quantile,
    widen,
    z_quantile,
)
from common.style import themed
from common.system.text import counted
from common.verdicts.claims import Claim, Claims, Verdict, is_empirical
from common.verdicts.estimates import Estimated, Part, Parts, estimate_all, file_of, in_code
from common.verdicts.looks import Looks

MOST_SEEDS = 1_000_000
"""More seeds than anyone trains: a claim that this many would not decide counts as open for good."""


@dataclass(frozen=True)
class Outcome:
    """The outcome of a claim.

    `low` and `high` are the interval that was judged, widened by the error of the published number (infinite
    if one seed gives none); `samples` are the estimates with one seed (or group of seeds) left out, in the
    order of the seeds; `more_seeds` would decide an inconclusive claim, or show that it is undecidable (None:
    no number of seeds would), or are those to the next look. `seeds` is how many were judged, `look` the
    number of the look that decided, or that the claim has got to; None where claims are judged once.
    `needed_half_width`: that of the 95 % interval of the published number below which an undecidable claim
    would be decided.
    """

    name: str
    claim: Claim
    value: float
    low: float
    high: float
    region: Interval
    samples: list[float]
    verdict: Verdict
    more_seeds: int | None
    reason: str
    seeds: int = 0
    look: int | None = None
    needed_half_width: float | None = None


class Tails(NamedTuple):
    """The probability that an interval misses the true value on one side: at this look, and at the last."""

    here: float = TAIL
    last: float = TAIL


ONCE = Tails()
"""Where claims are judged once, by 95 % intervals."""


def verdict_of(interval: Interval, region: Interval) -> Verdict:
    """Whether `interval` lies inside `region` (ends included), outside it, or neither."""
    low, high = interval
    if math.isnan(low) or math.isnan(high):
        return Verdict.INVALID
    if region[0] <= low and high <= region[1]:
        return Verdict.REPRODUCED
    return Verdict.NOT_REPRODUCED if high < region[0] or low > region[1] else Verdict.INCONCLUSIVE


def is_undecidable(own: Interval, half_width: float, region: Interval) -> bool:
    """Whether a claim stays open wherever in our `own` interval the true value of our estimate lies.

    Each value, with this half width of the published number's interval on either side, lies partly inside the
    region.
    """
    reach = (region[0] - half_width, region[1] + half_width)
    inside = (region[0] + half_width, region[1] - half_width)
    meets = inside[0] <= inside[1] and own[0] <= inside[1] and own[1] >= inside[0]
    return half_width > 0 and reach[0] <= own[0] and own[1] <= reach[1] and not meets


def _verdict(value: float, own: Interval, half_width: float, region: Interval, tails: Tails) -> Verdict:
    """The verdict on an estimate with its `own` interval; `half_width` is of the published 95 % interval."""
    verdict = verdict_of(widen(value, own, _at(tails.here, half_width)), region)
    # by the smallest error that any look will use, so that no later look could still decide
    smallest = _at(max(tails), half_width)
    if verdict is Verdict.INCONCLUSIVE and is_undecidable(own, smallest, region):
        return Verdict.UNDECIDABLE
    return verdict


def _at(tail: float, half_width: float) -> float:
    """The half width of an interval with this tail, from that of the 95 % interval."""
    return half_width * (z_quantile(tail) / Z)


def more_seeds(
    value: float,
    interval: Interval,
    seeds: int,
    half_width: float,
    region: Interval,
    tails: Tails = ONCE,
) -> tuple[int, Verdict] | None:
    """How many seeds beyond `seeds` would end a claim's being inconclusive, and how; None if none would.

    The estimate is assumed to stay, and its `interval` to shrink as t(seeds - 1) / sqrt(seeds); the half
    width of the published number's 95 % interval does not shrink.
    """
    if seeds < 2 or math.isinf(interval[0]):
        return None
    width = t_quantile(1 - tails.here, seeds) / math.sqrt(seeds)

    def verdict(n: int) -> Verdict:
        shrink = t_quantile(1 - tails.here, n) / math.sqrt(n) / width
        own = (value - shrink * (value - interval[0]), value + shrink * (interval[1] - value))
        return _verdict(value, own, half_width, region, tails)

    def ends(n: int) -> bool:
        return verdict(n) is not Verdict.INCONCLUSIVE

    n = bisect_left(range(MOST_SEEDS + 1), True, lo=seeds + 1, key=ends)
    return (n - seeds, verdict(n)) if n <= MOST_SEEDS else None


def needed_half_width(claim: Claim, value: float, tail: float = TAIL) -> float | None:
    """The half width of the published number's 95 % interval below which a claim is decided.

    Our `value` is taken as exact, the published one and a fixed margin M as they are: with the distance d
    between the values, the published interval, at this tail, must be narrower than |M - d|. The region of the
    rule `published_precision` is twice the 95 % half width h, and shrinks with it: the claim is not
    reproduced once d exceeds the region and the interval. (It would also be reproduced with an error so large
    that the region holds anything; that is no precision.) None if there is no such half width.
    """
    if claim.published is None or claim.margin is None:
        return None
    distance, factor = abs(value - claim.published.value), z_quantile(tail) / Z
    margin = claim.margin.value
    needed = distance / (2 + factor) if margin is None else abs(margin - distance) / factor
    return needed or None


def published_networks(claim: Claim, half_width: float) -> int | None:
    """How many networks behind the published number give its 95 % interval this half width.

    None if their standard deviation is not known, or the number is read too imprecisely for any number.
    """
    published = claim.published
    if published is None or published.sd is None:
        return None
    fixed = published.model_copy(update={"sd": None, "n": None}).error
    rest = (half_width / Z) ** 2 - fixed**2
    return math.ceil(published.sd**2 / rest) if rest > 0 else None


def evaluate(
    claims: dict[str, Claim],
    code: ModuleType,
    table: pd.DataFrame,
    *,
    looks: Looks | None = None,
    of_control: bool = False,
) -> dict[str, Outcome]:
    """The outcome of each claim on the instances `table`, one row per network with its `seed`.

    Where all seeds agree, the outcome has no spread if there are at least `agreeing` seeds, or if it is
    `of_control`: what breaks networks on purpose may break all of them in the same way. With `looks` a claim
    is judged at one after the other, as far as its rows have the seeds, until it is not inconclusive.
    """
    whole = Parts(table)
    of: dict[str, Part] = {}
    outcomes: dict[str, Outcome] = {}
    for name, claim in claims.items():
        if is_empirical(claim, code):
            try:
                of[name] = whole.of(claim)
            except ValueError as error:
                outcomes[name] = _invalid(name, claim, str(error))
    left = {name: claim for name, claim in claims.items() if name not in outcomes}
    if looks is None:
        for name, found in estimate_all(left, code, of, whole).items():
            judgement = _judge(name, left[name], found, of_control=of_control)
            outcomes[name] = judgement.once()
    else:
        outcomes |= _over_looks(left, code, of, whole, looks, of_control=of_control)
    return {name: outcomes[name] for name in claims}


def _over_looks(
    claims: dict[str, Claim],
    code: ModuleType,
    of: dict[str, Part],
    whole: Parts,
    looks: Looks,
    *,
    of_control: bool,
) -> dict[str, Outcome]:
    """The outcomes of claims that are judged look by look, on their rows `of` the `whole` table."""
    outcomes: dict[str, Outcome] = {}
    open_ = dict(claims)
    for number, (seeds, tail) in enumerate(zip(looks.seeds, looks.tails, strict=True), start=1):
        there = {name: claim for name, claim in open_.items() if name not in of or of[name].complete >= seeds}
        for name in open_.keys() - there.keys():
            if name not in outcomes:
                outcomes[name] = _not_there(name, open_[name], of[name].complete, looks)
        waiting = {name for name, claim in there.items() if _waits(claim, number, looks)}
        outcomes |= {name: _waiting(name, there[name], number, looks) for name in waiting}
        judged = {name: claim for name, claim in there.items() if name not in waiting}
        parts = {name: of[name].first(seeds) for name in judged if name in of}
        tails = Tails(tail, looks.tails[-1])
        for name, found in estimate_all(judged, code, parts, whole).items():
            judgement = _judge(name, judged[name], found, tails, of_control=of_control)
            outcomes[name] = judgement.at(number, looks, is_exact=name not in of)
        open_ = {name: c for name, c in there.items() if outcomes[name].verdict is Verdict.INCONCLUSIVE}
    return outcomes


def _shown(number: int, looks: Looks) -> str:
    return f"look {number} of {len(looks.seeds)} ({looks.seeds[number - 1]} seeds)"


def _next(number: int, looks: Looks) -> tuple[int, str]:
    """How many more seeds the look after this one needs, and this in words."""
    more = looks.seeds[number] - looks.seeds[number - 1]
    return more, f"look {number + 1} needs {more} more seeds"


def _waits(claim: Claim, number: int, looks: Looks) -> bool:
    """Whether the one look of a goodness-of-fit test, the first with enough seeds, else the last, is later.

    It has a rate of false alarms of its own, which a test at each look would exceed.
    """
    return (
        claim.power is not None and number < len(looks.seeds) and looks.seeds[number - 1] < claim.power.seeds
    )


def _waiting(name: str, claim: Claim, number: int, looks: Looks) -> Outcome:
    more, cure = _next(number, looks)
    why = f"{_shown(number, looks)}: the test is made once, with enough seeds to detect a difference; {cure}"
    return _open(name, claim, more, why, looks.seeds[number - 1], number)


def _not_there(name: str, claim: Claim, seeds: int, looks: Looks) -> Outcome:
    needs = f"look 1 of {len(looks.seeds)} needs {looks.seeds[0]} seeds of each network that the claim reads"
    return _open(name, claim, looks.seeds[0] - seeds, f"{needs}; there are {seeds}", seeds, 0)


def _open(name: str, claim: Claim, more: int, why: str, seeds: int, look: int) -> Outcome:
    """The outcome of a claim that has not been judged yet."""
    unknown = (math.nan, -math.inf, math.inf)
    return Outcome(
        name, claim, *unknown, claim.region, [], Verdict.INCONCLUSIVE, more, why, seeds=seeds, look=look
    )


class _Judgement(NamedTuple):
    """An outcome, whose reason says what was found, and in words what would decide it if it is open."""

    outcome: Outcome
    cure: str = ""

    def once(self) -> Outcome:
        """The outcome where there are no other looks."""
        return replace(self.outcome, reason=_joined(self.outcome.reason, self.cure))

    def at(self, number: int, looks: Looks, *, is_exact: bool) -> Outcome:
        """The outcome at a look; theory is the same at each."""
        of, said = self.outcome, self.outcome.reason
        if not is_exact:
            said = f"{_shown(number, looks)}: {said}"
        more, cure = of.more_seeds, self.cure
        if of.verdict is Verdict.INCONCLUSIVE:
            if number < len(looks.seeds):
                more, cure = _next(number, looks)
            else:
                cure = _joined("limit reached", cure)
        seeds = of.seeds or (0 if is_exact else looks.seeds[number - 1])
        return replace(of, reason=_joined(said, cure), more_seeds=more, look=number, seeds=seeds)


def _joined(*parts: str) -> str:
    return "; ".join(part for part in parts if part)


def _invalid(name: str, claim: Claim, problem: str) -> Outcome:
    nan = math.nan
    return Outcome(name, claim, nan, nan, nan, claim.region, [], Verdict.INVALID, None, problem)


def _judge(name: str, claim: Claim, found: Estimated, tails: Tails = ONCE, *, of_control: bool) -> _Judgement:
    """The outcome of a claim with this estimate."""
    problem = found.problem or (None if of_control else found.identical)
    if problem is not None:
        return _Judgement(replace(_invalid(name, claim, problem), seeds=found.seeds))
    if claim.power is not None:
        return _fit(name, claim, found, claim.power.seeds)
    value, samples, region = found.value, found.samples, claim.region
    own = _interval(found, tails, of_control=of_control)
    published = claim.published_half_width
    interval = widen(value, own, _at(tails.here, published))
    verdict = _verdict(value, own, published, region, tails)
    outcome = Outcome(name, claim, value, *interval, region, samples, verdict, None, "", found.seeds)
    group = claim.estimate.group if found.grouped else None
    of_seeds = f"seeds in groups of {group}" if group else "seeds"
    if found.agrees and math.isinf(own[0]):
        more = (agreeing(tails.here) - len(samples)) * (group or 1)
        few = f"all {found.seeds} {of_seeds} give {value:.4g}, which says little about other seeds"
        return _Judgement(replace(outcome, more_seeds=more, reason=few), f"{more} more would decide")
    if math.isinf(own[0]):
        alone = f"{value:.4g} comes from one seed, which gives no interval"
        return _Judgement(replace(outcome, reason=alone))
    said, needed = _said(value, interval, region, verdict), None
    if verdict is Verdict.UNDECIDABLE:
        needed = needed_half_width(claim, value, max(tails))
        said = _joined(said, _undecidable(claim, needed))
    if found.agrees:
        share = tails.here ** (1 / len(samples))
        all_of = f"all {found.seeds} {of_seeds} agree" if group else f"all {len(samples)} seeds agree"
        said += f"; {all_of}, so more than {share:.0%} of all {'groups' if group else 'seeds'} would"
    outcome = replace(outcome, reason=said, needed_half_width=needed)
    if verdict is not Verdict.INCONCLUSIVE:
        return _Judgement(outcome)
    ends = more_seeds(value, own, len(samples), published, region, tails)
    if ends is None:
        return _Judgement(outcome, "no number of seeds would decide")
    more = ends[0] * (group or 1)
    what = "decide" if ends[1] is not Verdict.UNDECIDABLE else "show that it cannot be decided"
    return _Judgement(replace(outcome, more_seeds=more), f"about {counted(more, 'more seed')} would {what}")


def _interval(found: Estimated, tails: Tails, *, of_control: bool) -> Interval:
    """The interval of an estimate, without the error of the published number."""
    value, samples, tail = found.value, found.samples, tails.here
    if found.units:
        return fraction_interval(value, found.units, samples, tail)
    if not found.seeds or (found.agrees and of_control):
        return (value, value)
    if not found.agrees:
        return jackknife(value, samples, tail)
    if len(samples) < agreeing(tail):
        return (-math.inf, math.inf)
    # later looks may show others: this share may differ unseen (Clopper & Pearson 1934), from a count by one
    # each, from another value by all of it
    step = 0.0 if tails is ONCE else 1.0 if value.is_integer() else abs(value)
    unseen = step * (1 - tail ** (1 / len(samples)))
    return (value - unseen, value + unseen)


def _fit(name: str, claim: Claim, found: Estimated, seeds_needed: int) -> _Judgement:
    """The outcome of a goodness-of-fit test."""
    p, region = found.value, claim.region
    verdict = verdict_of((p, p), region)
    outcome = Outcome(name, claim, p, p, p, region, found.samples, verdict, None, "", found.seeds)
    if verdict is Verdict.REPRODUCED and found.seeds < seeds_needed:
        more = seeds_needed - found.seeds
        why = f"p = {p:.4g} raises no alarm, but {seeds_needed} seeds are needed to detect a difference"
        few = replace(outcome, verdict=Verdict.INCONCLUSIVE, more_seeds=more, reason=why)
        return _Judgement(few, f"{more} more would decide")
    return _Judgement(replace(outcome, reason=_said(p, (p, p), region, verdict)))


def _said(value: float, interval: Interval, region: Interval, verdict: Verdict) -> str:
    shown = f"{value:.4g}" if interval[0] == interval[1] else f"{value:.4g} {_span(interval)}"
    lies = {Verdict.REPRODUCED: "inside", Verdict.NOT_REPRODUCED: "outside"}.get(verdict, "partly inside")
    return f"{shown} lies {lies} {_span(region)}"


def _undecidable(claim: Claim, needed: float | None) -> str:
    """Why no number of our seeds decides a claim, and which published number would."""
    known = f"the published number is known to ±{claim.published_half_width:.2g}, too little for any number"
    why = f"{known} of our seeds to decide"
    if needed is None:
        return why
    why += f"; below ±{needed:.2g} would"
    published = claim.published
    if published is None or published.sd is None:
        return why
    n = published_networks(claim, needed)
    if n is None:
        return f"{why}, for which it is also read too imprecisely"
    return f"{why}, about {counted(n, 'published network')} instead of {published.n}"


def _span(interval: Interval) -> str:
    return f"[{interval[0]:.4g}, {interval[1]:.4g}]"


def draw(code: ModuleType, table: pd.DataFrame, claims: Claims) -> dict[str, Figure]:
    """The figures of a replication by name, drawn by its module's `figures` in the common theme.

    Raises:
        InputError: if they cannot be drawn.
    """
    with in_code(code, "figures"), themed():
        figures: dict[str, Figure] = code.figures(table, claims)
        if not isinstance(figures, dict) or not all(isinstance(one, Figure) for one in figures.values()):
            raise InputError(f"{file_of(code)}: figures() must return a dict of matplotlib figures by name")
        for figure in figures.values():
            figure.draw_without_rendering()  # much of a theme, such as the ticks, is read only now
    return figures
