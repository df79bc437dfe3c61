"""What a run stores on disk: a folder per spec hash, written atomically, so that a killed run can resume."""

import hashlib
import importlib.metadata
import io
import json
import os
import platform
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import torch
from torch import Tensor

from common.ensemble import NUMERICS, Ensemble
from common.errors import InputError, one_line
from common.specs.spec import Spec
from common.specs.sweep import Shard, choose, instances
from common.system.files import refuse_links, refuse_links_in, told_of, write
from common.system.machine import UNSUPPORTED

try:
    import fcntl
except ImportError:
    raise ImportError(UNSUPPORTED) from None

_PROBE = bytes(1 << 16)
"""Written to check that writing works: about the size of a small shard."""

_VERSIONED = ["torch", "lightning", "torchmetrics", "numpy", "pandas", "scipy"]

_SUFFIX = {"shards": "parquet", "weights": "pt", "partial": "ckpt"}
"""The folders of what is stored for each shard, and the endings of their files."""

_MANIFEST_KEYS = {
    *("name", "hash", "spec", "seeds", "instances", "instances_digest", "shards"),
    *("device", "wall_s", "finished", "versions"),
}

T = TypeVar("T")


class _NotOursError(Exception):
    """Why a file among a run's results is not one of them."""


class Run:
    """The results of one spec, with one profile and at most one control, in their own folder.

    The folder's name is the hash of all that decides the numbers: the resolved spec with its defaults, and
    the versions of our numerics and of torch. Titles, claims, devices, workers, logging and which weights are
    kept decide nothing and are left out.

    Args:
        spec: what is run
        out: the folder of all results
        keep_weights: the networks whose trained weights are also stored, a query as in `choose`

    Raises:
        InputError: if the query does not fit the sweep.
    """

    def __init__(self, spec: Spec, out: Path, keep_weights: str | None = None) -> None:
        self.spec = spec
        trained = issubclass(spec.model_class, Ensemble)
        self.keep = choose(spec, keep_weights).index if keep_weights is not None and trained else pd.Index([])
        numerics = {"numerics": NUMERICS, "torch": torch.__version__.split("+")[0]}
        text = json.dumps({**spec.resolved(), **numerics}, sort_keys=True)
        self.resolved: dict[str, Any] = json.loads(text)  # as read back from a manifest, with tuples as lists
        self.hash = _digest(text.encode())[:12]
        self.out = out
        self.variant = out / spec.name / variant_of(spec.profile, spec.control)
        self.folder = self.variant / self.hash
        self._checked: set[str] = set()  # digests of tables whose rows have been compared with the sweep

    @contextmanager
    def locked(self, shared: bool = False) -> Iterator[None]:
        """Check that the folder can be written, and lock out other runs; if `shared`, only those not shared.

        A kill releases the lock. Where the file system has no locks, nothing keeps other runs out.

        Raises:
            InputError: if another run is writing here, the folder cannot be written, or it contains a link.
        """
        with told_of(self.folder):
            refuse_links(self.folder, self.out)
            self.folder.mkdir(parents=True, exist_ok=True)
            refuse_links_in(self.folder)
            file = (self.folder / "lock").open("a+", encoding="utf-8")
        with file:
            try:
                fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                who = file.read().strip()
                who = f"process {who}" if who else "PID unknown"
                raise InputError(
                    f"{self.folder}: another run ({who}) is writing here; wait until it ends, or stop it"
                ) from None
            except OSError:
                pass  # no locks on this file system
            with suppress(OSError):  # only for the message above
                file.truncate(0)
                file.write(f"{os.getpid()} on {socket.gethostname()}\n")
                file.flush()
            self._write("probe", _PROBE)
            (self.folder / "probe").unlink(missing_ok=True)
            if not shared:  # left behind by killed writers
                for path in self.folder.glob("**/.*.tmp"):
                    path.unlink(missing_ok=True)
            yield

    def has(self, shard: Shard) -> bool:
        """Whether a shard is stored; a damaged one, or one of other networks, counts as missing."""
        return self._shard(shard) is not None

    def write_shard(self, number: int, table: pd.DataFrame) -> None:
        """Store the instances of one shard, whole or not at all."""
        for path in self._paths("weights", number):
            path.unlink()  # of networks that are no longer stored
        self._write_of_shard("shards", number, _to_bytes(table))

    def stored(self, shard: Shard) -> pd.DataFrame | None:
        """The instances of one shard; None if they are not stored."""
        rows = self._shard(shard)
        if rows is None and (table := self.table()) is not None:
            rows = table.loc[shard.rows.index]
        return rows

    def lacks_weights(self, shard: Shard) -> bool:
        """Whether weights of this shard should be kept but are not stored."""
        wanted = shard.rows.index.intersection(self.keep)
        return not wanted.empty and not wanted.isin(self.weights(shard)[0]).all()

    def write_trained(self, shard: Shard, table: pd.DataFrame, state: dict[str, Tensor]) -> None:
        """Store a trained shard: its instances, and the `state` of those whose weights are kept.

        Raises:
            InputError: if instances with other numbers are already stored: no weights are then stored.
        """
        # the rows first, so that stored weights always belong to stored rows
        if (before := self.stored(shard)) is None:
            self.write_shard(shard.number, table)
        elif not _same_numbers(table, before):
            raise InputError(
                f"{self.folder}: shard {shard.number}, trained again, has other numbers than are stored, so "
                "its weights are not kept; was it trained on another machine? Another --out trains all anew"
            )
        places = shard.rows.index.get_indexer(shard.rows.index.intersection(self.keep))
        if state and len(places):
            kept = {name: tensor.cpu()[places] for name, tensor in state.items()}
            buffer = io.BytesIO()
            torch.save({"rows": torch.tensor(shard.rows.index[places].to_numpy()), "state": kept}, buffer)
            self._write_of_shard("weights", shard.number, buffer.getvalue())
        for path in self._paths("partial", shard.number):
            path.unlink(missing_ok=True)

    def write_partial(self, shard: Shard, state: dict[str, Any]) -> None:
        """Store the state of one shard's training, tensors and plain values, for `partial`."""
        buffer = io.BytesIO()
        torch.save({"of": _identity(shard), "state": state}, buffer)
        before = self._paths("partial", shard.number)
        path = self._write_of_shard("partial", shard.number, buffer.getvalue())
        for old in before:
            if old != path:
                old.unlink(missing_ok=True)

    def partial(self, shard: Shard) -> dict[str, Any] | None:
        """The stored state of a shard's training, by the same versions; None if there is none."""
        return next(self._whole("partial", shard, _partial), None)

    def forget_partial(self, shard: Shard) -> None:
        """Remove the stored state of a shard's training."""
        for path in self._paths("partial", shard.number):
            path.unlink(missing_ok=True)

    def weights(self, shard: Shard) -> tuple[list[int], dict[str, Tensor]]:
        """The instances of a shard whose weights are stored, and their states, tensors (instances, ...)."""
        stored = list(self._whole("weights", shard, _weights))
        rows = [row for some, _ in stored for row in some]
        names = stored[0][1] if stored else {}
        return rows, {name: torch.cat([state[name] for _, state in stored]) for name in names}

    def set_aside(self, shards: list[Shard]) -> list[str]:
        """Move away files among the results of these shards, or of the whole run, that do not belong to them.

        Such files are damaged, or of another spec or other networks; they go into a folder `set_aside`.
        Returns a line for each file, saying what was wrong with it.
        """
        lines = [self._set_aside(path, why) for path, why in self._foreign_table()]
        for shard in shards:
            for kind, read in (("shards", _table), ("weights", _weights), ("partial", _partial)):
                for path in self._paths(kind, shard.number):
                    try:
                        self._read(path, kind, shard, read)
                    except _NotOursError as why:
                        lines.append(self._set_aside(path, str(why)))
        return lines

    def _set_aside(self, path: Path, why: str) -> str:
        place = path.relative_to(self.folder)
        to = self.folder / "set_aside" / "_".join(place.parts)
        with told_of(self.folder):
            to.parent.mkdir(exist_ok=True)
            path.replace(to)
        return f"{place}: {why}: moved to {to}; it is made again"

    def _foreign_table(self) -> Iterator[tuple[Path, str]]:
        """The manifest and the instances table if they are not this run's, and why."""
        manifest, table = self.folder / "manifest.json", self.folder / "instances.parquet"
        if not (manifest.exists() and table.exists()):
            return  # a missing file is not foreign
        try:
            self._read_table(self._read_manifest())
        except _NotOursError as why:
            yield manifest, str(why)
            yield table, str(why)

    def _write(self, name: str, data: bytes) -> None:
        write(self.folder / name, data, within=self.out)

    def _write_of_shard(self, kind: str, number: int, data: bytes) -> Path:
        name = f"{kind}/{number:05d}.{self._key(kind, number, data)}.{_SUFFIX[kind]}"
        self._write(name, data)
        return self.folder / name

    def _key(self, kind: str, number: int, data: bytes) -> str:
        """A checksum of `data` in this run: the same bytes in another run or shard have a different one."""
        return _digest(f"{self.hash} {kind} {number}\n".encode() + data)

    def _paths(self, kind: str, number: int) -> list[Path]:
        return sorted(self.folder.glob(f"{kind}/{number:05d}.*.{_SUFFIX[kind]}"))

    def _read(self, path: Path, kind: str, shard: Shard, read: Callable[[bytes, Shard], T]) -> T:
        """The content of a stored file of one shard, parsed by `read`.

        Raises:
            _NotOursError: if this run did not write it for this shard.
        """
        data = _content(path)
        if self._key(kind, shard.number, data) != path.name.split(".")[1]:
            raise _NotOursError("damaged, or of another run or shard")
        try:
            return read(data, shard)
        except _NotOursError:
            raise
        except Exception as error:  # of many classes: arbitrary bytes may raise anything in a reader
            raise _NotOursError(f"cannot be read: {one_line(error)[:200]}") from None

    def _whole(self, kind: str, shard: Shard, read: Callable[[bytes, Shard], T]) -> Iterator[T]:
        """The content of each file of one shard that this run wrote, parsed by `read`."""
        for path in self._paths(kind, shard.number):
            with suppress(_NotOursError):
                yield self._read(path, kind, shard, read)

    def _shard(self, shard: Shard) -> pd.DataFrame | None:
        return next(self._whole("shards", shard, _table), None)

    def finish(self, shards: list[Shard], device: str, wall_s: float) -> pd.DataFrame:
        """Join the shards into the instances table, in the order of the sweep, and write the manifest.

        Raises:
            InputError: if a shard is no longer stored, or a file cannot be written.
        """
        tables = [self._shard(shard) for shard in shards]
        there = [table for table in tables if table is not None]
        if len(there) < len(shards):
            lost = next(shard.number for shard, table in zip(shards, tables, strict=True) if table is None)
            raise InputError(
                f"{self.folder}: shard {lost} was removed or changed; run the same command again"
            )
        # a calculated model has no information on compiling
        compiled = [table.attrs["compiled"] for table in there if "compiled" in table.attrs]
        table = pd.concat(there).sort_index()
        table.attrs = {}
        data = _to_bytes(table)
        self._write("instances.parquet", data)
        manifest = {
            "name": self.spec.name,
            "title": self.spec.fields.title,
            "profile": self.spec.profile,
            "control": self.spec.control,
            "hash": self.hash,
            "spec": self.resolved,
            "seeds": self.spec.seeds,
            "instances": len(table),
            "instances_digest": _digest(data),
            "shards": len(shards),
            "compiled_shards": sum(compiled) if compiled else None,
            "device": device,
            "wall_s": round(wall_s, 1),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "versions": versions(),
        }
        manifest["digest"] = _manifest_digest(manifest)
        self._write("manifest.json", json.dumps(manifest, indent=1).encode())
        for shard in shards:  # left by a run that was killed just before removing them
            self.forget_partial(shard)
        with suppress(OSError):
            (self.folder / "partial").rmdir()
        return table

    def manifest(self) -> dict[str, Any] | None:
        """The manifest of a finished run, or None."""
        try:
            return self._read_manifest()
        except _NotOursError:
            return None

    def _read_manifest(self) -> dict[str, Any]:
        manifest = _manifest(self.folder)
        if manifest["hash"] != self.hash or manifest["spec"] != self.resolved:
            raise _NotOursError(f"of another run, with hash {manifest['hash']}")
        return manifest

    def table(self) -> pd.DataFrame | None:
        """The instances table of a finished run, or None: a row per network, in the order of the sweep."""
        try:
            return self._read_table(self._read_manifest())
        except _NotOursError:
            return None

    def _read_table(self, manifest: dict[str, Any]) -> pd.DataFrame:
        data = _content(self.folder / "instances.parquet")
        if _digest(data) != manifest["instances_digest"]:
            raise _NotOursError("the table is damaged, or belongs to another run than its manifest")
        try:
            table = pd.read_parquet(io.BytesIO(data))
        except Exception as error:  # of many classes
            raise _NotOursError(f"the table cannot be read: {one_line(error)[:200]}") from None
        if manifest["instances_digest"] not in self._checked:
            _check_rows(table, instances(self.spec))
            self._checked.add(manifest["instances_digest"])
        return table

    def why_incomplete(self, shards: list[Shard]) -> str | None:
        """Why this run would train something: missing shards, changed spec or versions. None if complete."""
        if self.table() is not None:
            return None
        if foreign := next(self._foreign_table(), None):
            return f"{foreign[0].name}: {foreign[1]}"
        missing = [shard.number for shard in shards if not self.has(shard)]
        if len(missing) < len(shards):
            shown = ", ".join(map(str, missing[:8])) + (", ..." if len(missing) > 8 else "")
            return (
                f"{len(missing)} of {len(shards)} shards missing: {shown}"
                if missing
                else "all shards stored, but not joined yet"
            )
        others = []
        for path in self.variant.glob("*"):
            with suppress(_NotOursError):
                others.append(_manifest(path))
        if not others:
            return "never run"
        latest = max(others, key=lambda manifest: str(manifest["finished"]))
        return "changed since the last run: " + "; ".join(_changes(latest["spec"], self.resolved))


