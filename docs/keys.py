"""The keys of specs and of claims as JSON schemas and as tables, from the pydantic models that read them.

`python -m docs.keys` writes both; a test checks that the stored files are up to date.
"""

import ast
import inspect
import itertools
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from common.specs.document import Strict
from common.specs.fields import Fields, Range
from common.verdicts.claims import PARTS, ClaimsFile

Schema = dict[str, Any]

HERE = Path(__file__).parent / "reference"

_MARKED = re.compile(r"(?<=<!-- keys: written by `make keys` -->\n).*(?=<!-- end of keys -->)", re.DOTALL)

_TITLES = {
    "Fields": "Keys of a spec",
    "ClassSpec": "Class",
    "Entry": "Sweep entry",
    "Range": "Range",
    "TrainerSpec": "Trainer",
    "Limits": "Limits",
    "Control": "Control",
    "ClaimsFile": "Keys of a file of claims",
    "Claim": "Claim",
    "Grid": "Claims over a grid",
    "Source": "Source",
    "Estimate": "Estimate",
    "Published": "Published number",
    "Theory": "Theoretical value",
    "Margin": "Margin",
    "Bound": "Bound",
    "Power": "Power",
}
"""The headings of the models' tables, in the order in which they are shown."""

_IN_GRID = "InGrid"
"""The suffix of the names of models whose values may be names in braces."""


def spec_schema() -> Schema:
    """The JSON schema of a spec, `replications/PAPER/RESULT.yaml`."""
    schema = _schema(Fields)
    kinds, properties = schema["$defs"], schema["properties"]
    kinds["Range"] = {key: value for key, value in _schema(Range).items() if key != "$schema"}
    # what pydantic leaves open, as factors are checked against the signatures of model and features
    kinds["Entry"] = {
        "description": "Networks that are trained: the product of the values of its factors. A factor is any "
        "argument of the model or of the features. A factor that only other entries have takes its "
        "default.",
        "type": "object",
        "properties": {
            "part": {
                "description": "The entry's name, a column of the instances table. Default: its position.",
                "type": ["string", "integer"],
            },
            "optimizer": {
                "description": "The optimizer of this entry's networks, in place of the spec's; `part` "
                "tells them from those of other entries.",
                "$ref": "#/$defs/ClassSpec",
            },
        },
        "additionalProperties": {
            "description": "A factor: its value, a list of values, or a range.",
            "anyOf": [
                {"type": ["boolean", "number", "string"]},
                {"type": "array", "minItems": 1},
                {"$ref": "#/$defs/Range"},
            ],
        },
    }
    properties["sweep"]["items"] = {"$ref": "#/$defs/Entry"}
    keys = {"pattern": rf"^({'|'.join(properties)})(\..+)?$"}
    properties["profiles"]["additionalProperties"]["propertyNames"] = keys
    kinds["Control"]["properties"]["set"]["propertyNames"] = keys
    return schema


