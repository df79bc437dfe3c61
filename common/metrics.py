r"""Geometry metrics of toy-model weights, for ensembles of many networks at once.

The definitions are those of Elhage et al. (2022), "Toy Models of Superposition", arXiv 2209.10652. The paper
writes :math:`W` for the weights, :math:`m` rows (hidden dimensions) by :math:`n` columns (features);
:math:`W_i` is column :math:`i`, the direction of feature :math:`i`, and :math:`\hat W_i = W_i / \|W_i\|`.
Every metric here takes a stack of such matrices, shape ``(instances, n_hidden, n_features)``, treats each
instance on its own, and comes in two forms: a pure function, and a :class:`torchmetrics.Metric` that collects
instances over several updates.

:func:`superposition` and :func:`feature_dimensionality` hold all pairs of features at once, so they need
memory for ``instances * n_features ** 2`` numbers. For a big ensemble, update the class form with some
instances at a time; what it keeps between updates is one number per feature.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

__all__ = [
    "UNLEARNED_NORM",
    "DimensionsPerFeature",
    "FeatureDimensionality",
    "FeatureNorm",
    "Superposition",
    "dimensions_per_feature",
    "feature_dimensionality",
    "feature_norm",
    "superposition",
]

UNLEARNED_NORM: float = 1e-12
"""A feature whose norm is at most this counts as not learned: it has no direction.

