"""Nothing outside a spec reaches training: no variable of the environment, no mode that the process is in."""

import inspect
import os
import random
import re
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pandas as pd
import pytest
import torch
from lightning import Trainer
from lightning.fabric.utilities import rank_zero

from common.runs.store import Run
from common.runs.training import Devices, train
from common.system import compiling
from common.system.environment import FOREIGN, undisturbed

pytestmark = pytest.mark.usefixtures("uncompiled")

TRAINER = [
    f"PL_TRAINER_{name.upper()}" for name in inspect.signature(Trainer.__init__).parameters if name != "self"
]

# what Lightning does read and that may stay: where loggers send what they log, and which GPUs there are
LEFT = {
    *("COMET_API_KEY", "COMET_DISABLE_AUTO_LOGGING", "COMET_EXPERIMENT_KEY", "COMET_WORKSPACE"),
    *("WANDB_MODE", "WANDB_PROJECT", "MLFLOW_TRACKING_URI", "TQDM_MINITERS", "BITSANDBYTES_NOWELCOME"),
    *(
        "CUDA_VISIBLE_DEVICES",
        "CUDA_DEVICE_ORDER",
        "CUBLAS_WORKSPACE_CONFIG",
        "PYTORCH_NVML_BASED_CUDA_CHECK",
    ),
    *("DISABLE_MPS", "POSSIBLE_USER_WARNINGS", "OMP_NUM_THREADS", "USE_LIBUV", "STANDALONE_PORT"),
    "FREEZE_REQUIREMENTS",
}


def names_in_lightning() -> set[str]:
    """All names of variables that stand in Lightning's sources beside `environ` or in lists of such names."""
    found = set()
    for path in Path(lightning.__file__).parent.glob("**/*.py"):
        text = path.read_text(encoding="utf-8")
        found |= set(re.findall(r"environ(?:\.\w+)?[\[(]\s*[\"']([A-Z][A-Z0-9_]+)", text))
        found |= set(re.findall(r"getenv\(\s*[\"']([A-Z][A-Z0-9_]+)", text))
        if "environments" in path.parts:
            found |= set(re.findall(r"[\"']([A-Z][A-Z0-9]*_[A-Z0-9_]+|RANK)[\"']", text))
    return found


def test_all_variables_that_lightning_reads_are_known() -> None:
    names = names_in_lightning()
    assert {"SLURM_NTASKS", "LOCAL_RANK", "PL_GLOBAL_SEED", "LSB_JOBID", "GROUP_RANK"} <= names
    assert {name for name in names if not FOREIGN.fullmatch(name)} <= LEFT
    assert len(TRAINER) > 30


@pytest.mark.parametrize(
    "name",
    [
        "PATH",
        "HOME",
        "TMPDIR",
        "CXX",
        "RAY_ADDRESS",
        "FRANK",
        "PLACE",
        "WANDB_API_KEY",
        "TORCHINDUCTOR_CACHE_DIR",
    ],
)
def test_other_variables_stay(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "kept")
    monkeypatch.setenv("RANK", "3")
    with undisturbed():
        assert os.environ[name] == "kept"
        assert "RANK" not in os.environ
    assert os.environ["RANK"] == "3"


@pytest.mark.parametrize(
    "name",
    ["TORCH_COMPILE_DISABLE", "TORCHDYNAMO_DISABLE", "TORCHDYNAMO_SUPPRESS_ERRORS", "TORCHINDUCTOR_FREEZING"],
)
def test_how_torch_compiles_is_the_spec_s(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "1")
    with undisturbed():
        assert name not in os.environ
    assert os.environ[name] == "1"


def test_that_compiling_is_switched_off_is_no_compiling() -> None:
    compiling.obstacle.cache_clear()
    with torch._dynamo.config.patch(disable=True):
        why = compiling.obstacle("cpu")
    compiling.obstacle.cache_clear()
    assert why is not None
    assert why.startswith("torch.compile is switched off in this process")


@pytest.fixture
def spec(small: Any) -> Any:
    return small(trainer__max_steps="5", shard_size="9")


