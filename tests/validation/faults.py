"""Mistakes that someone really makes, one by one: each plants itself in the code of its process, for good.

A fault is a function without arguments that replaces one thing; its docstring says what is then wrong. Of one
in the judging of results nothing is trained again. What is not said to touch a replication may do so all the
same: named are those that are tried, few enough to take minutes.
"""

import functools
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from lightning import Trainer
from torch import Tensor

from common import ensemble, features, metrics, statistics
from common.ensemble import Ensemble, Weights
from common.features import Independent
from common.runs import shard, store
from common.specs import spec
from common.statistics import Interval
from common.verdicts import estimates, evaluate
from common.verdicts.claims import Claim, Verdict
from replications.incidental_polysemanticity import (
    model as basis,
)
from replications.incidental_polysemanticity import (
    noise_model,
    readers_model,
    sparsification_model,
    winners,
)
from replications.polysemanticity_definitions import (
    definitions_model,
    exact_networks_model,
    exact_statements_model,
)
from replications.product_network import model as product
from replications.product_network import neurons, population
from replications.toy_models_of_superposition import (
    correlated_features_model,
    five_features,
    phase_diagram_cells,
    plane,
)
from replications.toy_models_of_superposition import (
    model as toy,
)

FIVE = "toy_models_of_superposition/five_features"
PHASES = "toy_models_of_superposition/phase_diagram"
PAIRS = "toy_models_of_superposition/correlated_features"
COLLAPSE = "toy_models_of_superposition/collapse"
OPTIMUM = "product_network/optimum"
REACH = "product_network/reach"
COLLISIONS = "incidental_polysemanticity/collisions"
TOGETHER = "incidental_polysemanticity/cooccurrence"
DUPLICATION = "incidental_polysemanticity/duplication"
NOISE = "incidental_polysemanticity/noise"
ROTATION = "incidental_polysemanticity/rotation"
SPARSIFICATION = "incidental_polysemanticity/sparsification"
START = "incidental_polysemanticity/start_correlation"
DEFINITIONS = "polysemanticity_definitions/definitions"
NETWORKS = "polysemanticity_definitions/exact_networks"
STATEMENTS = "polysemanticity_definitions/exact_statements"
EVERYTHING = (
    FIVE, PHASES, PAIRS, COLLAPSE, OPTIMUM, REACH, COLLISIONS, TOGETHER, DUPLICATION, NOISE, ROTATION,
    SPARSIFICATION, START, DEFINITIONS, NETWORKS, STATEMENTS,
)  # fmt: skip

NONE = "none"
"""The name of no fault at all: the suite as it is, which must not be caught."""


class Fault(NamedTuple):
    """A mistake, what it breaks, and the replications that it is tried on.

    `judging`: it is in what follows training, so results of the unbroken suite are judged. `controls`: it
    concerns the controls, which are run too.
    """

    name: str
    what: str
    touches: tuple[str, ...]
    plant: Callable[[], None]
    judging: bool
    controls: bool


FAULTS: dict[str, Fault] = {}


