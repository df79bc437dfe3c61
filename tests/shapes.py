"""The axes and kinds of tensors, as their types name them, checked where functions are called."""

import functools
import inspect
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import jaxtyping
import torch
from jaxtyping import AbstractArray
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
    sys.meta_path.insert(0, _Finder())
    torch.compile = _without_checks(torch.compile)


class _Finder(MetaPathFinder):
    """Has the functions of `MODULES` checked before anyone can import them by name."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        ours = any(fullname == name or fullname.startswith(f"{name}.") for name in MODULES)
        spec = PathFinder.find_spec(fullname, path, target) if ours else None
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            _check(module, module.__name__)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _check(owner: ModuleType | type, module: str) -> None:
    """Have the functions, methods, properties and classes that `owner` defines checked."""
    for name, value in list(vars(owner).items()):
        if inspect.isfunction(value) and value.__module__ == module:
            setattr(owner, name, _counted(value))
        elif isinstance(value, (staticmethod, classmethod)):
            setattr(owner, name, type(value)(_counted(value.__func__)))
        elif isinstance(value, property) and value.fget is not None:
            setattr(owner, name, property(_counted(value.fget), value.fset, value.fdel, value.__doc__))
        elif inspect.isclass(value) and value.__module__ == module:
            _check(value, module)


def _counted(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, of which the first calls in each test are checked."""
    checking = jaxtyping.jaxtyped(function, typechecker=checked)

    def call(*args: Any, **kwargs: Any) -> Any:
        if jaxtyping.config.jaxtyping_disable:
            return function(*args, **kwargs)
        calls[function] += 1
        return (checking if calls[function] <= MOST_CALLS else function)(*args, **kwargs)

    # as a line of a package, which no error of what it calls is blamed on
    call.__code__ = call.__code__.replace(co_filename=jaxtyping.__file__)
    return functools.wraps(function)(call)


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
