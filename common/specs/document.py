"""YAML files as this suite reads them: every value has its line, every mistake is one line of text."""

import copy
import difflib
import re
import types
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from common.errors import InputError, one_line

Place = tuple[str | int, ...]
Model = TypeVar("Model", bound=BaseModel)


class Strict(BaseModel):
    """A part of a document: unknown keys and values of the wrong type are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which reads `1e-3` as a float as YAML 1.2 does (YAML 1.1 wants `1.0e-3`)."""

    most_values = 0
    """More values than the text can write out: aliases that name aliases multiply."""


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
# YAML 1.1 also reads 1:30 as 90, and 010 as 8: the first is text here, the second is refused in `_scalar`
Loader.yaml_implicit_resolvers = {
    first: [rule for rule in rules if rule[0] != "tag:yaml.org,2002:int"]
    for first, rules in Loader.yaml_implicit_resolvers.items()
}
Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int",
    re.compile(r"^[-+]?(?:0b[01_]+|0x[0-9a-fA-F_]+|0o[0-7_]+|[0-9][0-9_]*)$"),
    list("-+0123456789"),
)


class _FastLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # known only at run time
    """The same by libyaml, in a tenth of the time; its messages differ from those of `Loader`."""

    yaml_implicit_resolvers = Loader.yaml_implicit_resolvers


DEEPEST = 5_000
"""The depth to which libyaml can safely nest lists: its own recursion has no limit."""

_SURROGATE = re.compile("[\ud800-\udfff]")
"""Half of a character's UTF-16 encoding: no UTF-8 file can hold it."""

_COLLECTIONS = {"tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"}


def parse_value(text: str) -> Any:
    """The value that `text` would have in a spec, for values given on the command line.

    Raises:
        InputError: if `text` is not YAML or repeats a key.
    """
    try:
        return _read(text, repr(text), {}, {})
    except yaml.YAMLError as error:
        raise InputError(f"{text!r} is not a YAML value: {one_line(error)}") from None


