r"""Neuron polysemanticity, and superposition in three senses, as numbers of a network's weights.

The words are used in different senses, and a network can have one without another. As in
:mod:`common.metrics`, weights are a stack of matrices :math:`W`, column :math:`i` the vector of feature
:math:`i` in the basis of neurons. Trained weights are seldom exactly zero, so all senses share a *relative
threshold* :math:`t`, which a result must state. Of a neuron and a feature with the weight :math:`W_{ki}`,

- the neuron *responds* to the feature when :math:`|W_{ki}|` is above :math:`t` times the neuron's largest;
- the feature is *on* the neuron when :math:`|W_{ki}|` is above :math:`t` times the feature's largest;
- a neuron is silent, and a feature not represented, when its largest weight is at most :math:`t` times the
  largest of the network.

With these, more represented features than neurons always make a neuron polysemantic: a represented feature's
largest weight is above :math:`t` times the largest of the network, so its neuron responds to it.

Sources: Chan (2024), "Superposition is not 'just' neuron polysemanticity", and Nanda's glossary of
mechanistic interpretability for superposition as more features than dimensions; Olah et al. (2020), "Zoom
In", in the reading of Topper (2024), for a feature that is spread over neurons. The threshold is ours.
"""

from typing import Any

import torch
from torch import Tensor
from torchmetrics.utilities.data import dim_zero_cat

from common.metrics import _check_weights, _PerInstanceMetric

__all__ = [
    "NeuronsPerFeature",
    "PolysemanticNeurons",
    "SuperpositionByCount",
    "SuperpositionByRank",
    "neurons_per_feature",
    "polysemantic_neurons",
    "superposition_by_count",
    "superposition_by_rank",
]


def _check_threshold(threshold: float) -> None:
    """Check that a threshold is a share of something.

    Args:
        threshold: what a caller passed as threshold

    """
    if not 0 <= threshold < 1:
        raise ValueError(f"threshold must be at least 0 and below 1, got {threshold:g}")


def _above_threshold(weights: Tensor, threshold: float, dim: int) -> Tensor:
    """Return where the size of a weight is above the threshold, along neurons or along features.

    Args:
        weights: stack of weight matrices, shape ``(instances, n_hidden, n_features)``
        threshold: share of the largest weight along ``dim``, and of that one in the largest of all
        dim: 1 to compare the weights of a feature, 2 to compare those of a neuron

    """
    sizes = weights.abs()
    largest = sizes.amax(dim=dim, keepdim=True)
    of_all = sizes.amax(dim=(1, 2), keepdim=True)
    return (sizes > threshold * largest) & (largest > threshold * of_all)


def _nan_where_diverged(counts: Tensor, weights: Tensor) -> Tensor:
    """Return counts as numbers of the weights' type, NaN for networks with a weight that is not finite.

    Args:
        counts: shape ``(instances, ...)``
        weights: stack of weight matrices, shape ``(instances, n_hidden, n_features)``

    """
    diverged = ~weights.isfinite().all(dim=(1, 2))
    shape = (-1, *(1,) * (counts.ndim - 1))
    return counts.to(weights.dtype).masked_fill(diverged.reshape(shape), torch.nan)


def _neurons_per_feature_update(weights: Tensor, threshold: float) -> Tensor:
    """Check the arguments and return how many neurons each feature is on.

    Args:
        weights: stack of weight matrices, shape ``(instances, n_hidden, n_features)``
        threshold: relative threshold

    """
    _check_weights(weights)
    _check_threshold(threshold)
    return _nan_where_diverged(_above_threshold(weights, threshold, dim=1).sum(dim=1), weights)


def _polysemantic_neurons_update(weights: Tensor, threshold: float) -> Tensor:
    """Check the arguments and return how many neurons respond to more than one feature.

    Args:
        weights: stack of weight matrices, shape ``(instances, n_hidden, n_features)``
        threshold: relative threshold

    """
    _check_weights(weights)
    _check_threshold(threshold)
    features = _above_threshold(weights, threshold, dim=2).sum(dim=2)
    return _nan_where_diverged((features > 1).sum(dim=1), weights)


