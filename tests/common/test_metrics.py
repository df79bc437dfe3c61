"""Tests of metrics.py: cases worked out by hand, and what holds for any weights."""

import copy
import doctest
import functools
import inspect
import itertools
import math
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning import LightningModule
from torch import Tensor
from torchmetrics import MetricCollection

from common import metrics
from common.metrics import (
    UNLEARNED_NORM,
    PerInstance,
    feature_dimensionality,
    feature_norm,
    neurons_per_feature,
    polysemantic_neurons,
    superposition,
    superposition_by_count,
    superposition_by_rank,
)
from replications.toy_models_of_superposition.model import ToyModel

Function = Callable[..., Tensor]

THRESHOLD = 0.1
GEOMETRY = [feature_norm, superposition, feature_dimensionality]
COUNTS = [polysemantic_neurons, neurons_per_feature, superposition_by_count, superposition_by_rank]
OF_WEIGHTS: list[Function] = [*GEOMETRY, *(functools.partial(f, threshold=THRESHOLD) for f in COUNTS)]


def name(function: Function) -> str:
    return getattr(function, "func", function).__name__


each_of_geometry = pytest.mark.parametrize("function", GEOMETRY, ids=name)
each_count = pytest.mark.parametrize("function", COUNTS, ids=name)
each_function = pytest.mark.parametrize("function", OF_WEIGHTS, ids=name)

# derandomize: the same examples in every run, so a failure is never luck.
steady = settings(derandomize=True, max_examples=25, deadline=None, database=None)


def close(actual: Tensor, expected: Tensor) -> None:
    """Check shape, dtype and values, up to float64 rounding."""
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


def stack(*columns: tuple[float, ...]) -> Tensor:
    """Return one instance in float64 from the vectors of its features."""
    return torch.tensor(columns, dtype=torch.float64).T.unsqueeze(0)


def polygon(n_features: int) -> Tensor:
    angles = [2 * math.pi * k / n_features for k in range(n_features)]
    return stack(*((math.cos(a), math.sin(a)) for a in angles))


def tetrahedron() -> Tensor:
    return stack((1, 1, 1), (1, -1, -1), (-1, 1, -1), (-1, -1, 1)) / math.sqrt(3)


def square_antiprism(height: float) -> Tensor:
    """Return 8 unit vectors: a square at z = height, and one turned by 45 degrees at z = -height."""
    radius = math.sqrt(1 - height**2)
    vertices = [(k * math.pi / 4, height if k % 2 else -height) for k in range(8)]
    return stack(*((radius * math.cos(a), radius * math.sin(a), z) for a, z in vertices))


# Each case: weights of one instance, whose features all have norm 1, and the superposition and dimensionality
# that its features share.
SHAPES = {
    "orthogonal": (torch.eye(3, dtype=torch.float64).unsqueeze(0), 0.0, 1.0),
    "antipodal pair": (stack((0.6, 0.8), (-0.6, -0.8)), 1.0, 1 / 2),
    "triangle": (polygon(3), 1 / 2, 2 / 3),
    "square": (polygon(4), 1.0, 1 / 2),
    "pentagon": (polygon(5), 3 / 2, 2 / 5),
    "tetrahedron": (tetrahedron(), 1 / 3, 3 / 4),
    # The height makes W W^T = 8/3 I. It is not the height of least energy (Thomson), which is a bit lower and
    # gives a D just under 3/8; see the test of any height below.
    "tight square antiprism": (square_antiprism(1 / math.sqrt(3)), 5 / 3, 3 / 8),
}


@pytest.mark.parametrize(("weights", "overlap", "dimensionality"), SHAPES.values(), ids=SHAPES.keys())
def test_known_shapes(weights: Tensor, overlap: float, dimensionality: float) -> None:
    ones = torch.ones(1, weights.shape[2], dtype=torch.float64)
    close(feature_norm(weights), ones)
    close(superposition(weights), overlap * ones)
    close(feature_dimensionality(weights), dimensionality * ones)


def test_the_tight_antiprism_is_tight() -> None:
    (weights,) = square_antiprism(1 / math.sqrt(3))
    close(weights @ weights.T, 8 / 3 * torch.eye(3, dtype=torch.float64))


@pytest.mark.parametrize("height", [0.0, 0.3, 0.56, 1 / math.sqrt(3), 0.8, 1.0])
def test_antiprism_of_any_height(height: float) -> None:
    # W W^T = diag(4 r^2, 4 r^2, 8 z^2) and every feature is (r, z) up to a turn, so 1 / D = 4 r^4 + 8 z^4.
    expected = 1 / (4 * (1 - height**2) ** 2 + 8 * height**4)
    close(feature_dimensionality(square_antiprism(height)), torch.full((1, 8), expected, dtype=torch.float64))


