"""The outcome of training from weights (instances, features, neurons): winners, and neurons that they share.

A weight is a winner when it is of size 1 to within 0.2, as in the authors' code; the others end near 0.
Source: Lecomte et al. 2023, "Experiments", and the authors' code.
"""

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

WINNER = (0.8, 1.2)
NEAR_ZERO = 0.05
"""An end weight below it counts as zero: 50 times the learning rate, about which small weights jitter."""


def is_winner(weight: Float[Tensor, "*shape"]) -> Bool[Tensor, "*shape"]:
    """Whether each weight is of size 1 to within 0.2."""
    size = weight.abs()
    return (size >= WINNER[0]) & (size <= WINNER[1])


def polysemantic_neurons(weight: Float[Tensor, "instances features neurons"]) -> Int[Tensor, "instances"]:
    """The number of neurons in which at least two features have a winner."""
    return (is_winner(weight).sum(dim=1) >= 2).sum(dim=1)


def opposed_neurons(weight: Float[Tensor, "instances features neurons"]) -> Int[Tensor, "instances"]:
    """The number of neurons with exactly one positive and exactly one negative winner."""
    positive, negative = _by_sign(weight)
    return ((positive == 1) & (negative == 1)).sum(dim=1)


def opposed_pairs(weight: Float[Tensor, "instances features neurons"]) -> Int[Tensor, "instances"]:
    """How many pairs of features share a neuron with winners of opposite sign."""
    positive, negative = _by_sign(weight)
    return (positive * negative).sum(dim=1)


def crowded_features(weight: Float[Tensor, "instances features neurons"]) -> Int[Tensor, "instances"]:
    """How many features have a winner in a neuron with two others or more."""
    winner = is_winner(weight)
    crowded = (winner.sum(dim=1, keepdim=True) >= 3) & winner
    return crowded.any(dim=2).sum(dim=1)


def features_with_one_winner(weight: Float[Tensor, "instances features neurons"]) -> Int[Tensor, "instances"]:
    """How many features have exactly one winner."""
    return (is_winner(weight).sum(dim=2) == 1).sum(dim=1)


def features_near_zero_or_one(
    weight: Float[Tensor, "instances features neurons"],
) -> Int[Tensor, "instances"]:
    """How many features have only winners and weights near zero."""
    return ((weight.abs() < NEAR_ZERO) | is_winner(weight)).all(dim=2).sum(dim=1)


def winner_weight(weight: Float[Tensor, "instances features neurons"]) -> Float[Tensor, "instances"]:
    """The mean size of the winners, NaN where there are none."""
    winner = is_winner(weight)
    total = torch.where(winner, weight.abs(), 0.0).sum(dim=(1, 2), dtype=torch.float64)
    return total / winner.sum(dim=(1, 2))


def _by_sign(
    weight: Float[Tensor, "instances features neurons"],
) -> tuple[Int[Tensor, "instances neurons"], Int[Tensor, "instances neurons"]]:
    """How many positive and how many negative winners each neuron has."""
    winner = is_winner(weight)
    return (winner & (weight > 0)).sum(dim=1), (winner & (weight < 0)).sum(dim=1)


def share(true: "pd.Series[int]", total: "pd.Series[int]") -> "pd.Series[bool]":
    """As many entries as `total` adds up to, as many of them True as `true` adds up to."""
    n_true, n_all = int(true.sum()), int(total.sum())
    return pd.Series(np.arange(n_all) < n_true)
