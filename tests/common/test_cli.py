"""Tests of the command `replicate`: the tutorial in docs/, exit codes, one line on bad input."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from common.cli import main
from common.reports import schema
from common.verdicts import record
from common.verdicts.claims import Verdict
from tests.conftest import ROOT, commit_all

NAME = "example/projection"


def replicate(root: Path, *arguments: str) -> int:
    return main(["--root", str(root), *arguments])


def test_a_new_replication(example: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert replicate(example, "status") == 0
    assert "never run" in capsys.readouterr().out

    # all is new, so nothing matches the record
    assert replicate(example, "run", NAME, "--devices", "1") == 1
    said = capsys.readouterr().out
    assert "fails 1 of 1 claim, as required" in said
    assert "squared_norm: new: reproduced, not in the record" in said
    assert re.search("^judging ...$", said, re.MULTILINE)
    assert list(example.glob("results/example/projection/full/*/figures/projection.png"))

    commit_all(example)
    assert replicate(example, "record", NAME) == 0
    capsys.readouterr()
    (recorded,) = (record.load(path) for path in example.glob("expected/example/*.record.yaml"))
    assert recorded["full"].core_s.keys() == {"full", "full-decayed"}
    assert all(recorded["full"].core_s.values())
    assert replicate(example, "check", NAME) == 0
    assert "All results match the record." in capsys.readouterr().out
    assert replicate(example, "run", NAME) == 0
    assert "Nothing to train" in capsys.readouterr().out

    # the report of this run, as it was written, and once more on what is stored
    written = example / "results/report"
    assert sorted(path.name for path in written.iterdir()) == [
        "badge.json", "junit.xml", "report.html", "report.json", "report.schema.json", "sections",
    ]  # fmt: skip
    found = schema.load(written)
    (only,) = found.replications
    assert (found.profile, found.as_recorded, found.not_run) == ("full", True, [])
    assert (only.name, only.command) == (NAME, f"replicate run {NAME} --profile full")
    assert [(claim.name, claim.verdict) for claim in only.claims] == [("squared_norm", "reproduced")]
    assert only.controls[0].run.spec["optimizer"]["init_args"]["weight_decay"] == 20
    assert only.record is not None
    assert "The squared norm of each network" in (written / "report.html").read_text(encoding="utf-8")
    assert replicate(example, "report", "--to", str(example / "again")) == 0
    assert schema.load(example / "again").replications == found.replications
    assert replicate(example, "compare", str(written), str(example / "again" / "report.json")) == 0
    capsys.readouterr()
    assert replicate(example, "report", "--schema") == 0
    assert capsys.readouterr().out == (written / "report.schema.json").read_text(encoding="utf-8")

    # a claim that the record has and the claims no longer have is a change, and so is a control that holds
    path = example / "expected/example/projection.record.yaml"
    stored = record.load(path)
    claims = {"vanished": stored["full"].claims["squared_norm"]}
    record.save(path, {"full": stored["full"].model_copy(update={"claims": claims})})
    assert replicate(example, "check", NAME) == 1
    assert "missing: it is in the record, but was not judged" in capsys.readouterr().out
    assert schema.load(written).as_recorded is False
    assert '<failure message="differs from the record: missing' in (written / "junit.xml").read_text(
        encoding="utf-8"
    )
    record.save(path, stored)
    spec = example / "replications/example/projection.yaml"
    text = spec.read_text(encoding="utf-8")
    spec.write_text(text.replace("20.", "2e-2"), encoding="utf-8")
    assert replicate(example, "run", NAME, "--devices", "1") == 1
    assert "reproduced, though the control must fail this claim" in capsys.readouterr().out
    # the default: nothing is broken
    spec.write_text(text.replace("20.", "1e-2"), encoding="utf-8")
    assert replicate(example, "run", NAME, "--devices", "1") == 2
    assert "controls.decayed.set: breaks nothing: the run has all of its networks" in capsys.readouterr().err


def test_a_verdict_that_chance_explains_is_said_and_is_no_failure(
    example: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commit_all(example)
    for command in (["run", "--devices", "1"], ["record"]):
        replicate(example, *command, NAME, "--profile", "quick")
    path = example / "expected/example/projection.record.yaml"
    quick = record.load(path)["quick"]
    kept = quick.claims["squared_norm"]
    # a network that ended a little elsewhere
    elsewhere = {
        "verdict": Verdict.INCONCLUSIVE, "low": 0.5, "high": 1.1,
        "samples": [kept.samples[0] + 1e-3, *kept.samples[1:]],
    }  # fmt: skip
    claims = {"squared_norm": kept.model_copy(update=elsewhere)}
    record.save(path, {"quick": quick.model_copy(update={"claims": claims})})
    capsys.readouterr()
    assert replicate(example, "check", NAME, "--profile", "quick") == 0
    said = capsys.readouterr().out
    assert "All results match the record, except 1 verdict that differs within chance." in said
    assert "within chance: squared_norm: verdict changed from inconclusive to reproduced" in said


def test_a_changed_spec_is_not_compared_with_the_record(
    example: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = replicate(example, "run", NAME, "--set", "trainer.max_steps=2", "--seeds", "2", "--devices", "1")
    assert code == 0
    assert "nothing is compared with the record" in capsys.readouterr().out
    assert len(list(example.glob("results/example/projection/full/*"))) == 1
    # nor is it mixed with what was not changed
    assert not (example / "results/report/report.json").exists()
    (only,) = schema.load(example / "results/report/changed").replications
    assert only.command == f"replicate run {NAME} --profile full --set trainer.max_steps=2 --seeds 2"
    assert only.changes is None


def test_what_is_not_run_is_listed_and_what_is_not_judged_yet(
    example: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec, claims = (example / f"{folder}/example/projection.yaml" for folder in ("replications", "expected"))
    short = spec.read_text(encoding="utf-8").replace("max_steps: 2000", "max_steps: 2")
    for name in ("projection", "second", "third"):
        (spec.parent / f"{name}.yaml").write_text(short, encoding="utf-8")
        (claims.parent / f"{name}.yaml").write_text(claims.read_text(encoding="utf-8"), encoding="utf-8")
    report = example / "results/report"
    replicate(example, "run", NAME, "--devices", "1")
    assert [missing.name for missing in schema.load(report).not_run] == ["example/second", "example/third"]
    replicate(example, "run", "example/second", "--devices", "1")
    # the first one's part is that of the run before
    assert [one.name for one in schema.load(report).replications] == [NAME, "example/second"]
    # it is not of use once the claims are others
    text = claims.read_text(encoding="utf-8")
    claims.write_text(text.replace("sum to 1", "sum to one"), encoding="utf-8")
    replicate(example, "run", "example/second", "--devices", "1")
    assert [(one.name, one.why.split(";")[0]) for one in schema.load(report).not_run] == [
        (NAME, "its results have not been judged by this version of the code"),
        ("example/third", "full: never run"),
    ]
    capsys.readouterr()
    assert replicate(example, "report") == 0
    assert "not run: example/third: full: never run" in capsys.readouterr().out
    found = schema.load(report)
    assert found.replications[0].claims[0].statement == "the squared weights sum to one"
    assert replicate(example, "report", "example/third", "--to", str(example / "none")) == 2
    assert "nothing to report: no replication has results in profile full" in capsys.readouterr().err
    assert replicate(example, "compare", str(report), str(example / "none")) == 1
    assert "example/second: gone, with 1 claim" in capsys.readouterr().out


def test_weights_are_kept_and_curves_logged_of_the_same_run(
    example: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = example / "replications/example/projection.yaml"
    text = spec.read_text(encoding="utf-8")
    spec.write_text(text.replace("max_steps: 2000", "max_steps: 20, compile: false"), encoding="utf-8")
    logged = ["--set", "trainer.logger.class_path=lightning.pytorch.loggers.CSVLogger"]
    # compared with the record all the same, in which all is new
    assert replicate(example, "run", "--devices", "1", *logged, "--keep-weights", "seed == 0") == 1
    assert "not in the record" in capsys.readouterr().out
    assert len(list(example.glob("results/example/projection/full/*/logs/shard_0-0/metrics.csv"))) == 1
    assert len(list(example.glob("results/example/projection/full/*/weights/*.pt"))) == 1
    replicate(example, "run", "--devices", "1", "--keep-weights", "seed == 0")
    assert "Nothing to train" in capsys.readouterr().out
    replicate(example, "run", "--devices", "1", "--keep-weights", "all")
    said = capsys.readouterr().out
    assert "1 shard is stored without these weights and trained again" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "replications/example/projection.yml"], "projection.yml: no such replication; did you mean"),
        (["run", "nowhere/example/projection.yaml"], "expected ROOT/replications/PAPER/RESULT.yaml"),
        (["run", "replications/example/none.yaml"], "replications/example/none.yaml: no such file; "),
        (["run", "--keep-weights", "sed == 0"], "name 'sed' is not defined; the columns of example/proj"),
        (["run", "example/projektion"], "no such replication; did you mean 'example/projection'?"),
        (["run", "--profile", "quik"], ": profiles: no profile 'quik'; did you mean 'quick'?"),
        (["run", "--set", "seeds"], "--set seeds: expected KEY=VALUE, as in --set trainer.max_steps=100"),
        (["run", "--set", "trainer.max_step=1"], "trainer.max_step: unknown key; did you mean 'max_steps'?"),
        (["run", "--seeds", "-1"], "--seeds -1: seeds: "),
        (["run", "--accelerator", "cuda", "--devices", "99"], "--devices: 99 GPUs asked for, but this"),
        (["run", "--devices", "0"], "--devices 0: expected at least 1"),
        (["bench", "--devices", "0"], "--devices 0: expected at least 1"),
        (["check"], "example/projection (full): never run; `replicate run` trains it"),
        (["record"], "example/projection (full): never run; `replicate run` trains it"),
        (["report", "--profile", "quik"], "profiles: no profile 'quik'; did you mean 'quick'?"),
        (["compare", "nowhere", "nothing"], "nowhere: cannot be read: "),
        (["cite", "nobody/nothing"], "nobody/nothing: no such replication; valid: example/projection"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_exit_code_2(
    example: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    commit_all(example)
    assert replicate(example, *arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("replicate: ")
    assert message in line


def test_a_control_that_names_no_claim_is_an_error(example: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = example / "replications/example/projection.yaml"
    spec.write_text(spec.read_text(encoding="utf-8").replace("rejects: [squared", "rejects: [sqared"))
    assert replicate(example, "status") == 2
    said = capsys.readouterr().err
    assert re.search(
        r"projection.yaml:\d+: controls.decayed.rejects.0: no claim 'sqared_norm' in profile full; did",
        said,
    )


def test_a_claim_is_judged_in_its_profiles_only(example: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec, claims = (example / f"{folder}/example/projection.yaml" for folder in ("replications", "expected"))
    text = re.sub(r"max_steps: \d+", "max_steps: 2", spec.read_text(encoding="utf-8"))
    one = claims.read_text(encoding="utf-8")
    other = (
        one.split("claims:\n")[1]
        .replace("squared_norm:", "second:")
        .replace("statement:", "profiles: [full]\n    statement:")
    )
    spec.write_text(text, encoding="utf-8")
    claims.write_text(one + other, encoding="utf-8")
    for profile, judged in (("full", True), ("quick", False)):
        assert replicate(example, "run", NAME, "--profile", profile, "--devices", "1") == 1
        said = capsys.readouterr().out
        assert "squared_norm: new" in said
        assert ("second: new" in said) is judged

    claims.write_text(one + other.replace("[full]", "[fulll]"), encoding="utf-8")
    assert replicate(example, "status") == 2
    assert "claims.second.profiles.0: no profile 'fulll'" in capsys.readouterr().err
    claims.write_text(one + other, encoding="utf-8")
    spec.write_text(text.replace("[squared_norm]", "[second]"), encoding="utf-8")
    assert replicate(example, "status", "--profile", "quick") == 2
    assert "no claim 'second' in profile quick" in capsys.readouterr().err


def test_a_record_is_never_made_in_ci(
    example: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI", "true")
    assert replicate(example, "record") == 2
    assert "not allowed in CI" in capsys.readouterr().err


def test_a_folder_without_replications_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert replicate(tmp_path, "list") == 2
    assert "no folder replications/ in it" in capsys.readouterr().err


def test_list_and_cite(example: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert replicate(example, "list") == 0
    said = capsys.readouterr().out
    assert "10 networks of 800 steps; profiles: full, quick, decided; controls: decayed" in said
    assert replicate(example, "cite", NAME) == 0
    assert capsys.readouterr().out.startswith("@misc{example,")


def test_the_suite_s_own_replications_are_found(capsys: pytest.CaptureFixture[str]) -> None:
    assert replicate(ROOT, "list") == 0
    assert "toy_models_of_superposition/phase_diagram" in capsys.readouterr().out


def test_the_tutorial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    section = (ROOT / "docs" / "adding.md").read_text(encoding="utf-8").split("\n## In an editor\n")[0]
    # each block of code, with the path that the paragraph before it begins with
    block = r"(?:\n`([\w./]+)`:(?:(?!\n\n).)*)?\n\n```(\w+)\n(.*?)^```"
    blocks = re.findall(block, section, re.DOTALL | re.MULTILINE)
    assert [bool(path) for path, _, _ in blocks] == [False, True, True, True, True, False]

    for name in ("AUTHOR_NAME", "AUTHOR_EMAIL", "COMMITTER_NAME", "COMMITTER_EMAIL"):
        monkeypatch.setenv(f"GIT_{name}", "someone")
    monkeypatch.chdir(tmp_path)
    said = {}
    for path, _, content in blocks:
        if path:
            assert Path(path).exists()  # `replicate new` made it
            Path(path).write_text(content, encoding="utf-8")
            continue
        for line in content.splitlines():
            words = shlex.split(line, comments=True)
            if words[0] == "replicate":
                assert main(words[1:]) == int(words[1] == "run")
                said[words[1]] = capsys.readouterr().out
            else:
                where = subprocess.run(
                    ["sh", "-ec", f"{line}\npwd"], capture_output=True, text=True, check=True
                )
                monkeypatch.chdir(where.stdout.splitlines()[-1])
    assert "top_features: new: reproduced, not in the record" in said["run"]
    assert "fails 1 of 1 claim, as required" in said["run"]
    assert "All results match the record." in said["check"]