def variant_of(profile: str, control: str | None) -> str:
    """The name of the folder for all runs of a profile, or of one of its controls."""
    return profile if control is None else f"{profile}-{control}"


def finished(folder: Path) -> dict[str, Any] | None:
    """The manifest of the run finished in `folder`, of any spec; None if there is none."""
    try:
        return _manifest(folder)
    except _NotOursError:
        return None


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that decide the numbers."""
    return {
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in _VERSIONED},
    }


def _changes(old: Any, new: Any, key: str = "") -> list[str]:
    """The keys in which two specs differ, with both values if these are short."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted({*old, *new})
        return [c for k in keys for c in _changes(old.get(k), new.get(k), f"{key}.{k}" if key else k)]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [c for i, pair in enumerate(zip(old, new, strict=True)) for c in _changes(*pair, f"{key}.{i}")]
    if old == new:
        return []
    short = all(not isinstance(value, (dict, list)) for value in (old, new))
    return [f"{key} {old} -> {new}" if short else key]


def _manifest(folder: Path) -> dict[str, Any]:
    """The manifest in `folder`.

    Raises:
        _NotOursError: if there is none, or it is not as written by `Run.finish`.
    """
    try:
        manifest: dict[str, Any] = json.loads(_content(folder / "manifest.json"))
        whole = manifest["digest"] == _manifest_digest(manifest) and manifest.keys() >= _MANIFEST_KEYS
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        whole = False
    if not whole:
        raise _NotOursError("damaged")
    return manifest


