from pathlib import Path

import pytest

from common.cli import main
from common.errors import InputError
from common.runs import workers
from common.verdicts.judge import judge, judge_all, load_replication
from common.verdicts.suite import Suite


def test_workers_judge_the_same(example: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    main(["--root", str(example), "run", "example/projection", "--profile", "quick"])
    done = load_replication(example, "example/projection", "quick")
    n_claims = Suite(example).n_claims
    alone = judge(done, n_claims)
    assert alone.outcomes
    assert alone.controls
    monkeypatch.setattr(workers, "WORTH_WORKERS", 2)
    assert list(judge_all([done, done], {example: n_claims})) == [alone, alone]


def test_bad_input_in_a_worker_is_told_as_by_itself(example: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    never_run = load_replication(example, "example/projection", "quick")
    with pytest.raises(InputError) as alone:
        judge(never_run, 1)
    monkeypatch.setattr(workers, "WORTH_WORKERS", 2)
    with pytest.raises(InputError) as together:
        list(judge_all([never_run, never_run], {example: 1}))
    assert str(together.value) == str(alone.value)
