"""Many small networks with one shape, trained at once by one LightningModule.

Axes of tensors, as their types name them, here and in replications:

    instances   the networks of an ensemble, always first
    seeds       the different seeds of an ensemble: several instances may share one
    draws       independent uniform numbers for one input, or those of all seeds one after another
    batch       the inputs of a step
    features    the components of an input
    hidden      the dimensions of the hidden layer, called neurons where they are considered one by one
    steps       the steps of training

An axis of size 1 (`#instances` if it may be) is shared by all. Only tests check these types, where functions
are called.
"""

import functools
import inspect
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from lightning import LightningModule
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch._dynamo.exc import BackendCompilerFailed
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader
from torchmetrics import MetricCollection

from common.features import Blocks, Draws, Factors, Features, Inputs, generator
from common.metrics import PerInstance
from common.system import compiling

NUMERICS = 1
"""Raise it when a change here or in `features` changes the bits of results; part of every result's hash."""

EVALUATION_BATCHES = 100

BLOCK_STEPS = 50
"""The most steps in one call of `training_step`: Lightning's overhead per call takes as long as a step."""

Weights = dict[str, Float[Tensor, "instances ..."]]
"""The weights of networks, or their gradients, by name."""

Start = Callable[[np.random.Generator], Mapping[str, Float[Tensor, "..."]]]
Note = Callable[[str], None]
_Options = dict[str, str | int | bool | Callable[..., Any]]
Gradient = Callable[[Weights, dict[str, Tensor], Tensor, Tensor], tuple[Weights, Tensor]]

_OPTIONS: dict[str, _Options] = {
    # One loop over the batch that computes inputs, outputs, loss and gradients and stores nothing in between:
    # by default the compiler would store what is read often, and split the loop. Of the values tried, these
    # fuse all of a network with 3 features in 20 s of compiling; larger ones compile for minutes and gain
    # nothing.
    "cpu": {
        "realize_opcount_threshold": 10_000,
        "realize_reads_threshold": 10_000,
        "max_fusion_size": 128,
        "cpp.max_horizontal_fusion_size": 256,
        "cpp.enable_floating_point_contract_flag": "fast",
        "assert_indirect_indexing": False,
        # do not compile test programs first: what the processor reports is enough, and they take 6 s of 17
        "cpp.vec_isa_ok": True,
    },
    # For Triton the compiler makes one kernel of the same by default, and a few small ones for what comes out
    # of it: the thresholds above change none, and only take longer. Multiply-adds are contracted by default.
    # CUDA graphs would save launches, but copy their inputs at each step and overwrite what is still read.
    "cuda": {"assert_indirect_indexing": False},
}

_VERSIONS = 256
"""The most versions that a function may be compiled in; torch gives up after 8, and counts all models'."""

_LIMITS = {"isolate_recompiles": True, "recompile_limit": _VERSIONS}
_HAS_LIMITS = _LIMITS.keys() <= inspect.signature(torch.compile).parameters.keys()
"""Whether `torch.compile` can be told so for one function: in torch 2.13, but not in 2.11."""


