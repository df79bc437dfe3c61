"""A replication's YAML file, read into a validated `Spec`: `load_spec(path)`."""

import importlib
import inspect
import itertools
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Annotated, Any, NamedTuple, get_args, get_origin, get_type_hints

import numpy as np
import torch
from pydantic import ConfigDict, Field, NonNegativeInt, PositiveInt, create_model

from common.document import Document, InputError, Place, Strict, nearest
from common.ensemble import Ensemble
from common.features import VARYING, Features

_GIVEN_AT_RUN_TIME = {"self", "features", "seeds", "params", "table"}


class ClassSpec(Strict):
    """A class and its arguments, as Lightning's command line writes them."""

    class_path: str
    init_args: dict[str, Any] = Field(default_factory=dict)


class TrainerSpec(Strict):
    """How long each network is trained, in optimiser steps."""

    max_steps: PositiveInt


class Control(Strict):
    """A run broken on purpose: what is set, why, and the claims that must then not be reproduced."""

    why: str
    set: dict[str, Any]
    rejects: list[str] = Field(min_length=1)


class Fields(Strict):
    """The keys of a spec."""

    title: str
    paper: str
    version: PositiveInt
    code: str
    plain: str | None = None
    model: ClassSpec
    features: ClassSpec
    optimizer: ClassSpec
    sweep: list[dict[str, Any]] = Field(min_length=1)
    seeds: PositiveInt | list[NonNegativeInt]
    trainer: TrainerSpec
    shard_size: PositiveInt = 4096
    profiles: dict[str, dict[str, Any]] = Field(default_factory=dict)
    controls: dict[str, Control] = Field(default_factory=dict)


class Range(Strict):
    """`count` values of a factor from `start` to `stop`, both included, evenly spaced on the axis named."""

    start: float = Field(alias="from")
    stop: float = Field(alias="to")
    count: int = Field(ge=2)
    spacing: str = Field(default="linear", pattern="^(linear|log)$")

    def values(self) -> list[float]:
        """The values, ascending or descending as `start` and `stop` say."""
        space = np.geomspace if self.spacing == "log" else np.linspace
        return [float(value) for value in space(self.start, self.stop, self.count)]


class Argument(NamedTuple):
    """An argument that a class takes: its type, its default, whether it may vary within an ensemble."""

    type: Any
    default: Any
    varying: bool


class Grid(NamedTuple):
    """One entry of a sweep: the product of its factors' values."""

    part: str
    factors: dict[str, list[Any]]