def fault(
    *touches: str, judging: bool = False, controls: bool = False
) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Enter a function into `FAULTS`, by its name; its docstring is what it breaks."""

    def enter(plant: Callable[[], None]) -> Callable[[], None]:
        what = " ".join(str(plant.__doc__).split())
        FAULTS[plant.__name__] = Fault(plant.__name__, what, touches, plant, judging, controls)
        return plant

    return enter


def swap(old: object, new: object) -> None:
    """Replace `old` by `new` under each name that a module knows it by, and among the measures of models."""
    for module in list(sys.modules.values()):
        if module.__name__.startswith(("common.", "replications.")):
            for name, value in list(vars(module).items()):
                if value is old:
                    setattr(module, name, new)
                if isinstance(value, type) and issubclass(value, Ensemble) and old in value.measures.values():
                    value.measures = {n: new if f is old else f for n, f in value.measures.items()}  # type: ignore[misc]


def put(owner: object, name: str, new: object) -> None:
    """Set an attribute of a module or class to what is wrong there, whatever its type."""
    setattr(owner, name, new)


@fault(*EVERYTHING)
def none() -> None:
    """Nothing: the suite as it is, which must not be caught."""


# --- losses and gradients of the toy models


def _toy_loss(change: Callable[..., tuple[Any, ...]], scale: Callable[[int], float] = lambda n: 1.0) -> None:
    original = toy._loss

    def loss(*arguments: Any) -> Tensor:
        return original(*change(*arguments)) * scale(len(arguments[3]))

    put(toy, "_loss", loss)


@fault(FIVE, PHASES)
def loss_summed_over_features() -> None:
    """The loss is the sum over features, not their mean."""
    _toy_loss(lambda *arguments: arguments, float)


@fault(FIVE, PAIRS)
def no_relu() -> None:
    """The output has no ReLU."""
    _toy_loss(lambda w, f, r, x, activation: (w, f, r, x, lambda output: output))


@fault(FIVE, PHASES)
def importance_inside_the_square() -> None:
    """Importance multiplies the error before it is squared."""
    _toy_loss(lambda w, f, r, x, a: (w, f, [i if i is None else i**2 for i in r], x, a))


@fault(FIVE, COLLAPSE)
def bias_not_trained() -> None:
    """The bias gets no gradient and stays 0."""
    _toy_loss(lambda w, f, r, x, a: ({**w, "bias": w["bias"].detach()}, f, r, x, a))


@fault(FIVE, PAIRS)
def one_of_the_tied_weights_detached() -> None:
    """The gradient flows through the output's weights only, not through the hidden layer's."""

    def recovered(weight: Tensor, x: Sequence[Tensor]) -> Sequence[Tensor]:
        return (weight.mT @ (weight.detach() @ torch.stack(list(x), dim=1))).unbind(dim=1)

    put(toy, "_recovered", recovered)


@fault(FIVE)
def decay_from_one() -> None:
    """The importance of feature i is decay^(i + 1) for all but the first: counted from 1."""

    def loss(weights: Weights, factors: Mapping[str, Tensor], x: Sequence[Tensor]) -> Tensor:
        importance = [None, *(factors["decay"] ** (i + 1) for i in range(1, len(x)))]
        return toy._loss(weights, factors, importance, x, torch.relu)

    put(toy.DecayingImportance, "loss", staticmethod(loss))


@fault(FIVE, COLLAPSE)
def start_too_large() -> None:
    """Start weights are twice as large."""
    _scaled_start(toy, 2.0)


@fault(COLLAPSE, PAIRS)
def start_off_by_root_two() -> None:
    """Start weights are larger by the square root of 2: 4 for 2 in Xavier's rule."""
    _scaled_start(toy, 2**0.5)


def _scaled_start(module: Any, scale: float) -> None:
    original = module._start

    def start(*arguments: Any) -> dict[str, Tensor]:
        return {name: weight * scale for name, weight in original(*arguments).items()}

    put(module, "_start", start)


# --- inputs


def _independent(one: Callable[[Tensor, Tensor], Tensor]) -> None:
    def sample(self: Any, uniforms: Sequence[Tensor], factors: Mapping[str, Tensor]) -> list[Tensor]:
        return [one(u, factors["density"]) for u in uniforms]

    put(Independent, "sample", sample)


@fault(FIVE, PHASES)
def density_for_sparsity() -> None:
    """A feature is zero with probability p, not 1 - p."""
    _independent(lambda u, p: torch.where(u < 1 - p, u / (1 - p).clamp_min(1e-6), 0.0))


@fault(FIVE, PHASES)
def inputs_not_scaled() -> None:
    """Inputs are not scaled by 1/p, so they are uniform on [0, p]."""
    _independent(lambda u, p: torch.where(u < p, u, 0.0))


@fault(FIVE, PHASES)
def inputs_of_both_signs() -> None:
    """Inputs are uniform on [-1, 1], not on [0, 1]."""
    _independent(lambda u, p: torch.where(u < p, 2 * u / p - 1, 0.0))


@fault(FIVE, PHASES)
def one_mask_for_the_batch() -> None:
    """Whether a feature is on is drawn once for the whole batch."""
    _independent(lambda u, p: torch.where(u[:, :1] < p, u, 0.0))


@fault(FIVE)
def inputs_binary() -> None:
    """A feature that is on is 1, not uniform on [0, 1]."""
    _independent(lambda u, p: torch.where(u < p, 1.0, 0.0))


