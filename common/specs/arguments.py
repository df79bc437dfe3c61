"""The arguments of the classes and functions that a spec or claim names, checked against their signatures."""

import inspect
from collections.abc import Callable
from types import SimpleNamespace
from typing import Annotated, Any, NamedTuple, get_args, get_origin, get_type_hints

import pydantic
from pydantic import ConfigDict, create_model

from common.features import VARYING
from common.specs.document import Document, Place, nearest
from common.specs.fields import ClassSpec

STRICT = ConfigDict(strict=True, allow_inf_nan=False, arbitrary_types_allowed=True, extra="forbid")


_GIVEN_AT_RUN_TIME = {"self", "features", "seeds", "params", "optimizer", "table"}


class Argument(NamedTuple):
    """An argument of a class or function: its type, default, and whether it may vary within an ensemble."""

    type: Any
    default: Any
    varying: bool


def class_arguments(function: Callable[..., Any] | None) -> dict[str, Argument]:
    """The arguments that a spec may give to `function`, by name; none if it is None."""
    if function is None:
        return {}
    owner: Any = function.__init__ if isinstance(function, type) else function  # type: ignore[misc]
    if owner is object.__init__:
        return {}
    # without the table and the return type: "pd.Series[bool]" means something only to a type checker
    skipped = {"return", *_GIVEN_AT_RUN_TIME}
    annotations = {name: hint for name, hint in owner.__annotations__.items() if name not in skipped}
    source = SimpleNamespace(__annotations__=annotations)
    try:
        hints = get_type_hints(source, owner.__globals__, include_extras=True)
    except NameError:  # a type that is imported only for type checkers
        hints = {}
    result = {}
    for name, parameter in inspect.signature(owner).parameters.items():
        if name in _GIVEN_AT_RUN_TIME or parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        hint = hints.get(name, Any)
        varying = get_origin(hint) is Annotated and VARYING in get_args(hint)
        scalar = get_args(get_args(hint)[0])[0] if varying else hint
        result[name] = Argument(scalar, parameter.default, varying)
    return result


def given_arguments(
    document: Document,
    at: Place,
    function: Callable[..., Any] | None,
    given: ClassSpec,
    swept: set[str] = frozenset(),  # type: ignore[assignment]
) -> dict[str, Any]:
    """The `init_args` at a place checked against the signature of `function`, its defaults filled in."""
    known, place = class_arguments(function), (*at, "init_args")
    checked = check_arguments(document, place, known, given.init_args, optional=swept)
    both = sorted(set(given.init_args) & swept & set(known))
    if both:
        raise document.error((*place, both[0]), "given both here and in sweep; keep one")
    return {k: v for k, v in checked.items() if k not in swept}


def check_arguments(
    document: Document,
    place: tuple[str | int, ...],
    known: dict[str, Argument],
    given: dict[str, Any],
    optional: set[str] = frozenset(),  # type: ignore[assignment]
) -> dict[str, Any]:
    """`given` with the defaults of `known` filled in; `optional` may be missing.

    Raises:
        InputError: for an unknown, missing or ill-typed argument, at its place in the document.
    """
    for name in given:
        if name not in known:
            raise document.error((*place, name), f"unknown argument; {nearest(name, list(known))}")
    fields: dict[str, Any] = {
        name: (
            _lists_too(argument.type),
            ... if argument.default is inspect.Parameter.empty else argument.default,
        )
        for name, argument in known.items()
        if name in given or name not in optional
    }
    model = create_model("Arguments", __config__=STRICT, **fields)
    values = document.validate(model, given, at=place)
    return {name: getattr(values, name) for name in fields}


def _lists_too(hint: Any) -> Any:
    """`hint`, with a list accepted for a tuple, which YAML cannot write."""
    return Annotated[hint, pydantic.Strict(False)] if get_origin(hint) is tuple else hint