class Spec(NamedTuple):
    """A validated spec with one profile and at most one control applied, all defaults filled in."""

    name: str
    path: Path
    profile: str
    control: str | None
    fields: Fields
    model: dict[str, Any]
    features: dict[str, Any]
    optimizer: dict[str, Any]
    grids: list[Grid]
    seeds: list[int]

    @property
    def code(self) -> ModuleType:
        """The module with this replication's theory, estimates and figures."""
        return importlib.import_module(self.fields.code)

    @property
    def controls(self) -> dict[str, Control]:
        """The controls that this replication defines."""
        return self.fields.controls

    def varying(self) -> dict[str, bool]:
        """Whether each argument of model and features may differ within one ensemble."""
        both = {**class_arguments(self.features_class), **class_arguments(self.model_class)}
        return {name: argument.varying for name, argument in both.items()}

    @property
    def model_class(self) -> type[Ensemble]:
        """The class that `model` names."""
        found: type[Ensemble] = _import(self.fields.model.class_path)
        return found

    @property
    def features_class(self) -> type[Features]:
        """The class that `features` names."""
        found: type[Features] = _import(self.fields.features.class_path)
        return found

    @property
    def optimizer_class(self) -> type[torch.optim.Optimizer]:
        """The class that `optimizer` names."""
        found: type[torch.optim.Optimizer] = _import(self.fields.optimizer.class_path)
        return found

    def factors(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """All arguments of model and features at one point of the sweep."""
        return {**self.features, **self.model, **{k: v for k, v in row.items() if k != "part"}}

    def build(self, rows: Mapping[str, Any], seeds: list[int]) -> Ensemble:
        """The ensemble of the instances whose factors are `rows` (a value, or a tensor (instances,)).

        Raises:
            ValueError: if the classes refuse the values.
        """
        arguments = self.factors(rows)
        features = self.features_class(
            **{k: arguments[k] for k in class_arguments(self.features_class) if k in arguments}
        )
        return self.model_class(
            features=features,
            seeds=seeds,
            **{k: arguments[k] for k in class_arguments(self.model_class) if k in arguments},
        )

    def resolved(self) -> dict[str, Any]:
        """What decides the numbers of this spec's results, defaults included: what the hash is taken of."""
        classes = {"model": self.model, "features": self.features, "optimizer": self.optimizer}
        return {
            "version": self.fields.version,
            **{
                name: {"class_path": getattr(self.fields, name).class_path, "init_args": init_args}
                for name, init_args in classes.items()
            },
            "sweep": [{"part": grid.part, **grid.factors} for grid in self.grids],
            "seeds": self.seeds,
            "trainer": self.fields.trainer.model_dump(),
            "shard_size": self.fields.shard_size,
        }


def load_spec(
    path: Path,
    profile: str = "full",
    control: str | None = None,
    overrides: Mapping[str, tuple[Any, str]] | None = None,
) -> Spec:
    """The spec in the file `path`, as `profile` and `control` change it, and `overrides` after them.

    `overrides` maps dotted keys to a value and to where it comes from (for messages).

    Raises:
        InputError: for the first mistake, with its file, line and key, and what would be right.
    """
    document = Document.load(path)
    fields = document.validate(Fields)
    if profile != "full" and profile not in fields.profiles:
        valid = nearest(profile, ["full", *fields.profiles])
        raise document.error(("profiles",), f"no profile {profile!r}; {valid}")
    if control is not None and control not in fields.controls:
        raise document.error(("controls",), f"no control {control!r}; {nearest(control, [*fields.controls])}")
    # the control comes last: what it breaks must stay broken in every profile
    layers: list[Place] = [("profiles", profile)] if profile != "full" else []
    layers += [("controls", control, "set")] if control is not None else []
    for place in layers:
        values: Any = document.data
        for part in place:
            values = values[part]
        for key, value in values.items():
            document.replace(key, value, document.origins[(*place, key)])
    for key, (value, origin) in (overrides or {}).items():
        document.replace(key, value, origin)
    fields = document.validate(Fields)
    return _resolve(document, fields, profile, control)


def _resolve(document: Document, fields: Fields, profile: str, control: str | None) -> Spec:
    model_class = _checked_class(document, "model", fields.model, Ensemble)
    features_class = _checked_class(document, "features", fields.features, Features)
    optimizer_class = _checked_class(document, "optimizer", fields.optimizer, torch.optim.Optimizer)
    swept = {key for grid in fields.sweep for key in grid}
    spec = Spec(
        name=f"{document.path.resolve().parent.name}/{document.path.stem}",
        path=document.path,
        profile=profile,
        control=control,
        fields=fields,
        model=_arguments(document, "model", class_arguments(model_class), fields.model, swept),
        features=_arguments(document, "features", class_arguments(features_class), fields.features, swept),
        optimizer=_arguments(
            document, "optimizer", class_arguments(optimizer_class), fields.optimizer, swept
        ),
        grids=_grids(document, fields, {**class_arguments(features_class), **class_arguments(model_class)}),
        seeds=list(range(fields.seeds)) if isinstance(fields.seeds, int) else list(fields.seeds),
    )
    if len(set(spec.seeds)) < len(spec.seeds) or not spec.seeds:
        raise document.error(("seeds",), "expected at least one seed and no seed twice")
    try:
        code = spec.code
    except ImportError as error:
        raise document.error(("code",), f"cannot be imported: {error}") from None
    if not callable(getattr(code, "figures", None)):
        raise document.error(("code",), f"{fields.code} has no function figures(table)")
    _check_structures(document, spec)
    return spec


def class_arguments(function: Callable[..., Any]) -> dict[str, Argument]:
    """The arguments that a spec may give to `function`, by name."""
    owner: Any = function.__init__ if isinstance(function, type) else function  # type: ignore[misc]
    # not those of what it returns: "pd.Series[bool]" means something to a type checker only
    annotations = {name: hint for name, hint in owner.__annotations__.items() if name != "return"}
    source = SimpleNamespace(__annotations__=annotations)
    hints = get_type_hints(source, owner.__globals__, include_extras=True)
    result = {}
    for name, parameter in inspect.signature(owner).parameters.items():
        if name in _GIVEN_AT_RUN_TIME or parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        hint = hints.get(name, Any)
        varying = get_origin(hint) is Annotated and VARYING in get_args(hint)
        scalar = get_args(get_args(hint)[0])[0] if varying else hint
        result[name] = Argument(scalar, parameter.default, varying)
    return result


def _arguments(
    document: Document, section: str, known: dict[str, Argument], given: ClassSpec, swept: set[str]
) -> dict[str, Any]:
    """`init_args` checked against the signature `known`, its defaults filled in."""
    place = (section, "init_args")
    checked = check_arguments(document, place, known, given.init_args, optional=swept)
    both = sorted(set(given.init_args) & swept & set(known))
    if both:
        raise document.error((*place, both[0]), "given here and in sweep; keep one")
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
        name: (argument.type, ... if argument.default is inspect.Parameter.empty else argument.default)
        for name, argument in known.items()
        if name in given or name not in optional
    }
    config = ConfigDict(strict=place[0] != "optimizer", arbitrary_types_allowed=True, extra="forbid")
    model = create_model("Arguments", __config__=config, **fields)
    values = document.validate(model, given, at=place)
    return {name: getattr(values, name) for name in fields}


