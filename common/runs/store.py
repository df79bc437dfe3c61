"""What a run stores on disk: a folder per spec hash, written atomically, so that a killed run can resume.

Networks are found again whatever seeds are asked for, and in whichever profile or control of the replication
they were trained, as long as the hash is the same.
"""

import copy
import functools
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

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from common.ensemble import NUMERICS, Ensemble
from common.errors import InputError, one_line
from common.specs.spec import Spec
from common.specs.sweep import Cut, Shard, choose, instances
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
    *("name", "hash", "spec", "instances", "instances_digest", "shards"),
    *("device", "wall_s", "core_s", "finished", "versions"),
}

T = TypeVar("T")
A = TypeVar("A")
B = TypeVar("B")


class _NotOursError(Exception):
    """Why a file among a run's results is not one of them."""


class Run:
    """The results of one spec, with one profile and at most one control, in their own folder.

    The folder's name is the hash of all that decides the numbers of its networks: the resolved spec with its
    defaults, and the versions of our numerics and of torch. Seeds, titles, claims, devices, workers, logging
    and which weights are kept decide nothing and are left out.

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
        self._asked: np.ndarray[Any, np.dtype[np.int64]] | None = None
        self._checked: set[str] = set()  # digests of tables whose rows have been compared with the sweep

    def __getstate__(self) -> dict[str, Any]:
        """Without what can be computed again, which may be large."""
        return {name: value for name, value in vars(self).items() if name not in ("rows", "shards", "cut")}

    @functools.cached_property
    def rows(self) -> pd.DataFrame:
        """The instances asked for: the whole sweep, unless made by `asking`."""
        return instances(self.spec) if self._asked is None else self.cut.rows(self._asked)

    @functools.cached_property
    def cut(self) -> Cut:
        """How the sweep is cut into blocks."""
        return Cut(self.spec)

    @functools.cached_property
    def shards(self) -> list[Shard]:
        """The instances asked for, a shard for each block of the sweep."""
        return self.cut.shards(self.rows)

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

    def asking(self, rows: pd.DataFrame) -> "Run":
        """The same run, which asks for other instances of its sweep."""
        other = copy.copy(self)
        for name in ("rows", "shards"):
            vars(other).pop(name, None)
        other._asked = rows.index.to_numpy(np.int64)
        return other

    def there(self) -> pd.DataFrame:
        """The instances asked for that are stored, finished or not, in their order."""
        tables = [table for shard in self.shards if len(table := self._rows(shard))]
        if not tables:
            return self.rows.iloc[:0]
        table = pd.concat(tables)
        return table.loc[self.rows.index[self.rows.index.isin(table.index)]]

    def has(self, shard: Shard) -> bool:
        """Whether a shard is stored; damaged rows, or those of other networks, count as missing."""
        return self.stored(shard) is not None

    def stored(self, shard: Shard) -> pd.DataFrame | None:
        """The instances of one shard; None if they are not all stored."""
        there = self._rows(shard)
        return there.loc[shard.rows.index] if len(there) == len(shard.rows) else None

    def lacking(self) -> list[Shard]:
        """What still has to be trained: instances not stored, or without weights that are to be kept.

        Instances whose training was stopped and can be resumed are a shard of their own.
        """
        if self.keep.empty and self.table() is not None:
            return []
        ids = []
        for shard in self.shards:
            todo = ~shard.rows.index.isin(self._rows(shard).index)
            if not (wanted := shard.rows.index.intersection(self.keep)).empty:
                todo |= shard.rows.index.isin(wanted.difference(pd.Index(self.weights(shard)[0])))
            ids.append(shard.rows.index[todo])
        left = self.rows[self.rows.index.isin(np.concatenate(ids))] if ids else self.rows[:0]
        stopped = []
        for name, part in self._partials():
            if part and pd.Index(part).isin(left.index).all():
                stopped.append(Shard(name, left.loc[part]))
                left = left.drop(part)
        return [*stopped, *self.cut.shards(left)]

    def write_shard(self, table: pd.DataFrame) -> None:
        """Store some instances, whole or not at all: a file for each block of the sweep."""
        for shard in self.cut.shards(table):
            for path in self._paths("weights", shard.name, own=True):
                with suppress(_NotOursError):
                    rows, _ = self._read(path, "weights", shard.name, self._weights)
                    if not set(rows).isdisjoint(table.index):
                        path.unlink()  # of networks that are no longer stored
            part = shard.rows.copy()
            part.attrs = dict(table.attrs)
            if "core_s" in part.attrs:  # of all, which may have been trained together
                part.attrs["core_s"] *= len(part) / len(table)
            self._write_of_block("shards", shard.name, _to_bytes(part))

    def write_trained(self, shard: Shard, table: pd.DataFrame, state: dict[str, Tensor]) -> None:
        """Store a trained shard: its instances, and the `state` of those whose weights are kept.

        Raises:
            InputError: if instances with other numbers are already stored: no weights are then stored.
        """
        before = pd.concat([self._rows(block) for block in self.cut.shards(shard.rows)])
        if not _same_numbers(before, table):
            raise InputError(
                f"{self.folder}: shard {shard.name}, trained again, has other numbers than are stored, so "
                "its weights are not kept; was it trained on another machine? Another --out trains all anew"
            )
        # the rows first, so that stored weights always belong to stored rows
        new = table.loc[table.index.difference(before.index, sort=False)]
        new.attrs = table.attrs
        if len(new):
            self.write_shard(new)
        for block in self.cut.shards(shard.rows) if state else []:
            kept = block.rows.index.intersection(self.keep)
            if kept.empty:
                continue
            places = torch.from_numpy(shard.rows.index.get_indexer(kept))
            buffer = io.BytesIO()
            some = {name: tensor.cpu()[places] for name, tensor in state.items()}
            torch.save({"rows": torch.tensor(kept.to_numpy()), "state": some}, buffer)
            self._write_of_block("weights", block.name, buffer.getvalue())
        self.forget_partial(shard)

    def write_partial(self, shard: Shard, state: dict[str, Any]) -> None:
        """Store the state of one shard's training, tensors and plain values, for `partial`."""
        buffer = io.BytesIO()
        torch.save({"of": _identity(shard), "state": state}, buffer)
        before = self._paths("partial", _training(shard), own=True)
        path = self._write_of_block("partial", _training(shard), buffer.getvalue())
        for old in before:
            if old != path:
                old.unlink(missing_ok=True)

    def partial(self, shard: Shard) -> dict[str, Any] | None:
        """The stored state of a shard's training, by the same versions; None if there is none."""
        for _, of, state in self._whole("partial", _training(shard), _partial):
            if of == _identity(shard):
                return state
        return None

    def is_stopped(self, shard: Shard) -> bool:
        """Whether the training of exactly these instances was stopped after a checkpoint."""
        return bool(self._paths("partial", _training(shard)))

    def _partials(self) -> list[tuple[str, list[int]]]:
        """The name and the instances of each shard whose training was stopped and can be resumed."""
        names = {path.name.split(".")[0] for path in self._paths("partial", "*")}
        read = ((name, of) for name in sorted(names) for _, of, _ in self._whole("partial", name, _partial))
        return [(name.rpartition("-")[0], of["rows"]) for name, of in read]

    def forget_partial(self, shard: Shard) -> None:
        """Remove the stored state of a shard's training."""
        for path in self._paths("partial", _training(shard), own=True):
            path.unlink(missing_ok=True)

    def weights(self, shard: Shard) -> tuple[list[int], dict[str, Tensor]]:
        """The instances of a shard whose weights are stored, and their states, tensors (instances, ...)."""
        places: dict[int, tuple[int, int]] = {}
        stored = [(rows, state) for _, rows, state in self._whole("weights", shard.name, self._weights)]
        for i, (rows, _) in enumerate(stored):
            places = {row: (i, j) for j, row in enumerate(rows)} | places  # this folder's first, as of rows
        there = [row for row in shard.rows.index if row in places]
        if not there:
            return [], {}
        names = stored[0][1]
        states = [{name: stored[places[row][0]][1][name][places[row][1]] for name in names} for row in there]
        return there, {name: torch.stack([state[name] for state in states]) for name in names}

    def set_aside(self, shards: list[Shard]) -> list[str]:
        """Move away files among the results of these shards, or of the whole run, that do not belong to them.

        Such files are damaged, or of another spec or other networks; they go into a folder `set_aside`.
        Returns a line for each file, saying what was wrong with it.
        """
        lines = [self._set_aside(path, why) for path, why in self._foreign_table()]
        for kind, read in (("shards", self._table), ("weights", self._weights), ("partial", _partial)):
            names = {_training(shard) if kind == "partial" else shard.name for shard in shards}
            for path in self._paths(kind, "*", own=True):
                if (name := path.name.split(".")[0]) not in names:
                    continue
                try:
                    self._read(path, kind, name, read)
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

    def _write_of_block(self, kind: str, name: str, data: bytes) -> Path:
        path = f"{kind}/{name}.{self._key(kind, name, data)}.{_SUFFIX[kind]}"
        self._write(path, data)
        return self.folder / path

    def _key(self, kind: str, name: str, data: bytes) -> str:
        """A checksum of `data` in this run: the same bytes in another run or block have a different one."""
        return _digest(f"{self.hash} {kind} {name}\n".encode() + data)

    def _paths(self, kind: str, name: str, *, own: bool = False) -> list[Path]:
        """The files of a block (`*`: of all), also those in other folders of this hash unless `own`."""
        folders = [self.folder]
        if not own:
            folders += sorted(set(self.variant.parent.glob(f"*/{self.hash}")) - {self.folder})
        return [path for one in folders for path in sorted(one.glob(f"{kind}/{name}.*.{_SUFFIX[kind]}"))]

    def _read(self, path: Path, kind: str, name: str, read: Callable[[bytes, str], T]) -> T:
        """The content of a stored file of one block, parsed by `read`.

        Raises:
            _NotOursError: if no run with this hash wrote it for this block.
        """
        data = _content(path)
        if self._key(kind, name, data) != path.name.split(".")[1]:
            raise _NotOursError("damaged, or of another run or shard")
        try:
            return read(data, name)
        except _NotOursError:
            raise
        except Exception as error:  # of many classes: arbitrary bytes may raise anything in a reader
            raise _NotOursError(f"cannot be read: {one_line(error)[:200]}") from None

    def _whole(
        self, kind: str, name: str, read: Callable[[bytes, str], tuple[A, B]]
    ) -> Iterator[tuple[Path, A, B]]:
        """Each undamaged file of one block, and what `read` makes of its content."""
        for path in self._paths(kind, name):
            with suppress(_NotOursError):
                yield path, *self._read(path, kind, name, read)

    def _rows(self, shard: Shard) -> pd.DataFrame:
        """The stored instances among those of one shard, in its order."""
        there = [table for _, table, _ in self._whole("shards", shard.name, self._table)]
        if sum(map(len, there)) < len(shard.rows) and (joined := self._joined()) is not None:
            there.append(joined)
        if not there:
            return shard.rows.iloc[:0]
        table = there[0] if len(there) == 1 else pd.concat(there)
        table = table[~table.index.duplicated()]
        return table.loc[shard.rows.index.intersection(table.index, sort=False)]

    def _table(self, data: bytes, name: str) -> tuple[pd.DataFrame, dict[str, Any]]:
        """The instances in the file of a block, and what is known about their training."""
        table = pd.read_parquet(io.BytesIO(data))
        self._check_ids(table.index, name)
        _check_rows(table, self.cut.rows(table.index.to_numpy()))
        return table, {str(name): value for name, value in table.attrs.items()}

    def _weights(self, data: bytes, name: str) -> tuple[list[int], dict[str, Tensor]]:
        """The instances in the file of a block's weights, and their state."""
        stored = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        rows, state = stored["rows"].tolist(), stored["state"]
        self._check_ids(pd.Index(rows), name)
        if not all(len(one) == len(rows) for one in state.values()):
            raise _NotOursError("weights of other networks")
        return rows, state

    def _check_ids(self, ids: pd.Index, name: str) -> None:
        """Check that instances with these numbers lie in the block `name`.

        Raises:
            _NotOursError: if they do not.
        """
        blocks = self.cut.shards(self.cut.rows(ids.to_numpy(np.int64)))
        if not ids.is_unique or [block.name for block in blocks] != [name]:
            raise _NotOursError("of networks of another block")

    def finish(self, device: str, wall_s: float) -> pd.DataFrame:
        """Join the shards into the instances table, in the order of the sweep, and write the manifest.

        Raises:
            InputError: if a shard is no longer stored, or a file cannot be written.
        """
        tables = []
        for shard in self.shards:
            if (table := self.stored(shard)) is None:
                raise InputError(
                    f"{self.folder}: shard {shard.name} was removed or changed; run the same command again"
                )
            tables.append(table)
        notes = [about for shard in self.shards
                 for _, _, about in self._whole("shards", shard.name, self._table)]  # fmt: skip
        # a calculated model has no information on compiling
        compiled = [about["compiled"] for about in notes if "compiled" in about]
        table = pd.concat(tables).loc[self.rows.index]
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
            "instances": len(table),
            "instances_digest": _digest(data),
            "shards": len(notes),
            "compiled_shards": sum(compiled) if compiled else None,
            "device": device,
            "wall_s": round(wall_s, 1),
            "core_s": round(sum(about.get("core_s", 0.0) for about in notes), 1),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "versions": versions(),
        }
        manifest["digest"] = _manifest_digest(manifest)
        self._write("manifest.json", json.dumps(manifest, indent=1).encode())
        for shard in self.shards:  # left by a run that was killed just before removing them
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
        """The instances table of a finished run, or None: a row per network, in the order of the sweep.

        A run that was finished with more seeds has it as well, or with fewer, if the others are stored.
        """
        joined = self._joined()
        if joined is None:
            return None
        if self.rows.index.isin(joined.index).all():
            return joined if len(joined) == len(self.rows) else joined.loc[self.rows.index]
        tables = []
        for shard in self.shards:
            if (table := self.stored(shard)) is None:
                return None
            tables.append(table)
        return pd.concat(tables).loc[self.rows.index]

    def is_joined(self) -> bool:
        """Whether exactly the instances asked for are in the instances table as stored."""
        joined = self._joined()
        return joined is not None and joined.index.equals(self.rows.index)

    def _joined(self) -> pd.DataFrame | None:
        """The stored instances table, of the seeds that were last asked for; None if there is none."""
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
            if manifest["instances_digest"] not in self._checked:
                _check_rows(table, self.cut.rows(table.index.to_numpy(np.int64)))
                self._checked.add(manifest["instances_digest"])
        except _NotOursError:
            raise
        except Exception as error:  # of many classes
            raise _NotOursError(f"the table cannot be read: {one_line(error)[:200]}") from None
        return table

    def why_incomplete(self) -> str | None:
        """Why this run would train something: missing shards, changed spec or versions. None if complete."""
        if self.table() is not None:
            return None
        if foreign := next(self._foreign_table(), None):
            return f"{foreign[0].name}: {foreign[1]}"
        missing = [shard.name for shard in self.shards if not self.has(shard)]
        if not missing:
            return "all shards stored, but not joined yet"
        if len(missing) < len(self.shards):
            shown = ", ".join(missing[:8]) + (", ..." if len(missing) > 8 else "")
            return f"{len(missing)} of {len(self.shards)} shards missing: {shown}"
        others = []
        for path in self.variant.glob("*"):
            with suppress(_NotOursError):
                others.append(_manifest(path))
        if not others:
            return "never run"
        latest = max(others, key=lambda manifest: str(manifest["finished"]))
        changes = _changes(latest["spec"], self.resolved)
        return "changed since the last run: " + ("; ".join(changes) or "seeds")


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


