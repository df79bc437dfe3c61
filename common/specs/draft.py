"""A spec as written, before anything that it names is imported: `read_draft(document)`."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from common.errors import InputError
from common.specs.document import Document, Place, nearest
from common.specs.fields import BUILT_IN, DECIDED, Fields, OwnSeeds, n_networks


class Draft(NamedTuple):
    """A spec with one profile, overrides and at most one control applied: keys are checked, not classes."""

    document: Document
    fields: Fields
    profile: str
    control: str | None


def read_draft(
    document: Document,
    profile: str = "full",
    control: str | None = None,
    overrides: Mapping[str, tuple[Any, str]] | None = None,
) -> Draft:
    """The spec in `document` as changed by `profile`, then `overrides`, then `control`.

    `document` is not changed. `overrides` maps dotted keys to a value and its source (for messages).

    Raises:
        InputError: for the first mistake that can be seen without its classes, with its file, line and key.
    """
    document = document.copy()
    fields = document.validate(Fields)
    if profile not in (*BUILT_IN, *fields.profiles):
        valid = nearest(profile, list(dict.fromkeys([*BUILT_IN, *fields.profiles])))
        raise document.error(("profiles",), f"no profile {profile!r}; {valid}")
    for section in ("model", "features", "optimizer", "lr_scheduler"):
        if isinstance(document.data.get(section), dict):
            document.data[section].setdefault("init_args", {})
    if profile in fields.profiles:
        document.apply(("profiles", profile))
        fields = document.validate(Fields)
    trainer = document.data.get("trainer")
    if isinstance(trainer, dict) and any(key.startswith("trainer.logger.") for key in overrides or {}):
        trainer.setdefault("logger", {})  # a spec need not have a logger whose keys could be set
    if isinstance(trainer, dict) and isinstance(trainer.get("logger"), dict):
        trainer["logger"].setdefault("init_args", {})
    for key, (value, origin) in (overrides or {}).items():
        if key == "seeds" and profile == DECIDED:
            what = "the profile decided takes the seeds that its looks say; expected --set looks=[N, ...]"
            raise InputError(f"{origin}: {what}, or another profile")
        document.replace(key, value, origin)
    # the control comes last: what it breaks stays broken in every profile, whatever else is changed
    if control is not None:
        fields = document.validate(Fields)
        if control not in fields.controls:
            valid = nearest(control, [*fields.controls])
            raise document.error(("controls",), f"no control {control!r}; {valid}")
        document.apply(("controls", control, "set"))
    fields = document.validate(Fields)
    _check_limits(document, fields)
    given: list[tuple[Place, int | list[int]]] = [(("seeds",), fields.seeds)]
    for i, entry in enumerate(fields.sweep):
        if "seeds" in entry:
            own = document.validate(OwnSeeds, {"seeds": entry["seeds"]}, at=("sweep", i))
            given.append((("sweep", i, "seeds"), own.seeds))
    for place, seeds in given:
        if isinstance(seeds, list) and (not seeds or len(set(seeds)) < len(seeds)):
            raise document.error(place, "expected at least one seed, and no seed twice")
    return Draft(document, fields, profile, control)


def _check_limits(document: Document, fields: Fields) -> None:
    """Refuse a sweep that is too large, before it is expanded."""
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
