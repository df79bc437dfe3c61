"""From one shard to its rows of the instances table: a Trainer run, resumed, halved if memory is short."""

import gc
import logging
import math
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pandas as pd
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins.io import CheckpointIO
from torch import Tensor

from common.computed import Computed
from common.document import InputError
from common.ensemble import BLOCK_STEPS, Ensemble, is_out_of_memory
from common.results import Run
from common.spec import Spec
from common.sweep import Shard
from common.threads import one_thread

REPORT_STEPS = 100

SETTLED_STEPS = BLOCK_STEPS
"""Steps between two looks at whether networks have settled: whenever Lightning has control."""

PARTIAL_S = 30.0
"""Seconds between two checkpoints inside a shard, at least: most shards are done before the first."""

PARTIAL_SHARE = 0.01
"""The share of the time that checkpoints may take, at most: where writing is slow they are rarer."""

KEEPS_DENORMALS = (
    "this processor cannot be told to take denormal numbers for 0: training may be many times slower, and "
    "numbers may differ from those of others"
)
"""What is noted where that is so, of the machine and so once for all runs."""

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Those of the networks' losses that a logger gets, beside their mean."""

Advance = Callable[[int], None]
Note = Callable[[str], None]


def train_alone(
    run: Run,
    shard: Shard,
    accelerator: str,
    device: int,
    advance: Advance,
    note: Note = warnings.warn,
    *,
    resumes: bool = False,
) -> tuple[pd.DataFrame, dict[str, Tensor]]:
    """The rows of one shard, trained in this process with its numerics set; if weights are kept, the state.

    If it `resumes`, training goes on from a checkpoint in the run's folder, and leaves some there.
    """
    states: list[dict[str, Tensor]] = []

    def keep(ensemble: Ensemble) -> None:
        if not run.keep.empty:  # not on the device, where the memory may be needed
            states.append({name: tensor.cpu() for name, tensor in ensemble.state().items()})

    with one_thread(), _numerics(note), _quiet():
        name = f"{run.spec.name}/{run.variant.name}/{run.hash}"
        logger = run.spec.logger_of(run.folder, name, f"shard_{shard.number:05d}")
        where = run if resumes else None
        table = train_shard(run.spec, shard, accelerator, device, advance, logger, keep, where, note)
    return table, {
        name: torch.cat([state[name] for state in states]) for name in (states[0] if states else {})
    }