Far below any trained weight, yet its square is still an ordinary number in float32.
"""


def _check_weights(weights: Tensor) -> None:
    """Check that weights are a stack of non-empty real matrices.

    Args:
        weights: what a caller passed as weights

    """
    if weights.ndim != 3:
        raise ValueError(
            f"weights must have 3 axes (instances, n_hidden, n_features), got {tuple(weights.shape)}"
        )
    if not weights.is_floating_point():
        raise ValueError(f"weights must be a floating-point tensor, got {weights.dtype}")
    if weights.shape[1] == 0 or weights.shape[2] == 0:
        raise ValueError(f"weights must have n_hidden > 0 and n_features > 0, got {tuple(weights.shape)}")


def _feature_norm_update(weights: Tensor) -> Tensor:
    """Check the weights and return the norm of each feature.

    Args:
        weights: stack of weight matrices, shape ``(instances, n_hidden, n_features)``

    """
    _check_weights(weights)
    norms: Tensor = torch.linalg.vector_norm(weights, dim=1)
    return norms


def _is_unlearned(norms: Tensor) -> Tensor:
    """Return where a feature counts as not learned.

    Args:
        norms: norm of each feature, shape ``(instances, n_features)``

    """
    # A NaN norm is not "at most" anything: it counts as learned, so that a diverged network gives NaN and
    # does not pass for one that learned nothing.
    return norms <= UNLEARNED_NORM


def _overlaps_with_others(weights: Tensor) -> tuple[Tensor, Tensor]:
    r"""Return feature norms, and :math:`\hat W_i \cdot W_j` at row i, column j with the diagonal set to 0.

    The rows of features that are not learned are 0.

    Args:
        weights: stack of weight matrices, shape ``(instances, n_hidden, n_features)``

    """
    norms = _feature_norm_update(weights)
    unlearned = _is_unlearned(norms)
    # Dividing by 1 where there is no direction keeps values and gradients finite.
    directions = weights / norms.masked_fill(unlearned, 1.0).unsqueeze(1)
    overlaps = directions.masked_fill(unlearned.unsqueeze(1), 0.0).transpose(1, 2) @ weights
    # The j = i term is masked, not subtracted after summing: subtraction would leave a rounding error in
    # place of the exact 0 of orthogonal features.
    itself = torch.eye(weights.shape[2], dtype=torch.bool, device=weights.device)
    return norms, overlaps.masked_fill(itself, 0.0)


def _superposition_update(weights: Tensor) -> Tensor:
    """Check the weights and return the superposition of each feature.

    Args:
        weights: stack of weight matrices, shape ``(instances, n_hidden, n_features)``

    """
    _, overlaps = _overlaps_with_others(weights)
    return overlaps.square().sum(dim=2)


def _feature_dimensionality_update(weights: Tensor) -> Tensor:
    r"""Check the weights and return the relative interference of each feature.

    That is :math:`r_i = \sum_{j \neq i} (\hat W_i \cdot W_j)^2 / \|W_i\|^2`, infinite for a feature that is
    not learned.

    Args:
        weights: stack of weight matrices, shape ``(instances, n_hidden, n_features)``

    """
    norms, overlaps = _overlaps_with_others(weights)
    unlearned = _is_unlearned(norms)
    # Dividing before squaring keeps the result the same at any scale of the weights: no square of a small
    # norm underflows on the way.
    relative = overlaps / norms.masked_fill(unlearned, 1.0).unsqueeze(2)
    return relative.square().sum(dim=2).masked_fill(unlearned, torch.inf)


def _feature_dimensionality_compute(relative_interference: Tensor) -> Tensor:
    r"""Return the dimensionality of each feature.

    The j = i term of the sum in :math:`D_i` is :math:`\|W_i\|^2`, so dividing above and below by it leaves
    :math:`D_i = 1 / (1 + r_i)`.

    Args:
        relative_interference: :math:`r_i` of each feature, shape ``(instances, n_features)``

    Example:
        >>> import torch
        >>> from common.metrics import _feature_dimensionality_compute
        >>> _feature_dimensionality_compute(torch.tensor([[0.0, 1.0, torch.inf]]))
        tensor([[1.0000, 0.5000, 0.0000]])

    """
    return 1 / (1 + relative_interference)


def _dimensions_per_feature_update(weights: Tensor) -> tuple[Tensor, Tensor]:
    """Check the weights and return the hidden size and the squared Frobenius norm of each instance.

    Args:
        weights: stack of weight matrices, shape ``(instances, n_hidden, n_features)``

    """
    _check_weights(weights)
    squared_norm = weights.square().sum(dim=(1, 2))
    # The hidden size is kept per instance, so that updates with different hidden sizes can be mixed.
    return torch.full_like(squared_norm, weights.shape[1]), squared_norm


def _dimensions_per_feature_compute(n_hidden: Tensor, squared_norm: Tensor) -> Tensor:
    """Return the dimensions per feature of each instance.

    Args:
        n_hidden: hidden size of each instance, shape ``(instances,)``
        squared_norm: squared Frobenius norm of each instance, shape ``(instances,)``

    Example:
        >>> import torch
        >>> from common.metrics import _dimensions_per_feature_compute
        >>> _dimensions_per_feature_compute(torch.tensor([2.0, 2.0]), torch.tensor([5.0, 0.0]))
        tensor([0.4000,    inf])

    """
    return n_hidden / squared_norm


def feature_norm(weights: Tensor) -> Tensor:
    r"""Compute the norm of each feature: about 1 if the network represents it, about 0 if it does not.

    .. math:: \|W_i\|

    Args:
        weights: stack of weight matrices, shape ``(instances, n_hidden, n_features)``

    Returns:
        The norms, shape ``(instances, n_features)``.

    Raises:
        ValueError:
            If ``weights`` is not 3-D, not floating point, or has an empty hidden or feature axis.

    Source:
        Elhage et al. (2022), arXiv 2209.10652, section "Demonstrating Superposition".

    Example:
        >>> import torch
        >>> from common.metrics import feature_norm
        >>> feature_norm(torch.tensor([[[3.0, 1.0, 0.0], [4.0, 0.0, 0.0]]]))
        tensor([[5., 1., 0.]])

    """
    return _feature_norm_update(weights)


def superposition(weights: Tensor) -> Tensor:
    r"""Compute how much the other features overlap with the direction of each feature.

    .. math:: \sum_{j \neq i} (\hat W_i \cdot W_j)^2

    It is 0 for a feature with a direction to itself, and 0 by convention for a feature that is not learned,
    one with norm at most :data:`UNLEARNED_NORM`.

    Args:
        weights: stack of weight matrices, shape ``(instances, n_hidden, n_features)``

    Returns:
        The superposition of each feature, shape ``(instances, n_features)``.

    Raises:
        ValueError:
            If ``weights`` is not 3-D, not floating point, or has an empty hidden or feature axis.

    Source:
        Elhage et al. (2022), arXiv 2209.10652, section "Demonstrating Superposition".

    Example:
        >>> import torch
        >>> from common.metrics import superposition
        >>> superposition(torch.tensor([[[1.0, -1.0, 0.0], [0.0, 0.0, 1.0]]]))  # an antipodal pair, one alone
        tensor([[1., 1., 0.]])

    """
    return _superposition_update(weights)


def feature_dimensionality(weights: Tensor) -> Tensor:
    r"""Compute the dimensionality of each feature: the share of a hidden dimension that it has to itself.

    .. math:: D_i = \frac{\|W_i\|^2}{\sum_j (\hat W_i \cdot W_j)^2}

    The sum is over all features, including :math:`j = i`. It is 0 for a feature that is not learned, one with
    norm at most :data:`UNLEARNED_NORM`. Over one instance the dimensionalities sum to at most the rank of
    :math:`W`.

    Args:
        weights: stack of weight matrices, shape ``(instances, n_hidden, n_features)``

    Returns:
        The dimensionality of each feature, from 0 to 1, shape ``(instances, n_features)``.

    Raises:
        ValueError:
            If ``weights`` is not 3-D, not floating point, or has an empty hidden or feature axis.

    Source:
        Elhage et al. (2022), arXiv 2209.10652, section "The Geometry of Superposition", under "Feature
        Dimensionality".

    Example:
        >>> import torch
        >>> from common.metrics import feature_dimensionality
        >>> feature_dimensionality(torch.tensor([[[1.0, -1.0, 0.0], [0.0, 0.0, 1.0]]]))  # a pair, one alone
        tensor([[0.5000, 0.5000, 1.0000]])

    """
    return _feature_dimensionality_compute(_feature_dimensionality_update(weights))


def dimensions_per_feature(weights: Tensor) -> Tensor:
    r"""Compute the hidden dimensions per represented feature of each network.

    .. math:: D^* = \frac{m}{\|W\|_F^2}

    The squared Frobenius norm stands for the number of features represented, since each one adds about 1 to
    it. The result is infinite if all weights are zero.

    Args:
        weights: stack of weight matrices, shape ``(instances, n_hidden, n_features)``

    Returns:
        The dimensions per feature, shape ``(instances,)``.

    Raises:
        ValueError:
            If ``weights`` is not 3-D, not floating point, or has an empty hidden or feature axis.

    Source:
        Elhage et al. (2022), arXiv 2209.10652, section "The Geometry of Superposition", under "Uniform
        Superposition".

    Example:
        >>> import torch
        >>> from common.metrics import dimensions_per_feature
        >>> dimensions_per_feature(torch.tensor([[[1.0, -1.0, 0.0, 0.0], [0.0, 0.0, 1.0, -1.0]]]))
        tensor([0.5000])

    """
    return _dimensions_per_feature_compute(*_dimensions_per_feature_update(weights))


class _PerInstanceMetric(Metric):
    """What the metrics here share: results hold one entry for each instance, at any number of instances."""

    is_differentiable: bool = True
    higher_is_better: bool | None = None
    full_state_update: bool = False

    value_ndim: int = 2

    def _wrap_compute(self, compute: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """Give a result with a single element its axes back.

        torchmetrics squeezes such a result to a scalar. For an ensemble of one network that would make the
        shape depend on the number of instances, and the class form differ from the function.

        """
        wrapped = super()._wrap_compute(compute)

        @functools.wraps(compute)
        def keep_axes(*args: Any, **kwargs: Any) -> Tensor:
            value: Tensor = wrapped(*args, **kwargs)
            return value.reshape((1,) * self.value_ndim) if value.ndim == 0 else value

        return keep_axes

    def merge_state(self, incoming_state: dict[str, Any] | Metric) -> None:
        """Put the instances of another metric of the same kind before those of this one.

        Args:
            incoming_state: the other metric, or its state

        """
        super().merge_state(incoming_state)
        # torchmetrics 1.9 keeps the cached result, so compute() would go on without the new instances.
        self._computed = None


class FeatureNorm(_PerInstanceMetric):
    r"""Compute the norm of each feature: about 1 if the network represents it, about 0 if it does not.

    .. math:: \|W_i\|

    As input to ``forward`` and ``update`` the metric accepts:

    - ``weights`` (:class:`~torch.Tensor`): stack of weight matrices of some of the instances, float tensor
      with shape ``(instances, n_hidden, n_features)``

    As output of ``compute`` the metric returns:

    - ``norms`` (:class:`~torch.Tensor`): float tensor with shape ``(all instances so far, n_features)``, in
      the order of the updates

    Args:
        kwargs: keyword arguments of :class:`torchmetrics.Metric`

    Raises:
        ValueError:
            On update, if ``weights`` is not 3-D, not floating point, or has an empty hidden or feature axis.

    Source:
        Elhage et al. (2022), arXiv 2209.10652, section "Demonstrating Superposition".

    Example:
        >>> import torch
        >>> from common.metrics import FeatureNorm
        >>> metric = FeatureNorm()
        >>> metric.update(torch.tensor([[[3.0, 1.0], [4.0, 0.0]]]))
        >>> metric.update(torch.tensor([[[0.0, 2.0], [0.0, 0.0]]]))
        >>> metric.compute()
        tensor([[5., 1.],
                [0., 2.]])

    """

    norms: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("norms", default=[], dist_reduce_fx="cat")

    def update(self, weights: Tensor) -> None:
        """Update state with the weights of some instances."""
        self.norms.append(_feature_norm_update(weights))

    def compute(self) -> Tensor:
        """Return the feature norms of all instances."""
        return dim_zero_cat(self.norms)


class Superposition(_PerInstanceMetric):
    r"""Compute how much the other features overlap with the direction of each feature.

    .. math:: \sum_{j \neq i} (\hat W_i \cdot W_j)^2

    It is 0 for a feature that is not learned; see :func:`superposition`.

    As input to ``forward`` and ``update`` the metric accepts:

    - ``weights`` (:class:`~torch.Tensor`): stack of weight matrices of some of the instances, float tensor
      with shape ``(instances, n_hidden, n_features)``

    As output of ``compute`` the metric returns:

    - ``superposition`` (:class:`~torch.Tensor`): float tensor with shape
      ``(all instances so far, n_features)``, in the order of the updates

    Args:
        kwargs: keyword arguments of :class:`torchmetrics.Metric`

    Raises:
        ValueError:
            On update, if ``weights`` is not 3-D, not floating point, or has an empty hidden or feature axis.

    Source:
        Elhage et al. (2022), arXiv 2209.10652, section "Demonstrating Superposition".

    Example:
        >>> import torch
        >>> from common.metrics import Superposition
        >>> metric = Superposition()
        >>> metric.update(torch.tensor([[[1.0, -1.0], [0.0, 0.0]]]))
        >>> metric.update(torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]))
        >>> metric.compute()
        tensor([[1., 1.],
                [0., 0.]])

    """

    superposition: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("superposition", default=[], dist_reduce_fx="cat")

    def update(self, weights: Tensor) -> None:
        """Update state with the weights of some instances."""
        self.superposition.append(_superposition_update(weights))

    def compute(self) -> Tensor:
        """Return the superposition of each feature of all instances."""
        return dim_zero_cat(self.superposition)


class FeatureDimensionality(_PerInstanceMetric):
    r"""Compute the dimensionality of each feature: the share of a hidden dimension that it has to itself.

    .. math:: D_i = \frac{\|W_i\|^2}{\sum_j (\hat W_i \cdot W_j)^2}

    The sum is over all features, including :math:`j = i`. It is 0 for a feature that is not learned; see
    :func:`feature_dimensionality`.

    As input to ``forward`` and ``update`` the metric accepts:

    - ``weights`` (:class:`~torch.Tensor`): stack of weight matrices of some of the instances, float tensor
      with shape ``(instances, n_hidden, n_features)``

    As output of ``compute`` the metric returns:

    - ``dimensionality`` (:class:`~torch.Tensor`): float tensor with shape
      ``(all instances so far, n_features)``, in the order of the updates

    Args:
        kwargs: keyword arguments of :class:`torchmetrics.Metric`

    Raises:
        ValueError:
            On update, if ``weights`` is not 3-D, not floating point, or has an empty hidden or feature axis.

    Source:
        Elhage et al. (2022), arXiv 2209.10652, section "The Geometry of Superposition", under "Feature
        Dimensionality".

    Example:
        >>> import torch
        >>> from common.metrics import FeatureDimensionality
        >>> metric = FeatureDimensionality()
        >>> metric.update(torch.tensor([[[1.0, -1.0], [0.0, 0.0]]]))
        >>> metric.update(torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]))
        >>> metric.compute()
        tensor([[0.5000, 0.5000],
                [1.0000, 1.0000]])

    """

    relative_interference: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("relative_interference", default=[], dist_reduce_fx="cat")

    def update(self, weights: Tensor) -> None:
        """Update state with the weights of some instances."""
        self.relative_interference.append(_feature_dimensionality_update(weights))

    def compute(self) -> Tensor:
        """Return the dimensionality of each feature of all instances."""
        return _feature_dimensionality_compute(dim_zero_cat(self.relative_interference))


class DimensionsPerFeature(_PerInstanceMetric):
    r"""Compute the hidden dimensions per represented feature of each network.

    .. math:: D^* = \frac{m}{\|W\|_F^2}

    It is infinite for a network whose weights are all zero.

    As input to ``forward`` and ``update`` the metric accepts:

    - ``weights`` (:class:`~torch.Tensor`): stack of weight matrices of some of the instances, float tensor
      with shape ``(instances, n_hidden, n_features)``

    As output of ``compute`` the metric returns:

    - ``dimensions`` (:class:`~torch.Tensor`): float tensor with shape ``(all instances so far,)``, in the
      order of the updates

    Args:
        kwargs: keyword arguments of :class:`torchmetrics.Metric`

    Raises:
        ValueError:
            On update, if ``weights`` is not 3-D, not floating point, or has an empty hidden or feature axis.

    Source:
        Elhage et al. (2022), arXiv 2209.10652, section "The Geometry of Superposition", under "Uniform
        Superposition".

    Example:
        >>> import torch
        >>> from common.metrics import DimensionsPerFeature
        >>> metric = DimensionsPerFeature()
        >>> metric.update(torch.tensor([[[1.0, -1.0, 0.0, 0.0], [0.0, 0.0, 1.0, -1.0]]]))
        >>> metric.update(torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]))
        >>> metric.compute()
        tensor([0.5000, 1.0000])

    """

    value_ndim: int = 1

    n_hidden: list[Tensor]
    squared_norm: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("n_hidden", default=[], dist_reduce_fx="cat")
        self.add_state("squared_norm", default=[], dist_reduce_fx="cat")

    def update(self, weights: Tensor) -> None:
        """Update state with the weights of some instances."""
        n_hidden, squared_norm = _dimensions_per_feature_update(weights)
        self.n_hidden.append(n_hidden)
        self.squared_norm.append(squared_norm)

    def compute(self) -> Tensor:
        """Return the dimensions per feature of all instances."""
        return _dimensions_per_feature_compute(dim_zero_cat(self.n_hidden), dim_zero_cat(self.squared_norm))
