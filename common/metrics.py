r"""What a network's weights say about superposition and polysemanticity, for many networks at once.

A stack of weight matrices has the axes instances, hidden and features: :math:`W`, of each instance, has
:math:`m` rows (hidden dimensions or neurons) and :math:`n` columns (features); :math:`W_i` is column
:math:`i`, the vector of feature :math:`i`, and :math:`\hat W_i = W_i / \|W_i\|`. Every metric is a pure
function that treats each instance on its own; :class:`PerInstance` makes any of them a
:class:`torchmetrics.Metric`.

*Geometry*, as Elhage et al. (2022), "Toy Models of Superposition", arXiv 2209.10652, define it:
:func:`feature_norm`, :func:`superposition`, :func:`feature_dimensionality`. The last two hold all pairs of
features at once, so they need memory for ``instances * features ** 2`` numbers.

*Counts*: neuron polysemanticity, and superposition in three senses. The words are used in different senses,
and a network can have one without another. Trained weights are seldom exactly zero, so all senses share a
*relative threshold* :math:`t`, which a result must state. Of a neuron and a feature with the weight
:math:`W_{ki}`,

- the neuron *responds* to the feature when :math:`|W_{ki}|` is above :math:`t` times the neuron's largest;
- the feature is *on* the neuron when :math:`|W_{ki}|` is above :math:`t` times the feature's largest;
- a neuron is silent, and a feature not represented, when its largest weight is at most :math:`t` times the
  largest of the network.

With these, more represented features than neurons always make a neuron polysemantic: a represented feature's
largest weight is above :math:`t` times the largest of the network, so its neuron responds to it.

Sources of the counts: Chan (2024), "Superposition is not 'just' neuron polysemanticity", and Nanda's glossary
of mechanistic interpretability for superposition as more features than dimensions; Olah et al. (2020), "Zoom
In", in the reading of Topper (2024), for a feature that is spread over neurons. The threshold is ours.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

UNLEARNED_NORM: float = 1e-12
"""A feature whose norm is at most this counts as not learned: it has no direction.