def _training(shard: Shard) -> str:
    """The name of the training of exactly these instances: a block may be trained in pieces."""
    return f"{shard.name}-{_digest(shard.rows.index.to_numpy(np.int64).tobytes())}"


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
    """Whether `other` has the numbers of `table`; it may have more rows and columns."""
    other = other.reindex(index=table.index, columns=table.columns)
    return bool((table.eq(other) | (table.isna() & other.isna())).to_numpy().all())


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _NotOursError(f"cannot be read: {error.strerror}") from None


def _partial(data: bytes, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Whose training the file of a partly trained shard belongs to, and its state."""
    stored = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    of: dict[str, Any] = stored["of"]
    if of["versions"] != versions():
        raise _NotOursError("made by other versions of the packages")
    return of, stored["state"]


def _check_rows(table: pd.DataFrame, rows: pd.DataFrame) -> None:
    """Check that `table` has exactly the instances `rows`, in their order.

    Raises:
        _NotOursError: if it has not.
    """
    if not (table.index.is_unique and table.index.equals(rows.index)):
        raise _NotOursError(f"its {len(table):,} rows are not those of {len(rows):,} networks of the sweep")
    for name in rows:
        if name not in table or not _equal(table[name], rows[name]):
            raise _NotOursError(f"its column {name!r} differs from the sweep")


def _equal(column: "pd.Series[Any]", wanted: "pd.Series[Any]") -> bool:
    if wanted.dtype.kind in "iufb":
        return column.dtype == wanted.dtype and bool((column == wanted).all())
    # strings, and lists of values, which are read back from a file as arrays
    texts = (json.dumps(one.tolist(), default=lambda value: value.tolist()) for one in (column, wanted))
    return len(set(texts)) == 1