def _manifest_digest(manifest: dict[str, Any]) -> str:
    """The digest of everything but the digest itself."""
    rest = {key: value for key, value in manifest.items() if key != "digest"}
    return _digest(json.dumps(rest, sort_keys=True).encode())


def _identity(shard: Shard) -> dict[str, Any]:
    """What must be the same for a partly trained shard to be resumed: rows and versions."""
    return {"rows": shard.rows.index.tolist(), "versions": versions()}


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _to_bytes(table: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    table.to_parquet(buffer)
    return buffer.getvalue()


def _same_numbers(table: pd.DataFrame, other: pd.DataFrame) -> bool:
    """Whether two tables have the same numbers; `other` may have more columns, those of other shapes."""
    other = other.reindex(index=table.index, columns=table.columns)
    return bool((table.eq(other) | (table.isna() & other.isna())).to_numpy().all())


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _NotOursError(f"cannot be read: {error.strerror}") from None


def _table(data: bytes, shard: Shard) -> pd.DataFrame:
    """The instances in the file of a shard."""
    table = pd.read_parquet(io.BytesIO(data))
    _check_rows(table, shard.rows)
    return table


def _weights(data: bytes, shard: Shard) -> tuple[list[int], dict[str, Tensor]]:
    """The instances in the file of a shard's weights, and their state."""
    stored = torch.load(io.BytesIO(data), weights_only=True)
    rows, state = stored["rows"].tolist(), stored["state"]
    if not (set(rows) <= set(shard.rows.index) and all(len(one) == len(rows) for one in state.values())):
        raise _NotOursError("weights of other networks")
    return rows, state


def _partial(data: bytes, shard: Shard) -> dict[str, Any]:
    """The state in the file of a partly trained shard."""
    stored = torch.load(io.BytesIO(data), weights_only=True)
    if stored["of"] != _identity(shard):
        raise _NotOursError("of other networks, or made by other versions of the packages")
    state: dict[str, Any] = stored["state"]
    return state


def _check_rows(table: pd.DataFrame, rows: pd.DataFrame) -> None:
    """Check that `table` has exactly the instances `rows`, in their order.

    Raises:
        _NotOursError: if it has not.
    """
    if not table.index.equals(rows.index):
        raise _NotOursError(f"its {len(table):,} rows are not the {len(rows):,} rows of the sweep")
    for name in rows:
        if name not in table or not _equal(table[name], rows[name]):
            raise _NotOursError(f"its column {name!r} differs from the sweep")


def _equal(column: "pd.Series[Any]", wanted: "pd.Series[Any]") -> bool:
    if wanted.dtype.kind in "iufb":
        return column.dtype == wanted.dtype and bool((column == wanted).all())
    # strings, and lists of values, which are read back from a file as arrays
    texts = (json.dumps(one.tolist(), default=lambda value: value.tolist()) for one in (column, wanted))
    return len(set(texts)) == 1
