"""Tests of `SettlingL1Autoencoder`: what leaves training changes no outcome."""

import itertools
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from jaxtyping import Bool
from lightning import Trainer
from torch import Tensor, nn

from common.features import Basis
from common.runs import shard as one_shard
from common.runs.shard import Session, Trained, fit_shard
from common.runs.store import Run
from common.specs.sweep import Shard, shards
from replications.incidental_polysemanticity import model as basis
from replications.incidental_polysemanticity.model import (
    SETTLED_ZERO,
    L1Autoencoder,
    LinearL1Autoencoder,
    NoInterference,
    SettlingL1Autoencoder,
)
from replications.incidental_polysemanticity.winners import is_winner
from tests.conftest import SETTLING

PLACE = "replications.incidental_polysemanticity.model"
COUNTS = ["polysemantic_neurons", "opposed_neurons", "opposed_pairs", "features_with_one_winner"]


@pytest.fixture
def fit(small: Any) -> Any:
    """A function that trains the given seeds of networks with 8 features and 32 neurons until settled."""

    def train(seeds: range, kind: str = "SettlingL1Autoencoder") -> Trained:
        spec = small(
            **{**SETTLING, "model": f"{{class_path: {PLACE}.{kind}, init_args: {{l1: .02}}}}"},
            shard_size="9",
        )
        (shard,) = shards(spec)
        rows = shard.rows[shard.rows["seed"].isin(seeds)]
        return fit_shard(spec, Shard("0-0", rows), Session(keeps_state=True))

    return train


def in_training(kind: type[SettlingL1Autoencoder], weight: Tensor, l1: float = 0.003) -> Any:
    """A network with this weight, ready for `set_gradients`."""
    model = kind(Basis(len(weight)), [0], weight.shape[1], l1)
    model.weights["weight"] = nn.Parameter(weight[None])
    model.trainer = Trainer(logger=False, enable_checkpointing=False, enable_progress_bar=False)
    (trained,) = model.trained()
    return model, trained


@pytest.mark.parametrize("kind", [SettlingL1Autoencoder, LinearL1Autoencoder, NoInterference])
@pytest.mark.parametrize("n_features", [3, 64, 130])
def test_the_gradient_in_blocks_is_that_of_the_loss(
    kind: type[SettlingL1Autoencoder], n_features: int
) -> None:
    """In float64; some neurons have left."""
    random = np.random.default_rng(n_features)
    weight = torch.from_numpy(random.standard_normal((n_features, 20)) / 4)
    weight[:, ::3] = 0
    model, _ = in_training(kind, weight)
    stays = (torch.arange(20) % 3).bool()
    model._neurons = [stays.nonzero().flatten()]
    (live,) = model.trained()
    model.set_gradients(torch.empty(0, n_features))

    whole = weight.clone().requires_grad_()
    output = whole @ whole.mT
    if kind is not LinearL1Autoencoder:
        output = output.relu()
    error = output - torch.eye(n_features, dtype=torch.float64)
    if kind is NoInterference:
        error = error.diagonal()
    loss = error.square().sum() + float(np.float32(0.003)) * whole.abs().sum()
    (gradient,) = torch.autograd.grad(loss, whole)
    torch.testing.assert_close(live.grad, gradient[:, stays], rtol=1e-12, atol=1e-12)
    assert not gradient[:, ~stays].any()


def test_winners_are_those_of_training_everything_to_the_end(fit: Any) -> None:
    ours, whole = fit(range(5)), fit(range(5), "L1Autoencoder")
    pd.testing.assert_frame_equal(ours.table[COUNTS], whole.table[COUNTS])
    assert ours.table["polysemantic_neurons"].sum() > 0
    weights = [trained.state["weights.weight"] for trained in (ours, whole)]
    signed = [is_winner(weight) * weight.sign() for weight in weights]
    torch.testing.assert_close(*signed, rtol=0, atol=0)
    left = (weights[0] == 0).all(dim=1)
    assert left.sum() >= 5 * 20
    assert (weights[1].abs().amax(dim=1)[left] < SETTLED_ZERO).all()


@pytest.mark.parametrize("first", [1, 3])
def test_no_bit_of_a_network_depends_on_the_others(fit: Any, first: int) -> None:
    """Though they settle after different numbers of steps."""
    whole, parts = fit(range(5)), [fit(range(first)), fit(range(first, 5))]
    assert whole.table["steps"].nunique() > 1
    tables = pd.concat([part.table for part in parts])
    pd.testing.assert_frame_equal(whole.table, tables, check_exact=True)
    for name, tensor in whole.state.items():
        assert torch.equal(tensor, torch.cat([part.state[name] for part in parts]))


