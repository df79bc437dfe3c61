"""YAML files as this suite reads them: every value knows its line, every mistake is one line of text."""

import difflib
import re
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

Place = tuple[str | int, ...]
Model = TypeVar("Model", bound=BaseModel)


class InputError(ValueError):
    """Bad input, told in one line: where it stands, what is wrong, what would be right."""


class Strict(BaseModel):
    """A part of a document: unknown keys and values of another type are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Loader(yaml.SafeLoader):
    """PyYAML's safe loader, with `1e-3` a float as YAML 1.2 has it (YAML 1.1 wants `1.0e-3`)."""


Loader.yaml_implicit_resolvers = {
    first: [rule for rule in rules if rule[0] != "tag:yaml.org,2002:float"]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(?:(?:[0-9][0-9_]*)?\.[0-9]+(?:[eE][-+]?[0-9]+)?|[0-9][0-9_]*\.?(?:[eE][-+]?[0-9]+)"
        r"|[0-9][0-9_]*\.|\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
    list("-+0123456789."),
)


def parse_value(text: str) -> Any:
    """The value that `text` has in a spec, for values given on the command line.

    Raises:
        InputError: if `text` is not YAML.
    """
    try:
        return yaml.load(text, Loader=Loader)
    except yaml.YAMLError as error:
        raise InputError(f"{text!r} is not a YAML value: {_one_line(error)}") from None


def nearest(key: str, valid: list[str]) -> str:
    """A hint that names the valid key most like `key`, or all of them."""
    close = difflib.get_close_matches(key, valid, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"valid: {', '.join(sorted(valid))}"


@dataclass
class Document:
    """A YAML file's content (`data`) and the place in the file or command line that each value came from."""

    data: dict[str, Any]
    origins: dict[Place, str]
    path: Path

    @classmethod
    def load(cls, path: Path) -> "Document":
        """Read `path`.

        Raises:
            InputError: if the file is missing, is not YAML, is not a mapping or repeats a key.
        """
        try:
            loader = Loader(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: cannot be read: {_one_line(error)}") from None
        origins: dict[Place, str] = {}
        try:
            node = loader.get_single_node()
            data = _construct(loader, node, (), origins, path) if node is not None else None
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            raise InputError(f"{path}:{line}: not YAML: {error.problem}") from None
        except yaml.YAMLError as error:
            raise InputError(f"{path}:1: not YAML: {_one_line(error)}") from None
        if not isinstance(data, dict):
            raise InputError(f"{path}:1: expected a mapping of keys to values")
        return cls(data, origins, path)

    def replace(self, dotted: str, value: Any, origin: str) -> None:
        """Put `value` at the key `dotted` (`trainer.max_steps`, `sweep.0.density`), as from `origin`.

        Raises:
            InputError: if a part of `dotted` on the way is not a mapping or a list.
        """
        *parents, last = dotted.split(".")
        target: Any = self.data
        place: Place = ()
        for part in [*parents, last]:
            step: str | int = int(part) if isinstance(target, list) and part.isdigit() else part
            place += (step,)
            if isinstance(target, list) and not (isinstance(step, int) and step < len(target)):
                raise InputError(f"{origin}: {dotted}: a list of {len(target)} has no item {part!r}")
            if not isinstance(target, (dict, list)):
                raise InputError(f"{origin}: {dotted}: {'.'.join(map(str, place[:-1]))} holds no keys")
            if len(place) <= len(parents):
                if isinstance(target, dict) and step not in target:
                    raise InputError(f"{origin}: {dotted}: no key {part!r}; {nearest(part, list(target))}")
                target = target[step]  # type: ignore[index]
        target[place[-1]] = value
        self.origins = {p: o for p, o in self.origins.items() if p[: len(place)] != place}
        self.origins[place] = origin

    def error(self, place: Place, message: str) -> InputError:
        """The error that says `message` of the value at `place`, or of the nearest value around it."""
        around = place
        while around and around not in self.origins:
            around = around[:-1]
        origin = self.origins.get(around, f"{self.path}:1")
        key = ".".join(map(str, place))
        return InputError(f"{origin}: {key}: {message}" if key else f"{origin}: {message}")

    def validate(self, model: type[Model], data: Any = None, at: Place = ()) -> Model:
        """Read the document, or its part `data` at the place `at`, as a `model`.

        Raises:
            InputError: for the first value that does not fit.
        """
        try:
            return model.model_validate(self.data if data is None else data)
        except ValidationError as errors:
            first = errors.errors()[0]
            # pydantic adds names of union members to the place: keep what stands in the document
            place = self._known((*at, *first["loc"]))
            if first["type"] == "extra_forbidden":
                valid = _keys(model, place[len(at) : -1])
                raise self.error(place, f"unknown key; {nearest(str(place[-1]), valid)}") from None
            if first["type"] == "missing":
                raise self.error((*at, *first["loc"]), "missing key") from None
            message = first["msg"].removeprefix("Value error, ")
            shown = "" if isinstance(first["input"], (dict, list)) else f", got {first['input']!r}"
            raise self.error(place, f"{message[0].lower()}{message[1:]}{shown}") from None

    def _known(self, place: Place) -> Place:
        known: Place = ()
        for part in place:
            if (*known, part) in self.origins or any(
                p[: len(known) + 1] == (*known, part) for p in self.origins
            ):
                known = (*known, part)
        return known or place


def _construct(loader: Loader, node: yaml.Node, place: Place, origins: dict[Place, str], path: Path) -> Any:
    origins.setdefault(place, f"{path}:{node.start_mark.line + 1}")
    if isinstance(node, yaml.MappingNode):
        result: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            key, line = loader.construct_object(key_node, deep=True), key_node.start_mark.line + 1
            if not isinstance(key, str):
                raise InputError(f"{path}:{line}: {key!r}: a key must be a string")
            if key in result:
                first = origins[(*place, key)].rsplit(":", 1)[1]
                raise InputError(f"{path}:{line}: {key}: duplicate key, first on line {first}; keep one")
            origins[(*place, key)] = f"{path}:{line}"
            result[key] = _construct(loader, value_node, (*place, key), origins, path)
        return result
    if isinstance(node, yaml.SequenceNode):
        return [_construct(loader, n, (*place, i), origins, path) for i, n in enumerate(node.value)]
    return loader.construct_object(node, deep=True)


def _keys(model: type[BaseModel], place: Place) -> list[str]:
    """The keys valid at `place` of `model`."""
    annotation: Any = model
    for part in place:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            annotation = annotation.model_fields[str(part)].annotation
        elif get_args(annotation):
            annotation = get_args(annotation)[-1]
        while get_origin(annotation) in (Union, types.UnionType, Annotated):
            members = [a for a in get_args(annotation) if a is not type(None)]
            annotation = members[0]
    is_model = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return [field.alias or name for name, field in annotation.model_fields.items()] if is_model else []


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