class Ensemble(LightningModule, ABC):
    """K independent networks: their losses are summed, so each network gets its own gradient.

    Args:
        features: the distribution of the inputs
        seeds: for each instance, the seed of its initial weights and data
        start: makes the initial weights of one network from random numbers
        factors: the model's arguments that differ between instances, a value or a tensor (instances,)
    """

    measures: ClassVar[Mapping[str, Callable[..., Tensor]]] = {}
    """Metrics of the weights alone, by column: functions that take weights by their names in `weights`."""

    compiled: bool
    """Whether loss and gradient ran compiled: False if compiling failed, or the model replaces them.

    Known once training has begun: after a failure, compiling is not tried again in the same process.
    """

    seed_index: Int[Tensor, "instances"]
    steps: Int[Tensor, "instances"]
    """The step at which each network was found settled, or training ended: a tensor (instances,)."""

    def __init__(
        self,
        features: Features,
        seeds: Sequence[int],
        start: Start,
        factors: Mapping[str, float | Shaped[Tensor, "instances"]],
    ) -> None:
        super().__init__()
        self.features = features
        self.distinct_seeds = sorted(set(seeds))
        position = {seed: i for i, seed in enumerate(self.distinct_seeds)}
        self.register_buffer("seed_index", torch.tensor([position[s] for s in seeds]), persistent=False)
        self.factor_names: list[str] = []
        for name, value in {**features.factors, **factors}.items():
            self.add_factor(name, value)
        starts = [start(generator("start", seed)) for seed in self.distinct_seeds]
        self.weights = nn.ParameterDict(
            {name: torch.stack([s[name] for s in starts])[self.seed_index] for name in starts[0]}
        )
        self.register_buffer("steps", torch.zeros_like(self.seed_index), persistent=False)
        self.automatic_optimization = False
        self.losses = torch.zeros(len(self.seed_index))
        self.compiles = True
        self.compiled = False
        self.note: Note = warnings.warn
        self.optimizer: Callable[..., Optimizer] = torch.optim.AdamW
        self.lr_scheduler: Callable[[Optimizer], LRScheduler] | None = None

    @staticmethod
    @abstractmethod
    def loss(weights: Weights, factors: Factors, x: Inputs) -> Float[Tensor, "instances"]:
        """Each network's mean loss on its batch: a pure function that is compiled.

        Args:
            weights: the weights by name, as made by `start`
            factors: the varying arguments, by name
            x: the inputs, a tensor for each feature
        """

    def metrics(self) -> dict[str, Shaped[Tensor, "instances ..."]]:
        """What is kept for each trained network, by name: the `measures`, to which a model may add."""
        values = self.collection()(**{name: weight.detach() for name, weight in self.weights.items()})
        return {name: values[name] for name in self.measures}  # the collection has its own order

    @classmethod
    def collection(cls) -> MetricCollection:
        """The `measures` as metrics for any LightningModule: `update` takes the networks' weights by name."""
        metrics = {name: PerInstance(function) for name, function in cls.measures.items()}
        return MetricCollection(metrics, compute_groups=False)  # type: ignore[arg-type]  # a dict is invariant

    def settled(self) -> Bool[Tensor, "instances"] | None:
        """Whether each network's outcome can no longer change.

        Called from time to time if the spec says `stop_when_settled`. None: this model has no such state.
        """
        return None

    @property
    def factors(self) -> dict[str, Float[Tensor, "instances 1"]]:
        """The arguments that differ between instances, by name."""
        return {name: getattr(self, f"factor_{name}") for name in self.factor_names}

    def add_factor(self, name: str, value: float | Shaped[Tensor, "instances"]) -> None:
        """Add an argument of the loss that differs between instances, or has one value for all."""
        column = torch.as_tensor(value, dtype=torch.float32).expand(len(self.seed_index)).unsqueeze(1)
        self.factor_names.append(name)
        self.register_buffer(f"factor_{name}", column.contiguous(), persistent=False)

    def losses_and_gradients(
        self, uniforms: Float[Tensor, "draws batch"], seed_index: Int[Tensor, "instances"]
    ) -> tuple[Float[Tensor, "instances"], Weights]:
        """Each network's loss and gradients, on the inputs made from `uniforms`.

        Args:
            uniforms: `n_uniforms` rows for each seed
            seed_index: the index of each instance's seed
        """
        weights = {name: weight.detach() for name, weight in self.weights.items()}
        first_rows = seed_index * self.features.n_uniforms
        gradient = _gradient(type(self).loss, self.features, self.compiles, self.device.type)
        with (
            torch.no_grad()
        ):  # the gradient function enables it; the same code then serves training and evaluation
            gradients, losses = gradient(weights, self.factors, uniforms, first_rows, self.note)
        self.compiled = gradient.compiled is not None
        return losses, gradients

    def training_step(self, batches: Iterator[Tensor]) -> None:
        """Take a step on each of several batches of uniforms, on this ensemble's device."""
        optimizer, scheduler = self.optimizers(), self.lr_schedulers()
        assert isinstance(optimizer, LightningOptimizer)
        for uniforms in batches:
            self.before_step()
            self.set_gradients(uniforms)
            optimizer.step()
            if isinstance(scheduler, LRScheduler):
                scheduler.step()
            self.after_step()

    def set_gradients(self, uniforms: Float[Tensor, "draws batch"]) -> None:
        """Set the gradient of each tensor of `trained`, and `losses`, on a batch made from `uniforms`.

        `losses` are read only by a logger.
        """
        self.losses, gradients = self.losses_and_gradients(uniforms, self.seed_index)
        for name, weight in self.weights.items():
            weight.grad = gradients[name]

    def leave(self, done: Bool[Tensor, "instances"]) -> None:
        """Take out of training what can no longer change an outcome; does nothing by default.

        Called after each check of whether networks have settled, if the spec says `stop_when_settled`: those
        that are `done` keep their weights of then, whatever becomes of them.
        """

    def before_step(self) -> None:
        """Called before each step, after `global_step` steps; does nothing by default."""

    def after_step(self) -> None:
        """Called after each step, which `global_step` already counts; does nothing by default."""

    @torch.inference_mode(False)  # a notebook may be in inference mode, in which there are no gradients
    def evaluate(self) -> Float[Tensor, "instances"]:
        """Each network's mean loss on held-out inputs that all seeds share."""
        batches = iter(Draws(self.features, [0], stream="evaluation", device=self.device))
        first = torch.zeros_like(self.seed_index)
        total = torch.zeros(len(first), dtype=torch.float64, device=self.device)
        n_batches = (
            EVALUATION_BATCHES if self.features.n_uniforms else 1
        )  # without randomness every batch is the same
        for _ in range(n_batches):
            total += self.losses_and_gradients(next(batches), first)[0]
        return total / n_batches

    def state(self) -> dict[str, Shaped[Tensor, "instances ..."]]:
        """What training changes in the networks: weights and buffers by name."""
        given = {"seed_index", *(f"factor_{name}" for name in self.factor_names)}
        tensors = {**dict(self.named_parameters()), **dict(self.named_buffers())}
        return {
            name: tensor.detach()
            for name, tensor in tensors.items()
            if name not in given and tensor.shape[:1] == self.seed_index.shape
        }

    @property
    def resumable(self) -> bool:
        """Whether a checkpoint holds all that training changes: weights and buffers.

        A model that `has_hooks` may change more: its `on_save_checkpoint` must save that.
        """
        return "on_save_checkpoint" in self._own or not self.has_hooks

    @property
    def has_hooks(self) -> bool:
        """Whether the model has its own code in training: `on_...`, `before_step` or `after_step`."""
        return any(name.startswith(("on_", "before_step", "after_step")) for name in self._own)

    @property
    def _own(self) -> set[str]:
        """The names defined by the model's class, or by a class between it and this one."""
        classes = type(self).__mro__
        return {name for one in classes[: classes.index(Ensemble)] for name in vars(one)}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the buffers, of which Lightning saves only the persistent ones."""
        checkpoint["buffers"] = dict(self.named_buffers())

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore what `on_save_checkpoint` added."""
        self.restore(checkpoint["buffers"])

    def restore(self, state: Mapping[str, Shaped[Tensor, "..."]]) -> None:
        """Set the networks to a `state`, also one of other ensembles with the same shape."""
        for name, tensor in state.items():
            place, _, leaf = name.rpartition(".")
            module = self.get_submodule(place)
            is_weight = leaf in module._parameters
            setattr(module, leaf, nn.Parameter(tensor) if is_weight else tensor)

    def train_dataloader(self) -> DataLoader[Iterator[Tensor]]:
        """Each seed's batches of uniforms, starting from the next step if training is resumed."""
        done, trainer = self.global_step, self.trainer
        draws = Draws(self.features, self.distinct_seeds, skip=done, device=self.device)
        ends = [BLOCK_STEPS]
        if trainer.loggers:
            ends.append(trainer.log_every_n_steps)  # type: ignore[attr-defined]  # set elsewhere
        return DataLoader(Blocks(draws, range(done, trainer.max_steps), ends), batch_size=None)

    def trained(self) -> list[nn.Parameter]:
        """What the optimiser trains: all weights.

        A model that trains other tensors, and keeps `weights` up to date after each `training_step`, returns
        as many when training is resumed.
        """
        return list(self.parameters())

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimiser set as `optimizer`, over all networks; its learning rate follows `lr_scheduler`."""
        optimizer = self.optimizer(self.trained())
        if self.lr_scheduler is None:
            return optimizer
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": self.lr_scheduler(optimizer), "interval": "step"},
        }


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on the device or for the process."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    # torch has no exception class for these
    said = ("DefaultCPUAllocator", "CUBLAS_STATUS_ALLOC_FAILED")
    return isinstance(error, RuntimeError) and any(text in str(error) for text in said)


@functools.cache
def _gradient(
    loss: Callable[..., Tensor], features: Features, compiles: bool, device_type: str
) -> "_Gradient":
    """An ensemble's function for gradients and losses, compiled once per model, distribution and device."""

    def total(
        weights: Weights, factors: dict[str, Tensor], uniforms: Tensor, first_rows: Tensor
    ) -> tuple[Tensor, Tensor]:
        drawn = [uniforms[first_rows + i] for i in range(features.n_uniforms)]
        losses = loss(weights, factors, features.sample(drawn, factors))
        return losses.sum(), losses

    def plain(
        weights: Weights, factors: dict[str, Tensor], uniforms: Tensor, first_rows: Tensor
    ) -> tuple[Weights, Tensor]:
        with torch.enable_grad():
            leaves = {name: weight.detach().requires_grad_() for name, weight in weights.items()}
            summed, losses = total(leaves, factors, uniforms, first_rows)
            gradients = torch.autograd.grad(summed, list(leaves.values()), materialize_grads=True)
        return dict(zip(leaves, gradients, strict=True)), losses.detach()

    if not compiles:
        return _Gradient(plain, None)
    if not _HAS_LIMITS:
        torch._dynamo.config.recompile_limit = _VERSIONS
    compiled = torch.compile(  # type: ignore[call-overload]  # torch's overloads lack the limits
        torch.func.grad(total, has_aux=True),
        dynamic=False,
        fullgraph=True,
        options=_options(device_type),
        **(_LIMITS if _HAS_LIMITS else {}),
    )
    return _Gradient(plain, compiled)