def test_orthogonal_features_have_exactly_no_superposition() -> None:
    # No rounding at all, also where 1 / norm is not a round number, and also in float32.
    weights = torch.diag(torch.tensor([0.1, 0.7, 3.0])).unsqueeze(0)
    assert torch.equal(superposition(weights), torch.zeros(1, 3))
    assert torch.equal(feature_dimensionality(weights), torch.ones(1, 3))


def test_features_of_different_length() -> None:
    # (W^_0 . W_1)^2 = 1 but (W^_1 . W_0)^2 = 2: this tells which of the two features is normalised.
    weights = stack((2, 0), (1, 1))
    close(superposition(weights), torch.tensor([[1.0, 2.0]], dtype=torch.float64))
    close(feature_dimensionality(weights), torch.tensor([[4 / 5, 2 / 4]], dtype=torch.float64))


def test_unlearned_feature_is_zero_and_leaves_the_others_alone() -> None:
    weights = torch.cat([polygon(3), torch.zeros(1, 2, 1, dtype=torch.float64)], dim=2)
    close(feature_norm(weights), torch.tensor([[1.0, 1.0, 1.0, 0.0]], dtype=torch.float64))
    close(superposition(weights), torch.tensor([[1 / 2, 1 / 2, 1 / 2, 0.0]], dtype=torch.float64))
    close(feature_dimensionality(weights), torch.tensor([[2 / 3, 2 / 3, 2 / 3, 0.0]], dtype=torch.float64))
    assert superposition(weights)[0, 3] == 0
    assert feature_dimensionality(weights)[0, 3] == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_all_zero_weights(dtype: torch.dtype) -> None:
    weights = torch.zeros(2, 3, 4, dtype=dtype)
    for function in (feature_norm, superposition, feature_dimensionality):
        assert torch.equal(function(weights), torch.zeros(2, 4, dtype=dtype))


