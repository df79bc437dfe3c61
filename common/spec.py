"""A replication's YAML file, read into a validated `Spec`: `load_spec(path)`."""

import functools
import importlib
import inspect
import itertools
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Annotated, Any, Literal, NamedTuple, Self, get_args, get_origin, get_type_hints

import numpy as np
import pydantic
import torch
from lightning.pytorch.loggers import Logger
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PositiveInt, create_model, model_validator
from torch.optim.lr_scheduler import LRScheduler

from common.blame import blame, line_of, staying, told
from common.computed import Computed
from common.document import Document, InputError, Place, Strict, nearest, one_line
from common.ensemble import Ensemble
from common.features import VARYING, Features

_STRICT = ConfigDict(strict=True, allow_inf_nan=False, arbitrary_types_allowed=True, extra="forbid")
_Seed = Annotated[int, Field(ge=0, lt=2**63)]
_GIVEN_AT_RUN_TIME = {"self", "features", "seeds", "params", "optimizer", "table"}
_NOT_FACTORS = {"part", "optimizer"}
_LEAST, _MOST = (float(size) for size in (np.finfo(np.float32).tiny, np.finfo(np.float32).max))
_LOGGING = {"logger", "log_every_steps"}


class ClassSpec(Strict):
    """A class and its arguments, as Lightning's command line writes them."""

    class_path: str
    init_args: dict[str, Any] = Field(default_factory=dict)


class TrainerSpec(Strict):
    """How long each network is trained, in optimiser steps, or less if its outcome is settled before.

    Compiling takes up to a minute for each shape of network, and then steps are several times faster.
    A logger gets the mean and quantiles of the losses every so many steps; it changes no result.
    """

    max_steps: Annotated[int, Field(gt=0, lt=2**63)]
    stop_when_settled: bool = False
    compile: bool = True
    logger: ClassSpec | None = None
    log_every_steps: PositiveInt = 100


def _name(text: str) -> str:
    if not re.fullmatch(r"\w[\w.-]*", text) or text == "full":
        raise ValueError("expected a name of letters, digits, _ and -, other than full")
    return text


Name = Annotated[str, AfterValidator(_name)]
"""What a profile or a control is called: part of a folder's name."""


class Control(Strict):
    """A run broken on purpose: what is set, why, and the claims that must then not be reproduced."""

    why: str
    set: dict[str, Any] = Field(min_length=1)
    rejects: list[str] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_each_once(self) -> Self:
        if any(self.rejects.count(claim) > 1 for claim in self.rejects):
            raise ValueError("rejects names a claim twice; name each once")
        return self


class Limits(Strict):
    """What is taken for a mistake when a spec asks for more, before it fills the memory.

    `networks`: of the sweep. `shapes`: of network, those of each entry of the sweep counted by themselves.
    `size`: the features times any whole number that model and features are given, such as the hidden units.
    """

    networks: PositiveInt = 1_000_000
    shapes: PositiveInt = 1_000
    size: PositiveInt = 50_000_000


_NOTHING = ClassSpec(class_path="")


class Fields(Strict):
    """The keys of a spec; a calculated model has none of features, optimizer, lr_scheduler, trainer."""

    title: str
    paper: str
    version: PositiveInt
    code: str
    plain: str | None = None
    model: ClassSpec
    features: ClassSpec = _NOTHING
    optimizer: ClassSpec = _NOTHING
    lr_scheduler: ClassSpec | None = None
    sweep: list[dict[str, Any]] = Field(min_length=1)
    seeds: PositiveInt | list[_Seed]
    trainer: TrainerSpec = TrainerSpec(max_steps=1)
    shard_size: PositiveInt = 4096
    shard_weights: PositiveInt | None = None
    limits: Limits = Limits()
    watch: str | None = None
    profiles: dict[Name, dict[str, Any]] = Field(default_factory=dict)
    controls: dict[Name, Control] = Field(default_factory=dict)