def _represented_update(weights: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """Check the arguments and return how many features each network represents, and in how many dimensions.

    Args:
        weights: stack of weight matrices, shape ``(instances, n_hidden, n_features)``
        threshold: relative threshold

    """
    neurons = _neurons_per_feature_update(weights, threshold)
    represented = _nan_where_diverged((neurons > 0).sum(dim=1), weights)
    # The hidden size is kept per instance, so that updates with different hidden sizes can be mixed.
    return represented, torch.full_like(represented, weights.shape[1])


def _rank_update(weights: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """Check the arguments and return how many features each network represents, and their vectors' rank.

    Args:
        weights: stack of weight matrices, shape ``(instances, n_hidden, n_features)``
        threshold: relative threshold

    """
    represented, _ = _represented_update(weights, threshold)
    on = _above_threshold(weights, threshold, dim=1).any(dim=1, keepdim=True)
    finite = weights.isfinite().all(dim=(1, 2), keepdim=True)
    # In float64, as no decomposition takes half precision; one that meets a NaN would fail for all instances.
    vectors = weights.double().masked_fill(~(on & finite), 0.0)
    values = torch.linalg.svdvals(vectors)
    # Vectors that depend on each other have a last singular value that is zero but for rounding.
    rounding = torch.finfo(weights.dtype).eps * max(weights.shape[1:])
    rank = (values > max(threshold, rounding) * values[:, :1]).sum(dim=1)
    return represented, _nan_where_diverged(rank, weights)


def _superposition_compute(represented: Tensor, dimensions: Tensor) -> Tensor:
    """Return how many features there are beyond the number of dimensions, 0 if there are not more.

    Args:
        represented: represented features of each instance, shape ``(instances,)``
        dimensions: what there is for them, shape ``(instances,)``

    Example:
        >>> import torch
        >>> from common.polysemanticity import _superposition_compute
        >>> _superposition_compute(torch.tensor([5.0, 2.0]), torch.tensor([4.0, 4.0]))
        tensor([1., 0.])

    """
    return (represented - dimensions).clamp(min=0)


def polysemantic_neurons(weights: Tensor, threshold: float) -> Tensor:
    r"""Compute how many neurons respond to more than one feature.

    .. math:: \left|\left\{k : \left|\{i : |W_{ki}| > t \max_j |W_{kj}|\}\right| > 1\right\}\right|

    over the neurons that are not silent, :math:`\max_j |W_{kj}| > t \max_{lj} |W_{lj}|`.

    Args:
        weights: stack of weight matrices, shape ``(instances, n_hidden, n_features)``
        threshold: share of a neuron's largest weight above which it responds, :math:`t`

    Returns:
        The numbers of polysemantic neurons, shape ``(instances,)``, NaN for a network that has diverged.

    Raises:
        ValueError:
            If ``weights`` is not 3-D, not floating point, or has an empty hidden or feature axis, or if
            ``threshold`` is not in [0, 1).

    Source:
        Chan (2024); Nanda's glossary, "polysemanticity". The threshold is ours.

    Example:
        >>> import torch
        >>> from common.polysemanticity import polysemantic_neurons
        >>> polysemantic_neurons(torch.tensor([[[1.0, 0.7], [0.0, 0.7]]]), threshold=0.1)
        tensor([1.])
        >>> one_large = torch.tensor([[[1.0, *10 * [0.05]]]])
        >>> polysemantic_neurons(one_large, threshold=0.1), polysemantic_neurons(one_large, threshold=0.01)
        (tensor([0.]), tensor([1.]))

    """
    return _polysemantic_neurons_update(weights, threshold)


def neurons_per_feature(weights: Tensor, threshold: float) -> Tensor:
    r"""Compute how many neurons each feature is on: more than one is superposition in the Zoom-In sense.

    .. math:: \left|\{k : |W_{ki}| > t \max_l |W_{li}|\}\right|

    It is 0 for a feature that is not represented, :math:`\max_l |W_{li}| \le t \max_{lj} |W_{lj}|`.

    Args:
        weights: stack of weight matrices, shape ``(instances, n_hidden, n_features)``
        threshold: share of a feature's largest weight above which it is on a neuron, :math:`t`

    Returns:
        The numbers of neurons, shape ``(instances, n_features)``, NaN for a network that has diverged.

    Raises:
        ValueError:
            If ``weights`` is not 3-D, not floating point, or has an empty hidden or feature axis, or if
            ``threshold`` is not in [0, 1).

    Source:
        Olah et al. (2020), "Zoom In", in the reading of Topper (2024). The threshold is ours.

    Example:
        >>> import torch
        >>> from common.polysemanticity import neurons_per_feature
        >>> neurons_per_feature(torch.tensor([[[1.0, 0.7, 0.0], [0.0, 0.7, 0.0]]]), threshold=0.1)
        tensor([[1., 2., 0.]])

    """
    return _neurons_per_feature_update(weights, threshold)


def superposition_by_count(weights: Tensor, threshold: float) -> Tensor:
    r"""Compute how many more features a network represents than it has dimensions.

    .. math:: \max\left(0, \left|\{i : \max_k |W_{ki}| > t \max_{kj} |W_{kj}|\}\right| - m\right)

    Superposition is a result above 0; then at least one neuron is polysemantic.

    Args:
        weights: stack of weight matrices, shape ``(instances, n_hidden, n_features)``
        threshold: share of the network's largest weight above which a feature is represented, :math:`t`

    Returns:
        The numbers of features, shape ``(instances,)``, NaN for a network that has diverged.

    Raises:
        ValueError:
            If ``weights`` is not 3-D, not floating point, or has an empty hidden or feature axis, or if
            ``threshold`` is not in [0, 1).

    Source:
        Chan (2024); Nanda's glossary, "superposition". The threshold is ours.

    Example:
        >>> import torch
        >>> from common.polysemanticity import superposition_by_count
        >>> superposition_by_count(torch.tensor([[[1.0, 0.7, 0.0], [0.0, 0.7, 1.0]]]), threshold=0.1)
        tensor([1.])

    """
    return _superposition_compute(*_represented_update(weights, threshold))


def superposition_by_rank(weights: Tensor, threshold: float) -> Tensor:
    r"""Compute how many more features a network represents than its feature vectors span dimensions.

    .. math:: \left|\{i : \max_k |W_{ki}| > t \max_{kj} |W_{kj}|\}\right| - \operatorname{rank}_t W

    The rank is that of the represented features' vectors: their singular values above :math:`t` times the
    largest. It is at most the number of neurons, so this is at least :func:`superposition_by_count`.

    Args:
        weights: stack of weight matrices, shape ``(instances, n_hidden, n_features)``
        threshold: relative threshold of represented features and of singular values, :math:`t`

    Returns:
        The numbers of features, shape ``(instances,)``, NaN for a network that has diverged.

    Raises:
        ValueError:
            If ``weights`` is not 3-D, not floating point, or has an empty hidden or feature axis, or if
            ``threshold`` is not in [0, 1).

    Source:
        Chan (2024), where features share a smaller space than the layer's. The threshold is ours.

    Example:
        >>> import torch
        >>> from common.polysemanticity import superposition_by_count, superposition_by_rank
        >>> weights = torch.tensor([[[1.0, -1.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]]])
        >>> superposition_by_count(weights, threshold=0.1), superposition_by_rank(weights, threshold=0.1)
        (tensor([0.]), tensor([1.]))

    """
    return _superposition_compute(*_rank_update(weights, threshold))


class _ThresholdMetric(_PerInstanceMetric):
    """What the metrics here share: a relative threshold."""

    is_differentiable: bool = False
    value_ndim: int = 1

    def __init__(self, threshold: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        _check_threshold(threshold)
        self.threshold = threshold


class PolysemanticNeurons(_ThresholdMetric):
    r"""Compute how many neurons respond to more than one feature; see :func:`polysemantic_neurons`.

    .. math:: \left|\left\{k : \left|\{i : |W_{ki}| > t \max_j |W_{kj}|\}\right| > 1\right\}\right|

    As input to ``forward`` and ``update`` the metric accepts:

    - ``weights`` (:class:`~torch.Tensor`): stack of weight matrices of some of the instances, float tensor
      with shape ``(instances, n_hidden, n_features)``

    As output of ``compute`` the metric returns:

    - ``neurons`` (:class:`~torch.Tensor`): float tensor with shape ``(all instances so far,)``, in the order
      of the updates

    Args:
        threshold: share of a neuron's largest weight above which it responds, :math:`t`
        kwargs: keyword arguments of :class:`torchmetrics.Metric`

    Raises:
        ValueError:
            If ``threshold`` is not in [0, 1); on update, if ``weights`` is not 3-D, not floating point, or
            has an empty hidden or feature axis.

    Source:
        Chan (2024); Nanda's glossary, "polysemanticity". The threshold is ours.

    Example:
        >>> import torch
        >>> from common.polysemanticity import PolysemanticNeurons
        >>> metric = PolysemanticNeurons(threshold=0.1)
        >>> metric.update(torch.tensor([[[1.0, 0.7], [0.0, 0.7]]]))
        >>> metric.update(torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]))
        >>> metric.compute()
        tensor([1., 0.])

    """

    neurons: list[Tensor]

    def __init__(self, threshold: float, **kwargs: Any) -> None:
        super().__init__(threshold, **kwargs)
        self.add_state("neurons", default=[], dist_reduce_fx="cat")

    def update(self, weights: Tensor) -> None:
        """Update state with the weights of some instances."""
        self.neurons.append(_polysemantic_neurons_update(weights, self.threshold))

    def compute(self) -> Tensor:
        """Return the numbers of polysemantic neurons of all instances."""
        return dim_zero_cat(self.neurons)


class NeuronsPerFeature(_ThresholdMetric):
    r"""Compute how many neurons each feature is on; see :func:`neurons_per_feature`.

    .. math:: \left|\{k : |W_{ki}| > t \max_l |W_{li}|\}\right|

    As input to ``forward`` and ``update`` the metric accepts:

    - ``weights`` (:class:`~torch.Tensor`): stack of weight matrices of some of the instances, float tensor
      with shape ``(instances, n_hidden, n_features)``

    As output of ``compute`` the metric returns:

    - ``neurons`` (:class:`~torch.Tensor`): float tensor with shape ``(all instances so far, n_features)``, in
      the order of the updates

    Args:
        threshold: share of a feature's largest weight above which it is on a neuron, :math:`t`
        kwargs: keyword arguments of :class:`torchmetrics.Metric`

    Raises:
        ValueError:
            If ``threshold`` is not in [0, 1); on update, if ``weights`` is not 3-D, not floating point, or
            has an empty hidden or feature axis.

    Source:
        Olah et al. (2020), "Zoom In", in the reading of Topper (2024). The threshold is ours.

    Example:
        >>> import torch
        >>> from common.polysemanticity import NeuronsPerFeature
        >>> metric = NeuronsPerFeature(threshold=0.1)
        >>> metric.update(torch.tensor([[[1.0, 0.7], [0.0, 0.7]]]))
        >>> metric.update(torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]))
        >>> metric.compute()
        tensor([[1., 2.],
                [1., 1.]])

    """

    value_ndim: int = 2

    neurons: list[Tensor]

    def __init__(self, threshold: float, **kwargs: Any) -> None:
        super().__init__(threshold, **kwargs)
        self.add_state("neurons", default=[], dist_reduce_fx="cat")

    def update(self, weights: Tensor) -> None:
        """Update state with the weights of some instances."""
        self.neurons.append(_neurons_per_feature_update(weights, self.threshold))

    def compute(self) -> Tensor:
        """Return the numbers of neurons of each feature of all instances."""
        return dim_zero_cat(self.neurons)


class _SuperpositionMetric(_ThresholdMetric):
    """What the two ways of counting superposition share: features, and dimensions for them."""

    represented: list[Tensor]
    dimensions: list[Tensor]

    def __init__(self, threshold: float, **kwargs: Any) -> None:
        super().__init__(threshold, **kwargs)
        self.add_state("represented", default=[], dist_reduce_fx="cat")
        self.add_state("dimensions", default=[], dist_reduce_fx="cat")

    def compute(self) -> Tensor:
        """Return how many features there are beyond the dimensions, of all instances."""
        return _superposition_compute(dim_zero_cat(self.represented), dim_zero_cat(self.dimensions))


class SuperpositionByCount(_SuperpositionMetric):
    r"""Compute how many more features a network represents than it has dimensions.

    .. math:: \max\left(0, \left|\{i : \max_k |W_{ki}| > t \max_{kj} |W_{kj}|\}\right| - m\right)

    Superposition is a result above 0; see :func:`superposition_by_count`.

    As input to ``forward`` and ``update`` the metric accepts:

    - ``weights`` (:class:`~torch.Tensor`): stack of weight matrices of some of the instances, float tensor
      with shape ``(instances, n_hidden, n_features)``

    As output of ``compute`` the metric returns:

    - ``features`` (:class:`~torch.Tensor`): float tensor with shape ``(all instances so far,)``, in the order
      of the updates

    Args:
        threshold: share of the network's largest weight above which a feature is represented, :math:`t`
        kwargs: keyword arguments of :class:`torchmetrics.Metric`

    Raises:
        ValueError:
            If ``threshold`` is not in [0, 1); on update, if ``weights`` is not 3-D, not floating point, or
            has an empty hidden or feature axis.

    Source:
        Chan (2024); Nanda's glossary, "superposition". The threshold is ours.

    Example:
        >>> import torch
        >>> from common.polysemanticity import SuperpositionByCount
        >>> metric = SuperpositionByCount(threshold=0.1)
        >>> metric.update(torch.tensor([[[1.0, 0.7, 0.0], [0.0, 0.7, 1.0]]]))
        >>> metric.update(torch.tensor([[[1.0, 0.7], [0.0, 0.7]]]))
        >>> metric.compute()
        tensor([1., 0.])

    """

    def update(self, weights: Tensor) -> None:
        """Update state with the weights of some instances."""
        represented, dimensions = _represented_update(weights, self.threshold)
        self.represented.append(represented)
        self.dimensions.append(dimensions)


class SuperpositionByRank(_SuperpositionMetric):
    r"""Compute how many more features a network represents than its feature vectors span dimensions.

    .. math:: \left|\{i : \max_k |W_{ki}| > t \max_{kj} |W_{kj}|\}\right| - \operatorname{rank}_t W

    Superposition is a result above 0; see :func:`superposition_by_rank`.

    As input to ``forward`` and ``update`` the metric accepts:

    - ``weights`` (:class:`~torch.Tensor`): stack of weight matrices of some of the instances, float tensor
      with shape ``(instances, n_hidden, n_features)``

    As output of ``compute`` the metric returns:

    - ``features`` (:class:`~torch.Tensor`): float tensor with shape ``(all instances so far,)``, in the order
      of the updates

    Args:
        threshold: relative threshold of represented features and of singular values, :math:`t`
        kwargs: keyword arguments of :class:`torchmetrics.Metric`

    Raises:
        ValueError:
            If ``threshold`` is not in [0, 1); on update, if ``weights`` is not 3-D, not floating point, or
            has an empty hidden or feature axis.

    Source:
        Chan (2024), where features share a smaller space than the layer's. The threshold is ours.

    Example:
        >>> import torch
        >>> from common.polysemanticity import SuperpositionByRank
        >>> metric = SuperpositionByRank(threshold=0.1)
        >>> metric.update(torch.tensor([[[1.0, -1.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]]]))
        >>> metric.update(torch.tensor([[[1.0, 0.7], [0.0, 0.7]]]))
        >>> metric.compute()
        tensor([1., 0.])

    """

    def update(self, weights: Tensor) -> None:
        """Update state with the weights of some instances."""
        represented, rank = _rank_update(weights, self.threshold)
        self.represented.append(represented)
        self.dimensions.append(rank)