def claims_schema() -> Schema:
    """The JSON schema of a file of claims, `expected/PAPER/RESULT.yaml`."""
    schema = _schema(ClaimsFile)
    kinds = schema["$defs"]
    schema["properties"]["claims"]["additionalProperties"] = {
        "if": {"type": "object", "required": ["for"]},
        "then": {"$ref": "#/$defs/Grid"},
        "else": {"$ref": "#/$defs/Claim"},
    }
    kinds |= {f"{name}{_IN_GRID}": _in_grid(model) for name, model in kinds.items()}
    in_grid = kinds[f"Claim{_IN_GRID}"]
    # any of them may stand in the rows instead
    del in_grid["required"], in_grid["additionalProperties"]
    one = {"$ref": f"#/$defs/Claim{_IN_GRID}"}
    kinds["Grid"] = {
        "description": "Claims that differ only in their values: a table in which each row makes one or "
        "several claims.\n\n"
        "The other keys are those of the claim. A name in braces, in these keys or in the claim's name, "
        "stands for the row's value: alone it keeps its type, within text it is as written in the row. A "
        "column that is not named in braces is itself a key of the claim that its row makes. `{{` and `}}` "
        "stand for braces.",
        "type": "object",
        "properties": {
            "for": {
                "description": "The rows: mappings with the same names, to values.",
                "type": "array",
                "minItems": 1,
                "items": {"type": "object", "minProperties": 1},
            },
            "claims": {
                "description": "Several claims, in place of the keys of one; each row makes them all.",
                "type": "object",
                "minProperties": 1,
                "additionalProperties": {"allOf": [one], "propertyNames": {"enum": [*in_grid["properties"]]}},
            },
        },
        "required": ["for"],
        "allOf": [one],
        "propertyNames": {"enum": ["for", "claims", *in_grid["properties"]]},
        "if": {"required": ["claims"]},
        "then": {"maxProperties": 2},
    }
    every = set().union(*(parts for choices in PARTS.values() for parts in choices))
    kinds["Claim"]["allOf"] = [
        {
            "if": {"properties": {"kind": {"const": kind}}, "required": ["kind"]},
            "then": {
                "anyOf": [
                    {
                        "required": sorted(parts),
                        "properties": {part: {"type": "null"} for part in sorted(every - parts)},
                    }
                    for parts in choices
                ]
            },
        }
        for kind, choices in PARTS.items()
    ]
    return schema


def _in_grid(part: Any, key: str = "") -> Any:
    """A part of a schema, found under `key`, where each value may also be a name in braces."""
    if isinstance(part, list):
        return [_in_grid(one) for one in part]
    if not isinstance(part, dict):
        return f"{part}{_IN_GRID}" if key == "$ref" else part
    if key != "properties":
        return {name: _in_grid(one, name) for name, one in part.items()}
    braces = {"type": "string", "pattern": r"^\{[^{}]+\}$"}
    return {
        name: {"description": one["description"], "anyOf": [_in_grid(one), braces]}
        for name, one in part.items()
    }


def tables(schema: Schema, top: str) -> list[str]:
    """The keys of all models in a schema as lines of Markdown, starting with the model `top`."""
    found = {top: schema, **schema.get("$defs", {})}
    found = {name: one for name, one in found.items() if not name.endswith(_IN_GRID)}
    lines: list[str] = []
    for name in sorted(found, key=lambda name: [*_TITLES, name].index(name)):
        one = found[name]
        description = one["description"].partition("\n\n")
        lines += [f"## {_title(name)}", "", description[0], ""]
        lines += [description[2], ""] if description[2] else []
        lines += ["| key | type | default | meaning |", "|---|---|---|---|"]
        lines += list(_rows(one))
        lines.append("")
        if name == "Claim":
            lines += list(_kinds())
    return lines


def pages() -> dict[Path, str]:
    """The files of keys, with the contents that they should have."""
    schemas = {"spec": (spec_schema(), "Fields"), "expected": (claims_schema(), "ClaimsFile")}
    written = {}
    for name, (schema, top) in schemas.items():
        page, keys = HERE / f"{name}.md", "\n".join(["", *tables(schema, top), ""])
        written[HERE / f"{name}.schema.json"] = json.dumps(schema, indent=1, ensure_ascii=False) + "\n"
        written[page] = _MARKED.sub(lambda _, keys=keys: keys, page.read_text(encoding="utf-8"))  # type: ignore[misc]
    return written


def _schema(model: type[BaseModel]) -> Schema:
    """The schema of a model in draft 7, which editors support, with descriptions from its docstrings."""
    schema = model.model_json_schema()
    models = {one.__name__: one for one in Strict.__subclasses__()}
    for name, part in {model.__name__: schema, **schema.get("$defs", {})}.items():
        for field, text in _docstrings(models[name]).items():
            key = models[name].model_fields[field].alias or field
            part["properties"][key]["description"] = text
    tidied: Schema = _tidy(schema)
    return {"$schema": "http://json-schema.org/draft-07/schema#", **tidied}