class Range(Strict):
    """`count` values of a factor from `start` to `stop`, both included, evenly spaced on the axis named."""

    model_config = ConfigDict(allow_inf_nan=False)

    start: float = Field(alias="from")
    stop: float = Field(alias="to")
    count: int = Field(ge=2)
    spacing: Literal["linear", "log"] = "linear"

    @model_validator(mode="after")
    def _has_logarithms(self) -> Self:
        if self.spacing == "log" and min(self.start, self.stop) <= 0:
            raise ValueError(f"spacing log needs from and to above 0, got {self.start} and {self.stop}")
        return self

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
    """One entry of a sweep: the product of its factors' values, and an optimizer if it has its own."""

    part: str
    factors: dict[str, list[Any]]
    optimizer: ClassSpec | None = None


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
    lr_scheduler: dict[str, Any]
    logger: dict[str, Any]
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

    def structural(self) -> list[str]:
        """The factors of the sweep that instances of one ensemble share."""
        varying = self.varying()
        return [name for name in self.grids[0].factors if not varying[name]]

    @property
    def model_class(self) -> type[Ensemble] | type[Computed]:
        """The class that `model` names."""
        found: type[Ensemble] | type[Computed] = _import(self.fields.model.class_path)
        return found

    @property
    def features_class(self) -> type[Features] | None:
        """The class that `features` names; None where nothing is trained."""
        if "features" not in self.fields.model_fields_set:
            return None
        found: type[Features] = _import(self.fields.features.class_path)
        return found

    def optimizer_of(self, part: str) -> Callable[..., torch.optim.Optimizer]:
        """What makes the optimizer of this part's networks from their weights."""
        own = next(grid.optimizer for grid in self.grids if grid.part == part)
        chosen = own or ClassSpec(class_path=self.fields.optimizer.class_path, init_args=self.optimizer)
        return functools.partial(_import(chosen.class_path), **chosen.init_args)

    def lr_scheduler_of(self) -> Callable[[torch.optim.Optimizer], LRScheduler] | None:
        """What makes the schedule of an optimizer's learning rate; None where it is constant."""
        if self.fields.lr_scheduler is None:
            return None
        return functools.partial(_import(self.fields.lr_scheduler.class_path), **self.lr_scheduler)

    def logger_of(self, run: Path, name: str, version: str) -> Logger | None:
        """The logger of one shard's training, None if the spec has none.

        It writes to the folder `version` of `run`/logs, or where the spec says `save_dir`, of `name` there.
        """
        chosen = self.fields.trainer.logger
        if chosen is None:
            return None
        logger_class = _import(chosen.class_path)
        places = {"save_dir": str(run / "logs"), "name": "", "version": version}
        if "save_dir" in self.logger:
            places["name"] = name
        known = class_arguments(logger_class)
        logger: Logger = logger_class(**{k: v for k, v in places.items() if k in known} | self.logger)
        return logger

    def factors(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """All arguments of model and features at one point of the sweep."""
        return {**self.features, **self.model, **{k: v for k, v in row.items() if k != "part"}}

    def build(self, rows: Mapping[str, Any], seeds: list[int]) -> Ensemble | Computed:
        """The model of the instances whose factors are `rows` (a value, or a tensor (instances,)).

        Raises:
            ValueError: if the classes refuse the values.
        """
        arguments = self.factors(rows)
        given: dict[str, Any] = {k: arguments[k] for k in class_arguments(self.model_class) if k in arguments}
        if self.features_class is not None:
            given["features"] = self.features_class(
                **{k: arguments[k] for k in class_arguments(self.features_class) if k in arguments}
            )
        return self.model_class(seeds=seeds, **given)

    def resolved(self) -> dict[str, Any]:
        """What decides the numbers of this spec's results, defaults included: what the hash is taken of."""
        classes = {"model": self.model, "features": self.features, "optimizer": self.optimizer}
        fields = self.fields
        # keys that came after the first results do nothing at their defaults, and are left out there
        later: dict[str, Any] = {}
        if fields.shard_weights is not None:
            later["shard_weights"] = fields.shard_weights
        if fields.lr_scheduler is not None:
            class_path = fields.lr_scheduler.class_path
            later["lr_scheduler"] = {"class_path": class_path, "init_args": self.lr_scheduler}
        return {
            "version": fields.version,
            **{
                name: {"class_path": getattr(fields, name).class_path, "init_args": init_args}
                for name, init_args in classes.items()
            },
            "sweep": [
                {"part": grid.part, **grid.factors}
                | ({"optimizer": grid.optimizer.model_dump()} if grid.optimizer else {})
                for grid in self.grids
            ],
            "seeds": self.seeds,
            "trainer": fields.trainer.model_dump(exclude_defaults=True, exclude=_LOGGING),
            "shard_size": fields.shard_size,
            **later,
        }


def load_fields(path: Path) -> Fields:
    """The keys of the spec in the file `path`, read without importing what it names.

    Raises:
        InputError: for the first key that is unknown, missing or of another type.
    """
    return Document.load(path).validate(Fields)


def n_networks(fields: Fields) -> int:
    """How many networks the sweep of a spec asks for."""

    def count(value: Any) -> int:
        if isinstance(value, dict):
            given = value.get("count", 1)
            return given if isinstance(given, int) else 1
        return len(value) if isinstance(value, list) else 1

    sizes = (math.prod(count(v) for k, v in entry.items() if k not in _NOT_FACTORS) for entry in fields.sweep)
    return sum(sizes) * (fields.seeds if isinstance(fields.seeds, int) else len(fields.seeds))


def load_spec(
    path: Path,
    profile: str = "full",
    control: str | None = None,
    overrides: Mapping[str, tuple[Any, str]] | None = None,
) -> Spec:
    """The spec in the file `path`, as `profile`, then `overrides` and then `control` change it.

    `overrides` maps dotted keys to a value and to where it comes from (for messages).

    Raises:
        InputError: for the first mistake, with its file, line and key, and what would be right.
    """
    document = Document.load(path)
    fields = document.validate(Fields)
    if profile != "full" and profile not in fields.profiles:
        valid = nearest(profile, ["full", *fields.profiles])
        raise document.error(("profiles",), f"no profile {profile!r}; {valid}")
    for section in ("model", "features", "optimizer", "lr_scheduler"):
        if isinstance(document.data.get(section), dict):
            document.data[section].setdefault("init_args", {})
    if profile != "full":
        document.apply(("profiles", profile))
        fields = document.validate(Fields)
    trainer = document.data.get("trainer")
    if isinstance(trainer, dict) and any(key.startswith("trainer.logger.") for key in overrides or {}):
        trainer.setdefault("logger", {})  # no spec needs one, so there is none whose parts could be set
    if isinstance(trainer, dict) and isinstance(trainer.get("logger"), dict):
        trainer["logger"].setdefault("init_args", {})
    for key, (value, origin) in (overrides or {}).items():
        document.replace(key, value, origin)
    # the control comes last: what it breaks stays broken in every profile, whatever else is changed
    if control is not None:
        fields = document.validate(Fields)
        if control not in fields.controls:
            valid = nearest(control, [*fields.controls])
            raise document.error(("controls",), f"no control {control!r}; {valid}")
        document.apply(("controls", control, "set"))
    fields = document.validate(Fields)
    return _resolve(document, fields, profile, control)


def _check_numbers(document: Document, value: Any, place: Place = ()) -> None:
    """Refuse numbers that networks, which are of float32, would not see as they are written."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(inner, (dict, list)):
            _check_numbers(document, inner, (*place, key))
        elif isinstance(inner, float) and not (inner == 0 or _LEAST <= abs(inner) <= _MOST):
            problem = (
                f"{inner} is no number of float32; expected 0, or a size from {_LEAST:.2g} to {_MOST:.2g}"
            )
            raise document.error((*place, key), problem)


def _check_limits(document: Document, fields: Fields) -> None:
    """Refuse a sweep that is too large, before anything is made of it."""
    limits = fields.limits
    for key, asked, unit in (
        ("networks", n_networks(fields), "networks"),
        ("shapes", len(fields.sweep), "entries"),
    ):
        if asked > (most := getattr(limits, key)):
            raise document.error(
                ("sweep",),
                f"asks for {asked:,} {unit}; expected at most {most:,}, which limits.{key} can raise",
            )


def _resolve(document: Document, fields: Fields, profile: str, control: str | None) -> Spec:
    _check_limits(document, fields)
    model_class = _checked_class(document, ("model",), fields.model, Ensemble, Computed)
    features_class, optimizer_class, scheduler_class = None, None, None
    if issubclass(model_class, Ensemble):
        for key in ("features", "optimizer", "trainer"):
            if key not in fields.model_fields_set:
                raise document.error((key,), "missing key")
        features_class = _checked_class(document, ("features",), fields.features, Features)
        optimizer_class = _checked_class(document, ("optimizer",), fields.optimizer, torch.optim.Optimizer)
        if fields.lr_scheduler is not None:
            scheduler_class = _checked_class(document, ("lr_scheduler",), fields.lr_scheduler, LRScheduler)
    for key in ("features", "optimizer", "lr_scheduler", "trainer"):
        if features_class is None and key in fields.model_fields_set:
            raise document.error((key,), f"{model_class.__name__} is calculated, not trained; leave this out")
    known = {**class_arguments(features_class), **class_arguments(model_class)}
    for i, entry in enumerate(fields.sweep):
        for name in entry:
            if name not in _NOT_FACTORS | set(known):
                raise document.error(("sweep", i, name), f"unknown factor; {nearest(name, list(known))}")
    swept = {key for grid in fields.sweep for key in grid} - _NOT_FACTORS
    spec = Spec(
        name=f"{document.path.resolve().parent.name}/{document.path.stem}",
        path=document.path,
        profile=profile,
        control=control,
        fields=fields,
        model=_arguments(document, ("model",), model_class, fields.model, swept),
        features=_arguments(document, ("features",), features_class, fields.features, swept),
        optimizer=_arguments(document, ("optimizer",), optimizer_class, fields.optimizer),
        lr_scheduler=_arguments(
            document, ("lr_scheduler",), scheduler_class, fields.lr_scheduler or _NOTHING
        ),
        logger=_logger_arguments(document, fields.trainer.logger),
        grids=_grids(document, fields, known),
        seeds=list(range(fields.seeds)) if isinstance(fields.seeds, int) else list(fields.seeds),
    )
    if len(set(spec.seeds)) < len(spec.seeds) or not spec.seeds:
        raise document.error(("seeds",), "expected at least one seed and no seed twice")
    _check_figures(document, fields.code)
    if fields.trainer.stop_when_settled and model_class.settled is Ensemble.settled:
        message = f"{model_class.__name__} has no method settled(), which says when its outcome cannot change"
        raise document.error(("trainer", "stop_when_settled"), message)
    if fields.plain is not None and not hasattr(_module(document, ("plain",), fields.plain), "train"):
        raise document.error(("plain",), f"{fields.plain} has no function train(rows, steps)")
    _check_numbers(document, document.data)
    _check_structures(document, spec)
    _check_logger(document, spec)
    return spec


def _check_figures(document: Document, name: str) -> None:
    figures = getattr(_module(document, ("code",), name), "figures", None)
    if not callable(figures):
        raise document.error(("code",), f"{name} has no function figures(table, claims)")
    try:
        signature = inspect.signature(figures)
    except ValueError:  # of a function in C, which may well take both
        return
    try:
        signature.bind("table", "claims")
    except TypeError:
        names = [one.replace(annotation=one.empty) for one in signature.parameters.values()]
        found = inspect.Signature(names)
        wanted = "expected figures(table, claims), where claims[NAME] is what expected/ says of a claim"
        problem = f"figures{found} does not take the claims; {wanted}"
        if not inspect.isfunction(inspect.unwrap(figures)):
            raise document.error(("code",), problem) from None
        raise InputError(f"{line_of(figures)}: {problem}") from None


def is_neutral(key: str) -> bool:
    """Whether no result depends on the dotted `key` of a spec: it says what is logged, shown or too large."""
    return _is_below(key, "watch", "limits", *(f"trainer.{name}" for name in _LOGGING))


def is_of_the_setting(key: str) -> bool:
    """Whether the dotted `key` of a spec is of what the paper did, not of how often and in which pieces."""
    return not (is_neutral(key) or _is_below(key, "seeds", "shard_size", "shard_weights", "trainer.compile"))


def _is_below(key: str, *tops: str) -> bool:
    return any(f"{key}.".startswith(f"{top}.") for top in tops)


def class_arguments(function: Callable[..., Any] | None) -> dict[str, Argument]:
    """The arguments that a spec may give to `function`, by name; none to None."""
    if function is None:
        return {}
    owner: Any = function.__init__ if isinstance(function, type) else function  # type: ignore[misc]
    if owner is object.__init__:
        return {}
    # not those of the table and of what it returns: "pd.Series[bool]" means something to a type checker only
    skipped = {"return", *_GIVEN_AT_RUN_TIME}
    annotations = {name: hint for name, hint in owner.__annotations__.items() if name not in skipped}
    source = SimpleNamespace(__annotations__=annotations)
    try:
        hints = get_type_hints(source, owner.__globals__, include_extras=True)
    except NameError:  # of a type that is imported for type checkers only
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


def _arguments(
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
        name: (
            _lists_too(argument.type),
            ... if argument.default is inspect.Parameter.empty else argument.default,
        )
        for name, argument in known.items()
        if name in given or name not in optional
    }
    model = create_model("Arguments", __config__=_STRICT, **fields)
    values = document.validate(model, given, at=place)
    return {name: getattr(values, name) for name in fields}


def _lists_too(hint: Any) -> Any:
    """`hint`, with a list accepted for a tuple, which YAML cannot write."""
    return Annotated[hint, pydantic.Strict(False)] if get_origin(hint) is tuple else hint


def _grids(document: Document, fields: Fields, known: dict[str, Argument]) -> list[Grid]:
    grids: list[Grid] = []
    names = set().union(*fields.sweep) - _NOT_FACTORS
    for i, entry in enumerate(fields.sweep):
        factors: dict[str, list[Any]] = {}
        part = entry.get("part", str(i))
        if not isinstance(part, (str, int)) or isinstance(part, bool):
            raise document.error(("sweep", i, "part"), f"expected a name, got {part!r}")
        if str(part) in [grid.part for grid in grids]:
            raise document.error(("sweep", i, "part"), f"another entry is called {part!r} too; name each one")
        for name, value in entry.items():
            place = ("sweep", i, name)
            if name in _NOT_FACTORS:
                continue
            values = value if isinstance(value, list) else [value]
            if isinstance(value, dict):
                values = document.validate(Range, value, at=place).values()
            if not values:
                raise document.error(place, "a factor needs at least one value")
            model = create_model("Factor", __config__=_STRICT, **{name: (known[name].type, ...)})  # type: ignore[call-overload]
            seen: set[str] = set()
            for j, one in enumerate(values):
                at = place if not isinstance(value, list) else (*place, j)
                checked = _check_one(document, at, name, model, one)
                if known[name].varying and isinstance(checked, int) and np.float32(checked) != checked:
                    raise document.error(at, f"{checked} is no number of float32, which has 7 digits")
                if repr(checked) in seen:
                    raise document.error(at, f"{checked} stands here twice; each value once")
                seen.add(repr(checked))
                factors.setdefault(name, []).append(checked)
        for name in sorted(names - set(factors)):
            argument = known[name]
            if argument.default is inspect.Parameter.empty:
                raise document.error(("sweep", i), f"missing factor {name!r}, which other entries have")
            factors[name] = [argument.default]
        own = _own_optimizer(document, ("sweep", i, "optimizer"), entry.get("optimizer"))
        grids.append(Grid(str(part), {name: factors[name] for name in sorted(factors)}, own))
    return grids


def _own_optimizer(document: Document, place: Place, given: Any) -> ClassSpec | None:
    """The optimizer of an entry of the sweep, its defaults filled in, None if it has none."""
    if given is None:
        return None
    own = document.validate(ClassSpec, given, at=place)
    found = _checked_class(document, place, own, torch.optim.Optimizer)
    return ClassSpec(class_path=own.class_path, init_args=_arguments(document, place, found, own))


def _check_one(document: Document, place: Place, name: str, model: type[BaseModel], value: Any) -> Any:
    at = place[:-1] if place[-1] == name else place
    return getattr(document.validate(model, {name: value}, at=at), name)


def _check_structures(document: Document, spec: Spec) -> None:
    """Build one network of every structure, so that a class refuses what cannot be before anything runs."""
    structural, most = spec.structural(), spec.fields.limits.shapes
    if (n := sum(math.prod(len(g.factors[name]) for name in structural) for g in spec.grids)) > most:
        problem = (
            f"asks for {n:,} shapes of network; expected at most {most:,}, which limits.shapes can raise"
        )
        raise document.error(("sweep",), problem)
    tried: set[str] = set()
    for i, grid in enumerate(spec.grids):
        first = {name: values[0] for name, values in grid.factors.items()}
        for combination in itertools.product(*(grid.factors[name] for name in structural)):
            row = {**first, **dict(zip(structural, combination, strict=True))}
            _check_size(document, spec, i, row)
            try:
                model = spec.build(row, seeds=[0])
            except (InputError, KeyboardInterrupt):
                raise
            except BaseException as error:
                key, _, message = one_line(error).partition(": ")
                if isinstance(error, ValueError) and (place := _place_of(spec, i, key, row)):
                    raise document.error(place, message) from None
                where = blame(error)
                said = f"{where}: {told(error)}" if where else one_line(error) or told(error)
                raise document.error(("sweep", i), said) from None
            if isinstance(model, Ensemble):
                shape = str([grid.optimizer, [weight.shape for weight in model.parameters()]])
                if shape not in tried:
                    _try_training(document, spec, i, model)
                tried.add(shape)


def _check_size(document: Document, spec: Spec, entry: int, row: Mapping[str, Any]) -> None:
    """Refuse a network that is too large before it is made: whole numbers among its arguments are sizes."""
    most = spec.fields.limits.size
    sizes = {
        name: max((abs(size) for size in (value if isinstance(value, (list, tuple)) else [value])
                   if isinstance(size, int)), default=0)
        for name, value in spec.factors(row).items()
    }  # fmt: skip
    features = max(sizes.get("n_features", 1), 1)
    for name, size in sizes.items():
        if (size if name == "n_features" else size * features) > most:
            place = _place_of(spec, entry, name, row) or ("sweep", entry)
            times = "" if name == "n_features" else f" times {features:,} features"
            problem = f"{size:,}{times} is too large; expected at most {most:,}, which limits.size can raise"
            raise document.error(place, problem)


def _try_training(document: Document, spec: Spec, entry: int, model: Ensemble) -> None:
    """Take two steps with a network's optimizer and schedule, which may refuse it or its gradients."""
    own = spec.fields.sweep[entry].get("optimizer")
    place: Place = ("optimizer",) if own is None else ("sweep", entry, "optimizer")
    given = set((own or document.data["optimizer"]).get("init_args", {}))
    make = spec.optimizer_of(spec.grids[entry].part)
    _try_arguments(document, place, given, make, model.parameters)
    optimizer = make(model.parameters())
    steps: list[tuple[Place, Any]] = []
    if (schedule := spec.lr_scheduler_of()) is not None:
        given = set(document.data["lr_scheduler"].get("init_args", {}))
        first = functools.partial(make, list(model.parameters()))
        _try_arguments(document, ("lr_scheduler",), given, schedule, first)
        steps.append((("lr_scheduler",), schedule(optimizer).step))
    steps.insert(0, (place, optimizer.step))  # which a schedule has replaced by its own
    for _ in range(2):
        for of, step in steps:
            for weight in model.parameters():
                weight.grad = torch.zeros_like(weight)
            try:
                step()
            except Exception as error:  # of any class: it is not ours
                problem = (
                    f"it cannot train here, where a step gets dense gradients and nothing else: {told(error)}"
                )
                raise document.error((*of, "class_path"), problem) from None


def _logger_arguments(document: Document, given: ClassSpec | None) -> dict[str, Any]:
    """The checked arguments of the logger, without those of its place that are not given."""
    if given is None:
        return {}
    known = class_arguments(_checked_class(document, ("trainer", "logger"), given, Logger))
    place = ("trainer", "logger", "init_args")
    for key in ("name", "version"):
        if key in given.init_args:
            raise document.error((*place, key), "each run and shard has its own; leave this out")
    return check_arguments(document, place, known, given.init_args, optional={"save_dir", "name", "version"})


def _check_logger(document: Document, spec: Spec) -> None:
    """Make a logger, which writes nothing yet, so that one whose package is missing is known at once."""
    try:
        spec.logger_of(Path("run"), "run", "0")
    except Exception as error:
        key = "class_path" if isinstance(error, ImportError) else "init_args"
        message = one_line(error) if not isinstance(error, ImportError) else str(error).splitlines()[0]
        raise document.error(("trainer", "logger", key), message) from None


def _try_arguments(
    document: Document, at: Place, given: set[str], make: Any, first: Callable[[], Any]
) -> None:
    """Call the partial function `make` on `first()`, and raise what it refuses at its place below `at`."""
    # each argument without the others first, so that the one at fault is named
    for names in (*({name} for name in sorted(given)), given):
        arguments = {n: value for n, value in make.keywords.items() if n in names or n not in given}
        try:
            make.func(first(), **arguments)
        except Exception as error:
            if isinstance(error, TypeError) and names != given:
                continue  # it cannot do without the others
            place = (*at, "init_args", *(names if len(names) == 1 else ()))
            raise document.error(place, f"{make.func.__name__}: {one_line(error)}") from None


def _place_of(spec: Spec, entry: int, key: str, row: Mapping[str, Any]) -> Place | None:
    """Where the document says what the argument `key` is in `row` of this entry of the sweep."""
    if key in spec.fields.sweep[entry]:
        place = ("sweep", entry, key)
        is_list = isinstance(spec.fields.sweep[entry][key], list)
        return (*place, spec.grids[entry].factors[key].index(row[key])) if is_list else place
    for section, given in (("model", spec.fields.model), ("features", spec.fields.features)):
        if key in given.init_args:
            return (section, "init_args", key)
    return None


def _import(class_path: str) -> Any:
    module, _, name = class_path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def _checked_class(document: Document, at: Place, given: ClassSpec, *bases: type) -> Any:
    place = (*at, "class_path")
    module_name, _, name = given.class_path.rpartition(".")
    if not module_name:
        raise document.error(place, f"expected package.module.Class, got {given.class_path!r}")
    module = _module(document, place, module_name)

    def fits(member: Any) -> bool:
        return isinstance(member, type) and issubclass(member, bases) and not inspect.isabstract(member)

    names = [n for n, member in vars(module).items() if fits(member) and member not in bases]
    hint = nearest(name, names) if names else f"{module_name} has none"
    if not hasattr(module, name):
        raise document.error(place, f"no class {name!r} in {module_name}; {hint}")
    found = getattr(module, name)
    if not fits(found) or found in bases:
        wanted = f"a class derived from {' or '.join(base.__name__ for base in bases)}"
        raise document.error(place, f"{name!r} is not {wanted}; {hint}")
    return found


def _module(document: Document, place: Place, name: str) -> ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        raise document.error(place, f"{name!r} is not the dotted name of a module")
    try:
        with staying():
            module = importlib.import_module(name)
    except (InputError, KeyboardInterrupt):
        raise
    except BaseException as error:  # SystemExit too: a module that ends the program has not been imported
        where = blame(error)
        said = one_line(error) if where is None and isinstance(error, ImportError) else told(error)
        raise document.error(
            place, f"cannot import {name!r}: {where + ': ' if where else ''}{said}"
        ) from None
    # two roots may have a folder of one name, of which Python takes the first
    for root in document.path.resolve().parents[2:3]:
        own = root.joinpath(*name.split(".")).with_suffix(".py")
        if own.is_file() and own != Path(module.__file__ or "").resolve():
            message = f"{name!r} is {module.__file__}, not {own}; rename one of the folders"
            raise document.error(place, message)
    return module
