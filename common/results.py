"""What a run leaves on disk: a folder per spec hash, written atomically, so that a killed run can resume."""

import hashlib
import importlib.metadata
import io
import json
import os
import pickle
import platform
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from common.document import InputError
from common.ensemble import NUMERICS, Ensemble
from common.spec import Spec
from common.sweep import Shard, choose
from common.system import UNSUPPORTED

try:
    import fcntl
except ImportError:
    raise ImportError(UNSUPPORTED) from None

_PROBE = bytes(1 << 16)
"""What is written to see that one can: about a small shard."""

_VERSIONED = ["torch", "lightning", "torchmetrics", "numpy", "pandas", "scipy"]


class Run:
    """The results of one spec, with one profile and at most one control, in a folder of their own.

    The folder's name holds the hash of all that decides the numbers: the resolved spec with its defaults, the
    version of our numerics and of torch. Left out, as they decide nothing: titles, claims, devices, workers,
    logging, and which weights are kept.

    Args:
        spec: what is run
        out: the folder of all results
        keep_weights: which networks' trained weights are stored too, a query as in `choose`

    Raises:
        InputError: if the query does not fit the sweep.
    """

    def __init__(self, spec: Spec, out: Path, keep_weights: str | None = None) -> None:
        self.spec = spec
        trained = issubclass(spec.model_class, Ensemble)
        self.keep = choose(spec, keep_weights).index if keep_weights is not None and trained else pd.Index([])
        numerics = {"numerics": NUMERICS, "torch": torch.__version__.split("+")[0]}
        text = json.dumps({**spec.resolved(), **numerics}, sort_keys=True)
        self.resolved: dict[str, Any] = json.loads(text)  # as a manifest gives it back, tuples as lists
        self.hash = _digest(text.encode())[:12]
        variant = spec.profile if spec.control is None else f"{spec.profile}-{spec.control}"
        self.variant = out / spec.name / variant
        self.folder = self.variant / self.hash

    @contextmanager
    def locked(self, shared: bool = False) -> Iterator[None]:
        """See that one can write here, and keep other runs from it; if `shared`, only those that are not.

        A kill releases it. Where the file system has no locks, nothing keeps others off.

        Raises:
            InputError: if another run is writing here, or the folder cannot be written.
        """
        with _told_of(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            file = (self.folder / "lock").open("a+", encoding="utf-8")
        with file:
            try:
                fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                who = file.read().strip() or "of unknown number"
                raise InputError(
                    f"{self.folder}: another run is writing here, process {who}; wait for its end, or stop it"
                ) from None
            except OSError:
                pass  # no locks on this file system
            with suppress(OSError):  # only for the message above
                file.truncate(0)
                file.write(f"{os.getpid()} on {socket.gethostname()}\n")
                file.flush()
            _write(self.folder / "probe", _PROBE)
            (self.folder / "probe").unlink(missing_ok=True)
            if not shared:  # what writers that were killed have left behind
                for path in self.folder.glob("**/.*.tmp"):
                    path.unlink(missing_ok=True)
            yield

    def has(self, number: int) -> bool:
        """Whether the shard `number` is stored; one that is damaged counts as missing."""
        return self._shard(number) is not None

    def write_shard(self, number: int, table: pd.DataFrame) -> None:
        """Store the instances of one shard, whole or not at all."""
        for path in self._weights_paths(number):
            path.unlink()  # of networks that were lost
        data = _to_bytes(table)
        _write(self.folder / "shards" / f"{number:05d}.{_digest(data)}.parquet", data)

    def stored(self, shard: Shard) -> pd.DataFrame | None:
        """The instances of one shard, None if they are not stored."""
        rows = self._shard(shard.number)
        if rows is None and (table := self.table()) is not None:
            rows = table.loc[shard.rows.index]
        return rows

    def lacks_weights(self, shard: Shard) -> bool:
        """Whether weights of this shard are to be kept and are not stored."""
        wanted = shard.rows.index.intersection(self.keep)
        return not wanted.empty and not wanted.isin(self.weights(shard.number)[0]).all()

    def write_trained(self, shard: Shard, table: pd.DataFrame, state: dict[str, Tensor]) -> None:
        """Store what training made of one shard: its instances, and of those to be kept their `state`.

        Raises:
            InputError: if the instances are stored already, and are others: no weights are then stored.
        """
        # the rows first: weights beside them are always those of these rows
        if (before := self.stored(shard)) is None:
            self.write_shard(shard.number, table)
        elif not _same(table, before):
            raise InputError(
                f"{self.folder}: shard {shard.number}, trained again, has other numbers than are stored, so "
                "its weights are not kept; was it trained on another machine? In another --out all are new"
            )
        places = shard.rows.index.get_indexer(shard.rows.index.intersection(self.keep))
        if state and len(places):
            kept = {name: tensor.cpu()[places] for name, tensor in state.items()}
            buffer = io.BytesIO()
            torch.save({"rows": torch.tensor(shard.rows.index[places].to_numpy()), "state": kept}, buffer)
            data = buffer.getvalue()
            _write(self.folder / "weights" / f"{shard.number:05d}.{_digest(data)}.pt", data)
        for path in self._partial_paths(shard.number):
            path.unlink(missing_ok=True)

    def write_partial(self, shard: Shard, state: dict[str, Any]) -> None:
        """Store how far the training of one shard is, a state of tensors and plain values, for `partial`."""
        buffer = io.BytesIO()
        torch.save({"of": _identity(shard), "state": state}, buffer)
        data, before = buffer.getvalue(), self._partial_paths(shard.number)
        path = self.folder / "partial" / f"{shard.number:05d}.{_digest(data)}.ckpt"
        _write(path, data)
        for old in before:
            if old != path:
                old.unlink(missing_ok=True)

    def partial(self, shard: Shard) -> dict[str, Any] | None:
        """The state in which a shard's training was stored, by these versions; None if there is none."""
        for path in self._partial_paths(shard.number):
            data = _content(path, path.name.split(".")[1])
            if data is None:
                continue
            try:
                stored = torch.load(io.BytesIO(data), weights_only=True)
            except (RuntimeError, pickle.UnpicklingError):
                continue  # a schedule whose state is more than plain values
            if stored["of"] == _identity(shard):
                state: dict[str, Any] = stored["state"]
                return state
        return None

    def _partial_paths(self, number: int) -> list[Path]:
        return sorted(self.folder.glob(f"partial/{number:05d}.*.ckpt"))

    def weights(self, number: int) -> tuple[list[int], dict[str, Tensor]]:
        """The instances of a shard whose weights are stored, and their states, tensors (instances, ...)."""
        rows: list[int] = []
        states: list[dict[str, Tensor]] = []
        for path in self._weights_paths(number):
            data = _content(path, path.name.split(".")[1])
            if data is not None:
                stored = torch.load(io.BytesIO(data), weights_only=True)
                rows += stored["rows"].tolist()
                states.append(stored["state"])
        names = states[0] if states else {}
        return rows, {name: torch.cat([state[name] for state in states]) for name in names}

    def _weights_paths(self, number: int) -> list[Path]:
        return sorted(self.folder.glob(f"weights/{number:05d}.*.pt"))

    def _shard(self, number: int) -> pd.DataFrame | None:
        paths = self.folder.glob(f"shards/{number:05d}.*.parquet")
        tables = (_read(path, path.name.split(".")[1]) for path in paths)
        return next((table for table in tables if table is not None), None)

    def finish(self, shards: list[Shard], device: str, wall_s: float) -> pd.DataFrame:
        """Join the shards into the instances table, in the order of the sweep, and write the manifest."""
        tables = [self._shard(shard.number) for shard in shards]
        table = pd.concat([t for t in tables if t is not None]).sort_index()
        if len(table) != sum(len(shard.rows) for shard in shards):
            raise RuntimeError(f"{self.folder}: {len(table)} instances in the shards, the sweep has more")
        data = _to_bytes(table)
        _write(self.folder / "instances.parquet", data)
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
            "device": device,
            "wall_s": round(wall_s, 1),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "versions": versions(),
        }
        manifest["digest"] = _manifest_digest(manifest)
        _write(self.folder / "manifest.json", json.dumps(manifest, indent=1).encode())
        for shard in shards:  # of a run that was killed just before it removed them
            for path in self._partial_paths(shard.number):
                path.unlink(missing_ok=True)
        with suppress(OSError):
            (self.folder / "partial").rmdir()
        return table

    def manifest(self) -> dict[str, Any] | None:
        """The manifest of a finished run, or None."""
        return _manifest(self.folder)

    def table(self) -> pd.DataFrame | None:
        """The instances table of a finished run, or None: a row per network, in the order of the sweep."""
        manifest = self.manifest()
        if manifest is None:
            return None
        return _read(self.folder / "instances.parquet", manifest["instances_digest"])

    def why_incomplete(self, shards: list[Shard]) -> str | None:
        """Why this run would train something: shards missing, spec or versions changed. None if complete."""
        if self.table() is not None:
            return None
        missing = [shard.number for shard in shards if not self.has(shard.number)]
        if len(missing) < len(shards):
            shown = ", ".join(map(str, missing[:8])) + (", ..." if len(missing) > 8 else "")
            return f"{len(missing)} of {len(shards)} shards missing: {shown}" if missing else "not joined yet"
        others = [m for path in self.variant.glob("*") if (m := _manifest(path))]
        if not others:
            return "never run"
        latest = max(others, key=lambda manifest: str(manifest["finished"]))
        return "changed since the last run: " + "; ".join(_changes(latest["spec"], self.resolved))


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that make the numbers."""
    return {
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in _VERSIONED},
    }


def _changes(old: Any, new: Any, key: str = "") -> list[str]:
    """The keys at which two specs differ, with both values where they are short."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted({*old, *new})
        return [c for k in keys for c in _changes(old.get(k), new.get(k), f"{key}.{k}" if key else k)]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [c for i, pair in enumerate(zip(old, new, strict=True)) for c in _changes(*pair, f"{key}.{i}")]
    if old == new:
        return []
    short = all(not isinstance(value, (dict, list)) for value in (old, new))
    return [f"{key} {old} -> {new}" if short else key]


