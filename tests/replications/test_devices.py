"""Of every model of every replication: steps wait for no device, and on a GPU numbers are those of a CPU.

Tests marked gpu run on a CPU too, with `--accelerator cpu`: so they are tried where there is no GPU.
"""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import pandas as pd
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from common.computed import Computed
from common.ensemble import Ensemble
from common.features import Draws
from common.runs.numerics import numerics, one_thread
from common.runs.shard import build
from common.specs.find import find_specs
from common.specs.spec import Spec, load_spec
from common.specs.sweep import shards
from tests.conftest import ROOT

STEPS = 5
"""Steps over which two devices agree to rounding; later, chaos may drive trained networks apart."""

PER_SHAPE = 4
"""Networks taken of each shape."""


class Case(NamedTuple):
    """Some networks of a sweep."""

    spec: Spec
    rows: pd.DataFrame

    def build(self) -> Ensemble:
        ensemble = build(self.spec, self.rows)
        assert isinstance(ensemble, Ensemble)
        return ensemble


@functools.cache
def cases() -> dict[str, Case]:
    """Networks of each model on each distribution that the quick profiles have, controls included."""
    found: dict[tuple[object, ...], tuple[str, Case]] = {}
    for name in find_specs(ROOT):
        path = ROOT / "replications" / f"{name}.yaml"
        base = load_spec(path, "quick")
        if issubclass(base.model_class, Computed):
            continue
        for control in (None, *base.controls):
            spec = load_spec(path, "quick", control)
            for shard in shards(spec):
                case = Case(spec, shard.rows.iloc[:PER_SHAPE])
                shape = tuple(shard.rows.iloc[0][column] for column in spec.structural())
                model, features = spec.fields.model, spec.fields.features
                key = (model.class_path, str(model.init_args), features.class_path, str(features.init_args))
                found.setdefault((*key, str(shape)), (f"{name}:{control or 'base'}", case))
    return {f"{name}-{i}": case for i, (name, case) in enumerate(found.values())}


@pytest.fixture(autouse=True)
def _as_in_training() -> Any:
    with one_thread(), numerics():
        yield


class _NeverWaits(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Refuses what makes the CPU wait for a GPU, or moves numbers to it.

    On the device `meta`, where tensors have no numbers, reading one fails by itself; this also refuses
    tensors on the CPU.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        assert func is not torch.ops.aten._local_scalar_dense.default
        out = func(*args, **(kwargs or {}))
        tensors = [t for t in tree_leaves((args, kwargs, out)) if isinstance(t, Tensor)]
        elsewhere = [t for t in tensors if t.device.type != "meta" and t.ndim]  # kernels take single numbers
        assert not elsewhere, f"{func} has a tensor {tuple(elsewhere[0].shape)} on {elsewhere[0].device}"
        return out


@pytest.mark.parametrize("name", cases())
def test_a_step_waits_for_no_device(name: str) -> None:
    ensemble = cases()[name].build()
    ensemble.compiles = False
    ensemble.to("meta")
    draws = iter(Draws(ensemble.features, ensemble.distinct_seeds, device=ensemble.device))
    for once in (False, True):  # what is made once and kept may be moved in the first step
        uniforms = next(draws)
        with _NeverWaits() if once else torch.no_grad():
            ensemble.before_step()
            losses, gradients = ensemble.losses_and_gradients(uniforms, ensemble.seed_index)
            ensemble.after_step()
            ensemble.settled()
    assert losses.shape == (len(ensemble.seed_index),)
    assert {n: g.shape for n, g in gradients.items()} == {n: w.shape for n, w in ensemble.weights.items()}


@pytest.mark.parametrize(
    "read",
    [
        lambda x: x.sum().item(),
        lambda x: x.cpu(),
        lambda x: x.tolist(),
        lambda x: bool(x.any()),
        lambda x: x[x > 0],
        lambda x: x + torch.ones(3).to(x.device),
    ],
    ids=["item", "cpu", "tolist", "bool", "mask", "copy"],
)
def test_waiting_is_noticed(read: Any) -> None:
    x = torch.empty(3, device="meta")
    with pytest.raises((RuntimeError, NotImplementedError, AssertionError)), _NeverWaits():
        read(x)


def steps(ensemble: Ensemble, device: str, n: int) -> list[Tensor]:
    """The losses of the first `n` steps of training on a device, as `training_step` takes them."""
    ensemble.to(device)
    optimizer = ensemble.optimizer(ensemble.parameters())
    losses = []
    draws = Draws(ensemble.features, ensemble.distinct_seeds, device=ensemble.device)
    for _, uniforms in zip(range(n), draws, strict=False):
        ensemble.before_step()
        of_step, gradients = ensemble.losses_and_gradients(uniforms, ensemble.seed_index)
        losses.append(of_step.detach().clone())
        for name, weight in ensemble.weights.items():
            weight.grad = gradients[name]
        optimizer.step()
        ensemble.after_step()
    return losses


@pytest.mark.gpu
@pytest.mark.parametrize("name", cases())
def test_the_first_steps_are_those_of_the_cpu_to_rounding(name: str, accelerator: str) -> None:
    """Compiled where the spec compiles: the code for a GPU is another program."""
    here, there = cases()[name].build(), cases()[name].build()
    if accelerator == "cpu":  # two ways are compared on one device
        there.compiles = False
    torch.testing.assert_close(
        torch.stack(steps(there, accelerator, STEPS)).cpu(),
        torch.stack(steps(here, "cpu", STEPS)),
        rtol=1e-4,
        atol=1e-6,
    )
    assert there.compiled == (here.compiled and there.compiles)
    for weight, state in here.weights.items():
        # a step of Adam has the size of the learning rate, with the sign of a gradient that may be rounding
        torch.testing.assert_close(there.weights[weight].cpu(), state, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(there.evaluate().cpu(), here.evaluate(), rtol=1e-3, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("name", cases())
def test_metrics_of_the_same_weights_are_the_same(name: str, accelerator: str) -> None:
    here, there = cases()[name].build(), cases()[name].build()
    with torch.no_grad():
        for ensemble in (here, there):
            for weight in ensemble.weights.values():
                weight *= 4  # large enough for what metrics count
    there.to(accelerator)
    for ensemble in (here, there):
        ensemble.on_train_start()  # some models record their start
    with torch.no_grad():
        expected, found = here.metrics(), there.metrics()
    assert list(found) == list(expected)
    for metric, value in expected.items():
        here_too, there_too = value.cpu(), found[metric].cpu()
        assert there_too.dtype == here_too.dtype, metric
        assert torch.allclose(there_too, here_too, rtol=1e-4, atol=1e-5, equal_nan=True), metric
