"""Tests of polysemanticity.py: cases that tell the senses apart, and what holds for any weights."""

import doctest
import itertools
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchmetrics import Metric

import common.polysemanticity
from common.polysemanticity import (
    NeuronsPerFeature,
    PolysemanticNeurons,
    SuperpositionByCount,
    SuperpositionByRank,
    neurons_per_feature,
    polysemantic_neurons,
    superposition_by_count,
    superposition_by_rank,
)

Function = Callable[[Tensor, float], Tensor]
Form = tuple[Function, Callable[[float], Metric]]

FORMS: list[Form] = [
    (polysemantic_neurons, PolysemanticNeurons),
    (neurons_per_feature, NeuronsPerFeature),
    (superposition_by_count, SuperpositionByCount),
    (superposition_by_rank, SuperpositionByRank),
]
each_form = pytest.mark.parametrize("form", FORMS, ids=lambda form: form[0].__name__)
each_function = pytest.mark.parametrize("function", [form[0] for form in FORMS], ids=lambda f: f.__name__)

# derandomize: the same examples in every run, so a failure is never luck.
steady = settings(derandomize=True, max_examples=50, deadline=None, database=None)

THRESHOLD = 0.1


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


# --- what holds for any weights


@st.composite
def ensembles(draw: st.DrawFn) -> Tensor:
    """Weights with small integer entries, many of them 0; no ratio of two is near the thresholds below."""
    shape = draw(st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 6)))
    size = math.prod(shape)
    entries = draw(st.lists(st.sampled_from([-4, -3, -1, 0, 0, 0, 1, 2]), min_size=size, max_size=size))
    return torch.tensor(entries, dtype=torch.float64).reshape(shape)


thresholds = st.sampled_from([0.0, 0.1, 0.3, 0.45, 0.6])


@each_form
@steady
@given(weights=ensembles(), threshold=thresholds, data=st.data())
def test_permuting_features_permutes_outputs(
    form: Form, weights: Tensor, threshold: float, data: st.DataObject
) -> None:
    order = data.draw(st.permutations(range(weights.shape[2])))
    values = form[0](weights, threshold)
    permuted = form[0](weights[:, :, order], threshold)
    assert torch.equal(permuted, values[:, order] if values.ndim == 2 else values)


@each_function
@steady
@given(weights=ensembles(), threshold=thresholds, data=st.data())
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


@each_function
@steady
@given(weights=ensembles(), threshold=thresholds, scale=st.sampled_from([2.0**-100, 0.5, 2.0**100]))
def test_scaling_a_network_changes_nothing(
    function: Function, weights: Tensor, threshold: float, scale: float
) -> None:
    assert torch.equal(function(scale * weights, threshold), function(weights, threshold))


@steady
@given(weights=ensembles(), threshold=thresholds)
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
@given(weights=ensembles())
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
@given(weights=ensembles(), data=st.data())
def test_a_higher_threshold_counts_no_more(weights: Tensor, data: st.DataObject) -> None:
    low, high = sorted(data.draw(st.lists(thresholds, min_size=2, max_size=2)))
    for function in (polysemantic_neurons, neurons_per_feature, superposition_by_count):
        assert (function(weights, low) >= function(weights, high)).all()


# --- as the other metrics


@each_form
@steady
@given(weights=ensembles(), threshold=thresholds, data=st.data())
def test_several_updates_equal_one(
    form: Form, weights: Tensor, threshold: float, data: st.DataObject
) -> None:
    function, metric_class = form
    n_instances = weights.shape[0]
    cuts = sorted(data.draw(st.lists(st.integers(0, n_instances), max_size=3)))
    metric = metric_class(threshold)
    for start, stop in itertools.pairwise([0, *cuts, n_instances]):
        metric.update(weights[start:stop])
    assert torch.equal(metric.compute(), function(weights, threshold))
    other = metric_class(threshold)
    other.update(weights[:1])
    metric.merge_state(other)
    assert torch.equal(metric.compute(), function(torch.cat([weights[:1], weights]), threshold))


def test_networks_of_different_hidden_sizes_go_together() -> None:
    for metric_class in (PolysemanticNeurons, SuperpositionByCount, SuperpositionByRank):
        metric = metric_class(THRESHOLD)
        metric.update(network((1,), (-1,)))
        metric.update(network((1, 0), (0, 1)))
        assert metric.compute().tolist() == [1, 0]


@each_function
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_types(function: Function, dtype: torch.dtype) -> None:
    weights = network((1, 0), (0, 1), (HALF, HALF))
    values = function(weights.to(dtype), THRESHOLD)
    assert values.dtype == dtype
    assert values.tolist() == function(weights, THRESHOLD).tolist()
    assert function(torch.ones(0, 2, 3, dtype=dtype), THRESHOLD).shape[0] == 0


@each_function
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_diverged_network_is_nan_and_leaves_the_others_alone(function: Function, bad: float) -> None:
    weights = network((1, 0), (0, 1), (HALF, HALF)).repeat(2, 1, 1)
    weights[0, 1, 2] = bad
    values = function(weights, THRESHOLD)
    assert values[0].isnan().all()
    assert torch.equal(values[1:], function(weights[1:], THRESHOLD))


@each_form
@pytest.mark.parametrize(
    ("weights", "threshold", "message"),
    [
        (torch.ones(2, 3), 0.1, r"3 axes .* got \(2, 3\)"),
        (torch.ones(1, 2, 3, dtype=torch.int64), 0.1, r"floating-point tensor, got torch\.int64"),
        (torch.ones(1, 0, 3), 0.1, r"n_hidden > 0 .* got \(1, 0, 3\)"),
        (torch.ones(1, 2, 3), 1.0, r"^threshold must be at least 0 and below 1, got 1$"),
        (torch.ones(1, 2, 3), -0.1, r"^threshold must be at least 0 and below 1, got -0\.1$"),
        (torch.ones(1, 2, 3), math.nan, r"^threshold must be at least 0 and below 1, got nan$"),
    ],
    ids=["2-D", "integer", "no hidden", "one", "negative", "NaN"],
)
def test_bad_arguments(form: Form, weights: Tensor, threshold: float, message: str) -> None:
    function, metric_class = form
    with pytest.raises(ValueError, match=message):
        function(weights, threshold)
    with pytest.raises(ValueError, match=message):
        metric_class(threshold).update(weights)


def test_doctests() -> None:
    result = doctest.testmod(common.polysemanticity)
    assert result.attempted >= 2 * len(FORMS)
    assert result.failed == 0