def test_threshold_of_an_unlearned_feature() -> None:
    at, above = stack((UNLEARNED_NORM,), (1,)), stack((2 * UNLEARNED_NORM,), (1,))
    assert feature_dimensionality(at)[0, 0] == 0
    assert superposition(at)[0, 0] == 0
    close(superposition(above), torch.tensor([[1.0, 0.0]], dtype=torch.float64))
    # Without an absolute tolerance: D of the tiny feature is 4e-24, and must not be lost.
    expected = torch.tensor([[4 * UNLEARNED_NORM**2, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(feature_dimensionality(above), expected, rtol=1e-12, atol=0)


@each_of_geometry
def test_nan_weights_are_not_taken_for_unlearned(function: Function) -> None:
    # A diverged network must show up as NaN, and must not spoil the one next to it.
    weights = polygon(3).repeat(2, 1, 1)
    weights[0] = math.nan
    values = function(weights)
    assert values[0].isnan().all()
    close(values[1:], function(polygon(3)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e-10, 1e-3, 7.0, 1e15])
def test_scale(scale: float, dtype: torch.dtype) -> None:
    weights = stack((2, 0), (1, 1), (-0.5, 3)).to(dtype)

    def check(actual: Tensor, expected: Tensor) -> None:
        torch.testing.assert_close(actual, expected, rtol=1e-5 if dtype == torch.float32 else 1e-12, atol=0)

    scaled = -scale * weights
    check(feature_norm(scaled), scale * feature_norm(weights))
    check(superposition(scaled), scale**2 * superposition(weights))
    check(feature_dimensionality(scaled), feature_dimensionality(weights))


@each_of_geometry
def test_gradients(function: Function) -> None:
    weights = stack((2, 0), (1, 1), (-0.5, 3)).requires_grad_()
    assert torch.autograd.gradcheck(function, (weights,))
    # A feature that is not learned must not turn the gradients of the others into NaN.
    weights = stack((2, 0), (1, 1), (0, 0)).requires_grad_()
    (gradient,) = torch.autograd.grad(function(weights).sum(), weights)
    assert gradient.isfinite().all()


@st.composite
def integer_matrices(draw: st.DrawFn, shape: tuple[int, ...]) -> Tensor:
    size = math.prod(shape)
    entries = draw(st.lists(st.integers(-4, 4), min_size=size, max_size=size))
    return torch.tensor(entries, dtype=torch.float64).reshape(shape)


@st.composite
def ensembles(draw: st.DrawFn) -> Tensor:
    """Weights with small integer entries: no norm is near the threshold, and zero features are common."""
    shape = draw(st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 6)))
    return draw(integer_matrices(shape))


@steady
@given(data=st.data())
def test_dimensionalities_sum_to_at_most_the_rank(data: st.DataObject) -> None:
    # Weights built as a product, so that ranks below min(n_hidden, n_features) come up often.
    n_hidden, inner, n_features = (data.draw(st.integers(1, most)) for most in (4, 4, 6))
    left = data.draw(integer_matrices((2, n_hidden, inner)))
    weights = left @ data.draw(integer_matrices((2, inner, n_features)))
    values = feature_dimensionality(weights)
    # In float64 before the tolerance is added: an integer tensor plus 1e-9 would be float32 and lose it.
    ranks = torch.linalg.matrix_rank(weights).double()
    assert (ranks <= n_hidden).all()
    assert (values.sum(dim=1) <= ranks + 1e-9).all()
    assert ((values >= 0) & (values <= 1)).all()


@each_function
@steady
@given(weights=ensembles(), data=st.data())
def test_permuting_features_permutes_outputs(
    function: Function, weights: Tensor, data: st.DataObject
) -> None:
    order = data.draw(st.permutations(range(weights.shape[2])))
    values = function(weights)
    close(function(weights[:, :, order]), values[:, order] if values.ndim == 2 else values)


@each_of_geometry
@steady
@given(weights=ensembles(), seed=st.integers(0, 1000))
def test_rotating_the_hidden_space_changes_nothing(function: Function, weights: Tensor, seed: int) -> None:
    n_hidden = weights.shape[1]
    generator = torch.Generator().manual_seed(seed)
    rotation, _ = torch.linalg.qr(torch.randn(n_hidden, n_hidden, generator=generator, dtype=torch.float64))
    torch.testing.assert_close(function(rotation @ weights), function(weights), rtol=1e-9, atol=1e-9)


@st.composite
def sparse_ensembles(draw: st.DrawFn) -> Tensor:
    """The same with many entries that are 0; no ratio of two is near the thresholds below."""
    shape = draw(st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 6)))
    size = math.prod(shape)
    entries = draw(st.lists(st.sampled_from([-4, -3, -1, 0, 0, 0, 1, 2]), min_size=size, max_size=size))
    return torch.tensor(entries, dtype=torch.float64).reshape(shape)


# --- counts, relative to a threshold


def network(*features: tuple[float, ...]) -> Tensor:
    """One instance in float64 from the vectors of its features in the basis of neurons."""
    return torch.tensor(features, dtype=torch.float64).T.unsqueeze(0)


HALF = math.sqrt(0.5)
HADAMARD = [[1.0]]
for _ in range(2):
    HADAMARD = [[*row, *row] for row in HADAMARD] + [[*row, *(-x for x in row)] for row in HADAMARD]

# Each case: the network, its polysemantic neurons, superposition by count and by rank, neurons per feature.
CASES = {
    "one feature per neuron": (network((1, 0), (0, 1)), 0, 0, 0, [1, 1]),
    "one feature more": (network((1, 0), (0, 1), (HALF, HALF)), 2, 1, 1, [1, 1, 2]),
    "not aligned": (network((1, 0), (HALF, HALF)), 1, 0, 0, [1, 2]),
    "Hadamard": (network(*(tuple(x / 2 for x in row) for row in HADAMARD)), 4, 0, 0, [4, 4, 4, 4]),
    "cats and cars": (network((1,), (-1,)), 1, 1, 1, [1, 1]),
    "incidental": (network((1, 0, 0), (-1, 0, 0), (0, 1, 0)), 1, 0, 1, [1, 1, 1]),
    "nothing": (network((0, 0), (0, 0), (0, 0)), 0, 0, 0, [0, 0, 0]),
}


@pytest.mark.parametrize(("weights", "neurons", "count", "rank", "spread"), CASES.values(), ids=CASES.keys())
def test_cases_that_tell_the_senses_apart(
    weights: Tensor, neurons: int, count: int, rank: int, spread: list[int]
) -> None:
    assert polysemantic_neurons(weights, THRESHOLD).tolist() == [neurons]
    assert superposition_by_count(weights, THRESHOLD).tolist() == [count]
    assert superposition_by_rank(weights, THRESHOLD).tolist() == [rank]
    assert neurons_per_feature(weights, THRESHOLD).tolist() == [spread]


