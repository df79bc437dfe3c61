"""A replication's YAML file, read into a validated `Spec`: `load_spec(path)`."""

import functools
import importlib
import inspect
import itertools
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch.loggers import Logger
from pydantic import BaseModel, create_model
from torch.optim.lr_scheduler import LRScheduler

from common.computed import Computed
from common.ensemble import Ensemble
from common.errors import InputError, blame, line_of, one_line, staying, told
from common.features import Features
from common.specs.arguments import STRICT, Argument, check_arguments, class_arguments, given_arguments
from common.specs.document import Document, Place, nearest
from common.specs.draft import Draft, read_draft
from common.specs.fields import NOT_FACTORS, NOTHING, ClassSpec, Control, Fields, Range, listed

_LEAST, _MOST = (float(size) for size in (np.finfo(np.float32).tiny, np.finfo(np.float32).max))
_LOGGING = {"logger", "log_every_steps"}


class Grid(NamedTuple):
    """An entry of a sweep: the product of its factors' values, its own optimizer and seeds if it has them."""

    part: str
    factors: dict[str, list[Any]]
    optimizer: ClassSpec | None = None
    seeds: list[int] | None = None


class Spec(NamedTuple):
    """A validated spec with one profile and at most one control applied, all defaults filled in."""

    name: str
    path: Path
    profile: str
    control: str | None
    fields: Fields
    model_args: dict[str, Any]
    features_args: dict[str, Any]
    optimizer_args: dict[str, Any]
    lr_scheduler_args: dict[str, Any]
    logger_args: dict[str, Any]
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
        model_class: type[Ensemble] | type[Computed] = _import(self.fields.model.class_path)
        return model_class

    @property
    def features_class(self) -> type[Features] | None:
        """The class that `features` names; None where nothing is trained."""
        if "features" not in self.fields.model_fields_set:
            return None
        features_class: type[Features] = _import(self.fields.features.class_path)
        return features_class

    @property
    def classes(self) -> list[type]:
        """The classes named in the spec that results depend on: model, features, optimizers, schedule."""
        of = self.fields
        optimizers = [of.optimizer, *(grid.optimizer for grid in self.grids)]
        named = [of.model, of.features, of.lr_scheduler, *optimizers]
        return [_import(one.class_path) for one in named if one is not None and one != NOTHING]

    def optimizer_of(self, part: str) -> Callable[..., torch.optim.Optimizer]:
        """The function that makes the optimizer of this part's networks from their weights."""
        own = next(grid.optimizer for grid in self.grids if grid.part == part)
        chosen = own or ClassSpec(class_path=self.fields.optimizer.class_path, init_args=self.optimizer_args)
        return functools.partial(_import(chosen.class_path), **chosen.init_args)

    def lr_scheduler_of(self) -> Callable[[torch.optim.Optimizer], LRScheduler] | None:
        """The function that makes an optimizer's learning-rate schedule; None if the rate is constant."""
        if self.fields.lr_scheduler is None:
            return None
        return functools.partial(_import(self.fields.lr_scheduler.class_path), **self.lr_scheduler_args)

    def logger_of(self, run: Path, name: str, version: str) -> Logger | None:
        """The logger of one shard's training, None if the spec has none.

        It writes to the folder `version` in `run`/logs, or in `name` below the spec's `save_dir`.
        """
        chosen = self.fields.trainer.logger
        if chosen is None:
            return None
        logger_class = _import(chosen.class_path)
        places = {"save_dir": str(run / "logs"), "name": "", "version": version}
        if "save_dir" in self.logger_args:
            places["name"] = name
        known = class_arguments(logger_class)
        logger: Logger = logger_class(**{k: v for k, v in places.items() if k in known} | self.logger_args)
        return logger

    def factors(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """All arguments of model and features at one point of the sweep."""
        return {**self.features_args, **self.model_args, **{k: v for k, v in row.items() if k != "part"}}

    def build(self, rows: Mapping[str, Any], seeds: list[int]) -> Ensemble | Computed:
        """The model of the instances whose factors are `rows` (a value, or a tensor (instances,)).

        Raises:
            ValueError: if a class refuses its values.
        """
        arguments = self.factors(rows)
        given: dict[str, Any] = {k: arguments[k] for k in class_arguments(self.model_class) if k in arguments}
        if self.features_class is not None:
            given["features"] = self.features_class(
                **{k: arguments[k] for k in class_arguments(self.features_class) if k in arguments}
            )
        return self.model_class(seeds=seeds, **given)

    def resolved(self) -> dict[str, Any]:
        """What decides the numbers of this spec's networks, with defaults: the content of the hash.

        Not the seeds: with more of them, the networks that are stored remain what they are.
        """
        classes = {"model": self.model_args, "features": self.features_args, "optimizer": self.optimizer_args}
        fields = self.fields
        # keys added after the first results change nothing at their defaults, where they are left out
        later: dict[str, Any] = {}
        if fields.shard_weights is not None:
            later["shard_weights"] = fields.shard_weights
        if fields.lr_scheduler is not None:
            class_path = fields.lr_scheduler.class_path
            later["lr_scheduler"] = {"class_path": class_path, "init_args": self.lr_scheduler_args}
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
            "trainer": fields.trainer.model_dump(exclude_defaults=True, exclude=_LOGGING),
            "shard_size": fields.shard_size,
            **later,
        }


