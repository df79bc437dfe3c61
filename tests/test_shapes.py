"""Tests of the check of shapes: a wrong one is refused where it comes in or goes out, and only under test."""

import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError

from common.features import Basis, Independent
from common.metrics import polysemantic_neurons, superposition
from common.specs.arguments import class_arguments
from replications.product_network import neurons
from replications.toy_models_of_superposition import plane
from replications.toy_models_of_superposition.model import ToyModel
from tests.conftest import ROOT
from tests.shapes import MODULES

FEATURES = Independent(2, 0.5, batch_size=8)
WEIGHTS = {"weight": torch.ones(3, 1, 2), "bias": torch.zeros(3, 2)}
FACTORS = {"extra_importance": torch.ones(3, 1), "bias": torch.ones(3, 1)}
BATCH = torch.ones(3, 8)


WRONG: dict[str, Callable[[], object]] = {
    "too few axes": lambda: superposition(torch.ones(2, 3)),
    "whole numbers": lambda: superposition(torch.ones(1, 2, 3, dtype=torch.int64)),
    "an array": lambda: superposition(np.ones((1, 2, 3))),  # type: ignore[arg-type]
    "by name": lambda: polysemantic_neurons(weight=torch.ones(2, 3), threshold=0.1),
    "a factor without its axis of 1": lambda: ToyModel.loss(
        WEIGHTS, FACTORS | {"bias": torch.ones(3)}, [BATCH, BATCH]
    ),
    "factors of other instances": lambda: ToyModel.loss(
        WEIGHTS, FACTORS | {"bias": torch.ones(4, 1)}, [BATCH, BATCH]
    ),
    "the last of the inputs": lambda: ToyModel.loss(WEIGHTS, FACTORS, [BATCH, BATCH[:, 1:]]),
    "one of the weights": lambda: ToyModel.loss(
        WEIGHTS | {"bias": torch.zeros(2, 2)}, FACTORS, [BATCH, BATCH]
    ),
    "seeds of other instances": lambda: ToyModel(
        Independent(2, torch.ones(2, 1), batch_size=8), [0, 1], n_hidden=1
    ),
    "a network for a stack": lambda: plane.learned(np.ones((2, 6))),
    "three dimensions for two": lambda: plane.learned(np.ones((1, 3, 6))),
    "a property's value": lambda: neurons.Neurons(*[torch.ones(2, 3, 4)] * 3).quadrant,
}


@pytest.mark.parametrize("call", WRONG.values(), ids=WRONG)
def test_a_wrong_shape_is_refused(call: Callable[[], object]) -> None:
    with pytest.raises(TypeCheckError):
        call()


def test_a_wrong_result_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert superposition(torch.ones(1, 2, 3)).shape == (1, 3)
    monkeypatch.setattr("common.metrics._overlaps_with_others", lambda weight: (None, torch.ones(2, 5, 5)))
    with pytest.raises(TypeCheckError, match=r"return value of common\.metrics\.superposition"):
        superposition(torch.ones(1, 2, 3))


def test_what_is_right_passes() -> None:
    assert ToyModel.loss(WEIGHTS, FACTORS, [BATCH, BATCH]).shape == (3,)
    one_for_all = [BATCH[:1], BATCH[:1]]
    assert ToyModel.loss(WEIGHTS, FACTORS, one_for_all).shape == (3,)
    assert Basis(3).sample([], {}) == []
    # a whole number for a real one, and a list for a sequence, are for mypy
    assert ToyModel(FEATURES, [0, 1], 1, extra_importance=2).factors["extra_importance"].tolist() == [
        [2],
        [2],
    ]


@pytest.mark.usefixtures("unchecked")
def test_a_test_can_do_without() -> None:
    with pytest.raises(ValueError, match="weight must have 3 axes"):
        superposition(torch.ones(2, 3))


def test_a_spec_reads_the_arguments_of_what_is_checked() -> None:
    density = class_arguments(Independent)["density"]
    assert density.varying
    assert "float" in str(density.type)
    assert class_arguments(ToyModel)["n_hidden"].varying is False


def test_users_are_not_checked() -> None:
    """Neither hook nor checker is there outside of tests."""
    look = (
        "import sys, torch, importlib\n"
        "from common.metrics import superposition\n"
        f"[importlib.import_module(name) for name in {MODULES[:4]}]\n"
        "assert superposition.__globals__ is vars(sys.modules['common.metrics'])\n"
        "assert 'typeguard' not in sys.modules and 'beartype' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", look], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
