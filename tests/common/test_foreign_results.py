"""Results that are not this run's are never served: they are named, set aside and made again."""

import hashlib
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from common.errors import InputError
from common.runs import store
from common.runs.store import Run
from common.runs.training import Devices, Progress, train, work
from common.specs.spec import Spec
from common.specs.sweep import shards

ONE = Devices("cpu", 1)
SHORT = {"trainer__max_steps": "4"}

pytestmark = pytest.mark.usefixtures("uncompiled")


class Notes(Progress):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def noted(self, run: Run, note: str) -> None:
        self.lines.append(note)


def trained(run: Run) -> tuple[pd.DataFrame, list[str]]:
    notes = Notes()
    train([run], ONE, notes)
    table = run.table()
    assert table is not None
    return table, notes.lines


def signed(manifest: dict[str, Any]) -> bytes:
    """A manifest as its digest has it, whatever it holds."""
    manifest["digest"] = store._manifest_digest(manifest)
    return json.dumps(manifest).encode()


def with_table(run: Run, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    """Put another table in the place of a run's, with a manifest that has its digest."""
    path = run.folder / "instances.parquet"
    change(pd.read_parquet(path)).to_parquet(path)
    manifest = json.loads((run.folder / "manifest.json").read_bytes())
    manifest["instances_digest"] = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    (run.folder / "manifest.json").write_bytes(signed(manifest))


def doubled(table: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([table, table])


TABLES: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
    "doubled": doubled,
    "doubled and numbered": lambda table: doubled(table).reset_index(drop=True),
    "one seed for all": lambda table: table.assign(seed=0),
    "other seeds": lambda table: table.assign(seed=table["seed"] + 100),
    "other densities": lambda table: table.assign(density=table["density"] / 2),
    "texts for numbers": lambda table: table.assign(density=table["density"].astype(str)),
    "another part": lambda table: table.assign(part="other"),
    "no seeds": lambda table: table.drop(columns="seed"),
    "turned round and numbered": lambda table: table.iloc[::-1].reset_index(drop=True),
}


@pytest.mark.parametrize("change", TABLES.values(), ids=TABLES)
def test_a_table_with_other_rows_is_made_again(
    small: Any, tmp_path: Path, change: Callable[[pd.DataFrame], pd.DataFrame]
) -> None:
    run = Run(small(**SHORT), tmp_path)
    true, _ = trained(run)
    with_table(run, change)
    again = Run(small(**SHORT), tmp_path)
    why = again.why_incomplete()
    assert why is not None
    assert why.startswith("manifest.json: ")
    table, lines = trained(again)
    pd.testing.assert_frame_equal(table, true, check_exact=True)
    assert [line.split(":")[0] for line in lines] == ["manifest.json", "instances.parquet"]
    kept = again.folder / "set_aside" / "instances.parquet"
    assert not pd.read_parquet(kept).equals(true)


@pytest.mark.parametrize("rows", [slice(9), slice(0), slice(None, None, -1)])
def test_a_table_of_other_seeds_than_asked_for_is_completed_from_shards(
    small: Any, tmp_path: Path, rows: slice
) -> None:
    run = Run(small(**SHORT), tmp_path)
    true, _ = trained(run)
    with_table(run, lambda table: table.iloc[rows])
    again = Run(small(**SHORT), tmp_path)
    assert again.why_incomplete() is None
    assert not again.is_joined()
    assert again.lacking() == []
    table, lines = trained(again)
    pd.testing.assert_frame_equal(table, true, check_exact=True)
    assert lines == []
    assert again.is_joined()


def test_the_folder_of_another_spec_is_made_again(small: Any, tmp_path: Path) -> None:
    other = Run(small(trainer__max_steps="5"), tmp_path)
    trained(other)
    run = Run(small(**SHORT), tmp_path)
    true, _ = trained(Run(small(**SHORT), tmp_path / "true"))
    shutil.copytree(other.folder, run.folder)
    assert run.table() is None
    assert run.why_incomplete() == f"manifest.json: of another run, with hash {other.hash}"
    table, lines = trained(run)
    pd.testing.assert_frame_equal(table, true, check_exact=True)
    assert len(lines) == 2 + len(shards(run.spec))
    assert all("moved to " in line for line in lines)


def test_a_manifest_with_this_hash_of_another_spec_is_not_taken(small: Any, tmp_path: Path) -> None:
    run = Run(small(**SHORT), tmp_path)
    trained(run)
    path = run.folder / "manifest.json"
    manifest = json.loads(path.read_bytes())
    manifest["spec"]["trainer"]["max_steps"] = 5
    path.write_bytes(signed(manifest))
    assert run.table() is None


def shard_of_another_spec(run: Run, spec: Callable[..., Spec], out: Path) -> None:
    other = Run(spec(trainer__max_steps="5"), out)
    trained(other)
    for path in run.folder.glob("shards/*"):
        path.unlink()
    for path in other.folder.glob("shards/*"):
        shutil.copy(path, run.folder / "shards")


def own_shard_as_another(run: Run, spec: Callable[..., Spec], out: Path) -> None:
    (first,), (second,) = run.folder.glob("shards/0-0.*"), run.folder.glob("shards/0-1.*")
    shutil.copy(first, second)
    shutil.copy(first, second.with_name(first.name.replace("0-0", "0-1")))
    second.unlink()


def checksum_of_the_bytes(run: Run, spec: Callable[..., Spec], out: Path) -> None:
    (first,) = run.folder.glob("shards/0-0.*")
    digest = hashlib.sha256(first.read_bytes()).hexdigest()[:16]
    first.rename(first.with_name(f"0-0.{digest}.parquet"))


def no_parquet(run: Run, spec: Callable[..., Spec], out: Path) -> None:
    (first,) = run.folder.glob("shards/0-0.*")
    first.unlink()
    run._write_of_block("shards", "0-0", b"PAR1 is what it begins with")


def rows_of_two_blocks(run: Run, spec: Callable[..., Spec], out: Path) -> None:
    (first,), (second,) = run.folder.glob("shards/0-0.*"), run.folder.glob("shards/0-1.*")
    both = pd.concat([pd.read_parquet(first), pd.read_parquet(second)])
    first.unlink()
    run._write_of_block("shards", "0-0", store._to_bytes(both))


def other_densities(run: Run, spec: Callable[..., Spec], out: Path) -> None:
    (first,) = run.folder.glob("shards/0-0.*")
    table = pd.read_parquet(first)
    first.unlink()
    run._write_of_block("shards", "0-0", store._to_bytes(table.assign(density=table["density"] / 2)))


@pytest.mark.parametrize(
    "exchange",
    [
        *(shard_of_another_spec, own_shard_as_another, checksum_of_the_bytes, no_parquet),
        *(rows_of_two_blocks, other_densities),
    ],
)
def test_a_shard_that_is_not_this_one_is_made_again(
    small: Any, tmp_path: Path, exchange: Callable[[Run, Callable[..., Spec], Path], None]
) -> None:
    run = Run(small(**SHORT), tmp_path)
    true, _ = trained(run)
    (run.folder / "manifest.json").unlink()
    exchange(run, small, tmp_path / "other")
    assert work(run) > 0
    table, lines = trained(run)
    pd.testing.assert_frame_equal(table, true, check_exact=True)
    assert lines
    assert all(line.startswith("shards/0-") for line in lines)


def broken(data: object) -> bytes:
    if isinstance(data, bytes):
        return data
    buffer = io.BytesIO()
    torch.save(data, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not of torch",
        {},
        [1, 2],
        {"rows": torch.arange(4)},
        {"rows": 3, "state": {}},
        {"rows": torch.arange(4), "state": {"weights.weight": torch.zeros(3, 1, 2)}},
        {"rows": torch.tensor([1000]), "state": {"weights.weight": torch.zeros(1, 1, 2)}},
    ],
)
def test_weights_with_a_right_checksum_that_hold_something_else_are_made_again(
    small: Any, tmp_path: Path, content: object
) -> None:
    run = Run(small(**SHORT), tmp_path, "all")
    true, _ = trained(run)
    first = shards(run.spec)[0]
    wanted = run.weights(first)
    for path in run.folder.glob("weights/0-0.*"):
        path.unlink()
    run._write_of_block("weights", "0-0", broken(content))
    assert run.weights(first) == ([], {})
    table, lines = trained(run)
    pd.testing.assert_frame_equal(table, true, check_exact=True)
    assert [line.split(".")[0] for line in lines] == ["weights/0-0"]
    rows, state = run.weights(first)
    assert rows == wanted[0]
    torch.testing.assert_close(state, wanted[1], rtol=0, atol=0)


