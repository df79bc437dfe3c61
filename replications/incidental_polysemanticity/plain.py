"""The straightforward way to train the autoencoders, a baseline for speed: one by one, with autograd."""

import pandas as pd
import torch


def train(rows: pd.DataFrame, steps: int) -> None:
    """Train the networks in `rows` for `steps`, with the operations of the authors' code.

    Each network on its own: the identity as data, tied weights, squared error summed plus the L1 norm of the
    hidden layer, AdamW with its defaults.
    Source: the code of Lecomte et al. 2023.
    """
    for n_features, n_hidden in zip(rows["n_features"], rows["n_hidden"], strict=True):
        x = torch.eye(int(n_features))
        weight = torch.nn.Parameter(torch.randn(int(n_features), int(n_hidden)) / int(n_hidden) ** 0.5)
        optimizer = torch.optim.AdamW([weight], lr=1e-3)
        for _ in range(steps):
            optimizer.zero_grad()
            hidden = x @ weight
            output = torch.relu(hidden @ weight.T)
            loss = (output - x).square().sum() + 1e-3 * hidden.abs().sum()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
