"""The contents of a suite's files, each read once, before anything that they name is imported: `Suite`."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from common.specs.document import Document, nearest
from common.specs.draft import Draft, read_draft
from common.specs.fields import BUILT_IN, DECIDED, Fields
from common.specs.find import Files, find_specs
from common.verdicts.claims import Claim, Claims, claims_document, read_claims


class ClaimsFile(NamedTuple):
    """A file of claims: the place of each value in it, and its claims by name."""

    document: Document
    claims: Claims


class Written(NamedTuple):
    """A replication as its files describe it, in one profile and with `overrides` of keys of its spec.

    `judged` are the claims that are judged in this profile.
    """

    files: Files
    document: Document
    run: Draft
    overrides: Mapping[str, tuple[Any, str]]
    claims: ClaimsFile
    judged: dict[str, Claim]

    @property
    def name(self) -> str:
        """Its name, `paper/result`."""
        return self.files.name

    def control(self, name: str) -> Draft:
        """The spec of one of its controls: read last, because a mistake in the run is a mistake in it too.

        Raises:
            InputError: for the first mistake that can be found without its code.
        """
        return read_draft(self.document, self.run.profile, name, self.overrides)


class Suite:
    """The replications of one root."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._specs: dict[Path, Document] = {}
        self._claims: dict[Path, ClaimsFile] = {}

    @functools.cached_property
    def replications(self) -> dict[str, Files]:
        """The paths of each replication's files, by name."""
        return find_specs(self.root)

    @functools.cached_property
    def n_claims(self) -> int:
        """The number of all claims, over which the budget of false alarms is split.

        Raises:
            InputError: for the first mistake in a file of claims.
        """
        return sum(len(self.claims(files).claims) for files in self.replications.values())

    def fields(self, files: Files) -> Fields:
        """The keys of a replication's spec.

        Raises:
            InputError: for the first key that is unknown, missing or of the wrong type.
        """
        return self._spec(files).validate(Fields)

    def _spec(self, files: Files) -> Document:
        if files.path not in self._specs:
            self._specs[files.path] = Document.load(files.path)
        return self._specs[files.path]

    def claims(self, files: Files) -> ClaimsFile:
        """The claims of a replication, of all profiles.

        Raises:
            InputError: for the first mistake.
        """
        if files.expected not in self._claims:
            document = claims_document(files.expected)
            self._claims[files.expected] = ClaimsFile(document, read_claims(document))
        return self._claims[files.expected]

    def read(
        self,
        files: Files,
        profile: str = "full",
        overrides: Mapping[str, tuple[Any, str]] | None = None,
    ) -> Written:
        """A replication in one profile, with `overrides` as in `read_draft`.

        Raises:
            InputError: for the first mistake in its spec or claims that can be found without its code.
        """
        document = self._spec(files)
        run = read_draft(document, profile, None, overrides)
        claims = self.claims(files)
        judged = _judged(run, claims)
        for control, breaks in run.fields.controls.items():
            for i, claim in enumerate(breaks.rejects):
                if claim not in judged:
                    place = ("controls", control, "rejects", i)
                    hint = f"in profile {profile}; {nearest(claim, list(judged))}"
                    raise run.document.error(place, f"no claim {claim!r} {hint}")
        return Written(files, document, run, overrides or {}, claims, judged)


def _judged(run: Draft, file: ClaimsFile) -> dict[str, Claim]:
    """The claims that are judged in the profile of a spec.

    Raises:
        InputError: if a claim names a profile that the spec does not have, or no claim is left.
    """
    profiles = list(dict.fromkeys([*BUILT_IN, *run.fields.profiles]))
    for name, claim in file.claims.items():
        for i, profile in enumerate(claim.profiles or []):
            if profile not in profiles:
                place = ("claims", name, "profiles", i)
                hint = nearest(profile, profiles)
                message = f"no profile {profile!r} in {run.document.path}; {hint}"
                raise file.document.error(place, message)
    # whatever full has the networks of is to be decided
    wanted = {run.profile, "full"} if run.profile == DECIDED else {run.profile}
    judged = {name: claim for name, claim in file.claims.items() if wanted & set(claim.profiles or profiles)}
    if not judged:
        message = f"nothing to judge: no claim is judged in profile {run.profile}"
        raise file.document.error(("claims",), message)
    return judged