def test_settled_networks_are_not_trained(fit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[Tensor, Tensor, list[int]]] = []
    leave = SettlingL1Autoencoder.leave

    def told_leave(self: SettlingL1Autoencoder, done: Bool[Tensor, "instances"]) -> None:
        leave(self, done)
        told.append((done.clone(), self.weights["weight"].detach().clone(), [w.numel() for w in self._live]))

    monkeypatch.setattr(SettlingL1Autoencoder, "leave", told_leave)
    fit(range(5))
    compared = 0
    for (done, before, _), (_, after, size) in itertools.pairwise(told):
        assert torch.equal(before[done], after[done])
        assert not torch.equal(before[~done], after[~done]) or done.all()
        assert all(n == 0 for n, gone in zip(size, done.tolist(), strict=True) if gone)
        compared += int(done.sum())
    assert compared > 0


class Stopped(Exception):  # noqa: N818  # it is planned
    """Training was stopped."""


@pytest.mark.parametrize("at", [400, 900])
def test_training_resumes_to_the_bit_after_neurons_have_left(
    small: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    model = f"{{class_path: {PLACE}.SettlingL1Autoencoder, init_args: {{l1: .02}}}}"
    spec = small(**{**SETTLING, "model": model}, shard_size="9")
    run, (shard,) = Run(spec, tmp_path), shards(spec)
    session = Session(keeps_state=True)
    whole = fit_shard(spec, shard, session)
    sizes: list[int] = []
    write = Run.write_partial

    def write_and_stop(self: Run, shard: Shard, state: dict[str, Any]) -> None:
        if state["global_step"] >= at:
            sizes.extend(len(neurons) for neurons in state["neurons"])
            write(self, shard, state)
            raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(one_shard, "PARTIAL_S", 0.0)
        patch.setattr(one_shard, "PARTIAL_SHARE", np.inf)
        patch.setattr(Run, "write_partial", write_and_stop)
        with pytest.raises(Stopped):
            fit_shard(spec, shard, session._replace(checkpoints=run))
    assert min(sizes) < 32
    steps: list[int] = []
    set_gradients = SettlingL1Autoencoder.set_gradients

    def told(self: SettlingL1Autoencoder, uniforms: Tensor) -> None:
        steps.append(self.global_step)
        set_gradients(self, uniforms)

    monkeypatch.setattr(SettlingL1Autoencoder, "set_gradients", told)
    resumed = fit_shard(spec, shard, session._replace(checkpoints=run))
    assert steps[0] >= at
    pd.testing.assert_frame_equal(resumed.table, whole.table, check_exact=True)
    for name, tensor in whole.state.items():
        assert torch.equal(tensor, resumed.state[name])


def test_a_neuron_is_dead_only_where_nothing_can_make_its_weights_grow() -> None:
    """Feature 1 has no winner, so its weights grow where L1 is less than 4 times their size."""
    weight = torch.zeros(2, 3)
    weight[0, 0], weight[1, 1], weight[:, 2] = 1, 0.9 * SETTLED_ZERO, 0.5 * SETTLED_ZERO
    for kind in (SettlingL1Autoencoder, LinearL1Autoencoder, NoInterference):
        for l1, expected in ((0.0, False), (0.001, False), (0.03, True)):
            model, live = in_training(kind, weight, l1)
            assert model.dead(live.detach(), l1).tolist() == [False, expected, expected]
            model.set_gradients(torch.empty(0, 2))
            grows = bool(live.grad[1, 1] * live.detach()[1, 1] < 0)
            assert grows is not expected
    # a feature that has its winner holds the others' growth back
    model, live = in_training(SettlingL1Autoencoder, torch.eye(2, 3) + 0.5 * SETTLED_ZERO, 0.001)
    assert model.dead(live.detach(), 0.001).tolist() == [False, False, True]


def test_without_l1_nothing_leaves(small: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neurons without any weights excepted: they have no gradient either."""
    model = f"{{class_path: {PLACE}.SettlingL1Autoencoder, init_args: {{l1: 0.}}}}"
    spec = small(**{**SETTLING, "model": model, "trainer": "{max_steps: 300, stop_when_settled: true}"})
    start = basis.start_weights
    monkeypatch.setattr(
        basis, "start_weights", lambda *a: torch.cat([1e-3 * start(*a)[:, :1], start(*a)[:, 1:]], 1)
    )
    kept = fit_shard(spec, shards(spec)[0], Session(keeps_state=True)).state["weights.weight"]
    everything = small(**{**SETTLING, "model": model.replace("Settling", ""), "trainer": "{max_steps: 300}"})
    whole = fit_shard(everything, shards(everything)[0], Session(keeps_state=True)).state["weights.weight"]
    assert (kept != 0).all()
    torch.testing.assert_close(kept, whole, rtol=1e-3, atol=1e-4)


def test_the_overlap_in_blocks_is_that_of_the_definition() -> None:
    weight = torch.from_numpy(np.random.default_rng(0).standard_normal((150, 40)))
    overlap = basis.overlap(weight)
    torch.testing.assert_close(overlap, weight @ weight.mT)


def test_losses_for_a_logger_are_those_before_the_step() -> None:
    weight = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    model, _ = in_training(SettlingL1Autoencoder, weight)
    model.trainer.loggers = [object()]
    model.set_gradients(torch.empty(0, 5))
    torch.testing.assert_close(model.losses, L1Autoencoder.loss({"weight": weight[None]}, model.factors, []))
