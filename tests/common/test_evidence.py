"""Exit code 0 means that claims were judged on this spec's results and the report was written."""

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from common.cli import main
from common.reports import schema
from common.system import files
from common.verdicts import record as records
from common.verdicts.judge import load_replication
from tests.conftest import commit_all

NAME = "example/projection"
SPEC, CLAIMS = "replications/example/projection.yaml", "expected/example/projection.yaml"
RECORD = "expected/example/projection.record.yaml"
QUICK = ("--profile", "quick")


@pytest.fixture
def recorded(example: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A root whose quick profile has run, and is recorded."""
    commit_all(example)
    run = ["--root", str(example), "run", *QUICK, "--devices", "1"]
    assert main(run) == 1  # all is new
    assert main(["--root", str(example), "record", *QUICK]) == 0
    capsys.readouterr()
    return example


def replicate(root: Path, *arguments: str) -> int:
    return main(["--root", str(root), *arguments])


def test_what_is_recorded_is_judged_and_reported(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert replicate(recorded, "check", *QUICK) == 0
    assert "All results match the record." in capsys.readouterr().out


# -- the report


@pytest.mark.parametrize("name", ["report.html", "report.json", "junit.xml", "badge.json", "sections/"])
def test_a_report_that_cannot_be_written_is_no_success_and_leaves_the_old_one(
    recorded: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    report = recorded / "results/report"
    before = {path: path.read_bytes() for path in report.rglob("*") if path.is_file()}
    write_bytes = Path.write_bytes

    def full(self: Path, data: bytes) -> int:
        if name.rstrip("/") in str(self.relative_to(report)):
            write_bytes(self, data[:100])
            raise OSError(28, "No space left on device")
        return write_bytes(self, data)

    (recorded / CLAIMS).write_text(
        (recorded / CLAIMS).read_text(encoding="utf-8").replace("sum to 1", "sum to one"), encoding="utf-8"
    )
    monkeypatch.setattr(Path, "write_bytes", full)
    assert replicate(recorded, "check", *QUICK) == 2
    said = capsys.readouterr().err
    assert said.endswith("No space left on device; finished work is kept; run the same command to continue\n")
    after = {path: path.read_bytes() for path in report.rglob("*") if path.is_file()}
    assert after.keys() == before.keys()
    damaged = [path for path, content in after.items() if name in str(path) and content != before[path]]
    assert not damaged


@pytest.mark.parametrize("name", ["report", "report/sections", "example"])
def test_a_link_in_received_results_is_not_followed(
    recorded: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    outside = tmp_path_factory.mktemp("outside")
    place = recorded / "results" / name
    for path in sorted(place.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    place.rmdir()
    place.symlink_to(outside)
    assert replicate(recorded, "run", *QUICK, "--devices", "1") == 2
    assert f"{place}: is a link, and results are never written through links" in capsys.readouterr().err
    assert not list(outside.iterdir())


@pytest.mark.parametrize("name", ["report.html", "junit.xml"])
def test_a_file_of_a_report_that_is_a_link_is_replaced(recorded: Path, tmp_path: Path, name: str) -> None:
    precious = recorded / "precious"
    precious.write_text("as it was", encoding="utf-8")
    place = recorded / "results/report" / name
    place.unlink()
    place.symlink_to(precious)
    assert replicate(recorded, "check", *QUICK) == 0
    assert precious.read_text(encoding="utf-8") == "as it was"
    assert not place.is_symlink()


# -- changed specs


def test_a_control_stays_broken_whatever_is_changed(recorded: Path) -> None:
    overrides = {"optimizer.init_args.weight_decay": (0.5, "--set"), "trainer.max_steps": (3, "--set")}
    changed = load_replication(recorded, NAME, overrides=overrides)
    assert changed.run.spec.optimizer_args["weight_decay"] == 0.5
    assert changed.controls["decayed"].spec.optimizer_args["weight_decay"] == 20
    assert changed.controls["decayed"].spec.fields.trainer.max_steps == 3


@pytest.mark.parametrize("command", ["run", "check", "status"])
def test_a_change_that_is_the_control_s_own_is_refused(
    recorded: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    change = "optimizer.init_args.weight_decay=20."
    assert replicate(recorded, command, NAME, "--set", change) == 2
    said = capsys.readouterr().err
    assert "controls.decayed.set: breaks nothing: the run (changed" in said


def test_verdicts_of_a_changed_spec_are_for_reference_only(
    recorded: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    claims = recorded / CLAIMS
    text = claims.read_text(encoding="utf-8")
    claims.write_text(
        text + "    investigated: a reason that holds at the published setting\n", encoding="utf-8"
    )
    steps = ("--set", "trainer.max_steps=2", "--devices", "1")
    assert replicate(recorded, "run", NAME, *steps) == 0
    said = capsys.readouterr().out
    assert (
        "example/projection, full, changed spec: for reference only; the verdicts do not apply to the paper"
        in said
    )
    assert "a reason that holds" not in said
    report = recorded / "results/report/changed"
    (only,) = schema.load(report).replications
    assert (only.for_reference, only.changes, only.claims[0].investigated) == (True, None, None)
    assert "for reference only" in (recorded / "results/report/changed/report.html").read_text(
        encoding="utf-8"
    )
    assert "<skipped" in (recorded / "results/report/changed/junit.xml").read_text(encoding="utf-8")
    # more seeds are no other setting
    assert (
        replicate(recorded, "run", NAME, "--seeds", "2", "--set", "trainer.compile=false", "--devices", "1")
        == 0
    )
    assert "for reference only" not in capsys.readouterr().out


def test_claims_without_rows_in_a_changed_sweep_are_not_asked(
    recorded: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    claims = recorded / CLAIMS
    document = yaml.safe_load(claims.read_text(encoding="utf-8"))
    whole = json.loads(json.dumps(document["claims"]["squared_norm"]))
    whole["estimate"]["at"] = {"density": 0.25}
    document["claims"]["other_density"] = whole
    claims.write_text(yaml.safe_dump(document), encoding="utf-8")
    sweep = ("--set", "sweep=[{density: [.25, .75]}]", "--set", "trainer.max_steps=2", "--devices", "1")
    # at the published sweep it is a mistake
    assert replicate(recorded, "run", NAME) == 2
    assert "claims.other_density.estimate.at: no row at density = 0.25" in capsys.readouterr().err
    assert replicate(recorded, "run", NAME, *sweep) == 0
    said = capsys.readouterr().out
    assert "not judged, because the changed sweep has no networks for them: squared_norm" in said
    assert "control decayed" not in said  # it must fail only that claim
    (only,) = schema.load(recorded / "results/report/changed").replications
    assert ([claim.name for claim in only.claims], only.not_asked) == (["other_density"], ["squared_norm"])
    assert replicate(recorded, "run", NAME, "--set", "sweep=[{density: .75}]") == 2
    assert "claims: nothing to judge: the changed sweep has no rows for any claim" in capsys.readouterr().err


# -- invalid


def test_a_run_of_which_nothing_can_be_judged_is_no_success(
    example: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    claims = example / CLAIMS
    text = claims.read_text(encoding="utf-8")
    code = example / "replications/example/projection.py"
    function = (
        "\n\ndef never(table: pd.DataFrame) -> float:\n    raise ValueError('there is no such thing')\n"
    )
    code.write_text(code.read_text(encoding="utf-8") + function, encoding="utf-8")
    old = "{metric: squared_norm, at: {density: .5}, statistic: mean}"
    claims.write_text(text.replace(old, "{function: never}"), encoding="utf-8")
    assert replicate(example, "run", NAME, "--set", "trainer.max_steps=2", "--devices", "1") == 2
    assert f"{NAME}: no claim could be judged: there is no such thing" in capsys.readouterr().err


def test_an_invalid_claim_is_a_problem_also_where_it_is_recorded(recorded: Path) -> None:
    record = recorded / RECORD
    text = record.read_text(encoding="utf-8")
    assert "verdict: reproduced" in text
    claims = recorded / CLAIMS
    claims.write_text(
        claims.read_text(encoding="utf-8").replace("at: {density: .5}, statistic: mean", "at: {seed: 0}"),
        encoding="utf-8",
    )
    assert replicate(recorded, "check", *QUICK) == 1
    record.write_text(text.replace("verdict: reproduced", "verdict: invalid"), encoding="utf-8")
    assert replicate(recorded, "check", *QUICK) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"samples": [1e308, -1e308]},
        {"samples": [1.0]},
        {"value": math.nan},
        {"low": -math.inf},
        {"samples": []},
    ],
)
def test_a_record_that_was_changed_by_hand_is_no_success(recorded: Path, change: dict[str, Any]) -> None:
    stored = records.load(recorded / RECORD)["quick"]
    claims = {**stored.claims, "squared_norm": stored.claims["squared_norm"].model_copy(update=change)}
    records.save(recorded / RECORD, {"quick": stored.model_copy(update={"claims": claims})})
    assert replicate(recorded, "check", *QUICK) in (1, 2)


def _of_an_older_format(record: Path) -> None:
    record.with_name("projection.samples.parquet").unlink()
    text = record.read_text(encoding="utf-8")
    record.write_text(re.sub(r"(high: [^}]+)}", r"\1, samples: [1.0, 1.5]}", text), encoding="utf-8")


def _without_samples(record: Path) -> None:
    record.with_name("projection.samples.parquet").unlink()


def _samples_alone(record: Path) -> None:
    record.unlink()


def _cut(record: Path) -> None:
    samples = record.with_name("projection.samples.parquet")
    samples.write_bytes(samples.read_bytes()[:-9])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            _of_an_older_format,
            r"RECORD:\d+: this record has an older format, which includes its samples; remove",
        ),
        (
            _without_samples,
            "RECORD: its samples are missing: no projection.samples.parquet beside it; restore",
        ),
        (
            _samples_alone,
            "SAMPLES: samples without their record: no projection.record.yaml beside them; restore",
        ),
        (_cut, "SAMPLES: cannot be read: .*; restore"),
    ],
)
def test_a_record_that_cannot_be_read_is_told_and_made_anew(
    recorded: Path, capsys: pytest.CaptureFixture[str], damage: Callable[[Path], None], message: str
) -> None:
    record = recorded / RECORD
    samples = record.with_name("projection.samples.parquet")
    whole = samples.read_bytes()
    damage(record)
    message = message.replace("RECORD", str(record)).replace("SAMPLES", str(samples))
    for command in ("run", "check", "report", "record"):
        for name in ([NAME], []):
            assert replicate(recorded, command, *name, *QUICK) == 2
            (line,) = capsys.readouterr().err.splitlines()
            assert re.match(f"replicate: {message}", line)
    for path in (record, samples):  # as the line says
        path.unlink(missing_ok=True)
    assert replicate(recorded, "record", *QUICK) == 0
    assert replicate(recorded, "check", *QUICK) == 0
    assert samples.read_bytes() == whole


def test_paths_that_nobody_means_are_refused(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--out", ""], ["--out", "  "]):
        assert replicate(recorded, "check", *arguments) == 2
        assert "empty path; expected a folder" in capsys.readouterr().err
    assert main(["--root", "", "list"]) == 2


def test_a_tilde_is_the_home_also_where_no_shell_expands_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert files.given_path("~/results") == tmp_path / "results"
    assert files.given_path("a~b") == Path("a~b")


@pytest.mark.parametrize(
    ("text", "seeds"), [("3,4,5", [3, 4, 5]), ("3, 4", [3, 4]), ("[7]", [7]), ("2", [0, 1])]
)
def test_seeds_as_people_write_them(recorded: Path, text: str, seeds: list[int]) -> None:
    assert (
        replicate(recorded, "run", NAME, "--seeds", text, "--set", "trainer.max_steps=2", "--devices", "1")
        == 0
    )
    (table,) = recorded.glob("results/example/projection/full/*/instances.parquet")
    assert pd.read_parquet(table)["seed"].unique().tolist() == seeds


def test_whether_a_run_was_compiled_is_in_manifest_and_report(recorded: Path) -> None:
    (manifest,) = recorded.glob("results/example/projection/quick/*/manifest.json")
    kept = json.loads(manifest.read_text(encoding="utf-8"))
    assert (kept["shards"], kept["compiled_shards"]) == (1, 0)  # its spec says so
    (only,) = schema.load(recorded / "results/report").replications
    assert (only.run.shards, only.run.compiled_shards) == (1, 0)
    assert "<dt>Compiled</dt><dd>no</dd>" in (recorded / "results/report/report.html").read_text(
        encoding="utf-8"
    )
