"""From a spec to the table of instances that it asks for, and from the table to shards."""

from collections.abc import Callable, Iterable, Mapping
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from common.ensemble import Ensemble
from common.errors import InputError, one_line
from common.specs.query import refuse_code, shown
from common.specs.spec import Spec

CALCULATED = 10_000_000
"""The cost of a calculated instance, which is unknown: about that of the most expensive one so far."""


class Shard(NamedTuple):
    """The instances that one Trainer run trains together: rows of the sweep with one shape and optimizer.

    `name`: that of the block of the sweep that they lie in, which is the same whatever seeds are asked for.
    """

    name: str
    rows: pd.DataFrame


def points(spec: Spec) -> pd.DataFrame:
    """The points of the sweep: one row each, with the columns `part` and each factor, by part and factors."""
    rows: list[dict[str, Any]] = []
    for grid in spec.grids:
        values = product(*grid.factors.values())
        rows += [{"part": grid.part, **dict(zip(grid.factors, point, strict=True))} for point in values]
    return pd.DataFrame(rows)


def instances(spec: Spec) -> pd.DataFrame:
    """The table of instances: one row each, with the columns `part`, each factor, and `seed`.

    Rows are ordered by part, then seed, then factor values. The index numbers them: the seed times the number
    of points of the sweep, plus that of the point, so a network keeps its number when seeds are added.
    """
    where = points(spec)
    ids = []
    for grid in spec.grids:
        of_part = np.flatnonzero(where["part"] == grid.part)
        ids += [np.int64(seed) * len(where) + of_part for seed in grid.seeds or spec.seeds]
    return rows_of(where, np.concatenate(ids))


def rows_of(where: pd.DataFrame, ids: "np.ndarray[Any, np.dtype[np.int64]]") -> pd.DataFrame:
    """The instances with these numbers, of the sweep with the points `where`."""
    seeds, numbers = np.divmod(ids, len(where))
    return where.iloc[numbers].assign(seed=seeds).set_axis(pd.Index(ids))


def choose(spec: Spec, query: str) -> pd.DataFrame:
    """The instances that `query` selects, a pandas query over the columns of the sweep, or `all`.

    Raises:
        InputError: if `query` is not a condition on these columns, or holds for no instance.
    """
    table = instances(spec)
    if query == "all":
        return table
    columns = ", ".join(table.columns)
    try:
        refuse_code(query)
        holds = table.eval(query)
    except Exception as error:  # pandas documents no exception class for this
        what = one_line(error)
        what = what if what.startswith(repr(shown(query))) else f"{shown(query)!r}: {what}"
        raise InputError(f"{what}; the columns of {spec.name} are {columns}") from None
    if not isinstance(holds, pd.Series) or holds.dtype != bool:
        raise InputError(f"{query!r} is not a condition; write one such as 'seed == 0', or 'all'")
    if not holds.any():
        raise InputError(f"{query!r} selects no network of {spec.name}, whose columns are {columns}")
    return table[holds]


class Cut:
    """How the sweep is cut into blocks, each of which one Trainer run trains: a function of the spec alone.

    A block has all points of the sweep with one shape and optimizer, and a fixed range of seeds: as many as
    `shard_size` networks and `shard_weights` weights allow. Where the points of a single seed are too many,
    they are cut into blocks of nearly equal size. So more seeds add blocks, or rows to the last ones, and
    never cut anew what is there.
    """

    def __init__(self, spec: Spec) -> None:
        self.points = points(spec)
        structural = spec.structural()
        if any(grid.optimizer for grid in spec.grids):
            structural = ["part", *structural]
        self._group = np.zeros(len(self.points), np.int64)
        if structural:  # numbered in the order in which they appear
            by_shape = self.points.groupby(structural, sort=False, dropna=False)
            self._group = np.asarray(by_shape.ngroup(), np.int64)
        self._piece = np.zeros(len(self.points), np.int64)
        self._pieces: list[int] = []
        self._seeds: list[int] = []
        self._most: list[int] = []
        for number in range(self._group.max() + 1):
            group = np.flatnonzero(self._group == number)
            most = _shard_size(spec, self.points.iloc[group[0]].to_dict())
            pieces = -(-len(group) // most)
            self._piece[group] = np.arange(len(group)) * pieces // len(group)
            self._pieces.append(pieces)
            self._seeds.append(max(1, most // len(group)))
            self._most.append(most)

    def rows(self, ids: "np.ndarray[Any, np.dtype[np.int64]]") -> pd.DataFrame:
        """The instances with these numbers."""
        return rows_of(self.points, ids)

    def shards(self, rows: pd.DataFrame) -> list[Shard]:
        """Some instances cut into shards, those of each block together, by seed."""
        seeds, numbers = np.divmod(rows.index.to_numpy(np.int64), len(self.points))
        group = self._group[numbers]
        block = seeds // np.array(self._seeds)[group] * np.array(self._pieces)[group] + self._piece[numbers]
        order = np.lexsort((numbers, seeds, block, group))
        ends = np.flatnonzero(np.diff(group[order]) | np.diff(block[order])) + 1
        return (
            [Shard(f"{group[some[0]]}-{block[some[0]]}", rows.iloc[some]) for some in np.split(order, ends)]
            if len(order)
            else []
        )

    def merged(
        self, some: Iterable[Shard], most: Callable[[Shard], int | None] = lambda shard: None
    ) -> list[Shard]:
        """Shards of one shape joined into larger ones, of at most `most` networks (None: those of a block).

        Their blocks are stored one by one all the same.
        """
        sizes: dict[int, int] = {}
        joined: list[Shard] = []
        for shard in some:
            if (group := self.group(shard)) not in sizes:
                sizes[group] = most(shard) or self._most[group]
            last = joined[-1] if joined else None
            if last and self.group(last) == group and len(last.rows) + len(shard.rows) <= sizes[group]:
                joined[-1] = Shard(last.name, pd.concat([last.rows, shard.rows]))
            else:
                joined.append(shard)
        return joined

    def group(self, shard: Shard) -> int:
        """The number of the shape and optimizer of a shard's networks."""
        return int(self._group[int(shard.rows.index[0]) % len(self.points)])


def shards(spec: Spec) -> list[Shard]:
    """The whole sweep cut into shards."""
    return Cut(spec).shards(instances(spec))


def costs(spec: Spec, some: list[Shard]) -> list[int]:
    """The approximate relative cost of training each shard: networks x steps x weights x inputs."""
    structural = spec.structural()
    each: dict[tuple[Any, ...], int] = {}
    all_costs = []
    for shard in some:
        row = shard.rows.iloc[0].to_dict()
        shape = tuple(row[name] for name in structural)
        if shape not in each:
            network = _network(spec, row)
            each[shape] = (
                spec.fields.trainer.max_steps * network.features.batch_size * _size(network)
                if network
                else CALCULATED
            )
        all_costs.append(len(shard.rows) * each[shape])
    return all_costs


def _network(spec: Spec, row: Mapping[Any, Any]) -> Ensemble | None:
    """A network with the shape of `row`; None if nothing is trained."""
    network = spec.build(row, seeds=[0])
    return network if isinstance(network, Ensemble) else None


def _size(network: Ensemble) -> int:
    return sum(weight.numel() for weight in network.parameters())


def _shard_size(spec: Spec, row: Mapping[Any, Any]) -> int:
    """The most networks with the shape of `row` that one shard may have."""
    most, weights = spec.fields.shard_size, spec.fields.shard_weights
    if weights is None or (network := _network(spec, row)) is None:
        return most
    return max(1, min(most, weights // _size(network)))
