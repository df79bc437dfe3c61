"""What several tests use: a small spec, and training without the compiler."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import jaxtyping
import pytest
import torch

from tests import shapes

shapes.install()  # before anything imports what it checks

from common import ensemble
from common.cli import main
from common.specs.document import nearest, parse_value
from common.specs.spec import Spec, load_spec
from common.verdicts.claims import Claims, check_functions, claims_document, read_claims

# as in training: several threads on such small tensors wait for each other, minutes when the machine is busy
torch.set_num_threads(1)

ROOT = Path(__file__).parents[1]

SMALL = """\
title: A small sweep
paper: nobody2026
version: 1
code: replications.toy_models_of_superposition.phase_diagram
model: {class_path: replications.toy_models_of_superposition.model.ToyModel, init_args: {n_hidden: 1}}
features: {class_path: common.features.Independent, init_args: {n_features: 2, batch_size: 64}}
optimizer: {class_path: torch.optim.AdamW, init_args: {lr: 1e-2, fused: true}}
trainer: {max_steps: 100}
seeds: 3
shard_size: 6
sweep:
  - part: cuts
    extra_importance: [.5, 2.]
    density: [1., .5, .1]
controls:
  short:
    why: too few steps to learn anything
    set: {trainer.max_steps: 1}
    rejects: [learned]
"""


L1 = "replications.incidental_polysemanticity.model.L1Autoencoder"
SETTLING = {
    "model": f"{{class_path: {L1}, init_args: {{l1: .02}}}}",
    "features": "{class_path: common.features.Basis, init_args: {n_features: 8}}",
    "optimizer": "{class_path: torch.optim.AdamW, init_args: {lr: 3e-3, fused: true}}",
    "trainer": "{max_steps: 2500, stop_when_settled: true}",
    "sweep": "[{n_hidden: 32}]",
    "seeds": "5",
}
"""Changes of the small spec: networks whose outcome is settled before training ends."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options that plant a mistake in the code under test, and try tests marked gpu without one."""
    what = "what tests marked gpu run on: cuda (default), or cpu, to try them where there is no GPU"
    parser.addoption("--accelerator", choices=["cuda", "cpu"], default="cuda", help=what)
    what = "plant this mistake, one of `python -m tests.validation faults --list`: tests that fail notice it"
    parser.addoption("--fault", metavar="NAME", help=what)


def pytest_configure(config: pytest.Config) -> None:
    """Plant the mistake that was asked for, before any test has imported what it replaces."""
    if (name := config.getoption("--fault")) is not None:
        from tests.validation.faults import FAULTS

        if name not in FAULTS:
            raise pytest.UsageError(f"--fault {name}: no such fault; {nearest(name, list(FAULTS))}")
        FAULTS[name].plant()


@pytest.fixture
def accelerator(request: pytest.FixtureRequest) -> str:
    """What a test marked gpu runs on; without a GPU it is skipped unless another is asked for."""
    name: str = request.config.getoption("--accelerator")
    if name == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU")
    return name


@pytest.fixture
def small(tmp_path: Path) -> Any:
    """A function that loads the small spec, with dotted keys changed."""
    path = tmp_path / "replications" / "nobody" / "small.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(SMALL, encoding="utf-8")

    def load(control: str | None = None, **changes: str) -> Spec:
        overrides = {
            key.replace("__", "."): (parse_value(value), "the test") for key, value in changes.items()
        }
        return load_spec(path, control=control, overrides=overrides)

    return load


@pytest.fixture
def example(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A root with the replication that `replicate new` makes, example/projection."""
    assert main(["--root", str(tmp_path), "new", "example/projection"]) == 0
    capsys.readouterr()
    return tmp_path


def git(root: Path, *arguments: str) -> str:
    """What git answers in `root`, as nobody in particular."""
    nobody = ["-c", "user.name=nobody", "-c", "user.email=nobody@example.org"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    done = subprocess.run(
        ["git", "-C", str(root), *nobody, *arguments], check=True, capture_output=True, text=True,
        env=environment,
    )  # fmt: skip
    return done.stdout


def commit_all(root: Path) -> None:
    """Commit all that is in `root`, in a repository of its own."""
    git(root, "init", "--quiet")
    git(root, "add", ".")
    git(root, "commit", "--quiet", "--message", "all")


@pytest.fixture(autouse=True)
def _as_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """In CI, too, commands do what they do for someone at a desk."""
    monkeypatch.delenv("CI", raising=False)


@pytest.fixture(autouse=True)
def _checked_anew() -> None:
    """Each test checks the types of tensors from the first call on."""
    shapes.calls.clear()


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """As users run it: types of tensors are not checked."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Training by the plain functions: compiling takes seconds, and has tests of its own."""
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    ensemble._gradient.cache_clear()
    yield
    ensemble._gradient.cache_clear()


@pytest.fixture(autouse=True)
def _own_imports() -> Iterator[None]:
    """Modules of other roots are forgotten after each test: another test's root has some of the same name."""
    path = list(sys.path)
    yield
    sys.path[:] = path
    here = Path(__file__).parents[1] / "replications"
    for name in [name for name in sys.modules if name.startswith("replications.")]:
        if not (here / name.split(".")[1]).is_dir():
            del sys.modules[name]


def load_claims(path: Path, code: ModuleType) -> Claims:
    """The claims in the file `path`, checked against the module `code`, which has their estimates."""
    document = claims_document(path)
    claims = read_claims(document)
    check_functions(document, claims, code)
    return claims
