"""Find mistakes before training: do with two untrained networks all that is done with trained ones."""

from collections.abc import Collection

import pandas as pd
import torch
from torch import Tensor

from common.ensemble import Ensemble
from common.errors import InputError, blamed, line_of
from common.features import generator
from common.runs.numerics import numerics, one_thread
from common.runs.shard import build, check_metrics, with_loss
from common.specs.document import Document, nearest
from common.specs.spec import Spec
from common.specs.sweep import shards
from common.verdicts.claims import Claim, claims_document
from common.verdicts.judge import Replication


def rehearse(replication: Replication) -> None:
    """Try all that training and judging do with networks, on two untrained ones of each shape.

    Raises:
        InputError: for the first mistake, with the line of the code, the spec or the claims.
    """
    with one_thread(), numerics(lambda line: None):
        columns = _columns(replication.run.spec)
        if columns is None:
            return
        watch = replication.run.spec.fields.watch
        if watch is not None and watch not in columns:
            problem = f"no column {watch!r} in the table; {nearest(watch, sorted(columns))}"
            raise Document.load(replication.files.path).error(("watch",), problem)
        _check_claims(replication, replication.claims, columns)
        for name, run in replication.controls.items():
            rejects = {claim: replication.claims[claim] for claim in replication.rejects(name)}
            if (columns := _columns(run.spec)) is not None:
                _check_claims(replication, rejects, columns)


def _check_claims(replication: Replication, claims: dict[str, Claim], columns: Collection[str]) -> None:
    for name, claim in claims.items():
        metric = claim.estimate.metric
        if metric is not None and metric not in columns:
            place = ("claims", name, "estimate", "metric")
            problem = f"no column {metric!r} in the table; {nearest(metric, sorted(columns))}"
            raise claims_document(replication.files.expected).error(place, problem)


def _columns(spec: Spec) -> set[str] | None:
    """The columns of the instances table; None if they are known only after training or calculation."""
    if not issubclass(spec.model_class, Ensemble):
        return None
    columns: set[str] = set()
    structural = spec.structural()
    shapes: set[str] = set()
    for shard in shards(spec):
        first = shard.rows.iloc[0]
        if (shape := str([first["part"], *(first[name] for name in structural)])) in shapes:
            continue
        shapes.add(shape)
        rows = pd.concat([shard.rows.iloc[:1]] * 2, ignore_index=True)
        rows["seed"] = [first["seed"], first["seed"] + 1]
        with blamed(f"{spec.name}: {spec.model_class.__name__}", at=line_of(spec.model_class)):
            tried = _try(spec, rows)
        if tried is None:
            return None
        columns.update(tried)
    return columns


def _try(spec: Spec, rows: pd.DataFrame) -> list[str] | None:
    """The table's columns of the two networks of `rows`, untrained."""
    model = build(spec, rows)
    assert isinstance(model, Ensemble)
    model.compiles = False
    _check_loss(model)
    if spec.fields.trainer.stop_when_settled:
        settled = model.settled()
        if not isinstance(settled, Tensor) or settled.dtype != torch.bool or settled.shape != (2,):
            raise _wrong(model, "settled", settled, "bools of shape (instances,)")
    try:
        with torch.no_grad():
            columns = with_loss(torch.zeros(2), model)
    except InputError:
        raise
    except Exception:
        # a model with hooks may measure what exists only after training
        if model.has_hooks:
            return None
        raise
    return check_metrics(model, columns, rows)


def _check_loss(model: Ensemble) -> None:
    features = model.features
    shape = (2 * features.n_uniforms, features.batch_size)
    uniforms = torch.from_numpy(generator("training", 0).random(shape, dtype="float32"))
    rows = model.seed_index * features.n_uniforms
    inputs = features.sample([uniforms[rows + i] for i in range(features.n_uniforms)], model.factors)
    with torch.enable_grad():
        weights = {name: weight.detach().requires_grad_() for name, weight in model.weights.items()}
        losses = type(model).loss(weights, model.factors, inputs)
        if not isinstance(losses, Tensor) or losses.shape != (2,):
            raise _wrong(model, "loss", losses, "one loss per network, of shape (instances,)")
        of_first: tuple[Tensor | None, ...] = ()
        if losses.requires_grad:
            of_first = torch.autograd.grad(losses[0], list(weights.values()), allow_unused=True)
    if any(gradient is not None and bool(gradient[1].abs().max() > 0) for gradient in of_first):
        raise InputError(
            f"{line_of(type(model).loss)}: {type(model).__name__}.loss: the loss of a network depends on the "
            "weights of another; expected a mean over each network's inputs, not over instances"
        )
    losses, gradients = model.losses_and_gradients(uniforms, model.seed_index)
    if losses.shape != (2,) or any(gradients[n].shape != w.shape for n, w in model.weights.items()):
        raise _wrong(
            model, "losses_and_gradients", losses, "losses (instances,) and gradients shaped as the weights"
        )


def _wrong(model: Ensemble, method: str, got: object, wanted: str) -> InputError:
    shape = f"shape {tuple(got.shape)}" if isinstance(got, Tensor) else f"a {type(got).__name__}"
    place = f"{line_of(getattr(type(model), method))}: {type(model).__name__}.{method}"
    return InputError(f"{place}: returned {shape} for two networks; expected {wanted}")