@pytest.mark.parametrize(
    ("threshold", "neurons", "features"), [(0, 1, 10), (0.04, 1, 10), (0.05, 0, 0), (0.5, 0, 0)]
)
def test_a_probably_monosemantic_neuron_needs_a_threshold(
    threshold: float, neurons: int, features: int
) -> None:
    one_large = network((1.0,), *10 * [(0.05,)])
    assert polysemantic_neurons(one_large, threshold).tolist() == [neurons]
    assert superposition_by_count(one_large, threshold).tolist() == [features]
    assert superposition_by_rank(one_large, threshold).tolist() == [features]
    assert neurons_per_feature(one_large, threshold)[0, 0] == 1


def test_the_noise_of_a_silent_neuron_and_of_an_absent_feature_counts_for_nothing() -> None:
    noise = 1e-3 * torch.randn(3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weights = noise[None] + network((1, 0, 0), (0, 1, 0), (0, 0, 0), (0, 0, 0))
    assert polysemantic_neurons(weights, 0.01).tolist() == [0]
    assert neurons_per_feature(weights, 0.01).tolist() == [[1, 1, 0, 0]]
    assert superposition_by_rank(weights, 0.01).tolist() == [0]
    # without a threshold it counts
    assert polysemantic_neurons(weights, 0).tolist() == [3]
    assert neurons_per_feature(weights, 0).tolist() == [[3, 3, 3, 3]]
    assert superposition_by_count(weights, 0).tolist() == [1]


def test_dependent_features_have_no_rank_of_their_own_for_their_rounding() -> None:
    """Also without a threshold, where the last singular value is a rounding error and not 0."""
    a, b = (0.1, 0.7, 0.3), (0.2, -0.3, 0.9)
    dependent = network(a, b, tuple(x + y / 3 for x, y in zip(a, b, strict=True)))
    for dtype in (torch.float32, torch.float64):
        assert superposition_by_rank(dependent.to(dtype), 0).tolist() == [1]


thresholds = st.sampled_from([0.0, 0.1, 0.3, 0.45, 0.6])


@each_count
@steady
@given(weights=sparse_ensembles(), threshold=thresholds, data=st.data())
def test_permuting_neurons_and_changing_signs_changes_nothing(
    function: Function, weights: Tensor, threshold: float, data: st.DataObject
) -> None:
    n_hidden, n_features = weights.shape[1:]
    order = data.draw(st.permutations(range(n_hidden)))
    signs = st.sampled_from([-1.0, 1.0])
    of_neurons = torch.tensor(data.draw(st.lists(signs, min_size=n_hidden, max_size=n_hidden)))
    of_features = torch.tensor(data.draw(st.lists(signs, min_size=n_features, max_size=n_features)))
    changed = (weights * of_neurons[:, None] * of_features)[:, order]
    assert torch.equal(function(changed, threshold), function(weights, threshold))


@each_count
@steady
@given(weights=sparse_ensembles(), threshold=thresholds, scale=st.sampled_from([2.0**-100, 0.5, 2.0**100]))
def test_scaling_a_network_changes_nothing(
    function: Function, weights: Tensor, threshold: float, scale: float
) -> None:
    assert torch.equal(function(scale * weights, threshold), function(weights, threshold))


@steady
@given(weights=sparse_ensembles(), threshold=thresholds)
def test_what_one_sense_says_of_another(weights: Tensor, threshold: float) -> None:
    count, rank = (f(weights, threshold) for f in (superposition_by_count, superposition_by_rank))
    neurons = polysemantic_neurons(weights, threshold)
    assert (neurons[count > 0] >= 1).all()  # neuron superposition implies polysemanticity
    assert (rank >= count).all()
    assert (rank <= weights.shape[2]).all()
    assert ((neurons >= 0) & (neurons <= weights.shape[1])).all()
    spread = neurons_per_feature(weights, threshold)
    assert ((spread >= 0) & (spread <= weights.shape[1])).all()


@steady
@given(weights=sparse_ensembles())
def test_without_a_threshold_counts_are_of_weights_that_are_not_zero(weights: Tensor) -> None:
    there = weights != 0
    assert polysemantic_neurons(weights, 0).tolist() == (there.sum(dim=2) > 1).sum(dim=1).tolist()
    assert neurons_per_feature(weights, 0).tolist() == there.sum(dim=1).tolist()
    ranks = torch.linalg.matrix_rank(weights)
    assert superposition_by_rank(weights, 0).tolist() == (there.any(dim=1).sum(dim=1) - ranks).tolist()
    # so where each neuron has at most one feature, features are independent
    alone = polysemantic_neurons(weights, 0) == 0
    assert not superposition_by_rank(weights[alone], 0).any()


@steady
@given(weights=sparse_ensembles(), data=st.data())
def test_a_higher_threshold_counts_no_more(weights: Tensor, data: st.DataObject) -> None:
    low, high = sorted(data.draw(st.lists(thresholds, min_size=2, max_size=2)))
    for function in (polysemantic_neurons, neurons_per_feature, superposition_by_count):
        assert (function(weights, low) >= function(weights, high)).all()


@each_count
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_types(function: Function, dtype: torch.dtype) -> None:
    weights = network((1, 0), (0, 1), (HALF, HALF))
    values = function(weights.to(dtype), THRESHOLD)
    assert values.dtype == dtype
    assert values.tolist() == function(weights, THRESHOLD).tolist()
    assert function(torch.ones(0, 2, 3, dtype=dtype), THRESHOLD).shape[0] == 0


@each_count
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_diverged_network_is_nan_and_leaves_the_others_alone(function: Function, bad: float) -> None:
    weights = network((1, 0), (0, 1), (HALF, HALF)).repeat(2, 1, 1)
    weights[0, 1, 2] = bad
    values = function(weights, THRESHOLD)
    assert values[0].isnan().all()
    assert torch.equal(values[1:], function(weights[1:], THRESHOLD))


# --- bad input


@each_function
@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (torch.ones(2, 3), r"3 axes .* got \(2, 3\)"),
        (torch.ones(1, 2, 3, 4), r"3 axes .* got \(1, 2, 3, 4\)"),
        (torch.ones(1, 2, 3, dtype=torch.int64), r"floating-point tensor, got torch\.int64"),
        (torch.ones(1, 2, 3, dtype=torch.complex64), r"floating-point tensor, got torch\.complex64"),
        (torch.ones(1, 0, 3), r"at least one hidden dimension .* got \(1, 0, 3\)"),
        (torch.ones(1, 2, 0), r"and one feature, got \(1, 2, 0\)"),
    ],
    ids=["2-D", "4-D", "integer", "complex", "no hidden", "no features"],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_weights(function: Function, weights: Tensor, message: str) -> None:
    for measure in (function, PerInstance(function).update):
        with pytest.raises(ValueError, match=message) as caught:
            measure(weights)
        assert "\n" not in str(caught.value)