def load_spec(
    path: Path,
    profile: str = "full",
    control: str | None = None,
    overrides: Mapping[str, tuple[Any, str]] | None = None,
) -> Spec:
    """The spec in the file `path`, as changed by `profile`, then `overrides`, then `control`.

    Raises:
        InputError: for the first mistake, with its file, line and key, and what is expected.
    """
    return resolve(read_draft(Document.load(path), profile, control, overrides))


def resolve(draft: Draft) -> Spec:
    """The spec that a draft describes: what it names is imported, checked and tried out.

    Raises:
        InputError: for the first mistake, with its file, line and key, and what is expected.
    """
    document, fields = draft.document, draft.fields
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
            raise document.error(
                (key,), f"{model_class.__name__} is calculated, not trained; remove this key"
            )
    known = {**class_arguments(features_class), **class_arguments(model_class)}
    for i, entry in enumerate(fields.sweep):
        for name in entry:
            if name not in NOT_FACTORS | set(known):
                raise document.error(("sweep", i, name), f"unknown factor; {nearest(name, list(known))}")
    swept = {key for grid in fields.sweep for key in grid} - NOT_FACTORS
    spec = Spec(
        name=f"{document.path.resolve().parent.name}/{document.path.stem}",
        path=document.path,
        profile=draft.profile,
        control=draft.control,
        fields=fields,
        model_args=given_arguments(document, ("model",), model_class, fields.model, swept),
        features_args=given_arguments(document, ("features",), features_class, fields.features, swept),
        optimizer_args=given_arguments(document, ("optimizer",), optimizer_class, fields.optimizer),
        lr_scheduler_args=given_arguments(
            document, ("lr_scheduler",), scheduler_class, fields.lr_scheduler or NOTHING
        ),
        logger_args=_logger_arguments(document, fields.trainer.logger),
        grids=_grids(document, fields, known),
        seeds=listed(fields.seeds),
    )
    _check_figures(document, fields.code)
    if fields.trainer.stop_when_settled and model_class.settled is Ensemble.settled:
        message = (
            f"{model_class.__name__} has no method settled() to say when its outcome can no longer change"
        )
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
    except ValueError:  # a function in C, which may well take both
        return
    try:
        signature.bind("table", "claims")
    except TypeError:
        names = [one.replace(annotation=one.empty) for one in signature.parameters.values()]
        found = inspect.Signature(names)
        wanted = "expected figures(table, claims), where claims[NAME] is a claim from expected/"
        problem = f"figures{found} does not take the claims; {wanted}"
        if not inspect.isfunction(inspect.unwrap(figures)):
            raise document.error(("code",), problem) from None
        raise InputError(f"{line_of(figures)}: {problem}") from None


