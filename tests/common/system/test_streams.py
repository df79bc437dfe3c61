"""Tests of system/streams.py: a reader that goes away ends nothing, and what is lost is told."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SCRIPT = """
import os, sys
from common.system import streams
with streams.guarded() as lost:
    from common.system.terminal import Terminal
    console, errors = Terminal(), Terminal(stderr=True)
    for i in range(3):
        console.print("a" * 50_000)
        print("b" * 50_000, flush=True)
        errors.print("c")
        sys.stderr.write("d\\n")
    print("the last, not flushed")
    sys.stdout.write("\\udcff √\\n")
with open(sys.argv[1], "w") as file:
    file.write(f"{len(lost)} {min(file.fileno(), 3)} {os.get_inheritable(1)}")
sys.exit(7)
"""
KEPT = "finished work is kept"
GONE = ["| head -c 1", "| true", ">&-", "2>&-", ">&- 2>&- <&-", "2> >(true)", "1< /dev/null", "2>&1 | true"]
PIPES = {"": 0, **dict.fromkeys(GONE, 0), "> /dev/full": 1, "2> /dev/full": 0, "> /dev/full 2>&1": 1}


def shell(line: str, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """What becomes of a line of bash, with $python for this Python and the first command's exit code."""
    return subprocess.run(
        ["bash", "-c", f"{line}\nexit ${{PIPESTATUS[0]}}", "bash", *arguments],
        cwd=ROOT, capture_output=True, text=True, env={**os.environ, "python": sys.executable, **environment},
    )  # fmt: skip


@pytest.mark.parametrize("pipe", PIPES)
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_the_exit_code_is_as_if_all_had_been_read(tmp_path: Path, pipe: str, encoding: str) -> None:
    script, ended = tmp_path / "script.py", tmp_path / "ended"
    script.write_text(SCRIPT, encoding="utf-8")
    line = f'"$python" "$1" "$2" {pipe}'
    done = shell(line, str(script), str(ended), PYTHONPATH=str(ROOT), PYTHONIOENCODING=encoding)
    assert done.returncode == 7
    # all was gone through, what was lost is known, and no file has got the number of a standard stream
    assert ended.read_text(encoding="utf-8") == f"{PIPES[pipe]} 3 True"
    assert set(done.stderr.split()) <= {"c", "d"}
    if not pipe:
        assert len(done.stdout) > 300_000


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("list | head -c 1", 0, ""),
        ("cite | true", 0, ""),
        ("list > /dev/full", 2, f"replicate: standard output: No space left on device; {KEPT}\n"),
        ("cite nobody/nothing 2>&-", 2, ""),
    ],
)  # fmt: skip
def test_the_command(line: str, code: int, said: str) -> None:
    done = shell(f'"$python" -m common {line}')
    assert (done.returncode, done.stderr) == (code, said)


def test_a_run_goes_on_and_its_code_is_that_of_its_verdicts(example: Path) -> None:
    spec, model = (example / "replications/example" / name for name in ("projection.yaml", "model.py"))
    spec.write_text(f"{spec.read_text(encoding='utf-8')}shard_size: 2\n", encoding="utf-8")
    text = model.read_text(encoding="utf-8")  # what it prints comes from the workers too
    here = '"""What claims and figures need from each trained'
    assert here in text
    said = 'print("from the model\\n" * 9_999, flush=True)\n        '
    start = text.index(here)
    end = text.index('"""', start + 3) + 3
    model.write_text(f"{text[:end]}\n        {said}{text[end:].lstrip()}", encoding="utf-8")
    run = '"$python" -m common --root "$1" run --profile quick --devices 2 --set trainer.max_steps=2'
    done = shell(f"{run} 2>&1 | true", str(example))
    assert (done.returncode, done.stderr) == (0, "")
    assert (example / "results/report/changed/report.html").exists()


def test_streams_of_others_are_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    from common.system import streams

    before = sys.stdout, sys.stderr
    with streams.guarded():
        assert (sys.stdout, sys.stderr) == before
