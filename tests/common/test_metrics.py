"""Tests of metrics.py: geometry worked out by hand, and properties that hold for any weights."""

import doctest
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchmetrics import Metric

import common.metrics
from common.metrics import (
    UNLEARNED_NORM,
    DimensionsPerFeature,
    FeatureDimensionality,
    FeatureNorm,
    Superposition,
    dimensions_per_feature,
    feature_dimensionality,
    feature_norm,
    superposition,
)

Function = Callable[[Tensor], Tensor]
Form = tuple[Function, type[Metric]]

FORMS: list[Form] = [
    (feature_norm, FeatureNorm),
    (superposition, Superposition),
    (feature_dimensionality, FeatureDimensionality),
    (dimensions_per_feature, DimensionsPerFeature),
]
each_form = pytest.mark.parametrize("form", FORMS, ids=lambda form: form[0].__name__)
each_function = pytest.mark.parametrize("function", [form[0] for form in FORMS], ids=lambda f: f.__name__)

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
    _, n_hidden, n_features = weights.shape
    ones = torch.ones(1, n_features, dtype=torch.float64)
    close(feature_norm(weights), ones)
    close(superposition(weights), overlap * ones)
    close(feature_dimensionality(weights), dimensionality * ones)
    # With features of norm 1, ||W||_F^2 is their number.
    close(dimensions_per_feature(weights), torch.tensor([n_hidden / n_features], dtype=torch.float64))


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
    close(dimensions_per_feature(weights), torch.tensor([2 / 6], dtype=torch.float64))


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
    assert torch.equal(dimensions_per_feature(weights), torch.full((2,), math.inf, dtype=dtype))


def test_threshold_of_an_unlearned_feature() -> None:
    at, above = stack((UNLEARNED_NORM,), (1,)), stack((2 * UNLEARNED_NORM,), (1,))
    assert feature_dimensionality(at)[0, 0] == 0
    assert superposition(at)[0, 0] == 0
    close(superposition(above), torch.tensor([[1.0, 0.0]], dtype=torch.float64))
    # Without an absolute tolerance: D of the tiny feature is 4e-24, and must not be lost.
    expected = torch.tensor([[4 * UNLEARNED_NORM**2, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(feature_dimensionality(above), expected, rtol=1e-12, atol=0)


@each_function
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
    check(dimensions_per_feature(scaled), dimensions_per_feature(weights) / scale**2)


@each_function
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


@each_form
@steady
@given(weights=ensembles(), data=st.data())
def test_permuting_features_permutes_outputs(form: Form, weights: Tensor, data: st.DataObject) -> None:
    function, _ = form
    order = data.draw(st.permutations(range(weights.shape[2])))
    values = function(weights)
    close(function(weights[:, :, order]), values[:, order] if values.ndim == 2 else values)


@each_form
@steady
@given(weights=ensembles(), seed=st.integers(0, 1000))
def test_rotating_the_hidden_space_changes_nothing(form: Form, weights: Tensor, seed: int) -> None:
    function, _ = form
    n_hidden = weights.shape[1]
    generator = torch.Generator().manual_seed(seed)
    rotation, _ = torch.linalg.qr(torch.randn(n_hidden, n_hidden, generator=generator, dtype=torch.float64))
    torch.testing.assert_close(function(rotation @ weights), function(weights), rtol=1e-9, atol=1e-9)


@each_form
@steady
@given(weights=ensembles(), data=st.data())
def test_several_updates_equal_one(form: Form, weights: Tensor, data: st.DataObject) -> None:
    function, metric_class = form
    n_instances = weights.shape[0]
    # Equal cuts make chunks with no instance, which must be harmless.
    cuts = sorted(data.draw(st.lists(st.integers(0, n_instances), max_size=3)))
    once, split = metric_class(), metric_class()
    once.update(weights)
    for start, stop in zip([0, *cuts], [*cuts, n_instances], strict=True):
        split.update(weights[start:stop])
    expected = function(weights)
    close(once.compute(), expected)
    close(split.compute(), expected)
    close(split.compute(), expected)  # from the cache
    close(split.clone().compute(), expected)


@each_form
@steady
@given(first=ensembles(), data=st.data())
def test_merging_after_reset(form: Form, first: Tensor, data: st.DataObject) -> None:
    function, metric_class = form
    second, third = (data.draw(integer_matrices(tuple(first.shape))) for _ in range(2))
    metric, other = metric_class(), metric_class()
    metric.update(first)
    metric.compute()
    metric.reset()
    metric.update(second)
    close(metric.compute(), function(second))  # nothing is left of the first weights, and this is now cached
    other.update(third)
    metric.merge_state(other)
    # The merged-in instances come first, as torchmetrics has it.
    close(metric.compute(), torch.cat([function(third), function(second)]))
    close(other.compute(), function(third))


@each_form
def test_forward_returns_the_batch_and_keeps_all(form: Form) -> None:
    function, metric_class = form
    metric = metric_class()
    close(metric(polygon(3)), function(polygon(3)))
    close(metric(-2 * polygon(3)), function(-2 * polygon(3)))
    close(metric.compute(), torch.cat([function(polygon(3)), function(-2 * polygon(3))]))


@each_form
def test_state_does_not_follow_the_weights(form: Form) -> None:
    # Training changes weights in place; what was measured before must stay.
    function, metric_class = form
    weights = polygon(3)
    metric = metric_class()
    metric.update(weights)
    weights.mul_(3)
    close(metric.compute(), function(polygon(3)))


def test_dimensions_per_feature_of_different_hidden_sizes() -> None:
    metric = DimensionsPerFeature()
    metric.update(polygon(5))
    metric.update(tetrahedron())
    close(metric.compute(), torch.tensor([2 / 5, 3 / 4], dtype=torch.float64))


@each_form
@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (torch.ones(2, 3), r"3 axes .* got \(2, 3\)"),
        (torch.ones(1, 2, 3, 4), r"3 axes .* got \(1, 2, 3, 4\)"),
        (torch.ones(1, 2, 3, dtype=torch.int64), r"floating-point tensor, got torch\.int64"),
        (torch.ones(1, 2, 3, dtype=torch.complex64), r"floating-point tensor, got torch\.complex64"),
        (torch.ones(1, 0, 3), r"n_hidden > 0 .* got \(1, 0, 3\)"),
        (torch.ones(1, 2, 0), r"n_features > 0, got \(1, 2, 0\)"),
    ],
    ids=["2-D", "4-D", "integer", "complex", "no hidden", "no features"],
)
def test_bad_weights(form: Form, weights: Tensor, message: str) -> None:
    function, metric_class = form
    with pytest.raises(ValueError, match=message) as caught:
        function(weights)
    assert "\n" not in str(caught.value)
    metric = metric_class()
    with pytest.raises(ValueError, match=message):
        metric.update(weights)


@each_form
def test_no_instances_is_an_empty_result(form: Form) -> None:
    function, _ = form
    assert function(torch.ones(0, 2, 3)).shape[0] == 0


def test_doctests() -> None:
    result = doctest.testmod(common.metrics)
    # At least one line per metric in each of its two forms.
    assert result.attempted >= 2 * len(FORMS)
    assert result.failed == 0
