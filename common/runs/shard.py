"""From one shard to its rows of the instances table: a resumable Trainer run, halved if memory is short."""

import gc
import logging
import math
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from itertools import product
from typing import Any, NamedTuple

import pandas as pd
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins.io import CheckpointIO
from torch import Tensor
from torch._dynamo.callback import callback_handler

from common.computed import Computed
from common.ensemble import BLOCK_STEPS, Ensemble, Note, is_out_of_memory
from common.errors import InputError, blamed, line_of, told
from common.runs.numerics import numerics, one_thread
from common.runs.store import Run
from common.specs.spec import Spec
from common.specs.sweep import Shard

REPORT_STEPS = 100

SETTLED_STEPS = BLOCK_STEPS
"""Steps between two checks of whether networks have settled: whenever Lightning has control."""

PARTIAL_S = 30.0
"""The least seconds between two checkpoints of a shard: most shards are done before the first."""

PARTIAL_SHARE = 0.01
"""The largest share of the time that checkpoints may take: where writing is slow they are rarer."""

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
"""The quantiles of the networks' losses that are logged, along with the mean."""

LANES = 32
"""The numbers that a processor handles in one turn of a loop: two vectors of AVX-512, or four of AVX2."""

Advance = Callable[[int], None]


class Stage(Enum):
    """What is being done for a shard."""

    STARTING = "starting"
    """Its networks are made, or loaded from a checkpoint: network-steps told now were done earlier."""
    COMPILING = "compiling"
    TRAINING = "training"


class Session(NamedTuple):
    """How shards are trained in this process: on which device, and where progress is reported.

    `advance` receives the network-steps done, `enter` each stage as it begins, `note` lines, `logger` the
    losses. With `checkpoints`, training resumes from a checkpoint in that run's folder, and writes new ones
    there.
    """

    accelerator: str = "cpu"
    device: int = 0
    advance: Advance = lambda network_steps: None
    enter: Callable[[Stage], None] = lambda stage: None
    note: Note = warnings.warn
    logger: Logger | None = None
    checkpoints: Run | None = None
    keeps_state: bool = False


ALONE = Session()
"""On the CPU, without reports of progress."""


class Trained(NamedTuple):
    """A trained shard: its rows of the instances table, and the state of its networks if that is kept.

    `compiled`: whether all networks ran compiled; None if they were calculated.
    """

    table: pd.DataFrame
    state: dict[str, Tensor]
    compiled: bool | None


def train_shard(run: Run, shard: Shard, session: Session, *, resumes: bool = False) -> Trained:
    """Train one shard of a run, in this process with its numerics set; the state if the run keeps weights.

    If it `resumes`, it uses checkpoints in the run's folder.

    Raises:
        InputError: as `fit_shard`, and for an error in the model's code.
    """
    started = time.process_time()
    session.enter(Stage.STARTING)
    with one_thread(), numerics(session.note), _quiet(), _told_of_compiling(session):
        name = f"{run.spec.name}/{run.variant.name}/{run.hash}"
        with blamed(f"{run.spec.name}, shard {shard.name}: training"):
            logger = run.spec.logger_of(run.folder, name, f"shard_{shard.name}")
            where = run if resumes else None
            own = session._replace(logger=logger, checkpoints=where, keeps_state=not run.keep.empty)
            trained = fit_shard(run.spec, shard, own)
    if trained.compiled is not None:
        trained.table.attrs["compiled"] = trained.compiled
    trained.table.attrs["core_s"] = time.process_time() - started
    return trained


@contextmanager
def _told_of_compiling(session: Session) -> Iterator[None]:
    """Tell the session when the compiler begins and ends, whatever it compiles."""

    def begin(*_: Any) -> None:
        session.enter(Stage.COMPILING)

    def end(*_: Any) -> None:
        session.enter(Stage.TRAINING)

    callback_handler.register_start_callback(begin)
    callback_handler.register_end_callback(end)
    try:
        yield
    finally:
        callback_handler.remove_start_callback(begin)
        callback_handler.remove_end_callback(end)