def _grids(document: Document, fields: Fields, known: dict[str, Argument]) -> list[Grid]:
    grids = []
    names = set().union(*fields.sweep) - {"part"}
    for i, entry in enumerate(fields.sweep):
        factors: dict[str, list[Any]] = {}
        for name, value in entry.items():
            place = ("sweep", i, name)
            if name == "part":
                continue
            if name not in known:
                raise document.error(place, f"unknown factor; {nearest(name, list(known))}")
            values = value if isinstance(value, list) else [value]
            if isinstance(value, dict):
                values = document.validate(Range, value, at=place).values()
            if not values:
                raise document.error(place, "a factor needs at least one value")
            for j, one in enumerate(values):
                at = place if not isinstance(value, list) else (*place, j)
                checked = _check_one(document, at, name, known[name], one)
                factors.setdefault(name, []).append(checked)
        for name in sorted(names - set(factors)):
            argument = known[name]
            if argument.default is inspect.Parameter.empty:
                raise document.error(("sweep", i), f"missing factor {name!r}, which other entries have")
            factors[name] = [argument.default]
        grids.append(Grid(str(entry.get("part", i)), {name: factors[name] for name in sorted(factors)}))
    if len({grid.part for grid in grids}) < len(grids):
        raise document.error(("sweep",), "two entries have the same part; name each one")
    return grids


def _check_one(
    document: Document, place: tuple[str | int, ...], name: str, argument: Argument, value: Any
) -> Any:
    model = create_model(
        "Factor",
        __config__=ConfigDict(strict=True, arbitrary_types_allowed=True),
        **{name: (argument.type, ...)},
    )  # type: ignore[call-overload]
    if isinstance(value, float) and not math.isfinite(value):
        raise document.error(place, f"expected a finite number, got {value}")
    return getattr(
        document.validate(model, {name: value}, at=place[:-1] if place[-1] == name else place), name
    )


def _check_structures(document: Document, spec: Spec) -> None:
    """Build one network of every structure, so that a class refuses what cannot be before anything runs."""
    varying = spec.varying()
    for i, grid in enumerate(spec.grids):
        structural = [name for name in grid.factors if not varying[name]]
        first = {name: values[0] for name, values in grid.factors.items()}
        for combination in itertools.product(*(grid.factors[name] for name in structural)):
            row = {**first, **dict(zip(structural, combination, strict=True))}
            try:
                spec.build(row, seeds=[0])
            except ValueError as error:
                key = str(error).split(":")[0]
                classes = (("model", "init_args", key), ("features", "init_args", key))
                places: list[Place] = [("sweep", i, key), *classes]
                place = next((p for p in places if p in document.origins), ("sweep", i))
                raise document.error(place, str(error).removeprefix(f"{key}: ")) from None


def _import(class_path: str) -> Any:
    module, _, name = class_path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def _checked_class(document: Document, section: str, given: ClassSpec, base: type) -> Any:
    place = (section, "class_path")
    module, _, name = given.class_path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, ValueError) as error:
        raise document.error(place, f"no module {module!r}: {error}") from None
    except AttributeError:
        names = [n for n in dir(importlib.import_module(module)) if not n.startswith("_")]
        raise document.error(place, f"no class {name!r} in {module}; {nearest(name, names)}") from None
    if not (isinstance(found, type) and issubclass(found, base)):
        raise document.error(place, f"{given.class_path} is not a {base.__name__}")
    return found


def find_specs(root: Path) -> dict[str, Path]:
    """All specs of the suite at `root`, by name (`paper/result`)."""
    return {
        f"{path.parent.name}/{path.stem}": path for path in sorted((root / "replications").glob("*/*.yaml"))
    }


def find_spec(root: Path, name: str) -> Path:
    """The path of the spec called `name`.

    Raises:
        InputError: if there is none.
    """
    specs = find_specs(root)
    if name not in specs:
        raise InputError(f"{name}: no such replication; {nearest(name, list(specs))}")
    return specs[name]
