"""Finding replications: below a root, in installed packages, or at a path."""

import importlib.metadata
import importlib.util
import itertools
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from common.errors import InputError, one_line
from common.specs.document import nearest
from common.system.files import SUITE, given_path, is_installed
from common.system.text import line, visible


class Files(NamedTuple):
    """The files of the replication `name` (`paper/result`), with its spec at `path`.

    `root` holds the folders `replications/` and `expected/`. `installed`: it came with a package, so its
    modules can be imported directly.
    """

    name: str
    path: Path
    root: Path
    installed: bool = False

    @property
    def expected(self) -> Path:
        """The file with its claims."""
        return self.root / "expected" / f"{self.name}.yaml"

    @property
    def record(self) -> Path:
        """The file with the recorded results."""
        return self.expected.with_suffix(".record.yaml")

    @property
    def samples(self) -> Path:
        """The file with the samples of the recorded results, part of the record."""
        return samples_of(self.record)


RESTORE = "restore both files of the record (`git checkout`), or remove them and run `replicate record`"
"""What to do about a record that cannot be read."""


def samples_of(record: Path) -> Path:
    """The file of samples that belongs to the file `record`, beside it."""
    return record.with_suffix("").with_suffix(".samples.parquet")


def without_record(record: Path) -> str | None:
    """A line saying that the samples of the file `record` exist without it; None if they do not."""
    samples = samples_of(record)
    if os.path.lexists(record) or not os.path.lexists(samples):
        return None
    return f"{samples}: samples without their record: no {record.name} beside them; {RESTORE}"


Tell = Callable[[str], None]
"""Receives a line about a problem that stops nothing."""


def find_root(given: Path | None = None) -> Path:
    """The root: `given`, else the working directory if it is one, else the folder of this package.

    Raises:
        InputError: if it has no folder replications/.
    """
    root = given or (Path.cwd() if (Path.cwd() / "replications").is_dir() else SUITE)
    if not (root / "replications").is_dir():
        hint = "give the suite's folder with --root"
        if root.name == "replications" and root.is_dir():
            hint = f"give the folder around it, --root {root.resolve().parent}"
        raise InputError(f"{root}: no folder replications/ in it; {hint}")
    return root


def results_folder(root: Path) -> Path:
    """Where results are stored by default: in `root`, or in the working directory if `root` is installed."""
    return (Path.cwd() if is_installed(root) else root) / "results"


def find_specs(root: Path) -> dict[str, Files]:
    """The replications below `root` itself, by name.

    Raises:
        InputError: if a name has characters that a report cannot show.
    """
    specs = {
        name: Files(name, path, root)
        for path in sorted((root / "replications").glob("*/*.yaml"))
        # hidden files belong to other programs
        if not (name := f"{path.parent.name}/{path.stem}").startswith(".") and not path.name.startswith(".")
    }
    for name, files in specs.items():
        if visible(name) != name:  # such as bytes that are not UTF-8
            raise InputError(f"{files.path}: a report cannot hold this name; rename the file or its folder")
    return specs


def find_own(root: Path) -> dict[str, Files]:
    """All replications of `root`, by name; refuses files that look like part of one but are not.

    Raises:
        InputError: if there are none, or a YAML file or a file of samples would be ignored, also in
        expected/.
    """
    specs = find_specs(root)
    where = root / "replications"
    if not specs:
        # also where the ending is inside the name, as in result.yaml.txt
        near = next(_files_like(where, r"\.ya?ml|^ya?ml$"), None)
        instead = (
            f", only {near.relative_to(where)}" if near else "; `replicate new PAPER/RESULT` creates one"
        )
        raise InputError(f"{where}: nothing to judge: it contains no spec PAPER/RESULT.yaml{instead}")
    if lines := list(_passed_over(root, specs)):
        raise InputError(lines[0] + (f" (and {len(lines) - 1} more such files)" if lines[1:] else ""))
    return specs


def find_all(root: Path, tell: Tell = lambda line: None) -> list[Files]:
    """The replications below `root`, then those of installed packages.

    Such a package has an entry point in the group `replications` that names a subpackage called
    `replications`; the folder around that is then a root like any other. An entry point that names something
    else, or cannot be imported, is reported and left out.
    """
    replications = list(find_specs(root).values())
    roots = {root.resolve()}
    try:
        entries = list(importlib.metadata.entry_points(group="replications"))
    except Exception as error:  # the metadata of any package may be damaged, in any way
        tell(f"installed packages: entry points cannot be read: {type(error).__name__}: {one_line(error)}")
        entries = []
    for entry in entries:
        try:
            folders = _folders(entry)
        except InputError as error:
            tell(str(error))
            continue
        for folder in folders:
            if folder.parent not in roots:
                replications += [one._replace(installed=True) for one in find_specs(folder.parent).values()]
            roots.add(folder.parent)
    return replications