def _check_numbers(document: Document, value: Any, place: Place = ()) -> None:
    """Refuse numbers outside the range of float32, in which networks compute."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(inner, (dict, list)):
            _check_numbers(document, inner, (*place, key))
        elif isinstance(inner, float) and not (inner == 0 or _LEAST <= abs(inner) <= _MOST):
            sizes = f"expected 0, or a size from {_LEAST:.2g} to {_MOST:.2g}"
            raise document.error((*place, key), f"{inner} is outside the range of float32; {sizes}")


def is_neutral(key: str) -> bool:
    """Whether no result depends on the dotted `key` of a spec: it sets what is logged, shown or refused."""
    return _is_below(key, "watch", "limits", "looks", *(f"trainer.{name}" for name in _LOGGING))


def is_of_the_setting(key: str) -> bool:
    """Whether the dotted `key` of a spec sets what the paper did, not how often or in which shards."""
    return not (is_neutral(key) or _is_below(key, "seeds", "shard_size", "shard_weights", "trainer.compile"))


def _is_below(key: str, *tops: str) -> bool:
    return any(f"{key}.".startswith(f"{top}.") for top in tops)


def _grids(document: Document, fields: Fields, known: dict[str, Argument]) -> list[Grid]:
    grids: list[Grid] = []
    names = set().union(*fields.sweep) - NOT_FACTORS
    for i, entry in enumerate(fields.sweep):
        factors: dict[str, list[Any]] = {}
        part = entry.get("part", str(i))
        if not isinstance(part, (str, int)) or isinstance(part, bool):
            raise document.error(("sweep", i, "part"), f"expected a name, got {part!r}")
        if str(part) in [grid.part for grid in grids]:
            raise document.error(
                ("sweep", i, "part"), f"another entry is also called {part!r}; give each its own name"
            )
        for name, value in entry.items():
            place = ("sweep", i, name)
            if name in NOT_FACTORS:
                continue
            values = value if isinstance(value, list) else [value]
            if isinstance(value, dict):
                values = document.validate(Range, value, at=place).values()
            if not values:
                raise document.error(place, "a factor needs at least one value")
            model = create_model("Factor", __config__=STRICT, **{name: (known[name].type, ...)})  # type: ignore[call-overload]
            seen: set[str] = set()
            for j, one in enumerate(values):
                at = place if not isinstance(value, list) else (*place, j)
                checked = _check_one(document, at, name, model, one)
                if known[name].varying and isinstance(checked, int) and np.float32(checked) != checked:
                    raise document.error(
                        at, f"{checked} cannot be represented in float32, which has 7 digits"
                    )
                if repr(checked) in seen:
                    raise document.error(at, f"{checked} is listed twice; list each value once")
                seen.add(repr(checked))
                factors.setdefault(name, []).append(checked)
        for name in sorted(names - set(factors)):
            argument = known[name]
            if argument.default is inspect.Parameter.empty:
                raise document.error(("sweep", i), f"missing factor {name!r}, which other entries have")
            factors[name] = [argument.default]
        own = _own_optimizer(document, ("sweep", i, "optimizer"), entry.get("optimizer"))
        seeds = listed(entry["seeds"]) if "seeds" in entry else None
        grids.append(Grid(str(part), {name: factors[name] for name in sorted(factors)}, own, seeds))
    return grids


def _own_optimizer(document: Document, place: Place, given: Any) -> ClassSpec | None:
    """The optimizer of an entry of the sweep, its defaults filled in, None if it has none."""
    if given is None:
        return None
    own = document.validate(ClassSpec, given, at=place)
    optimizer_class = _checked_class(document, place, own, torch.optim.Optimizer)
    return ClassSpec(
        class_path=own.class_path, init_args=given_arguments(document, place, optimizer_class, own)
    )


def _check_one(document: Document, place: Place, name: str, model: type[BaseModel], value: Any) -> Any:
    at = place[:-1] if place[-1] == name else place
    return getattr(document.validate(model, {name: value}, at=at), name)


def _check_structures(document: Document, spec: Spec) -> None:
    """Build one network of every structure, so that a class can refuse its values before anything runs."""
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
    """Refuse a network that is too large before it is built: integers among its arguments are sizes."""
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
    """Take two steps with a network's optimizer and schedule, which may refuse its weights or gradients."""
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
    steps.insert(0, (place, optimizer.step))  # read late, because a schedule replaces it
    for _ in range(2):
        for of, step in steps:
            for weight in model.parameters():
                weight.grad = torch.zeros_like(weight)
            try:
                step()
            except Exception as error:  # of any class: the code is not ours
                problem = (
                    f"cannot train here, where a step gets dense gradients and nothing else: {told(error)}"
                )
                raise document.error((*of, "class_path"), problem) from None