def fit_shard(spec: Spec, shard: Shard, session: Session = ALONE) -> Trained:
    """Train or calculate one shard's instances: their rows of the sweep with `loss` and each metric.

    A shard that does not fit into memory is halved, with a note.

    Raises:
        InputError: if a single network does not fit into memory.
    """
    counted = 0

    def count(network_steps: int) -> None:
        nonlocal counted
        counted += network_steps
        session.advance(network_steps)

    try:
        return _fit_at_once(spec, shard, session._replace(advance=count))
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    # outside the except block, because the error holds the tensors of what failed
    gc.collect()
    if session.accelerator == "cuda":
        torch.cuda.empty_cache()
    session.advance(-counted)
    n = len(shard.rows)
    if n == 1:
        raise InputError(f"{spec.name}: out of memory with a single network: {_of(spec, shard.rows.iloc[0])}")
    session.note(
        f"{n:,} networks at once do not fit into memory; they are trained in halves, or smaller pieces"
    )
    rows = shard.rows.iloc[: n // 2], shard.rows.iloc[n // 2 :]
    first, second = (fit_shard(spec, Shard(shard.name, half), session) for half in rows)
    return Trained(
        table=pd.concat([first.table, second.table]),
        state={name: torch.cat([first.state[name], second.state[name]]) for name in first.state},
        compiled=first.compiled and second.compiled,
    )


def _fit_at_once(spec: Spec, shard: Shard, session: Session) -> Trained:
    n, rows = len(shard.rows), _padded(spec, shard.rows)
    model = build(spec, rows)
    compiled, state = None, {}
    if isinstance(model, Computed):
        session.enter(Stage.TRAINING)
        columns = model.metrics()
        check_metrics(model, columns, rows)
        session.advance(n)
    else:
        model.note = session.note
        run = session.checkpoints
        # earlier log entries would be lost, so a shard with a logger starts over
        resumes = run is not None and model.resumable and session.logger is None
        partial = _Partial(run, shard) if run is not None and resumes else None
        try:
            columns = _fit_ensemble(model, spec, session, partial, n)
        except Exception as error:
            if run is None or partial is None or not partial.is_at_fault or is_out_of_memory(error):
                raise
            why = f"its checkpoint cannot be used ({told(error)})"
            session.note(f"shard {shard.name}: {why}; it starts over")
            run.forget_partial(shard)
            return _fit_at_once(spec, shard, session)
        check_metrics(model, columns, rows)
        compiled = model.compiled
        if session.keeps_state:  # not on the device, whose memory may be needed
            state = {name: tensor[:n].cpu() for name, tensor in model.state().items()}
    table = pd.concat(
        [shard.rows, *(_columns(name, value[:n], shard.rows.index) for name, value in columns.items())],
        axis=1,
    )
    return Trained(table, state, compiled)


def _padded(spec: Spec, rows: pd.DataFrame) -> pd.DataFrame:
    """`rows`, the last one repeated so that the lanes of the processor leave over no number of `rows`.

    So no network's numbers depend on which others are trained with it: the numbers that are left over at the
    end of a tensor are computed by scalar instructions, which round in another way.
    """
    one = build(spec, rows.iloc[:1])
    sizes = [weight.numel() for weight in one.parameters()] if isinstance(one, Ensemble) else []
    copies = [-(-(LANES - 1) // size) for size in sizes if len(rows) * size % LANES]
    return pd.concat([rows, *[rows.iloc[-1:]] * max(copies, default=0)])


class _Partial(CheckpointIO):
    """Where Lightning saves and finds the checkpoint of one shard: in its run's folder."""

    def __init__(self, run: Run, shard: Shard) -> None:
        self.run = run
        self.shard = shard
        self.state = run.partial(shard)
        self.is_at_fault = bool(self.state)
        """Whether an error now would come from the checkpoint: no step has been taken since it was loaded."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        self.run.write_partial(self.shard, checkpoint)

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        assert self.state is not None
        return self.state

    def remove_checkpoint(self, path: Any) -> None:
        pass  # the run removes it when the shard is stored


def _fit_ensemble(
    ensemble: Ensemble, spec: Spec, session: Session, partial: _Partial | None, n_instances: int
) -> dict[str, Tensor]:
    settings = spec.fields.trainer
    callbacks: list[Callback] = [_Report(n_instances, session, partial)]
    settling = _StopWhenSettled() if settings.stop_when_settled else None
    if settling is not None:
        callbacks.insert(0, settling)
    if session.logger is not None:
        callbacks.append(_Curve(session.logger, settings.log_every_steps, n_instances))
    trainer = Trainer(
        accelerator=session.accelerator,
        devices=[session.device] if session.accelerator == "cuda" else 1,
        max_epochs=1,  # otherwise whatever ends an epoch early would start again with the first inputs
        max_steps=settings.max_steps,
        logger=session.logger or False,
        log_every_n_steps=settings.log_every_steps,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=callbacks,
        # set explicitly, so that Lightning does not take this process for one of many
        plugins=[LightningEnvironment(), *([partial] if partial else [])],
    )
    try:
        trainer.fit(ensemble, ckpt_path="partial" if partial and partial.state else None, weights_only=True)
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):  # which Lightning turns into an exit
            raise error.__context__ from None
        raise
    if trainer.global_step < settings.max_steps and not (settling and settling.done.all()):
        raise InputError(
            f"{spec.name}: training ended after {trainer.global_step:,} of {settings.max_steps:,} steps: "
            f"{type(ensemble).__name__} stopped it, or raised StopIteration; nothing of this shard is stored"
        )
    ensemble.to(trainer.strategy.root_device)
    with torch.no_grad():
        return _measure(ensemble)


def _measure(ensemble: Ensemble) -> dict[str, Tensor]:
    """Loss and metrics of trained networks; all are NaN for a network that diverged.

    Metrics never see a weight that is not finite: some would fail, others would return a number.
    """
    loss = ensemble.evaluate()
    finite = loss.isfinite()
    for weight in ensemble.weights.values():
        finite &= weight.isfinite().flatten(1).all(dim=1)
    if finite.all():
        return with_loss(loss, ensemble)
    trained = {name: weight.clone() for name, weight in ensemble.weights.items()}
    for weight in ensemble.weights.values():
        weight[~finite] = weight[finite][0] if finite.any() else torch.ones_like(weight[0])
    measured = with_loss(loss, ensemble)
    for name, weight in ensemble.weights.items():
        weight.copy_(trained[name])
    return {
        name: (value if value.is_floating_point() else value.double())
        .clone()
        .index_fill_(0, (~finite).nonzero().flatten().to(value.device), math.nan)
        for name, value in measured.items()
    }


def with_loss(loss: Tensor, ensemble: Ensemble) -> dict[str, Tensor]:
    """The loss and metrics of the networks; no metric may be called `loss`."""
    metrics = ensemble.metrics()
    if "loss" in metrics:
        raise InputError(
            f"{_at_metrics(ensemble)}: 'loss' is the column of the held-out loss; give this metric another "
            "name"
        )
    return {"loss": loss, **metrics}


def check_metrics(model: Ensemble | Computed, columns: Mapping[str, Tensor], rows: pd.DataFrame) -> list[str]:
    """The names of the table's columns: those of the sweep, `rows`, and of these tensors (instances, ...).

    Raises:
        InputError: if one is not such a tensor, or two columns would have the same name.
    """
    place = _at_metrics(model)
    names = [str(name) for name in rows]
    for metric, value in columns.items():
        if not isinstance(value, Tensor) or value.shape[:1] != (len(rows),):
            got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
            raise InputError(
                f"{place}: {metric!r} has {got}; expected a tensor whose first axis is the instances, "
                f"here ({len(rows)}, ...)"
            )
        names += _places(str(metric), value)
    for name, count in Counter(names).items():
        if count > 1:
            raise InputError(f"{place}: {name!r} is already a column; give this metric another name")
    return names


def _at_metrics(model: Ensemble | Computed) -> str:
    """FILE:LINE and name of the source of a model's metrics: its method, or only its `measures`."""
    cls = type(model)
    if cls.metrics is Ensemble.metrics:
        return f"{line_of(cls)}: {cls.__name__}.measures"
    return f"{line_of(cls.metrics)}: {cls.__name__}.metrics"


def diverged(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of the instances `table` whose networks diverged: their loss is NaN."""
    return table[table["loss"].isna()] if "loss" in table else table[:0]


def tell_of_diverged(run: Run) -> str | None:
    """A line on the networks of a stored run that diverged; None if there are none."""
    table = run.table()
    if table is None or (rows := diverged(table)).empty:
        return None
    return (
        f"{run.spec.name} {run.variant.name}: {len(rows):,} of {len(table):,} networks diverged: "
        f"their loss or weights are not finite; the first: {_of(run.spec, rows.iloc[0])}"
    )


def _of(spec: Spec, row: "pd.Series[Any]") -> str:
    """Which network it is: its factors and seed."""
    return ", ".join(f"{name} = {row[name]}" for name in (*spec.grids[0].factors, "seed"))


def build(spec: Spec, rows: pd.DataFrame) -> Ensemble | Computed:
    """The model of the instances in `rows`, which have one shape, with the spec's optimiser if it has one."""
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
    """A column for each number of an instance in `value` (instances, ...): `name_0_1`, ..."""
    flat = value.reshape(len(value), -1).cpu().numpy()
    return pd.DataFrame(flat, index=index, columns=_places(name, value))


def _places(name: str, value: Tensor) -> list[str]:
    places = product(*(range(n) for n in value.shape[1:]))
    return ["".join([name, *(f"_{i}" for i in place)]) for place in places]


class _StopWhenSettled(Callback):
    """Ends training when no network's outcome can change any more.

    A network is kept as it was when it was first found settled: its result does not depend on how long others
    in its shard take.
    """

    def state_dict(self) -> dict[str, Any]:
        return {"done": self.done, "kept": self.kept}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.done, self.kept = state_dict["done"], state_dict["kept"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, Ensemble)
        if trainer.global_step:  # resumed
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
            raise ValueError(
                f"stop_when_settled: {type(pl_module).__name__}.settled() returned None; expected bools"
            )
        new = settled & ~self.done
        for name, weight in pl_module.weights.items():
            self.kept[name][new] = weight.detach()[new]
        pl_module.steps[new] = trainer.global_step
        self.done |= new
        pl_module.leave(self.done)
        trainer.should_stop = bool(self.done.all())

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, Ensemble)
        with torch.no_grad():
            for name, weight in pl_module.weights.items():
                weight[self.done] = self.kept[name][self.done]


class _Report(Callback):
    """Reports the network-steps done to the `session`, at the end including those that were left out.

    With a place for it, `partial`, it also has a checkpoint written from time to time.
    """

    def __init__(self, n_instances: int, session: Session, partial: _Partial | None) -> None:
        self.n_instances = n_instances
        self.session = session
        self.partial = partial
        self.told = 0
        self.next = math.inf if partial is None else time.monotonic() + PARTIAL_S

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._tell(trainer.global_step)  # steps done before training was stopped
        self.session.enter(Stage.TRAINING)

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
        if self.partial is not None:
            self.partial.is_at_fault = False
        if trainer.global_step % REPORT_STEPS == 0:
            self._tell(trainer.global_step)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._tell(trainer.max_steps)

    def _tell(self, step: int) -> None:
        if step > self.told:
            self.session.advance((step - self.told) * self.n_instances)
            self.told = step


class _Curve(Callback):
    """Logs the losses of the first `n` networks on the batch of every `every`-th step, and of the last."""

    def __init__(self, logger: Logger, every: int, n: int) -> None:
        self.logger = logger
        self.every = every
        self.n = n

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
        losses = pl_module.losses[: self.n].double().cpu()
        quantiles = torch.quantile(losses, torch.tensor(QUANTILES, dtype=losses.dtype))
        logged = {f"loss_q{q * 100:02.0f}": x for q, x in zip(QUANTILES, quantiles.tolist(), strict=True)}
        self.logger.log_metrics({"loss_mean": losses.mean().item(), **logged}, step=trainer.global_step)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Lightning's lines on each fit, whose advice does not apply, and tracebacks of the compiler.

    The ensemble reports a failure to compile in one line.
    """
    compilers = ("torch._dynamo", "torch._functorch", "torch._inductor")
    levels = {"lightning.pytorch": logging.ERROR, **dict.fromkeys(compilers, logging.CRITICAL + 1)}
    before = {name: logging.getLogger(name).level for name in levels}
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module=r"lightning\.")
        warnings.filterwarnings("ignore", message=".*LeafSpec", category=FutureWarning)
        warnings.filterwarnings("ignore", message="Can't find Python.h")
        try:
            yield
        finally:
            for name, level in before.items():
                logging.getLogger(name).setLevel(level)
