"""The axes and kinds of tensors, as their types name them, checked where functions are called."""

import functools
import inspect
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import jaxtyping
import torch
from jaxtyping import AbstractArray, install_import_hook
from typeguard import CollectionCheckStrategy, check_type

ROOT = Path(__file__).parents[1]

MODULES = [
    *(f"common.{name}" for name in ("computed", "ensemble", "features", "metrics")),
    *(f"replications.{folder.name}" for folder in (ROOT / "replications").iterdir() if folder.is_dir()),
]
"""Where tensors are; of replications only this suite's, as those of users have tests of their own."""


MOST_CALLS = 10
"""How many calls of a function each test checks: steps of training are alike, and checking takes longer."""

calls: Counter[Callable[..., Any]] = Counter()
"""How often each function was called in this test."""


def install() -> None:
    """Check all functions of `MODULES`; to be called before any of them is imported."""
    install_import_hook(MODULES, "tests.shapes.checked")
    torch.compile = _without_checks(torch.compile)


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, checking arguments and result; other types than tensors' are for mypy, and are left out.

    Every item of a list is checked: tests do not rest on luck.
    """
    signature = inspect.signature(function)
    hints = {name: p.annotation for name, p in signature.parameters.items() if _has_axes(p.annotation)}
    of_result = signature.return_annotation
    check = functools.partial(check_type, collection_check_strategy=CollectionCheckStrategy.ALL_ITEMS)

    @functools.wraps(function)
    def checking(*args: Any, **kwargs: Any) -> Any:
        calls[function] += 1
        if calls[function] > MOST_CALLS:
            return function(*args, **kwargs)
        for name, value in signature.bind(*args, **kwargs).arguments.items():
            if name in hints:
                check(value, hints[name])
        result = function(*args, **kwargs)
        return check(result, of_result) if _has_axes(of_result) else result

    return checking


def _without_checks(compile: Callable[..., Callable[..., Any]]) -> Callable[..., Callable[..., Any]]:
    """`torch.compile`, of functions whose types are not checked.

    A check keeps what sizes it has seen, and the code would be compiled again for each state of that.
    """

    @functools.wraps(compile)
    def compiling(*args: Any, **kwargs: Any) -> Callable[..., Any]:
        compiled = compile(*args, **kwargs)

        @functools.wraps(compiled)
        def run(*args: Any, **kwargs: Any) -> Any:
            before = jaxtyping.config.jaxtyping_disable
            jaxtyping.config.jaxtyping_disable = True
            try:
                return compiled(*args, **kwargs)
            finally:
                jaxtyping.config.jaxtyping_disable = before

        return run

    return compiling


def _has_axes(hint: Any) -> bool:
    """Whether a type has a tensor or array with named axes in it."""
    return (isinstance(hint, type) and issubclass(hint, AbstractArray)) or any(map(_has_axes, get_args(hint)))