def _logger_arguments(document: Document, given: ClassSpec | None) -> dict[str, Any]:
    """The checked arguments of the logger; those that set its place are optional."""
    if given is None:
        return {}
    known = class_arguments(_checked_class(document, ("trainer", "logger"), given, Logger))
    place = ("trainer", "logger", "init_args")
    for key in ("name", "version"):
        if key in given.init_args:
            raise document.error((*place, key), "each run and shard has its own; remove this key")
    return check_arguments(document, place, known, given.init_args, optional={"save_dir", "name", "version"})


def _check_logger(document: Document, spec: Spec) -> None:
    """Make a logger, which writes nothing yet, so that a missing package is reported at once."""
    try:
        spec.logger_of(Path("run"), "run", "0")
    except Exception as error:
        key = "class_path" if isinstance(error, ImportError) else "init_args"
        message = one_line(error) if not isinstance(error, ImportError) else str(error).splitlines()[0]
        raise document.error(("trainer", "logger", key), message) from None


def _try_arguments(
    document: Document, at: Place, given: set[str], make: Any, first: Callable[[], Any]
) -> None:
    """Call the partial function `make` on `first()`; report an argument that it refuses at its place."""
    # first each argument alone, so that the one at fault is named
    for names in (*({name} for name in sorted(given)), given):
        arguments = {n: value for n, value in make.keywords.items() if n in names or n not in given}
        try:
            make.func(first(), **arguments)
        except Exception as error:
            if isinstance(error, TypeError) and names != given:
                continue  # it needs the others
            place = (*at, "init_args", *(names if len(names) == 1 else ()))
            raise document.error(place, f"{make.func.__name__}: {one_line(error)}") from None


def _place_of(spec: Spec, entry: int, key: str, row: Mapping[str, Any]) -> Place | None:
    """Where the document sets the argument `key` in `row` of this entry of the sweep."""
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
    named = getattr(module, name)
    if not fits(named) or named in bases:
        wanted = f"a class derived from {' or '.join(base.__name__ for base in bases)}"
        raise document.error(place, f"{name!r} is not {wanted}; {hint}")
    return named


def _module(document: Document, place: Place, name: str) -> ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        raise document.error(place, f"{name!r} is not the dotted name of a module")
    try:
        with staying():
            module = importlib.import_module(name)
    except (InputError, KeyboardInterrupt):
        raise
    except BaseException as error:  # SystemExit too: a module that ends the program was not imported
        where = blame(error)
        said = one_line(error) if where is None and isinstance(error, ImportError) else told(error)
        raise document.error(
            place, f"cannot import {name!r}: {where + ': ' if where else ''}{said}"
        ) from None
    # two roots may have folders with the same name, of which Python takes the first
    for root in document.path.resolve().parents[2:3]:
        own = root.joinpath(*name.split(".")).with_suffix(".py")
        if own.is_file() and own != Path(module.__file__ or "").resolve():
            message = (
                f"{name!r} was imported from {module.__file__}, not from {own}; rename one of the folders"
            )
            raise document.error(place, message)
    return module