def find_named(root: Path, names: Sequence[str], tell: Tell = lambda line: None) -> list[Files]:
    """The replications that `names` say, each once, all of the root's own if there are no names.

    A name is that of one below `root` or installed, or the file of a spec.

    Raises:
        InputError: if one is not found or in two roots, or if there are no names and `find_own` raises.
    """
    if not names:
        return list(find_own(root).values())
    everywhere: list[Files] = []
    if not all(name.endswith(".yaml") for name in names):
        everywhere = find_all(root, tell)
    named = [
        _at(root, given_path(name)) if name.endswith(".yaml") else _by_name(everywhere, name)
        for name in names
    ]
    return list({(one.root.resolve(), one.name): one for one in named}.values())


def find_spec(root: Path, name: str) -> Files:
    """The replication called `name`, below `root` or installed, or the one whose spec is the file `name`.

    Raises:
        InputError: if there is none, or two roots have one with that name.
    """
    return find_named(root, [name])[0]


def _by_name(everywhere: list[Files], name: str) -> Files:
    matches = [one for one in everywhere if one.name == name]
    if not matches:
        known = nearest(name, [one.name for one in everywhere])
        raise InputError(f"{name}: no such replication; {known}")
    if len(matches) > 1:
        roots = " and in ".join(str(one.root) for one in matches)
        raise InputError(f"{name}: found in {roots}; choose one of these folders with --root")
    return matches[0]


def _files_like(folder: Path, pattern: str) -> Iterator[Path]:
    """The files below `folder` whose names match, ignoring case; also in papers' folders that are links."""
    ending = re.compile(pattern, re.IGNORECASE)
    for path in sorted({*itertools.chain(folder.glob("*/*"), folder.rglob("*"))}):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if ending.search(path.name) and not hidden and not path.is_dir():
            yield path


def _passed_over(root: Path, specs: Mapping[str, Files]) -> Iterator[str]:
    """A line for each file that looks like a spec, claims or part of a record but is not read."""
    known = {files.path for files in specs.values()}
    for path in _files_like(root / "replications", r"\.ya?ml$"):
        if path not in known:
            yield f"{path}: would be ignored: a spec is replications/PAPER/RESULT.yaml; move or remove it"
    read = {path for files in specs.values() for path in (files.expected, files.record, files.samples)}
    for path in _files_like(root / "expected", r"\.ya?ml$|\.parquet$"):
        if path not in read:
            result = path.stem.removesuffix(".record").removesuffix(".samples")
            name, what = f"{path.parent.name}/{result}", "samples" if path.suffix == ".parquet" else "claims"
            known_ending = path.name.endswith(".samples.parquet" if what == "samples" else ".yaml")
            if path.parent.parent == root / "expected" and known_ending:
                hint = "" if not specs else f"; {nearest(name, list(specs))}"
                yield f"{path}: {what} without a spec: no replications/{name}.yaml{hint}"
            else:
                where = "expected/PAPER/RESULT.yaml, RESULT.record.yaml or RESULT.samples.parquet"
                yield f"{path}: would be ignored: only {where} are read; move or remove it"
    for files in specs.values():
        if problem := without_record(files.record):
            yield problem


def announce(replications: Iterable[Files], root: Path) -> None:
    """Announce code from elsewhere, neither the root's nor installed, before it is imported."""
    for other in dict.fromkeys(one.root for one in replications if one.root != root and not one.installed):
        sys.stderr.write(f"{line(f'replicate: importing code from {other}')}\n")


def make_importable(files: Files) -> None:
    """Put the root of a replication on Python's path, unless its modules are installed."""
    root = files.root.resolve()
    # an installed suite is already on the path, perhaps by a link; put first, it could hide Python's modules
    if not files.installed and root not in [Path(entry).resolve() for entry in sys.path]:
        sys.path.insert(0, str(root))


def _at(root: Path, path: Path) -> Files:
    try:
        whole = path.resolve()
    except (OSError, RuntimeError) as error:  # links that form a loop
        raise InputError(f"{path}: cannot be read: {one_line(error)}") from None
    if whole.parent.parent.name != "replications":
        raise InputError(f"{path}: expected ROOT/replications/PAPER/RESULT.yaml")
    own = whole.parents[2]
    specs = find_specs(root if own == root.resolve() else own)
    name = f"{whole.parent.name}/{whole.stem}"
    if name not in specs:
        raise InputError(f"{path}: no such file; {nearest(name, list(specs))}")
    return specs[name]


def _folders(entry: importlib.metadata.EntryPoint) -> list[Path]:
    """The folders of the package that an entry point names.

    Raises:
        InputError: if it names something else, or cannot be imported.
    """
    who = f"entry point {entry.name!r}: {entry.value!r}"
    try:
        if entry.dist:
            who = f"{entry.dist.name}: {who}"
        module = importlib.util.find_spec(entry.module)  # imports the enclosing package
    except ModuleNotFoundError:
        module = None
    except (Exception, SystemExit) as error:  # whatever that package raises
        raise InputError(f"{who} cannot be imported: {type(error).__name__}: {one_line(error)}") from None
    folders = [Path(folder).resolve() for folder in (module and module.submodule_search_locations) or []]
    if not folders or any(folder.name != "replications" for folder in folders):
        raise InputError(f"{who} is not a package PACKAGE.replications")
    return folders