@each_count
@pytest.mark.parametrize("threshold", [1.0, -0.1, math.nan])
def test_bad_thresholds(function: Function, threshold: float) -> None:
    with pytest.raises(ValueError, match=rf"^threshold must be at least 0 and below 1, got {threshold:g}$"):
        function(torch.ones(1, 2, 3), threshold)


@each_function
def test_no_instances_is_an_empty_result(function: Function) -> None:
    assert function(torch.ones(0, 2, 3)).shape[0] == 0


# --- as metrics of torchmetrics


@each_function
@steady
@given(weights=ensembles(), data=st.data())
def test_networks_in_pieces_are_those_in_one(
    function: Function, weights: Tensor, data: st.DataObject
) -> None:
    n_instances = weights.shape[0]
    # equal cuts make pieces with no instance, which must be harmless
    cuts = sorted(data.draw(st.lists(st.integers(0, n_instances), max_size=3)))
    metric, expected = PerInstance(function), function(weights)
    for start, stop in itertools.pairwise([0, *cuts, n_instances]):
        metric.update(weights[start:stop])
    for _ in range(2):  # the second is from the cache
        torch.testing.assert_close(metric.compute(), expected, rtol=0, atol=1e-12)
    for other in (metric.clone(), copy.deepcopy(metric), pickle.loads(pickle.dumps(metric))):
        torch.testing.assert_close(other.compute(), metric.compute(), rtol=0, atol=0)


@each_function
def test_nothing_is_left_after_a_reset_and_merged_networks_come_first(function: Function) -> None:
    first, second, third = polygon(3), 2 * polygon(3), stack((1, 0), (0, 0), (1, 1))
    metric, other = PerInstance(function), PerInstance(function)
    metric.update(first)
    metric.compute()
    metric.reset()
    metric.update(second)
    assert torch.equal(metric.compute(), function(second))
    other.update(third)
    metric.merge_state(other)
    assert torch.equal(metric.compute(), torch.cat([function(third), function(second)]))
    assert torch.equal(other.compute(), function(third))