def train_shard(
    spec: Spec,
    shard: Shard,
    accelerator: str = "cpu",
    device: int = 0,
    advance: Advance = lambda network_steps: None,
    logger: Logger | None = None,
    trained: Callable[[Ensemble], None] = lambda ensemble: None,
    run: Run | None = None,
    note: Note = warnings.warn,
) -> pd.DataFrame:
    """Train or calculate one shard's instances: their rows of the sweep with `loss` and each metric.

    `advance` is told of the network-steps done, `logger` of the losses, `trained` of the ensemble at the end,
    or of several in order: what does not fit into memory is halved, and `note` gets a line. Training goes on
    from where it was when a kill stopped it, if `run` has it.

    Raises:
        InputError: if one network alone does not fit into memory.
    """
    told = 0

    def count(network_steps: int) -> None:
        nonlocal told
        told += network_steps
        advance(network_steps)

    try:
        return _train_rows(spec, shard, accelerator, device, count, logger, trained, run)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    # here, as the error holds the tensors of what failed
    gc.collect()
    if accelerator == "cuda":
        torch.cuda.empty_cache()
    advance(-told)
    n = len(shard.rows)
    if n == 1:
        raise InputError(f"{spec.name}: out of memory with a single network: {_of(spec, shard.rows.iloc[0])}")
    note(f"{n:,} networks at once do not fit into memory: trained in halves, as often as it takes")
    halves = [Shard(shard.number, rows) for rows in (shard.rows.iloc[: n // 2], shard.rows.iloc[n // 2 :])]
    rest = (accelerator, device, advance, logger, trained, run, note)
    return pd.concat([train_shard(spec, half, *rest) for half in halves])


def _train_rows(
    spec: Spec,
    shard: Shard,
    accelerator: str,
    device: int,
    advance: Advance,
    logger: Logger | None,
    trained: Callable[[Ensemble], None],
    run: Run | None,
) -> pd.DataFrame:
    model = build(spec, shard.rows)
    if isinstance(model, Computed):
        columns = model.metrics()
        advance(len(shard.rows))
    else:
        # what was logged before would be lost: a shard with a logger starts anew
        partial = _Partial(run, shard) if run is not None and model.resumable and logger is None else None
        columns = _train_ensemble(model, spec, accelerator, device, advance, logger, partial)
        trained(model)
    return pd.concat(
        [shard.rows, *(_columns(name, value, shard.rows.index) for name, value in columns.items())], axis=1
    )


class _Partial(CheckpointIO):
    """Where Lightning puts the checkpoint of one shard, and finds it: in its run's folder."""

    def __init__(self, run: Run, shard: Shard) -> None:
        self.run = run
        self.shard = shard
        self.found = run.partial(shard)

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        self.run.write_partial(self.shard, checkpoint)

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        assert self.found is not None
        return self.found

    def remove_checkpoint(self, path: Any) -> None:
        pass  # the run does, when the shard is stored


def _train_ensemble(
    ensemble: Ensemble,
    spec: Spec,
    accelerator: str,
    device: int,
    advance: Advance,
    logger: Logger | None,
    partial: _Partial | None,
) -> dict[str, Tensor]:
    settings = spec.fields.trainer
    callbacks: list[Callback] = [_Report(len(ensemble.seed_index), advance, stores=partial is not None)]
    if settings.stop_when_settled:
        callbacks.insert(0, _StopWhenSettled())
    if logger is not None:
        callbacks.append(_Curve(logger, settings.log_every_steps))
    trainer = Trainer(
        accelerator=accelerator,
        devices=[device] if accelerator == "cuda" else 1,
        max_epochs=-1,
        max_steps=settings.max_steps,
        logger=logger or False,
        log_every_n_steps=settings.log_every_steps,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=callbacks,
        plugins=[partial] if partial else None,
    )
    try:
        trainer.fit(ensemble, ckpt_path="partial" if partial and partial.found else None, weights_only=True)
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):  # which Lightning makes an exit of its own
            raise error.__context__ from None
        raise
    ensemble.to(trainer.strategy.root_device)
    with torch.no_grad():
        return _measure(ensemble)


def _measure(ensemble: Ensemble) -> dict[str, Tensor]:
    """Loss and metrics of trained networks; all of them NaN of one that has diverged.

    Metrics never see a weight that is not finite: some fail on it, others make a number of it.
    """
    loss = ensemble.evaluate()
    finite = loss.isfinite()
    for weight in ensemble.weights.values():
        finite &= weight.isfinite().flatten(1).all(dim=1)
    if finite.all():
        return {"loss": loss, **ensemble.metrics()}
    trained = {name: weight.clone() for name, weight in ensemble.weights.items()}
    for weight in ensemble.weights.values():
        weight[~finite] = weight[finite][0] if finite.any() else torch.ones_like(weight[0])
    measured = {"loss": loss, **ensemble.metrics()}
    for name, weight in ensemble.weights.items():
        weight.copy_(trained[name])
    return {
        name: (value if value.is_floating_point() else value.double())
        .clone()
        .index_fill_(0, (~finite).nonzero().flatten().to(value.device), math.nan)
        for name, value in measured.items()
    }


def diverged(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of the instances `table` whose networks have diverged: their loss is NaN."""
    return table[table["loss"].isna()] if "loss" in table else table[:0]


def tell_of_diverged(run: Run) -> str | None:
    """A line on the networks of a stored run that have diverged; None if there are none."""
    table = run.table()
    if table is None or (rows := diverged(table)).empty:
        return None
    return (
        f"{run.spec.name} {run.variant.name}: {len(rows):,} of {len(table):,} networks diverged: "
        f"loss or weights are not finite, all else is as it was; the first: {_of(run.spec, rows.iloc[0])}"
    )


def _of(spec: Spec, row: "pd.Series[Any]") -> str:
    """Which network it is: its factors and seed."""
    return ", ".join(f"{name} = {row[name]}" for name in (*spec.grids[0].factors, "seed"))


def build(spec: Spec, rows: pd.DataFrame) -> Ensemble | Computed:
    """The model of the instances in `rows`, which have one shape; with the spec's optimiser if it has one."""
    varying = spec.varying()
    factors: dict[str, Any] = {
        name: torch.tensor(rows[name].to_numpy()) if varying[name] else rows[name].tolist()[0]
        for name in spec.grids[0].factors
    }
    model = spec.build(factors, rows["seed"].tolist())
    if isinstance(model, Ensemble):
        model.optimizer = spec.optimizer_of(rows["part"].iloc[0])
        model.lr_scheduler = spec.lr_scheduler_of()
        model.compiles = spec.fields.trainer.compile
    return model


def _columns(name: str, value: Tensor, index: pd.Index) -> pd.DataFrame:
    """A column for each number that `value` (instances, ...) holds of an instance: `name_0_1`, ..."""
    shape = value.shape[1:]
    places = [f"_{i}" for i in range(math.prod(shape))] if len(shape) == 1 else [""]
    if len(shape) > 1:
        places = [
            "".join(f"_{i}" for i in place) for place in torch.cartesian_prod(*map(torch.arange, shape))
        ]
    flat = value.reshape(len(value), -1).cpu().numpy()
    return pd.DataFrame(flat, index=index, columns=[f"{name}{place}" for place in places])


class _StopWhenSettled(Callback):
    """Ends training when no network's outcome can change any more.

    A network is kept as it was when it was first found settled: what becomes of it does not depend on how
    long others in its shard take.
    """

    def state_dict(self) -> dict[str, Any]:
        return {"done": self.done, "kept": self.kept}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.done, self.kept = state_dict["done"], state_dict["kept"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, Ensemble)
        if trainer.global_step:  # it goes on
            self.done = self.done.to(pl_module.device)
            self.kept = {name: weight.to(pl_module.device) for name, weight in self.kept.items()}
            return
        self.done = torch.zeros_like(pl_module.seed_index, dtype=torch.bool)
        pl_module.steps = torch.full_like(pl_module.seed_index, trainer.max_steps)
        self.kept = {name: weight.detach().clone() for name, weight in pl_module.weights.items()}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, Ensemble)
        if trainer.global_step % SETTLED_STEPS:
            return
        settled = pl_module.settled()
        if settled is None:
            raise ValueError(f"stop_when_settled: {type(pl_module).__name__} does not say when it is settled")
        new = settled & ~self.done
        for name, weight in pl_module.weights.items():
            self.kept[name][new] = weight.detach()[new]
        pl_module.steps[new] = trainer.global_step
        self.done |= new
        trainer.should_stop = bool(self.done.all())

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, Ensemble)
        with torch.no_grad():
            for name, weight in pl_module.weights.items():
                weight[self.done] = self.kept[name][self.done]


class _Report(Callback):
    """Tells `advance` of the network-steps done, at the end also of those that were left out.

    If it `stores`, it has a checkpoint written from time to time.
    """

    def __init__(self, n_instances: int, advance: Advance, *, stores: bool) -> None:
        self.n_instances = n_instances
        self.advance = advance
        self.told = 0
        self.next = time.monotonic() + PARTIAL_S if stores else math.inf

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._tell(trainer.global_step)  # of what was done before it was stopped

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if (now := time.monotonic()) >= self.next and trainer.global_step:
            trainer.save_checkpoint("partial")
            took = time.monotonic() - now
            self.next = now + took + max(PARTIAL_S, took / PARTIAL_SHARE)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step % REPORT_STEPS == 0:
            self._tell(trainer.global_step)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._tell(trainer.max_steps)

    def _tell(self, step: int) -> None:
        if step > self.told:
            self.advance((step - self.told) * self.n_instances)
            self.told = step


class _Curve(Callback):
    """Logs the losses of the networks on the batch of every so manieth step, and of the last."""

    def __init__(self, logger: Logger, every: int) -> None:
        self.logger = logger
        self.every = every

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step % self.every == 0:
            self._log(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.global_step % self.every:
            self._log(trainer, pl_module)

    def _log(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, Ensemble)
        losses = pl_module.losses.double().cpu()
        quantiles = torch.quantile(losses, torch.tensor(QUANTILES, dtype=losses.dtype))
        logged = {f"loss_q{q * 100:02.0f}": x for q, x in zip(QUANTILES, quantiles.tolist(), strict=True)}
        self.logger.log_metrics({"loss_mean": losses.mean().item(), **logged}, step=trainer.global_step)


@contextmanager
def _numerics(note: Note) -> Iterator[None]:
    """Train without denormals: decayed moments would slow training many times."""
    if not torch.set_flush_denormal(True):
        note(KEEPS_DENORMALS)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep out Lightning's lines on each fit, whose advice does not apply, and dumps of the compiler.

    That compiling failed is said by the ensemble, in one line.
    """
    levels = {"lightning.pytorch": logging.ERROR, "torch._inductor.scheduler": logging.CRITICAL + 1}
    before = {name: logging.getLogger(name).level for name in levels}
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module=r"lightning\.")
        warnings.filterwarnings("ignore", message=".*LeafSpec", category=FutureWarning)
        try:
            yield
        finally:
            for name, level in before.items():
                logging.getLogger(name).setLevel(level)