def nearest(key: str, valid: list[str]) -> str:
    """A hint that names the valid key closest to `key`, or all valid keys."""
    if not valid:
        return "there are none"
    close = difflib.get_close_matches(key, valid, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"valid: {', '.join(sorted(valid))}"


@dataclass
class Document:
    """A YAML file's content (`data`) and the place in the file or command line that each value came from."""

    data: dict[str, Any]
    origins: dict[Place, str]
    path: Path
    spellings: dict[Place, str] = field(default_factory=dict)
    """The text of values that the file writes differently from Python."""

    @classmethod
    def load(cls, path: Path) -> "Document":
        """Read `path`.

        Raises:
            InputError: if the file is missing, is not YAML, is not a mapping or repeats a key.
        """
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: cannot be read: {one_line(error)}") from None
        origins: dict[Place, str] = {}
        spellings: dict[Place, str] = {}
        try:
            data = _read(text, str(path), origins, spellings)
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            problem = ", ".join(part for part in (error.context, error.problem) if part)
            raise InputError(f"{path}:{line}: not YAML: {problem}") from None
        except yaml.reader.ReaderError as error:
            line = text.count("\n", 0, error.position) + 1
            raise InputError(f"{path}:{line}: not YAML: {error.reason}: {chr(error.character)!r}") from None
        if not isinstance(data, dict):
            raise InputError(f"{path}:1: expected a mapping of keys to values")
        return cls(data, origins, path, spellings)

    def copy(self) -> "Document":
        """A copy, whose values can be replaced without changing this document."""
        return Document(copy.deepcopy(self.data), dict(self.origins), self.path)

    def apply(self, layer: Place) -> None:
        """Put each value of the mapping at `layer` at the place of its dotted key, with its lines."""
        values: Any = self.data
        for part in layer:
            values = values[part]
        for key, value in list(values.items()):
            place = (*layer, key)
            inner = {p[len(place) :]: o for p, o in self.origins.items() if p[: len(place)] == place}
            self.replace(key, value, self._origin(place), inner)

    def replace(self, dotted: str, value: Any, origin: str, inner: Mapping[Place, str] | None = None) -> None:
        """Put a copy of `value` at the key `dotted` (`trainer.max_steps`, `sweep.0.density`).

        It comes from `origin`, and its parts from the origins `inner` where they are known.

        Raises:
            InputError: if an inner part of `dotted` is neither a mapping nor a list.
        """
        *parents, last = dotted.split(".")
        target: Any = self.data
        place: Place = ()
        for part in [*parents, last]:
            step: str | int = int(part) if isinstance(target, list) and part.isdecimal() else part
            place += (step,)
            if isinstance(target, list) and not (isinstance(step, int) and step < len(target)):
                raise InputError(f"{origin}: {dotted}: a list of {len(target)} has no item {part!r}")
            if not isinstance(target, (dict, list)):
                raise InputError(f"{origin}: {dotted}: {'.'.join(map(str, place[:-1]))} is not a mapping")
            if len(place) <= len(parents):
                if isinstance(target, dict) and step not in target:
                    raise InputError(f"{origin}: {dotted}: no key {part!r}; {nearest(part, list(target))}")
                target = target[step]  # type: ignore[index]
        target[place[-1]] = copy.deepcopy(value)
        self.origins = {p: o for p, o in self.origins.items() if p[: len(place)] != place}
        self.origins.update({(*place, *part): o for part, o in (inner or {}).items()})
        self.origins[place] = origin

    def written(self, place: Place) -> str:
        """The text, number or boolean at `place` as written in the file."""
        value: Any = self.data
        for part in place:
            value = value[part]
        return self.spellings.get(place, str(value))

    def error(self, place: Place, message: str) -> InputError:
        """The error with `message` about the value at `place`, or about the nearest value around it."""
        origin, key = self._origin(place), ".".join(map(str, place))
        return InputError(f"{origin}: {key}: {message}" if key else f"{origin}: {message}")

    def _origin(self, place: Place) -> str:
        """Where the value at `place` comes from, or the nearest value around it."""
        while place and place not in self.origins:
            place = place[:-1]
        return self.origins.get(place, f"{self.path}:1")

    def validate(self, model: type[Model], data: Any = None, at: Place = ()) -> Model:
        """Read the document, or its part `data` at the place `at`, as a `model`.

        Raises:
            InputError: for the first value that does not fit.
        """
        try:
            return model.model_validate(self.data if data is None else data)
        except ValidationError as errors:
            # an unknown key first: a missing key may be its consequence
            mistakes = sorted(errors.errors(), key=lambda error: error["type"] != "extra_forbidden")
            # pydantic adds names of union members to the place: keep what is in the document
            places = [self._known((*at, *error["loc"])) for error in mistakes]
            # among the members of a union, the one that fits furthest down
            within = [i for i, p in enumerate(places) if p[: len(places[0])] == places[0]]
            furthest = max(within, key=lambda i: len(places[i]))
            first, place = mistakes[furthest], places[furthest]
            if first["type"] == "extra_forbidden":
                valid = _keys(model, place[len(at) : -1])
                raise self.error(place, f"unknown key; {nearest(str(place[-1]), valid)}") from None
            if first["type"] == "missing":
                raise self.error((*at, *first["loc"]), "missing key") from None
            message = re.sub(r" or instance of \w+| after validation", "", first["msg"])
            # in the terms of a file, not of Python
            message = message.removeprefix("Value error, ").replace("valid dictionary", "mapping, KEY: VALUE")
            message = message.replace("dictionary", "mapping")
            given = repr(first["input"])
            shown = "" if isinstance(first["input"], (dict, list)) else f", got {given[:80]}"
            if first["type"] == "string_type" and shown and first["input"] is not None:
                shown += "; put it in quotes"
            raise self.error(place, f"{message[0].lower()}{message[1:]}{shown}") from None

    def _known(self, place: Place) -> Place:
        known: Place = ()
        value: Any = self.data
        for part in place:
            items = dict(enumerate(value)) if isinstance(value, list) else value
            if isinstance(items, dict) and part in items:
                known, value = (*known, part), items[part]
        return known or place


def _read(text: str, name: str, origins: dict[Place, str], spellings: dict[Place, str]) -> Any:
    """The value of the YAML `text`; `origins` is filled with its places, as in `name`, and `spellings`."""
    loader = Loader(text)
    loader.most_values = len(text) + 10_000
    try:
        node = _compose(text, loader)
        return None if node is None else _construct(loader, node, (), origins, spellings, name, ())
    except RecursionError:
        raise InputError(f"{name}:{loader.line + 1}: nested too deeply") from None


def _compose(text: str, loader: Loader) -> yaml.Node | None:
    # each bracket, and each column of what a line starts with, may be a list inside another
    starts = (len(line) - len(line.lstrip(" -?:")) for line in text.splitlines())
    if text.count("[") + text.count("{") + max(starts, default=0) < DEEPEST:
        with suppress(yaml.YAMLError):  # the other loader reports it
            node: yaml.Node | None = _FastLoader(text).get_single_node()
            return node
    return loader.get_single_node()


def _construct(
    loader: Loader,
    node: yaml.Node,
    place: Place,
    origins: dict[Place, str],
    spellings: dict[Place, str],
    name: str,
    around: tuple[yaml.Node, ...],
) -> Any:
    """The value of `node`, which is inside the nodes `around`; each alias gets its own value."""
    line = node.start_mark.line + 1
    origins.setdefault(place, f"{name}:{line}")
    if len(origins) > loader.most_values:
        raise InputError(f"{name}:{line}: aliases make this file too large; write the values out")
    if node in around:
        raise InputError(
            f"{origins[place]}: {'.'.join(map(str, place))}: an alias inside the node that it refers to"
        )
    if isinstance(node, yaml.CollectionNode) and node.tag not in _COLLECTIONS:
        raise InputError(
            f"{name}:{line}: the tag {node.tag!r} is not supported; write plain mappings or lists"
        )
    around = (*around, node)
    if isinstance(node, yaml.MappingNode):
        result: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if key_node.tag == "tag:yaml.org,2002:merge":
                raise InputError(f"{name}:{line}: merge keys (<<) are not supported; write the keys out")
            key = _scalar(loader, key_node, name)
            if not isinstance(key, str):
                raise InputError(f"{name}:{line}: {key!r}: a key must be a string; put it in quotes")
            if key in result:
                first = origins[(*place, key)].rsplit(":", 1)[1]
                raise InputError(f"{name}:{line}: {key}: duplicate key, first on line {first}; keep one")
            origins[(*place, key)] = f"{name}:{line}"
            result[key] = _construct(loader, value_node, (*place, key), origins, spellings, name, around)
        return result
    if isinstance(node, yaml.SequenceNode):
        items = enumerate(node.value)
        return [_construct(loader, n, (*place, i), origins, spellings, name, around) for i, n in items]
    value = _scalar(loader, node, name)
    if str(value) != node.value:
        spellings[place] = node.value
    return value


_OCTAL = re.compile(r"[-+]?0[0-9_]+|[-+]?0o.*")


def _scalar(loader: Loader, node: yaml.Node, name: str) -> Any:
    line = node.start_mark.line + 1
    if isinstance(node, yaml.ScalarNode) and (half := _SURROGATE.search(node.value)):
        raise InputError(f"{name}:{line}: \\u{ord(half[0]):X} is not a character; write the character itself")
    if node.tag == "tag:yaml.org,2002:int" and _OCTAL.fullmatch(node.value) and node.value.strip("+-0_"):
        raise InputError(
            f"{name}:{line}: {node.value[:80]}: some YAML readers take a leading zero as octal; "
            "write the number without it, or in quotes if it is text"
        )
    try:
        value = loader.construct_object(node, deep=True)
        if isinstance(value, float) and value == 0 and re.match("[^eE]*[1-9]", node.value):
            raise InputError(
                f"{name}:{line}: {node.value[:80]} is too small for a float and would be read as 0"
            )
        return value
    except yaml.constructor.ConstructorError:
        raise InputError(
            f"{name}:{line}: the tag {node.tag!r} is not supported; write plain values"
        ) from None
    except InputError:
        raise
    except (AttributeError, KeyError, ValueError):  # 2022-13-01 looks like a date, 0x_ like a number
        kind = node.tag.rsplit(":", 1)[-1]
        raise InputError(
            f"{name}:{line}: {node.value[:80]!r} is not a valid {kind}; put a string in quotes"
        ) from None


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
