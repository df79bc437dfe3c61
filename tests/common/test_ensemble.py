"""Tests of ensemble.py: instances are independent, and the fast way is the plain way."""

import functools
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from lightning import Trainer
from torch import Tensor
from torch._dynamo.utils import counters

from common import ensemble
from common.features import Draws, Independent, generator
from replications.toy_models_of_superposition.model import ToyModel

DENSITIES = torch.tensor([1.0, 0.5, 0.2, 0.05])
SEEDS = [4, 4, 9, 9]


def toy(rows: list[int], n_features: int = 2) -> ToyModel:
    """The ensemble of some of four instances, of two seeds."""
    features = Independent(n_features, DENSITIES[rows], batch_size=64)
    importance = torch.tensor([0.3, 1.0, 3.0, 10.0])[rows]
    model = ToyModel(features, [SEEDS[row] for row in rows], n_features - 1, importance)
    model.optimizer = functools.partial(torch.optim.AdamW, lr=1e-3, fused=True)
    return model


def first_draws(model: ToyModel) -> Tensor:
    return next(iter(Draws(model.features, model.distinct_seeds)))


def step(model: ToyModel) -> tuple[Tensor, dict[str, Tensor]]:
    return model.losses_and_gradients(first_draws(model), model.seed_index)


def fit(model: ToyModel, steps: int) -> dict[str, Tensor]:
    trainer = Trainer(
        accelerator="cpu", max_epochs=-1, max_steps=steps, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(model)
    return {name: weight.detach() for name, weight in model.weights.items()}


@pytest.mark.parametrize("n_features", [2, 3])
@pytest.mark.usefixtures("uncompiled")
def test_gradients_are_those_of_autograd(n_features: int) -> None:
    model = toy([0, 1, 2, 3], n_features)
    losses, gradients = step(model)
    uniforms = first_draws(model).reshape(2, n_features, -1)[model.seed_index]
    x = model.features.sample(list(uniforms.unbind(1)), model.factors)
    expected = ToyModel.loss(dict(model.weights.items()), model.factors, x)
    expected.sum().backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(losses, expected.detach())
    for name, weight in model.weights.items():
        torch.testing.assert_close(gradients[name], weight.grad)


@pytest.mark.usefixtures("uncompiled")
def test_a_gradient_does_not_depend_on_the_other_instances() -> None:
    model = toy([0, 1, 2, 3])
    before = step(model)[1]
    with torch.no_grad():
        model.weights["weight"][1:] += 1
    after = step(model)[1]
    for name in before:
        torch.testing.assert_close(after[name][0], before[name][0], rtol=0, atol=0)
        assert not torch.equal(after[name][1:], before[name][1:])


@pytest.mark.usefixtures("uncompiled")
def test_order_permutes_instances_and_changes_nothing_else() -> None:
    order = [2, 0, 3, 1]
    straight, permuted = step(toy([0, 1, 2, 3])), step(toy(order))
    torch.testing.assert_close(permuted[0], straight[0][order], rtol=0, atol=0)
    for name, gradient in straight[1].items():
        torch.testing.assert_close(permuted[1][name], gradient[order], rtol=0, atol=0)


def test_an_instance_trained_alone_is_the_one_in_the_ensemble() -> None:
    """To rounding, over the first 100 steps, by the compiled way."""
    together = fit(toy([0, 1, 2, 3]), 100)
    for row in range(4):
        alone = fit(toy([row]), 100)
        for name, weight in alone.items():
            torch.testing.assert_close(weight[0], together[name][row], rtol=1e-4, atol=1e-5)


def test_the_compiled_gradient_is_the_plain_one() -> None:
    model = toy([0, 1, 2, 3])
    losses, gradients = step(model)
    ran = [model.compiled]
    model.compiles = False
    plain_losses, plain = step(model)
    assert [*ran, model.compiled] == [True, False]
    torch.testing.assert_close(losses, plain_losses)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, plain[name])


@pytest.mark.usefixtures("uncompiled")
def test_the_trainer_takes_the_optimiser_s_steps_and_no_others() -> None:
    trained = fit(toy([0, 1, 2, 3]), 20)
    model = toy([0, 1, 2, 3])
    optimizer = model.optimizer(model.parameters())
    for _, uniforms in zip(range(20), Draws(model.features, model.distinct_seeds), strict=False):
        gradients = model.losses_and_gradients(uniforms, model.seed_index)[1]
        for name, weight in model.weights.items():
            weight.grad = gradients[name]
        optimizer.step()
    for name, weight in model.weights.items():
        torch.testing.assert_close(trained[name], weight.detach(), rtol=0, atol=0)


