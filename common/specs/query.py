"""Conditions on the columns of a table, as people write them in YAML and on the command line: `holds`."""

import ast
from typing import TYPE_CHECKING

from common.errors import one_line

if TYPE_CHECKING:  # reading claims needs no tables
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

SHOWN = 200
"""The most characters of a query that a message repeats."""


def refuse_code(query: str) -> None:
    """Refuse everything but comparisons, arithmetic and logic: pandas would also call functions.

    Raises:
        ValueError: for anything else, in one line.
    """
    try:
        tree = ast.parse(query.strip(), mode="eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise ValueError(f"{shown(query)!r}: {one_line(error)}") from None
    for node in ast.walk(tree):
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


def shown(query: str) -> str:
    """A query as messages repeat it."""
    return query if len(query) <= SHOWN else f"{query[:SHOWN]}..."


def names_in(query: str) -> set[str]:
    """The columns that a query names."""
    return {node.id for node in ast.walk(ast.parse(query.strip(), mode="eval")) if isinstance(node, ast.Name)}


def holds(query: str, table: "pd.DataFrame") -> "NDArray[np.bool_]":
    """The rows of `table` for which `query` holds, as a mask.

    Raises:
        ValueError: if it is not a condition on columns of the table, or holds for no row.
    """
    import numpy as np
    import pandas as pd

    refuse_code(query)
    try:
        mask = table.eval(query, engine="python")
    except Exception as error:  # pandas documents no exception class for this
        columns = ", ".join(map(str, table.columns[: _n_factors(table)]))
        raise ValueError(f"{query!r}: {one_line(error)}; the columns are {columns}") from None
    if not isinstance(mask, pd.Series) or mask.dtype != bool:
        raise ValueError(f"{query!r} is not a condition; write one such as part == 'cuts'")
    if not mask.any():
        raise ValueError(f"{query!r} holds for no row")
    return np.asarray(mask)


def _n_factors(table: "pd.DataFrame") -> int:
    """How many columns come before the seed, all if there is none: what a network is, not what it did."""
    return [*table.columns, "seed"].index("seed")