def _options(device_type: str) -> _Options:
    """The compiler's options for a device, of which this version of torch may lack some: they are hints."""
    known = torch._inductor.list_options()
    return {name: value for name, value in _OPTIONS.get(device_type, {}).items() if name in known}


class _Gradient:
    """An ensemble's gradient: by its compiled function until that fails, then without compiling."""

    def __init__(self, plain: Gradient, compiled: Gradient | None) -> None:
        self.plain = plain
        self.compiled = compiled
        self.seen: set[tuple[torch.Size, ...]] = set()

    def __call__(
        self, weights: Weights, factors: dict[str, Tensor], uniforms: Tensor, first_rows: Tensor, note: Note
    ) -> tuple[Weights, Tensor]:
        if self.compiled is not None:
            if (why := compiling.obstacle(uniforms.device.type)) is None:
                tensors = (*weights.values(), *factors.values(), uniforms, first_rows)
                # marking takes as long as a small step, so only for shapes that may be compiled now. Unmarked
                # shapes would be compiled for these sizes alone, and evaluation would use other code
                if (shapes := tuple(tensor.shape for tensor in tensors)) not in self.seen:
                    self.seen.add(shapes)
                    for tensor in tensors:
                        torch._dynamo.maybe_mark_dynamic(tensor, 0)
                try:
                    return self.compiled(weights, factors, uniforms, first_rows)
                except (BackendCompilerFailed, RuntimeError, OSError, ImportError) as error:
                    if is_out_of_memory(error):
                        raise
                    why = compiling.explain(error)
            self.compiled = None
            note(f"{compiling.UNCOMPILED}: {why}")
        return self.plain(weights, factors, uniforms, first_rows)