Far below any trained weight, yet its square is still an ordinary number in float32.
"""


# --- geometry


def feature_norm(weight: Float[Tensor, "instances hidden features"]) -> Float[Tensor, "instances features"]:
    r"""Compute the norm of each feature: about 1 if the network represents it, about 0 if it does not.

    .. math:: \|W_i\|

    Args:
        weight: stack of weight matrices

    Returns:
        The norms.

    Raises:
        ValueError: if ``weight`` is not 3-D, not floating point, or has an empty hidden or feature axis.

    Source:
        Elhage et al. (2022), arXiv 2209.10652, section "Demonstrating Superposition".

    Example:
        >>> import torch
        >>> from common.metrics import feature_norm
        >>> feature_norm(torch.tensor([[[3.0, 1.0, 0.0], [4.0, 0.0, 0.0]]]))
        tensor([[5., 1., 0.]])

    """
    _check_weight(weight)
    norms: Tensor = torch.linalg.vector_norm(weight, dim=1)
    return norms


def superposition(weight: Float[Tensor, "instances hidden features"]) -> Float[Tensor, "instances features"]:
    r"""Compute how much the other features overlap with the direction of each feature.

    .. math:: \sum_{j \neq i} (\hat W_i \cdot W_j)^2

    It is 0 for a feature with a direction to itself, and 0 by convention for a feature that is not learned,
    one with norm at most :data:`UNLEARNED_NORM`.

    Args:
        weight: stack of weight matrices

    Returns:
        The superposition of each feature.

    Raises:
        ValueError: if ``weight`` is not 3-D, not floating point, or has an empty hidden or feature axis.

    Source:
        Elhage et al. (2022), arXiv 2209.10652, section "Demonstrating Superposition".

    Example:
        >>> import torch
        >>> from common.metrics import superposition
        >>> superposition(torch.tensor([[[1.0, -1.0, 0.0], [0.0, 0.0, 1.0]]]))  # an antipodal pair, one alone
        tensor([[1., 1., 0.]])

    """
    _, overlaps = _overlaps_with_others(weight)
    return overlaps.square().sum(dim=2)


def feature_dimensionality(
    weight: Float[Tensor, "instances hidden features"],
) -> Float[Tensor, "instances features"]:
    r"""Compute the dimensionality of each feature: the share of a hidden dimension that it has to itself.

    .. math:: D_i = \frac{\|W_i\|^2}{\sum_j (\hat W_i \cdot W_j)^2}

    The sum is over all features, including :math:`j = i`. It is 0 for a feature that is not learned, one with
    norm at most :data:`UNLEARNED_NORM`. Over one instance the dimensionalities sum to at most the rank of
    :math:`W`.

    Args:
        weight: stack of weight matrices

    Returns:
        The dimensionality of each feature, from 0 to 1.

    Raises:
        ValueError: if ``weight`` is not 3-D, not floating point, or has an empty hidden or feature axis.

    Source:
        Elhage et al. (2022), arXiv 2209.10652, section "The Geometry of Superposition", under "Feature
        Dimensionality".

    Example:
        >>> import torch
        >>> from common.metrics import feature_dimensionality
        >>> feature_dimensionality(torch.tensor([[[1.0, -1.0, 0.0], [0.0, 0.0, 1.0]]]))  # a pair, one alone
        tensor([[0.5000, 0.5000, 1.0000]])

    """
    norms, overlaps = _overlaps_with_others(weight)
    unlearned = _is_unlearned(norms)
    # The j = i term of the sum is |W_i|^2: divided by it above and below, D_i = 1 / (1 + r_i), where r_i is
    # the sum of the others. Dividing before squaring keeps the result the same at any scale of the weights:
    # no square of a small norm underflows on the way.
    relative = overlaps / norms.masked_fill(unlearned, 1.0).unsqueeze(2)
    relative_interference = relative.square().sum(dim=2).masked_fill(unlearned, torch.inf)
    return 1 / (1 + relative_interference)


# --- counts, relative to a threshold


def polysemantic_neurons(
    weight: Float[Tensor, "instances neurons features"], threshold: float
) -> Float[Tensor, "instances"]:
    r"""Compute how many neurons respond to more than one feature.

    .. math:: \left|\left\{k : \left|\{i : |W_{ki}| > t \max_j |W_{kj}|\}\right| > 1\right\}\right|

    over the neurons that are not silent, :math:`\max_j |W_{kj}| > t \max_{lj} |W_{lj}|`.

    Args:
        weight: stack of weight matrices
        threshold: share of a neuron's largest weight above which it responds, :math:`t`

    Returns:
        The numbers of polysemantic neurons, NaN for a network that has diverged.

    Raises:
        ValueError: if ``weight`` is not 3-D, not floating point, or has an empty neuron or feature axis, or
            if ``threshold`` is not in [0, 1).

    Source:
        Chan (2024); Nanda's glossary, "polysemanticity". The threshold is ours.

    Example:
        >>> import torch
        >>> from common.metrics import polysemantic_neurons
        >>> polysemantic_neurons(torch.tensor([[[1.0, 0.7], [0.0, 0.7]]]), threshold=0.1)
        tensor([1.])
        >>> one_large = torch.tensor([[[1.0, *10 * [0.05]]]])
        >>> polysemantic_neurons(one_large, threshold=0.1), polysemantic_neurons(one_large, threshold=0.01)
        (tensor([0.]), tensor([1.]))

    """
    _check_weight(weight)
    _check_threshold(threshold)
    features = _above_threshold(weight, threshold, dim=2).sum(dim=2)
    return _nan_where_diverged((features > 1).sum(dim=1), weight)


def neurons_per_feature(
    weight: Float[Tensor, "instances neurons features"], threshold: float
) -> Float[Tensor, "instances features"]:
    r"""Compute how many neurons each feature is on: more than one is superposition in the Zoom-In sense.

    .. math:: \left|\{k : |W_{ki}| > t \max_l |W_{li}|\}\right|

    It is 0 for a feature that is not represented, :math:`\max_l |W_{li}| \le t \max_{lj} |W_{lj}|`.

    Args:
        weight: stack of weight matrices
        threshold: share of a feature's largest weight above which it is on a neuron, :math:`t`

    Returns:
        The numbers of neurons, NaN for a network that has diverged.

    Raises:
        ValueError: if ``weight`` is not 3-D, not floating point, or has an empty neuron or feature axis, or
            if ``threshold`` is not in [0, 1).

    Source:
        Olah et al. (2020), "Zoom In", in the reading of Topper (2024). The threshold is ours.

    Example:
        >>> import torch
        >>> from common.metrics import neurons_per_feature
        >>> neurons_per_feature(torch.tensor([[[1.0, 0.7, 0.0], [0.0, 0.7, 0.0]]]), threshold=0.1)
        tensor([[1., 2., 0.]])

    """
    _check_weight(weight)
    _check_threshold(threshold)
    return _nan_where_diverged(_above_threshold(weight, threshold, dim=1).sum(dim=1), weight)


def superposition_by_count(
    weight: Float[Tensor, "instances neurons features"], threshold: float
) -> Float[Tensor, "instances"]:
    r"""Compute how many more features a network represents than it has dimensions.

    .. math:: \max\left(0, \left|\{i : \max_k |W_{ki}| > t \max_{kj} |W_{kj}|\}\right| - m\right)

    Superposition is a result above 0; then at least one neuron is polysemantic.

    Args:
        weight: stack of weight matrices
        threshold: share of the network's largest weight above which a feature is represented, :math:`t`

    Returns:
        The numbers of features, NaN for a network that has diverged.

    Raises:
        ValueError: if ``weight`` is not 3-D, not floating point, or has an empty neuron or feature axis, or
            if ``threshold`` is not in [0, 1).

    Source:
        Chan (2024); Nanda's glossary, "superposition". The threshold is ours.

    Example:
        >>> import torch
        >>> from common.metrics import superposition_by_count
        >>> superposition_by_count(torch.tensor([[[1.0, 0.7, 0.0], [0.0, 0.7, 1.0]]]), threshold=0.1)
        tensor([1.])

    """
    represented = _represented_features(weight, threshold)
    return _beyond(represented, torch.full_like(represented, weight.shape[1]))


def superposition_by_rank(
    weight: Float[Tensor, "instances neurons features"], threshold: float
) -> Float[Tensor, "instances"]:
    r"""Compute how many more features a network represents than its feature vectors span dimensions.

    .. math:: \left|\{i : \max_k |W_{ki}| > t \max_{kj} |W_{kj}|\}\right| - \operatorname{rank}_t W

    The rank is that of the represented features' vectors: their singular values above :math:`t` times the
    largest. It is at most the number of neurons, so this is at least :func:`superposition_by_count`.

    Args:
        weight: stack of weight matrices
        threshold: relative threshold of represented features and of singular values, :math:`t`

    Returns:
        The numbers of features, NaN for a network that has diverged.

    Raises:
        ValueError: if ``weight`` is not 3-D, not floating point, or has an empty neuron or feature axis, or
            if ``threshold`` is not in [0, 1).

    Source:
        Chan (2024), where features share a smaller space than the layer's. The threshold is ours.

    Example:
        >>> import torch
        >>> from common.metrics import superposition_by_count, superposition_by_rank
        >>> weight = torch.tensor([[[1.0, -1.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]]])
        >>> superposition_by_count(weight, threshold=0.1), superposition_by_rank(weight, threshold=0.1)
        (tensor([0.]), tensor([1.]))

    """
    represented = _represented_features(weight, threshold)
    on = _above_threshold(weight, threshold, dim=1).any(dim=1, keepdim=True)
    finite = weight.isfinite().all(dim=(1, 2), keepdim=True)
    # In float64, because no decomposition takes half precision; a NaN would make it fail for all instances.
    vectors = weight.double().masked_fill(~(on & finite), 0.0)
    values = torch.linalg.svdvals(vectors)
    # The last singular value of linearly dependent vectors is zero up to rounding.
    rounding = torch.finfo(weight.dtype).eps * max(weight.shape[1:])
    rank = (values > max(threshold, rounding) * values[:, :1]).sum(dim=1)
    return _beyond(represented, _nan_where_diverged(rank, weight))


# --- as a metric of torchmetrics


class PerInstance(Metric):
    """A function of many networks at once as a metric, in any LightningModule or ``MetricCollection``.

    ``update`` takes the arguments of the function: tensors for some of the networks, whose first axis is the
    instances. As in a ``MetricCollection``, keyword arguments that the function does not have are ignored.
    ``compute`` returns what the function returns, a tensor (instances, ...), for all networks so far, in the
    order of the updates. Arguments that are the same for all are bound to the function:
    ``functools.partial(polysemantic_neurons, threshold=0.1)``.

    Args:
        function: from tensors (instances, ...) to a tensor (instances, ...)
        kwargs: keyword arguments of :class:`torchmetrics.Metric`

    Raises:
        ValueError: on update, if the function returns anything else.

    Example:
        >>> import torch
        >>> from torchmetrics import MetricCollection
        >>> from common.metrics import PerInstance, feature_norm, superposition
        >>> functions = {"norm": feature_norm, "overlap": superposition}
        >>> metrics = MetricCollection({name: PerInstance(one) for name, one in functions.items()})
        >>> metrics.update(weight=torch.tensor([[[3.0, 1.0], [4.0, 0.0]]]))
        >>> metrics.update(weight=torch.tensor([[[0.0, 2.0], [0.0, 0.0]]]))
        >>> metrics.compute()["norm"]
        tensor([[5., 1.],
                [0., 2.]])

    """

    full_state_update: bool = False

    def __init__(self, function: Callable[..., Tensor], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.function = function
        self._values = f"values of {_identity(function)}"
        self.add_state(self._values, default=[], dist_reduce_fx="cat")

    def update(self, *tensors: Tensor, **named: Tensor) -> None:
        """Add the function's values for some networks."""
        taken = inspect.signature(self.function).parameters
        value = self.function(*tensors, **{name: tensor for name, tensor in named.items() if name in taken})
        if not isinstance(value, Tensor) or value.ndim == 0:
            got = "a number" if isinstance(value, Tensor) else f"a {type(value).__name__}"
            raise ValueError(f"{_identity(self.function)} returned {got}; expected a tensor (instances, ...)")
        getattr(self, self._values).append(value.clone())  # it may be a weight, which training changes

    def compute(self) -> Tensor:
        """The function's values for all networks so far."""
        value: Tensor = dim_zero_cat(getattr(self, self._values))
        self._n_axes = value.ndim
        return value

    def merge_state(self, incoming_state: dict[str, Any] | Metric) -> None:
        """Put the networks of another metric of the same function before those of this one."""
        super().merge_state(incoming_state)
        # torchmetrics 1.9 keeps the cached result, so compute() would leave out the new instances.
        self._computed = None

    def _wrap_compute(self, compute: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """Give a result with a single element its axes back, which torchmetrics squeezes to a scalar."""
        wrapped = super()._wrap_compute(compute)

        @functools.wraps(compute)
        def keep_axes(*args: Any, **kwargs: Any) -> Tensor:
            value: Tensor = wrapped(*args, **kwargs)
            return value if value.ndim else value.reshape((1,) * self._n_axes)

        return keep_axes


def _identity(function: Callable[..., Any]) -> str:
    """A different text for each function: a ``MetricCollection`` merges metrics whose states agree."""
    if isinstance(function, functools.partial):
        return f"{_identity(function.func)}, {function.args}, {function.keywords}"
    plain = inspect.isfunction(function) and "<" not in function.__qualname__
    return f"{function.__module__}.{function.__qualname__}" if plain else repr(function)


# --- shared helpers


def _check_weight(weight: Tensor) -> None:
    """Check that weights are a stack of non-empty real matrices."""
    if weight.ndim != 3:
        raise ValueError(f"weight must have 3 axes (instances, hidden, features), got {tuple(weight.shape)}")
    if not weight.is_floating_point():
        raise ValueError(f"weight must be a floating-point tensor, got {weight.dtype}")
    if weight.shape[1] == 0 or weight.shape[2] == 0:
        raise ValueError(
            f"weight must have at least one hidden dimension and one feature, got {tuple(weight.shape)}"
        )


def _check_threshold(threshold: float) -> None:
    """Check that a threshold is a share of something."""
    if not 0 <= threshold < 1:
        raise ValueError(f"threshold must be at least 0 and below 1, got {threshold:g}")


def _is_unlearned(norms: Float[Tensor, "instances features"]) -> Bool[Tensor, "instances features"]:
    """Return where a feature counts as not learned, from the norm of each."""
    # A NaN norm is not "at most" anything: it counts as learned, so that a diverged network gives NaN and
    # is not mistaken for one that learned nothing.
    return norms <= UNLEARNED_NORM


def _overlaps_with_others(
    weight: Float[Tensor, "instances hidden features"],
) -> tuple[Float[Tensor, "instances features"], Float[Tensor, "instances features features"]]:
    r"""Return feature norms, and :math:`\hat W_i \cdot W_j` at row i, column j with the diagonal set to 0.

    The rows of features that are not learned are 0.
    """
    _check_weight(weight)
    norms = torch.linalg.vector_norm(weight, dim=1)
    unlearned = _is_unlearned(norms)
    # Dividing by 1 where there is no direction keeps values and gradients finite.
    directions = weight / norms.masked_fill(unlearned, 1.0).unsqueeze(1)
    overlaps = directions.masked_fill(unlearned.unsqueeze(1), 0.0).transpose(1, 2) @ weight
    # The j = i term is masked, not subtracted after summing: subtraction would leave a rounding error in
    # place of the exact 0 of orthogonal features.
    itself = torch.eye(weight.shape[2], dtype=torch.bool, device=weight.device)
    return norms, overlaps.masked_fill(itself, 0.0)


def _above_threshold(
    weight: Float[Tensor, "instances neurons features"], threshold: float, dim: int
) -> Bool[Tensor, "instances neurons features"]:
    """Return where the size of a weight is above the threshold, along neurons or along features.

    Args:
        weight: stack of weight matrices
        threshold: share of the largest weight along ``dim``, and of that one in the largest of all
        dim: 1 to compare the weights of a feature, 2 to compare those of a neuron

    """
    sizes = weight.abs()
    largest = sizes.amax(dim=dim, keepdim=True)
    of_all = sizes.amax(dim=(1, 2), keepdim=True)
    return (sizes > threshold * largest) & (largest > threshold * of_all)


def _represented_features(
    weight: Float[Tensor, "instances neurons features"], threshold: float
) -> Float[Tensor, "instances"]:
    """Return how many features each network represents, NaN for one that has diverged."""
    return _nan_where_diverged((neurons_per_feature(weight, threshold) > 0).sum(dim=1), weight)


def _beyond(
    represented: Float[Tensor, "instances"], dimensions: Float[Tensor, "instances"]
) -> Float[Tensor, "instances"]:
    """Return how many features there are beyond the number of dimensions, 0 if there are not more."""
    return (represented - dimensions).clamp(min=0)


def _nan_where_diverged(
    counts: Shaped[Tensor, "instances *rest"], weight: Float[Tensor, "instances neurons features"]
) -> Float[Tensor, "instances *rest"]:
    """Return counts as numbers of the weights' type, NaN for networks with a weight that is not finite."""
    diverged = ~weight.isfinite().all(dim=(1, 2))
    shape = (-1, *(1,) * (counts.ndim - 1))
    return counts.to(weight.dtype).masked_fill(diverged.reshape(shape), torch.nan)