def _related(change: Callable[[Any, list[Tensor], Mapping[str, Tensor]], list[Tensor]]) -> None:
    original = correlated_features_model.RelatedSets.sample

    def sample(self: Any, uniforms: Sequence[Tensor], factors: Mapping[str, Tensor]) -> list[Tensor]:
        return change(self, original(self, uniforms, factors), factors)

    put(correlated_features_model.RelatedSets, "sample", sample)


@fault(PAIRS, COLLAPSE)
def sets_of_the_wrong_features() -> None:
    """Features of a set do not lie next to each other, but every so many apart."""

    def interleaved(self: Any, inputs: list[Tensor], factors: Mapping[str, Tensor]) -> list[Tensor]:
        return [inputs[i] for k in range(self.set_size) for i in range(k, len(inputs), self.set_size)]

    _related(interleaved)


@fault(PAIRS, COLLAPSE)
def one_value_for_a_set() -> None:
    """All features of a set that is on have the same value."""
    _related(lambda self, x, factors: [x[i - i % self.set_size] for i in range(len(x))])


@fault(PAIRS, COLLAPSE)
def sets_anticorrelated() -> None:
    """Correlated sets are made as anticorrelated ones: one feature of a set at a time."""

    def one_at_a_time(self: Any, x: list[Tensor], factors: Mapping[str, Tensor]) -> list[Tensor]:
        first, size = [x[i - i % self.set_size] for i in range(len(x))], self.set_size
        chosen = [(f * size).floor() == i % size for i, f in enumerate(first)]
        return [torch.where(c & (f > 0), y, 0.0) for c, f, y in zip(chosen, first, x, strict=True)]

    _related(one_at_a_time)


@fault(PAIRS, controls=True)
def the_control_is_not_broken() -> None:
    """The switch that makes features independent, for the control, does nothing."""
    original = correlated_features_model.RelatedSets.sample

    def sample(self: Any, uniforms: Sequence[Tensor], factors: Mapping[str, Tensor]) -> list[Tensor]:
        return original(self, uniforms, {**factors, "related": torch.ones_like(factors["related"])})

    put(correlated_features_model.RelatedSets, "sample", sample)


@fault(FIVE, NOISE, DEFINITIONS)
def one_seed_for_all() -> None:
    """All seeds draw the same numbers: the same start and data for every network."""
    original = features.generator
    swap(original, lambda stream, seed: original(stream, 0))


@fault(FIVE, OPTIMUM, NETWORKS)
def one_start_for_all() -> None:
    """All networks start from the same weights, on data of their own."""
    original = features.generator
    put(ensemble, "generator", lambda stream, seed: original(stream, 0 if stream == "start" else seed))


@fault(FIVE, OPTIMUM, NOISE)
def the_same_batch_again() -> None:
    """The random numbers start anew at every step, so that each batch is the first."""
    original = features.Draws.__iter__

    def again(self: Any) -> Iterator[Tensor]:
        first = next(original(self))
        while True:
            yield first

    put(features.Draws, "__iter__", again)


# --- optimisers, steps, precision


def _optimizer(**changes: Callable[[Any], Any]) -> None:
    """Change the arguments of each network's optimizer that it has."""
    original = spec.Spec.optimizer_of

    def optimizer_of(self: Any, part: str) -> Callable[..., torch.optim.Optimizer]:
        make = original(self, part)

        def made(parameters: Any) -> torch.optim.Optimizer:
            optimizer = make(parameters)
            for group in optimizer.param_groups:
                group.update({name: f(group[name]) for name, f in changes.items() if name in group})
            return optimizer

        return functools.partial(made)  # as the one that it stands for: its keywords are looked at

    put(spec.Spec, "optimizer_of", optimizer_of)


@fault(FIVE, NOISE, DUPLICATION)
def rate_ten_times() -> None:
    """The learning rate is 10 times too large."""
    _optimizer(lr=lambda lr: 10 * lr)


@fault(FIVE, COLLAPSE, NOISE, REACH)
def rate_a_tenth() -> None:
    """The learning rate is 10 times too small."""
    _optimizer(lr=lambda lr: lr / 10)


@fault(FIVE, START, NETWORKS)
def weight_decay_ten_times() -> None:
    """Weight decay is 10 times too large."""
    _optimizer(weight_decay=lambda decay: 10 * decay)


@fault(FIVE, START, PHASES, NETWORKS)
def no_weight_decay() -> None:
    """There is no weight decay."""
    _optimizer(weight_decay=lambda decay: 0.0)