def table(spec: Any, out: Path) -> pd.DataFrame:
    run = Run(spec, out)
    train([run], Devices("cpu", 1))
    found = run.table()
    assert found is not None
    return found


@pytest.mark.parametrize("value", ["1", "0", "True", "00:00:00:00", "bf16-true", "nonsense", "[]", ".5"])
def test_no_variable_reaches_the_numbers(
    spec: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    expected = table(spec, tmp_path / "without")
    for name in {*TRAINER, *names_in_lightning()} - LEFT:
        monkeypatch.setenv(name, value)
    pd.testing.assert_frame_equal(table(spec, tmp_path / "with"), expected, check_exact=True)


@pytest.mark.parametrize(
    "variables",
    [
        {"SLURM_NTASKS": "4", "SLURM_JOB_NAME": "part.sh", "SLURM_JOB_ID": "7", "SLURM_PROCID": "3"},
        {"RANK": "1", "LOCAL_RANK": "1", "GROUP_RANK": "0", "LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "2",
         "MASTER_ADDR": "nowhere", "MASTER_PORT": "1", "TORCHELASTIC_RUN_ID": "x"},
        {"KUBERNETES_PORT": "1", "MASTER_ADDR": "nowhere", "MASTER_PORT": "1", "WORLD_SIZE": "2",
         "RANK": "0"},
        {"LSB_JOBID": "1", "LSB_DJOB_RANKFILE": "/nowhere", "JSM_NAMESPACE_LOCAL_RANK": "0",
         "JSM_NAMESPACE_SIZE": "2", "JSM_NAMESPACE_RANK": "1"},
    ],
    ids=["slurm", "torchrun", "kubeflow", "lsf"],
)  # fmt: skip
def test_no_cluster_makes_a_run_one_of_many(
    spec: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    expected = table(spec, tmp_path / "without")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    pd.testing.assert_frame_equal(table(spec, tmp_path / "with"), expected, check_exact=True)


@contextmanager
def setting(get: Any, put: Any, value: Any) -> Iterator[None]:
    before = get()
    put(value)
    try:
        yield
        assert get() == value, "what was set before is set after"
    finally:
        put(before)


@contextmanager
def of_rank_one() -> Iterator[None]:
    only: Any = rank_zero.rank_zero_only
    with setting(lambda: only.rank, lambda rank: setattr(only, "rank", rank), 1):
        yield


@contextmanager
def warnings_as_errors() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def numpy_raises() -> AbstractContextManager[object]:
    return np.errstate(all="raise")


MODES: dict[str, Any] = {
    "inference": lambda: torch.inference_mode(),
    "no gradients": lambda: torch.no_grad(),
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "another device": lambda: torch.device("meta"),
    "another default device": lambda: setting(
        torch.get_default_device, torch.set_default_device, torch.device("meta")
    ),
    "double precision": lambda: setting(torch.get_default_dtype, torch.set_default_dtype, torch.float64),
    "half precision": lambda: setting(torch.get_default_dtype, torch.set_default_dtype, torch.float16),
    "coarse products": lambda: setting(
        torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "medium"
    ),
    "deterministic": lambda: setting(
        torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms, True
    ),
    "anomalies": lambda: torch.autograd.set_detect_anomaly(True, check_nan=True),
    "numpy raises": numpy_raises,
    "warnings as errors": warnings_as_errors,
    "another rank": of_rank_one,
}


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_no_mode_of_the_process_reaches_the_numbers(spec: Any, tmp_path: Path, mode: Any) -> None:
    expected = table(spec, tmp_path / "without")
    with ExitStack() as stack:
        stack.enter_context(mode())
        found = table(spec, tmp_path / "with")
    pd.testing.assert_frame_equal(found, expected, check_exact=True)


def test_random_numbers_of_the_process_are_left_alone_and_leave_training_alone(
    spec: Any, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    expected = table(spec, tmp_path / "one")
    drawn = torch.rand(1).item(), np.random.rand(), random.random()
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    assert drawn == (torch.rand(1).item(), np.random.rand(), random.random())
    pd.testing.assert_frame_equal(table(spec, tmp_path / "two"), expected, check_exact=True)