def test_weights_of_another_run_are_not_taken(small: Any, tmp_path: Path) -> None:
    other = Run(small(trainer__max_steps="5"), tmp_path, "all")
    trained(other)
    run = Run(small(**SHORT), tmp_path, "all")
    trained(Run(small(**SHORT), tmp_path))
    shutil.copytree(other.folder / "weights", run.folder / "weights")
    assert run.weights(shards(run.spec)[0]) == ([], {})


@pytest.mark.parametrize(
    "name",
    ["hash", "spec", "instances_digest", "shards", "device", "wall_s", "finished", "versions", "core_s"],
)
def test_a_manifest_with_a_key_missing_is_made_again(small: Any, tmp_path: Path, name: str) -> None:
    run = Run(small(**SHORT), tmp_path)
    true, _ = trained(run)
    path = run.folder / "manifest.json"
    manifest = json.loads(path.read_bytes())
    del manifest[name]
    path.write_bytes(signed(manifest))
    table, lines = trained(run)
    pd.testing.assert_frame_equal(table, true, check_exact=True)
    assert lines[0].startswith("manifest.json: damaged: moved to ")


@pytest.mark.parametrize("text", [b"", b"[]", b"3", b"null", b"[" * 100_000, b"\xff", b'{"digest": 1}'])
def test_a_manifest_that_is_none_is_made_again(small: Any, tmp_path: Path, text: bytes) -> None:
    run = Run(small(**SHORT), tmp_path)
    trained(run)
    (run.folder / "manifest.json").write_bytes(text)
    assert run.manifest() is None
    assert trained(run)[1][0].startswith("manifest.json: damaged: ")


LINKS = ["lock", "manifest.json", "shards", "weights", "partial", "set_aside", "figures", "logs", "."]


@pytest.mark.parametrize("name", LINKS)
def test_nothing_is_written_through_a_link(small: Any, tmp_path: Path, name: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("as it was", encoding="utf-8")
    run = Run(small(**SHORT), tmp_path / "results")
    place = run.folder if name == "." else run.folder / name
    place.parent.mkdir(parents=True)
    place.symlink_to(outside if "." not in name and name != "lock" else outside / "precious")
    if name == ".":
        place.unlink()
        place.symlink_to(outside)
    with pytest.raises(
        InputError, match=r"is a link, and results are never written through links; remove it"
    ):
        train([run], ONE)
    assert [path.name for path in outside.iterdir()] == ["precious"]
    assert (outside / "precious").read_text(encoding="utf-8") == "as it was"


def test_the_folder_that_the_user_names_may_be_a_link(small: Any, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "results").symlink_to(tmp_path / "disk")
    run = Run(small(**SHORT), tmp_path / "results")
    trained(run)
    assert run.folder.resolve().is_relative_to(tmp_path / "disk")
