"""The straightforward way to train toy models, a baseline for speed: draws per network, and no compiling."""

import pandas as pd
import torch


def train(rows: pd.DataFrame, steps: int) -> None:
    """Train the networks in `rows`, of one shape, for `steps`, with the operations of the authors' notebook.

    Each network has its own draws of values and of masks; products by einsum; AdamW with its defaults.
    Source: the notebook of Elhage et al. 2022.
    """
    n_networks, n_features, n_hidden = (
        len(rows),
        int(rows["n_features"].iloc[0]),
        int(rows["n_hidden"].iloc[0]),
    )
    density = torch.tensor(rows["density"].to_numpy(), dtype=torch.float32)[:, None]
    importance = torch.ones(n_networks, n_features)
    importance[:, -1] = torch.tensor(rows["extra_importance"].to_numpy(), dtype=torch.float32)
    weight = torch.nn.Parameter(torch.empty(n_networks, n_features, n_hidden))
    torch.nn.init.xavier_normal_(weight)
    bias = torch.nn.Parameter(torch.zeros(n_networks, n_features))
    optimizer = torch.optim.AdamW([weight, bias], lr=1e-3)
    for _ in range(steps):
        optimizer.zero_grad(set_to_none=True)
        values = torch.rand(1024, n_networks, n_features)
        x = torch.where(torch.rand(1024, n_networks, n_features) <= density, values, torch.zeros(()))
        hidden = torch.einsum("bkf,kfh->bkh", x, weight)
        output = torch.relu(torch.einsum("bkh,kfh->bkf", hidden, weight) + bias)
        error = importance * (x - output).abs() ** 2
        loss = error.mean(dim=(0, 2)).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
