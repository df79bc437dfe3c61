"""From a spec to the table of instances that it asks for, and from the table to shards."""

import ast
from collections.abc import Mapping
from itertools import pairwise, product
from typing import Any, NamedTuple

import pandas as pd

from common.ensemble import Ensemble
from common.errors import InputError, one_line
from common.specs.spec import Spec

CALCULATED = 10_000_000
"""The cost of a calculated instance, which is unknown: about that of the most expensive one so far."""

SHOWN_QUERY = 200
"""The most characters of a query that a message repeats."""


class Shard(NamedTuple):
    """The instances that one Trainer run trains together: rows of the sweep with one shape and optimizer."""

    number: int
    rows: pd.DataFrame


def instances(spec: Spec) -> pd.DataFrame:
    """The table of instances: one row each, with the columns `part`, each factor, and `seed`.

    Rows are ordered by part, then seed, then factor values, and numbered by the index.
    """
    rows: list[dict[str, Any]] = []
    for grid in spec.grids:
        points = [dict(zip(grid.factors, values, strict=True)) for values in product(*grid.factors.values())]
        rows += [{"part": grid.part, **point, "seed": seed} for seed in spec.seeds for point in points]
    return pd.DataFrame(rows)


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
        _refuse_code(query)
        holds = table.eval(query)
    except Exception as error:  # pandas documents no exception class for this
        asked = query if len(query) <= SHOWN_QUERY else f"{query[:SHOWN_QUERY]}..."
        raise InputError(f"{asked!r}: {one_line(error)}; the columns of {spec.name} are {columns}") from None
    if not isinstance(holds, pd.Series) or holds.dtype != bool:
        raise InputError(f"{query!r} is not a condition; write one such as 'seed == 0', or 'all'")
    if not holds.any():
        raise InputError(f"{query!r} selects no network of {spec.name}, whose columns are {columns}")
    return table[holds]


def _refuse_code(query: str) -> None:
    """Refuse everything but comparisons, arithmetic and logic: pandas would also call functions.

    Raises:
        ValueError: for anything else.
    """
    for node in ast.walk(ast.parse(query.strip(), mode="eval")):
        if not isinstance(node, _ALLOWED):
            raise ValueError(f"{type(node).__name__.lower()} is not allowed; compare columns with values")
        operands = (node.left, node.right) if isinstance(node, ast.BinOp) else ()
        if any(isinstance(o, ast.Constant) and isinstance(o.value, (str, bytes)) for o in operands):
            raise ValueError("text can only be compared; arithmetic on it is not allowed")


_ALLOWED = (
    *(ast.Expression, ast.BoolOp, ast.UnaryOp, ast.BinOp, ast.Compare, ast.Name, ast.Constant, ast.List),
    *(ast.Tuple, ast.Load, ast.boolop, ast.unaryop, ast.cmpop),
    *(ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.BitAnd, ast.BitOr),
)


def shards(spec: Spec) -> list[Shard]:
    """The sweep cut into shards: a function of the spec alone.

    Instances with one shape and optimizer are ordered by seed, so that a shard draws the data of few seeds,
    and cut into pieces of nearly equal size, at most `shard_size` networks and `shard_weights` weights, but
    at least one network.
    """
    table = instances(spec)
    structural = spec.structural()
    if any(grid.optimizer for grid in spec.grids):
        structural = ["part", *structural]
    by_shape = table.groupby(structural, sort=False, dropna=False) if structural else [((), table)]
    pieces: list[pd.DataFrame] = []
    for _, group in by_shape:
        rows = group.sort_values("seed", kind="stable")
        count = -(-len(rows) // _shard_size(spec, rows.iloc[0].to_dict()))
        ends = [round(i * len(rows) / count) for i in range(count + 1)]
        pieces += [rows.iloc[start:end] for start, end in pairwise(ends)]
    return [Shard(number, rows) for number, rows in enumerate(pieces)]


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