@each_function
def test_forward_returns_the_batch_and_keeps_all(function: Function) -> None:
    metric, pieces = PerInstance(function), (polygon(3), -2 * polygon(4))
    if function(pieces[0]).ndim > 1:
        pieces = (pieces[0], -2 * pieces[0])
    for piece in pieces:
        assert torch.equal(metric(piece), function(piece))
    assert torch.equal(metric.compute(), torch.cat([function(piece) for piece in pieces]))


def itself(weight: Tensor) -> Tensor:
    return weight


@pytest.mark.parametrize("function", [*OF_WEIGHTS, itself], ids=name)
def test_what_was_measured_does_not_follow_the_weights(function: Function) -> None:
    """Training changes weights in place."""
    weights = stack((1, 0), (0.6, 0.8), (0, 0))
    metric, expected = PerInstance(function), function(weights).clone()
    metric.update(weights)
    weights.copy_(3 * weights.flip(2))
    assert torch.equal(metric.compute(), expected)


@pytest.mark.parametrize("shape", [(1,), (1, 1), (1, 1, 1), (2, 1), (1, 3)])
def test_a_single_number_keeps_its_axes(shape: tuple[int, ...]) -> None:
    metric = PerInstance(itself)
    assert metric(torch.ones(shape)).shape == metric.compute().shape == metric.compute().shape == shape


@pytest.mark.parametrize(
    ("gives", "says"),
    [(torch.tensor(1.0), "returned a number;"), ([1.0], "returned a list;"), (None, "returned a NoneType;")],
)
def test_a_function_that_gives_something_else(gives: Any, says: str) -> None:
    with pytest.raises(ValueError, match=rf"{says} expected a tensor \(instances, \.\.\.\)$"):
        PerInstance(lambda weight: gives).update(torch.ones(1, 1, 1))


def test_metrics_whose_first_networks_agree_are_not_taken_for_one() -> None:
    """A collection shares the state of metrics whose states are equal after the first update."""
    counts = {f"at_{t:.0%}": functools.partial(polysemantic_neurons, threshold=t) for t in (0.1, 0.2)}
    functions: dict[str, Function] = {"itself": itself, "twice": lambda weight: 2 * weight, **counts}
    functions["thrice"] = lambda weight: 3 * weight
    collection = MetricCollection({name: PerInstance(function) for name, function in functions.items()})
    nothing, network = torch.zeros(1, 1, 2), torch.tensor([[[1.0, 0.15]]])
    for weights in (nothing, network):
        collection.update(weights)
    for name, value in collection.compute().items():
        function = functions[name]
        assert torch.equal(value, torch.cat([function(nothing), function(network)])), name


def test_a_function_takes_by_name_what_it_has() -> None:
    collection = MetricCollection(
        {"sum": PerInstance(lambda weight, bias: weight + bias), "bias": PerInstance(lambda bias: bias)}
    )
    found = collection(weight=torch.ones(2), bias=torch.tensor([1.0, 2.0]), output=torch.ones(3))
    assert {name: value.tolist() for name, value in found.items()} == {"sum": [2, 3], "bias": [1, 2]}
    with pytest.raises(TypeError, match="'bias'"):
        collection.update(weight=torch.ones(2))


def test_in_a_module_of_ones_own_and_on_another_device() -> None:
    """Metrics of a module are moved with it; the meta device stands for a GPU."""

    class Own(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.geometry = ToyModel.collection()

    module, weights = Own(), polygon(3)
    module.geometry.update(weight=weights, bias=torch.zeros(1, 3))
    found = module.geometry.compute()
    assert set(found) == {"feature_norm", "superposition", "dimensionality"}
    assert torch.equal(found["superposition"], superposition(weights))
    moved = Own()
    moved.geometry.update(weight=weights)
    moved.to("meta")
    assert {value.device.type for value in moved.geometry.compute().values()} == {"meta"}
    assert not module.state_dict()


PUBLIC = [
    value for key, value in vars(metrics).items()
    if not key.startswith("_") and getattr(value, "__module__", "") == "common.metrics"
]  # fmt: skip


@pytest.mark.parametrize("public", PUBLIC, ids=lambda value: value.__name__)
def test_each_has_an_example_that_holds(public: Any) -> None:
    (example,) = (
        found for found in doctest.DocTestFinder(recurse=False).find(inspect.unwrap(public), public.__name__)
    )
    assert example.examples
    assert doctest.DocTestRunner().run(example).failed == 0
