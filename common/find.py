"""Where replications lie: below a root, in installed packages, or at a path."""

import importlib.metadata
import importlib.util
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from common.document import InputError, nearest, one_line
from common.spec import Spec, load_spec
from common.text import line, visible


class Found(NamedTuple):
    """A replication called `name` (`paper/result`), its spec at `path`.

    `root` holds its folders `replications/` and `expected/`. `installed`: it came with a package, so that its
    modules can be imported as they are.
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
        """The file with our own numbers."""
        return self.expected.with_suffix(".record.yaml")

    def spec(
        self,
        profile: str = "full",
        control: str | None = None,
        overrides: Mapping[str, tuple[Any, str]] | None = None,
    ) -> Spec:
        """Its spec, as `load_spec` reads it; modules are then imported from its root too."""
        if not self.installed and str(self.root.resolve()) not in sys.path:
            sys.path.insert(0, str(self.root.resolve()))
        return load_spec(self.path, profile, control, overrides)


def find_root(given: Path | None = None) -> Path:
    """The root: `given`, else the working directory if it is one, else where this package is.

    Raises:
        InputError: if there are no replications in it.
    """
    package = Path(__file__).resolve().parent.parent
    root = given or (Path.cwd() if (Path.cwd() / "replications").is_dir() else package)
    if not (root / "replications").is_dir():
        raise InputError(f"{root}: no folder replications/ in it; give the suite's folder with --root")
    return root


def find_specs(root: Path) -> dict[str, Found]:
    """The replications below `root` itself, by name.

    Raises:
        InputError: if a name is not text.
    """
    paths = sorted((root / "replications").glob("*/*.yaml"))
    names = [f"{path.parent.name}/{path.stem}" for path in paths]
    for name, path in zip(names, paths, strict=True):
        if visible(name) != name:  # such as bytes that are not UTF-8
            raise InputError(f"{path}: a report cannot hold this name; rename the file or its folder")
    return {name: Found(name, path, root) for name, path in zip(names, paths, strict=True)}


def find_all(root: Path) -> list[Found]:
    """The replications below `root`, then those of installed packages.

    A package has an entry point of the group `replications`, which names a package of its own that is called
    `replications`; the folder around that is then a root like any other.

    Raises:
        InputError: if an entry point names something else.
    """
    found = list(find_specs(root).values())
    roots = {root.resolve()}
    for entry in importlib.metadata.entry_points(group="replications"):
        for folder in _folders(entry):
            if folder.parent not in roots:
                found += [one._replace(installed=True) for one in find_specs(folder.parent).values()]
            roots.add(folder.parent)
    return found


def find_spec(root: Path, name: str) -> Found:
    """The replication called `name`, below `root` or installed, or the one whose spec is the file `name`.

    Raises:
        InputError: if there is none, or two roots have one of that name.
    """
    if name.endswith(".yaml"):
        return _at(root, Path(name))
    everywhere = find_all(root)
    found = [one for one in everywhere if one.name == name]
    if not found:
        known = nearest(name, [one.name for one in everywhere])
        raise InputError(f"{name}: no such replication; {known}")
    if len(found) > 1:
        roots = " and in ".join(str(one.root) for one in found)
        raise InputError(f"{name}: in {roots}; give one of these folders with --root")
    return found[0]


def announce(found: Iterable[Found], root: Path) -> None:
    """Say whose code will run that is neither the root's nor installed; called before it is imported."""
    for other in dict.fromkeys(one.root for one in found if one.root != root and not one.installed):
        sys.stderr.write(f"{line(f'replicate: importing code from {other}')}\n")


def _at(root: Path, path: Path) -> Found:
    try:
        whole = path.resolve()
    except (OSError, RuntimeError) as error:  # links that go round in a circle
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
    """The folders of the package that an entry point names."""
    try:
        module = importlib.util.find_spec(entry.module)
    except ImportError:
        module = None
    folders = [Path(folder).resolve() for folder in (module and module.submodule_search_locations) or []]
    if not folders or any(folder.name != "replications" for folder in folders):
        who = f"{entry.dist.name}: " if entry.dist else ""
        raise InputError(
            f"{who}entry point {entry.name!r}: {entry.value!r} is no package PACKAGE.replications"
        )
    return folders