def _manifest(folder: Path) -> dict[str, Any] | None:
    try:
        manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        whole = manifest["digest"] == _manifest_digest(manifest)
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return manifest if whole else None


def _manifest_digest(manifest: dict[str, Any]) -> str:
    """Of all but the digest itself."""
    rest = {key: value for key, value in manifest.items() if key != "digest"}
    return _digest(json.dumps(rest, sort_keys=True).encode())


def _identity(shard: Shard) -> dict[str, Any]:
    """What a partly trained shard must be of to go on: the same rows, by the same versions."""
    return {"rows": shard.rows.index.tolist(), "versions": versions()}


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _to_bytes(table: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    table.to_parquet(buffer)
    return buffer.getvalue()


def _same(table: pd.DataFrame, other: pd.DataFrame) -> bool:
    """Whether two tables have the same numbers; `other` may have further columns, those of other shapes."""
    other = other.reindex(index=table.index, columns=table.columns)
    return bool((table.eq(other) | (table.isna() & other.isna())).to_numpy().all())


def _read(path: Path, digest: str) -> pd.DataFrame | None:
    """The table in the file `path`, or None if there is none or its content is not what was written."""
    data = _content(path, digest)
    return None if data is None else pd.read_parquet(io.BytesIO(data))


def _content(path: Path, digest: str) -> bytes | None:
    """What is in the file `path`, or None if there is none or its content is not what was written."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    return data if _digest(data) == digest else None


def _write(path: Path, data: bytes) -> None:
    with _told_of(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        # of its own name, so that two writers cannot mix; renamed once it is whole
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
        try:
            temporary.write_bytes(data)
            temporary.replace(path)
        finally:
            with suppress(OSError):  # it was never made
                temporary.unlink(missing_ok=True)


@contextmanager
def _told_of(folder: Path) -> Iterator[None]:
    """Say of an error of the file system that it is one, and where, in one line."""
    try:
        yield
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else str(error)
        raise InputError(
            f"{folder}: cannot be written: {why}; what is finished is kept, the same command goes on from it"
        ) from error