def _fails(error: Exception) -> Callable[..., Any]:
    def compiled(*arguments: Any) -> Any:
        raise error

    return lambda function, **options: compiled


def test_without_a_compiler_the_plain_way_runs_and_says_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", _fails(RuntimeError("no C++ compiler\nand more")))
    ensemble._gradient.cache_clear()
    model = toy([0, 1])
    with pytest.warns(UserWarning, match=r"^training runs uncompiled, slower: no C\+\+ compiler$") as said:
        first, second = step(model), step(model)
    assert len([w for w in said if "uncompiled" in str(w.message)]) == 1
    assert not model.compiled
    torch.testing.assert_close(first[0], second[0], rtol=0, atol=0)
    ensemble._gradient.cache_clear()


def test_running_out_of_memory_is_not_taken_for_a_missing_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", _fails(torch.OutOfMemoryError("full")))
    ensemble._gradient.cache_clear()
    with pytest.raises(torch.OutOfMemoryError):
        step(toy([0, 1]))
    ensemble._gradient.cache_clear()


def test_starts_depend_on_the_seed_alone() -> None:
    whole, part = toy([0, 1, 2, 3]).weights["weight"], toy([3, 0]).weights["weight"]
    torch.testing.assert_close(part[0], whole[3], rtol=0, atol=0)
    torch.testing.assert_close(whole[0], whole[1], rtol=0, atol=0)
    assert not torch.equal(whole[0], whole[2])
    expected = generator("start", 4).standard_normal((1, 2), dtype="float32")
    torch.testing.assert_close(whole[0], torch.from_numpy(expected) * (2 / 3) ** 0.5)


@pytest.mark.usefixtures("uncompiled")
def test_evaluation_sees_the_same_inputs_for_all_seeds() -> None:
    model = toy([0, 0, 2, 2])
    with torch.no_grad():
        model.weights["weight"][:] = torch.tensor([[1.0, -0.5]])
    for factor in model.factors.values():
        factor[:] = 0.5
    losses = model.evaluate()
    torch.testing.assert_close(losses, losses[:1].expand(4), rtol=0, atol=0)


@pytest.fixture
def without_code(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The compiler without its code generator, which takes seconds for each shape."""
    compile_function = torch.compile

    def traced(function: Any, options: Any, **arguments: Any) -> Any:
        return compile_function(function, backend="eager", **arguments)

    monkeypatch.setattr(torch, "compile", traced)
    ensemble._gradient.cache_clear()
    torch._dynamo.reset()  # before torch 2.13, what other tests compiled would be used again
    yield
    ensemble._gradient.cache_clear()


@pytest.mark.usefixtures("without_code")
def test_more_shapes_than_the_compiler_allows_by_default() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for n_features in range(2, 12):  # by default eight
            step(ToyModel(Independent(n_features, 0.5, batch_size=4), [0, 1], 1))


@pytest.mark.usefixtures("without_code")
def test_networks_are_evaluated_by_the_code_that_trained_them_whatever_was_trained_before() -> None:
    """Other code may round otherwise, and then the order of shards would show in their losses."""
    compiled = []
    for n_hidden in (1, 2, 3):
        model = ToyModel(Independent(3, 0.5, batch_size=4), [0, 1, 2], n_hidden)
        before = counters["stats"]["unique_graphs"]
        step(model)
        model.evaluate()
        compiled.append(counters["stats"]["unique_graphs"] - before)
    assert compiled == [1, 1, 1]


@pytest.mark.parametrize("device_type", ["cpu", "cuda"])
def test_each_device_gets_its_own_options_and_only_those_that_this_torch_has(
    device_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ensemble._options(device_type)
    assert options == ensemble._OPTIONS[device_type]
    assert any(name.startswith("cpp.") for name in options) == (device_type == "cpu")
    monkeypatch.setattr(torch._inductor, "list_options", lambda: ["assert_indirect_indexing"])
    assert ensemble._options(device_type) == {"assert_indirect_indexing": False}


@pytest.mark.usefixtures("without_code")
def test_where_a_batch_lies_in_its_block_is_not_compiled_in() -> None:
    """On a GPU each batch is a view of the block that it came in."""
    model = toy([0, 1, 2, 3])
    step(model)
    before = counters["stats"]["unique_graphs"]
    block = torch.stack([first_draws(model)] * 3)
    losses = [model.losses_and_gradients(uniforms, model.seed_index)[0] for uniforms in block]
    assert counters["stats"]["unique_graphs"] == before
    assert torch.equal(losses[0], losses[2])