def _docstrings(model: type[BaseModel]) -> dict[str, str]:
    """The docstrings of a model's fields. Pydantic could read them too, but would do so at every start."""
    (found,) = ast.parse(inspect.getsource(model)).body
    assert isinstance(found, ast.ClassDef)
    return {
        field.target.id: str(text.value.value)
        for field, text in itertools.pairwise(found.body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
    }


def _tidy(value: Any, is_of_names: bool = False) -> Any:
    """A part of a schema without the titles that pydantic makes up and the defaults that are whole models.

    `is_of_names`: its keys are names in a document, of which one may be `title`.
    """
    if isinstance(value, list):
        return [_tidy(one) for one in value]
    if not isinstance(value, dict):
        return value
    tidied = {}
    for key, inner in value.items():
        if is_of_names or not (key == "title" or (key == "default" and isinstance(inner, dict))):
            tidied[key] = _tidy(inner, is_of_names=not is_of_names and key in ("properties", "$defs"))
    if isinstance(text := tidied.get("description"), str) and not is_of_names:
        tidied["description"] = "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))
    return tidied


def _rows(model: Schema) -> Iterator[str]:
    required = model.get("required", [])
    for key, value in model.get("properties", {}).items():
        default = "required" if key in required else _default(value)
        yield f"| `{key}` | {_type(value)} | {default} | {value.get('description', '')} |"
    rest = model.get("additionalProperties")
    if isinstance(rest, dict):
        yield f"| *FACTOR* | {_type(rest)} | | {rest.get('description', '')} |"


def _default(value: Schema) -> str:
    default = value.get("default")
    return "" if default is None else f"`{json.dumps(default)}`"


def _type(value: Schema) -> str:
    """The type of a value, in words."""
    if "$ref" in value:
        name = value["$ref"].rpartition("/")[2].removesuffix(_IN_GRID)
        return f"[{_in_text(name)}](#{_slug(name)})"
    if "allOf" in value:
        return _type(value["allOf"][0])
    if "if" in value:
        return _either((_type(value["else"]), _type(value["then"])))
    if "anyOf" in value:
        return _either(_type(one) for one in value["anyOf"] if one.get("type") != "null")
    if "enum" in value:
        return _either(f"`{one}`" for one in value["enum"])
    if "const" in value:
        return f"`{value['const']}`"
    kind = value.get("type")
    if isinstance(kind, list):
        return _either(_type({"type": one}) for one in kind)
    if kind == "array":
        return f"list of {_type(value['items'])}" if value.get("items") else "list"
    if kind == "object":
        inner = value.get("additionalProperties")
        is_open = not isinstance(inner, dict) or inner.get("type") == "object"
        return "mapping" if is_open else f"mapping of names to {_type(inner)}"  # type: ignore[arg-type]
    words = {"string": "text", "integer": "integer", "number": "number", "boolean": "boolean"}
    limits = {"exclusiveMinimum": "above", "minimum": "of at least"}
    return " ".join([words[str(kind)], *(f"{word} {value[k]}" for k, word in limits.items() if k in value)])


def _either(words: Iterable[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} or {last}" if first else last


def _kinds() -> Iterator[str]:
    yield from ("What a claim of each kind needs:", "", "| kind | keys |", "|---|---|")
    for kind, choices in PARTS.items():
        keys = [" and ".join(f"`{part}`" for part in sorted(parts, reverse=True)) for parts in choices]
        yield f"| `{kind}` | {', or '.join(keys)} |"
    yield ""


def _title(name: str) -> str:
    return _TITLES.get(name, name)


def _in_text(name: str) -> str:
    title = _title(name)
    return title[0].lower() + title[1:]


def _slug(name: str) -> str:
    return re.sub(r"[^\w-]", "", _title(name).lower().replace(" ", "-"))


if __name__ == "__main__":
    for file, text in pages().items():
        file.write_text(text, encoding="utf-8")