@fault(FIVE, OPTIMUM, TOGETHER)
def wrong_betas() -> None:
    """Adam's second beta is .9, as its first, not .999."""
    _optimizer(betas=lambda betas: (0.9, 0.9))


@fault(NETWORKS)
def no_momentum() -> None:
    """SGD has no momentum."""
    _optimizer(momentum=lambda momentum: 0.0)


@fault(OPTIMUM, REACH, NETWORKS)
def rate_stays() -> None:
    """The learning rate does not fall: its schedule is never stepped."""
    put(spec.Spec, "lr_scheduler_of", lambda self: None)


@fault(FIVE, START, NOISE, REACH)
def half_of_the_steps() -> None:
    """Training stops after half of the steps."""
    original = Trainer
    put(shard, "Trainer", lambda **k: original(**k | {"max_steps": k["max_steps"] // 2}))


@fault(FIVE, ROTATION, OPTIMUM)
def half_precision() -> None:
    """Weights are rounded to 16 bits after every step."""

    def round_weights(self: Any) -> None:
        with torch.no_grad():
            for weight in self.weights.values():
                weight.copy_(weight.half())

    put(Ensemble, "before_step", round_weights)


@fault(FIVE, NOISE)
def rows_of_other_networks() -> None:
    """What was measured of a network stands in the row of the one before it."""
    original = shard._columns

    def columns(name: str, value: Tensor, index: pd.Index) -> pd.DataFrame:
        return original(name, value.roll(1, dims=0), index)

    put(shard, "_columns", columns)


@fault(FIVE, PHASES)
def evaluated_on_training_inputs() -> None:
    """The loss is that on the inputs of the first steps, not on held-out ones."""
    original = features.Draws
    put(ensemble, "Draws", lambda f, seeds, stream="training", skip=0: original(f, seeds, skip=skip))


@fault(PHASES)
def evaluated_on_dense_inputs() -> None:
    """The loss is that on inputs that are never zero, whatever the density trained on."""
    original = Ensemble.evaluate

    def evaluate(self: Any) -> Tensor:
        density = self.factor_density
        self.factor_density = torch.ones_like(density)
        try:
            return original(self)
        finally:
            self.factor_density = density

    put(Ensemble, "evaluate", evaluate)


# --- metrics of the toy models


@fault(FIVE)
def weights_in_the_wrong_order() -> None:
    """The weights' axes are mixed up when they are stored: hidden dimension for feature."""
    original = toy.ToyModel.metrics

    def wrong(self: Any) -> dict[str, Tensor]:
        found = original(self)
        k, n_hidden, n_features = found["weight"].shape
        return found | {"weight": found["weight"].mT.reshape(k, n_hidden, n_features)}

    put(toy.ToyModel, "metrics", wrong)


@fault(PHASES)
def superposition_with_itself() -> None:
    """A feature's overlap with itself counts as superposition."""

    def with_itself(weight: Tensor) -> Tensor:
        norms, overlaps = metrics._overlaps_with_others(weight)
        return overlaps.square().sum(dim=2) + norms.square()

    swap(metrics.superposition, with_itself)


@fault(PHASES)
def superposition_transposed() -> None:
    """Overlaps are relative to the other feature's norm: summed over the wrong axis."""

    def transposed(weight: Tensor) -> Tensor:
        return metrics._overlaps_with_others(weight)[1].square().sum(dim=1)

    swap(metrics.superposition, transposed)


@fault(PHASES)
def norm_not_rooted() -> None:
    """The norm of a feature is its square."""
    original = metrics.feature_norm
    swap(original, lambda weight: original(weight).square())


@fault(PAIRS, COLLAPSE, judging=True)
def angles_not_wrapped() -> None:
    """The angle between two features is taken one way round, up to 360 degrees."""

    def apart(weight: np.ndarray[Any, Any]) -> Any:
        direction = np.degrees(np.arctan2(weight[:, 1], weight[:, 0]))
        return np.abs(direction[:, :, None] - direction[:, None, :])

    put(plane, "angles", apart)
    put(plane, "within", lambda weight: apart(weight)[:, ::2, 1::2].diagonal(axis1=1, axis2=2))


@fault(PAIRS, COLLAPSE, judging=True)
def pairs_off_by_one() -> None:
    """Features 1 and 2 are taken for a pair, 3 and 4, and so on."""
    original = plane.weights
    put(plane, "weights", lambda *arguments: np.roll(original(*arguments), 1, axis=2))


@fault(FIVE, judging=True)
def the_worst_of_ten() -> None:
    """Of ten networks the one with the highest loss is taken, not the lowest."""
    original = five_features.select
    put(five_features, "select", lambda table, *a: original(table.assign(loss=-table["loss"]), *a))


@fault(PHASES, judging=True)
def feature_of_the_wrong_end() -> None:
    """The first feature is read for the last one, whose importance varies."""
    original = phase_diagram_cells.columns

    def columns(table: pd.DataFrame, part: str) -> Callable[[str], Any]:
        column = original(table, part)
        return lambda name: column(name.replace("_1", "_0").replace("_2", "_0"))

    put(phase_diagram_cells, "columns", columns)


# --- networks on x y


@fault(OPTIMUM, REACH)
def no_bias() -> None:
    """The networks have no bias."""
    _factor("bias", lambda bias: 0 * bias)


def _factor(wanted: str, change: Callable[[Any], Any]) -> None:
    original = Ensemble.add_factor

    def add_factor(self: Any, name: str, value: Any) -> None:
        original(self, name, change(torch.as_tensor(value)) if name == wanted else value)

    put(Ensemble, "add_factor", add_factor)


@fault(OPTIMUM, REACH)
def start_of_networks_too_large() -> None:
    """Start weights are twice as large."""
    _scaled_start(product, 2.0)


@fault(OPTIMUM)
def inputs_not_centred() -> None:
    """x and y are uniform on [0, 1], not normal."""
    put(product.Pair, "sample", lambda self, uniforms, factors: list(uniforms))


@fault(OPTIMUM)
def inputs_too_wide() -> None:
    """x and y have variance 2: the logarithm is multiplied by 4."""
    original = product.Pair.sample

    def sample(self: Any, uniforms: Sequence[Tensor], factors: Mapping[str, Tensor]) -> list[Tensor]:
        return [2**0.5 * x for x in original(self, uniforms, factors)]

    put(product.Pair, "sample", sample)


@fault(OPTIMUM, REACH)
def sign_of_the_kink() -> None:
    """A kink lies at +b/|w|, not at -b/|w|."""
    original = neurons.read

    def read(weights: Mapping[str, Tensor]) -> neurons.Neurons:
        found = original(weights)
        return found._replace(kink=-found.kink)

    put(neurons, "read", read)


@fault(OPTIMUM)
def quadrature_cut_short() -> None:
    """The exact loss is integrated over 2 standard deviations only."""
    population.RANGE["normal"] = 2.0


@fault(OPTIMUM)
def output_bias_left_out() -> None:
    """The exact loss leaves the output's bias out."""
    original = population.population_loss

    def loss(weights: Mapping[str, Tensor], distribution: population.Distribution) -> Tensor:
        return original({**weights, "output_bias": 0 * weights["output_bias"]}, distribution)

    put(product, "population_loss", loss)


# --- autoencoders on the standard basis


@fault(ROTATION, START, DUPLICATION, TOGETHER)
def lambda_times_four() -> None:
    """The L1 norm has 4 times its weight."""
    _factor("l1", lambda l1: 4 * l1)


def _gradient(change: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
    """Change the gradient, given itself, the weights and lambda."""
    original = basis.L1Autoencoder.losses_and_gradients

    def wrong(self: Any, uniforms: Tensor, seed_index: Tensor) -> tuple[Tensor, Weights]:
        losses, gradients = original(self, uniforms, seed_index)
        weight, l1 = self.weights["weight"].detach(), self.factors["l1"][:, :, None]
        return losses, {"weight": change(gradients["weight"], weight, l1)}

    put(basis.L1Autoencoder, "losses_and_gradients", wrong)
    set_gradients = basis.SettlingL1Autoencoder.set_gradients

    def wrongly_set(self: Any, uniforms: Tensor) -> None:
        set_gradients(self, uniforms)
        for live, l1 in zip(self._live, self._l1, strict=True):
            if live.numel():
                live.grad.copy_(change(live.grad, live.detach(), torch.tensor(l1)))

    put(basis.SettlingL1Autoencoder, "set_gradients", wrongly_set)


@fault(ROTATION, START)
def sign_of_the_l1_gradient() -> None:
    """The gradient of the L1 norm has the wrong sign."""
    _gradient(lambda gradient, weight, l1: gradient - 2 * l1 * weight.sign())


@fault(ROTATION, START)
def half_of_the_tied_gradient() -> None:
    """The factor of the squared error's gradient is 2, not 4: one of the two uses of W is forgotten."""
    _gradient(lambda gradient, weight, l1: (gradient + l1 * weight.sign()) / 2)


@fault(ROTATION, START, DUPLICATION)
def start_of_the_basis_too_large() -> None:
    """Start weights are twice as large."""
    original = basis.start_weights
    swap(original, lambda *arguments: 2 * original(*arguments))


@fault(COLLISIONS, START)
def stop_too_early() -> None:
    """Networks count as settled when weights are still far from 0 and 1."""
    basis.SETTLED_ZERO, basis.SETTLED_ONE = 0.2, 0.3


@fault(START, TOGETHER)
def winners_of_any_size() -> None:
    """All weights up to 1.2 count as winners: the lower end of the window is 0."""
    put(winners, "WINNER", (0.0, 1.2))


@fault(TOGETHER, DUPLICATION)
def winners_of_one_sign() -> None:
    """Only positive weights count as winners."""
    swap(winners.is_winner, lambda w: (w >= winners.WINNER[0]) & (w <= winners.WINNER[1]))


@fault(COLLISIONS, TOGETHER)
def counted_along_features() -> None:
    """Polysemantic neurons are counted along the wrong axis: features with two winners."""
    original = winners.polysemantic_neurons
    swap(original, lambda weight: original(weight.mT))


@fault(START)
def winner_with_its_sign() -> None:
    """Weights are compared with their signs, where it should be by size."""
    original = basis.StartCorrelation.metrics

    def wrong(self: Any) -> dict[str, Tensor]:
        size = Tensor.abs
        try:
            put(Tensor, "abs", lambda weight: weight)
            return original(self)
        finally:
            put(Tensor, "abs", size)

    put(basis.StartCorrelation, "metrics", wrong)


@fault(ROTATION)
def responses_of_the_wrong_axis() -> None:
    """The effective number is that of a feature's neurons, not of a neuron's features."""
    original = readers_model.effective_number
    put(
        readers_model,
        "effective_number",
        lambda weight, dim: original(weight.mT, dim).repeat_interleave(2, dim=1),
    )


@fault(TOGETHER)
def samples_not_weighted() -> None:
    """Inputs drawn with another probability are not weighted for it."""
    put(readers_model, "input_weights", lambda n_on, p, n, size: torch.where(n_on == 1, 1.0, 1 / size))


@fault(DUPLICATION)
def copies_not_divided() -> None:
    """A neuron and its copy keep their weights, so that the output doubles."""

    class Wrong:
        sqrt = staticmethod(lambda number: 1.0)

    put(readers_model, "math", Wrong)


@fault(DUPLICATION)
def moments_kept() -> None:
    """The optimiser keeps its moments when neurons are duplicated."""

    def start(self: Any) -> None:
        if self.global_step == self.duplicate_at:
            self.duplicate_neurons()

    put(readers_model.DuplicatedNeurons, "before_step", start)


def _noise(unit: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Make the noise of its standard deviation and of numbers on (-1, 1), and the kind that was asked for."""
    original = noise_model.HiddenNoise.sample

    def sample(self: Any, uniforms: Sequence[Tensor], factors: Mapping[str, Tensor]) -> list[Tensor]:
        return [unit(factors["sigma"], *original(self, uniforms, factors))]

    put(noise_model.HiddenNoise, "sample", sample)


@fault(NOISE)
def variance_for_deviation() -> None:
    """The standard deviation of the noise is sigma squared."""
    _noise(lambda sigma, noise: sigma * noise)


@fault(NOISE)
def noise_off_by_root_two() -> None:
    """The standard deviation of the noise is larger by the square root of 2."""
    _noise(lambda sigma, noise: 2**0.5 * noise)


@fault(NOISE)
def wrong_kurtosis() -> None:
    """All noise is Gaussian."""
    _factor("excess_kurtosis", lambda kurtosis: 0 * kurtosis)


@fault(NOISE)
def error_averaged() -> None:
    """The squared error is averaged over outputs, not summed."""
    original = noise_model.NoisyAutoencoder.loss

    def loss(weights: Weights, factors: Mapping[str, Tensor], x: Sequence[Tensor]) -> Tensor:
        return original(weights, factors, x) / weights["weight"].shape[1]

    put(noise_model.NoisyAutoencoder, "loss", staticmethod(loss))


@fault(SPARSIFICATION)
def start_of_the_equation() -> None:
    """Start weights have a standard deviation of 1/sqrt(m), not .9/sqrt(m)."""
    put(sparsification_model, "START_SCALE", 1.0)


@fault(SPARSIFICATION)
def step_left_out() -> None:
    """The Euler scheme subtracts lambda, not the step times lambda."""
    original = sparsification_model.euler
    swap(original, lambda start, l1, unit: original(start, l1 / sparsification_model.STEP, unit))


@fault(SPARSIFICATION)
def times_off_by_the_step() -> None:
    """Weights are looked at after time / 1 steps, where a step is .5 long."""
    swap(
        sparsification_model.observed_steps,
        lambda unit: [round(time * unit) for time in sparsification_model.TIMES.tolist()],
    )


# --- networks on |x| and AND


@fault(NETWORKS)
def gradient_through_the_zeros() -> None:
    """The gradient goes through the ReLU where it is 0, too."""
    wrong = staticmethod(lambda hidden: hidden.fill_(1))
    put(exact_networks_model.TwoLayerNetwork, "activation_slope", wrong)


@fault(NETWORKS)
def inputs_of_one_sign() -> None:
    """Inputs are uniform on [0, 1], where |x| is x."""
    original = exact_networks_model.Task.batch

    def batch(self: Any, uniforms: Tensor | None, density: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        inputs, targets, counts = original(self, uniforms, density)
        return inputs.abs(), targets, counts

    put(exact_networks_model.Task, "batch", batch)


@fault(NETWORKS)
def hidden_bias_not_trained() -> None:
    """The hidden layer's bias gets no gradient."""
    original = exact_networks_model.TwoLayerNetwork.losses_and_gradients

    def wrong(self: Any, uniforms: Tensor, seed_index: Tensor) -> tuple[Tensor, Weights]:
        losses, gradients = original(self, uniforms, seed_index)
        return losses, gradients | {"bias": torch.zeros_like(gradients["bias"])}

    put(exact_networks_model.TwoLayerNetwork, "losses_and_gradients", wrong)


@fault(NETWORKS)
def relative_to_the_wrong_axis() -> None:
    """A neuron's weights are compared with an input's largest one, not with its own."""

    def inputs_read(weight: Tensor, threshold: float) -> Tensor:
        size = weight.abs()
        return (size >= threshold * size.amax(dim=1, keepdim=True)).sum(dim=2)

    put(exact_networks_model, "inputs_read", inputs_read)


# --- definitions and exact statements


@fault(DEFINITIONS, OPTIMUM)
def threshold_along_the_wrong_axis() -> None:
    """Weights are compared along neurons where it should be along features, and the other way round."""
    original = metrics._above_threshold
    put(metrics, "_above_threshold", lambda w, threshold, dim: original(w, threshold, 3 - dim))


@fault(DEFINITIONS)
def one_feature_is_enough() -> None:
    """A neuron that responds to one feature counts as polysemantic."""

    def responding(weight: Tensor, threshold: float) -> Tensor:
        found = metrics._above_threshold(weight, threshold, 2).sum(dim=2) >= 1
        return found.sum(dim=1).to(weight.dtype)

    swap(metrics.polysemantic_neurons, responding)


@fault(DEFINITIONS)
def superposition_the_other_way() -> None:
    """Superposition is dimensions less features, not features less dimensions."""
    put(metrics, "_beyond", lambda represented, n: (n - represented).clamp(min=0))


@fault(DEFINITIONS)
def rank_without_threshold() -> None:
    """All singular values count for the rank."""
    original = torch.linalg.svdvals
    put(torch.linalg, "svdvals", lambda weights: torch.ones_like(original(weights)))


@fault(DEFINITIONS)
def not_turned() -> None:
    """The random rotation only permutes the axes."""
    put(definitions_model, "random_rotation", lambda draw, n: np.eye(n)[draw.permutation(n)])


@fault(STATEMENTS)
def products_of_one_sign() -> None:
    """Only positive products count as large, not those of that size."""
    original = exact_statements_model.ExactStatement._corners

    def wrong(self: Any, draw: np.random.Generator) -> Any:
        size = np.abs
        try:
            put(np, "abs", lambda products: products)
            return original(self, draw)
        finally:
            put(np, "abs", size)

    put(exact_statements_model.ExactStatement, "_corners", wrong)


@fault(STATEMENTS)
def the_hit_is_counted() -> None:
    """The vector with the first large product is counted too."""
    original = exact_statements_model.vectors_before_a_large_product
    swap(original, lambda *arguments: original(*arguments) + 1)


@fault(STATEMENTS)
def product_with_itself() -> None:
    """The largest product is also over each vector with itself."""
    put(exact_statements_model, "largest_product", lambda vectors: float((vectors @ vectors.T).max()))


@fault(STATEMENTS)
def too_few_steps_of_packing() -> None:
    """Packings are moved for a twentieth of the steps."""
    exact_statements_model.PACKING_STEPS //= 20


@fault(STATEMENTS)
def ramp_off_by_one() -> None:
    """The ramp that finds a bit is half as steep."""

    def extract(x: Any, n_bits: int) -> Any:
        bits = np.empty((len(x), n_bits))
        for i in range(n_bits):
            ramp = 2.0 ** (n_bits - i - 1) * (x - 0.5)
            bits[:, i] = np.maximum(ramp + 1, 0) - np.maximum(ramp, 0)
            x = 2 * x - bits[:, i]
        return bits

    swap(exact_statements_model.extract_bits, extract)


# --- judging


@fault(*EVERYTHING, judging=True)
def interval_too_narrow() -> None:
    """The jackknife's error is divided by the square root of the number of seeds."""
    original = statistics.jackknife_error
    put(statistics, "jackknife_error", lambda samples: original(samples) / math.sqrt(len(samples)))


@fault(*EVERYTHING, judging=True)
def interval_too_wide() -> None:
    """The jackknife's error is multiplied by the square root of the number of seeds."""
    original = statistics.jackknife_error
    put(statistics, "jackknife_error", lambda samples: original(samples) * math.sqrt(len(samples)))


@fault(*EVERYTHING, judging=True)
def judged_without_interval() -> None:
    """The verdict is that of the estimate alone."""
    original = evaluate.verdict_of
    put(evaluate, "verdict_of", lambda interval, region: original((sum(interval) / 2,) * 2, region))


@fault(*EVERYTHING, judging=True)
def overlap_is_enough() -> None:
    """A claim whose interval reaches into the region counts as reproduced."""
    original = evaluate.verdict_of

    def verdict_of(interval: Interval, region: Interval) -> Verdict:
        verdict = original(interval, region)
        return Verdict.REPRODUCED if verdict is Verdict.INCONCLUSIVE else verdict

    put(evaluate, "verdict_of", verdict_of)


@fault(*EVERYTHING, judging=True)
def region_turned_round() -> None:
    """at_least is taken for at_most, and the other way round."""
    original = vars(Claim)["region"].fget

    def region(self: Claim) -> Interval:
        low, high = original(self)
        if self.bound is None:
            return (low, high)
        return (-math.inf, low) if math.isinf(high) else (high, math.inf)

    put(Claim, "region", property(region))


@fault(*EVERYTHING, judging=True)
def rows_not_chosen() -> None:
    """The mean of a column is over all networks, whatever `at` says."""
    put(estimates, "rows_at", lambda estimate, table: np.ones(len(table), dtype=bool))


@fault(*EVERYTHING, judging=True)
def networks_left_out_for_seeds() -> None:
    """Half of the networks are judged: those of the first seeds."""
    original = evaluate.evaluate

    def of_half(named: dict[str, Claim], code: Any, table: pd.DataFrame) -> Any:
        return original(named, code, table[table["seed"] <= table["seed"].median()])

    swap(original, of_half)


@fault(FIVE, PAIRS, NOISE, DEFINITIONS, judging=True, controls=True)
def stale_results() -> None:
    """A control's results are looked for under the hash of the unbroken run, and found."""
    original = store.Run.__init__

    def found(self: Any, of: spec.Spec, out: Path, keep_weights: str | None = None) -> None:
        original(self, spec.load_spec(of.path, of.profile), out, keep_weights)
        self.spec = of

    put(store.Run, "__init__", found)
