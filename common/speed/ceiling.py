"""The machine's ceiling: an upper bound on how fast a shard's training steps can be.

A step must at least compute its matrix products, its arithmetic and its random numbers, and read and write
its weights and the optimiser's state. Each of these four takes at least as long as this machine, measured
with all devices at work at once, needs for it alone; the longest is the bound. It is a bound, not a goal: the
other three count as free, a logarithm counts as one operation, and a multiply-add, two operations, takes the
time of one.
"""

import itertools
import multiprocessing
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.queues import SimpleQueue
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
import pandas as pd
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from common.ensemble import Ensemble
from common.features import generator
from common.runs.shard import build
from common.runs.training import Devices
from common.runs.workers import startable
from common.specs.spec import Spec

if TYPE_CHECKING:
    from multiprocessing.synchronize import Barrier  # missing where the system lacks semaphores

Product = tuple[int, int, int, int]
"""A batch of matrix products, (batch, m, k) times (batch, k, n)."""

COUNTED = 4
"""The number of networks whose step is counted; a whole shard is in proportion."""

SMALL = 8
"""A product with a side of at most this can be written out, as sums in one pass with other operations:
compiled code reached five times the rate of `torch.bmm`."""

CHUNKS, CHUNK_SECONDS = 20, 0.01
LARGEST = {"cpu": 256, "cuda": 4096}
"""The size of matrices whose product reaches the peak of arithmetic."""


class Least(NamedTuple):
    """The least work of one step of a shard.

    `products`: how many of each; `operations`: the elements processed by elementwise operations and sums, in
    loss and gradient without compiling, and those of small products; `uniforms`: the random numbers drawn;
    `moved`: the bytes read and written of weights, gradients and optimiser state; `held`: the bytes that
    these occupy.
    """

    networks: int
    products: Mapping[Product, float]
    operations: float
    uniforms: int
    moved: float
    held: float

    def arithmetic(self) -> float:
        """All operations, including those of the products."""
        return self.operations + sum(n * _flops(product) for product, n in self.products.items())


class Bound(NamedTuple):
    """A rate that cannot be exceeded, in networks x steps per second, and what bounds it, in words.

    `rates`: the rate that each of the four would allow alone, those that there are; `rate` is the lowest.
    """

    rate: float
    by: str
    rates: Mapping[str, float]


def count(spec: Spec, rows: pd.DataFrame) -> Least:
    """The least work of a step of the shard with these `rows`, counted on a step of a few of its networks."""
    some = rows.iloc[:COUNTED]
    scale = len(rows) / len(some)
    ensemble = build(spec, some)
    assert isinstance(ensemble, Ensemble)
    ensemble.compiles = False
    features = ensemble.features
    uniforms = torch.rand(len(ensemble.distinct_seeds) * features.n_uniforms, features.batch_size)
    with _Count() as counted:
        gradients = ensemble.losses_and_gradients(uniforms, ensemble.seed_index)[1]
    optimizer = ensemble.optimizer(ensemble.parameters())
    for name, weight in ensemble.weights.items():
        weight.grad = gradients[name]
    optimizer.step()
    moved, held = 0, 0
    for weight in ensemble.weights.values():
        kept = [value for value in optimizer.state[weight].values() if isinstance(value, torch.Tensor)]
        moments = sum(value.shape == weight.shape for value in kept)
        # for the gradient, weights are read and it is written; the optimiser reads all and writes all but the
        # gradient
        moved += weight.nbytes * (2 + 3 + 2 * moments)
        held += weight.nbytes * (2 + moments)
    return Least(
        networks=len(rows),
        products={(round(b * scale), m, k, n): times for (b, m, k, n), times in counted.products.items()},
        operations=counted.operations * scale,
        uniforms=features.n_uniforms * features.batch_size * rows["seed"].nunique(),
        moved=moved * scale,
        held=held * scale,
    )


class _Count(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts matrix products, and the elements of all other arithmetic and of small products."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.products: Counter[Product] = Counter()
        self.operations = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        aten = torch.ops.aten
        if func.overloadpacket in (aten.mm, aten.bmm, aten.addmm, aten.baddbmm):
            first, second = [a for a in args if isinstance(a, torch.Tensor)][-2:]
            product = (first.shape[0] if first.ndim == 3 else 1, *first.shape[-2:], second.shape[-1])
            if min(product[1:]) <= SMALL:
                self.operations += _flops(product)
            else:
                self.products[product] += 1
        elif torch.Tag.reduction in func.tags:
            self.operations += args[0].numel()
        elif torch.Tag.pointwise in func.tags:
            self.operations += out.numel()
        return out


def _flops(product: Product) -> int:
    batch, m, k, n = product
    return 2 * batch * m * k * n


class Machine:
    """Processes, one for each device, that measure rates while all devices are at work; a context manager.

    Raises:
        InputError: if this system cannot start any.
    """

    def __init__(self, devices: Devices) -> None:
        self.devices = devices
        context = multiprocessing.get_context("spawn")
        with startable("the machine's ceiling is measured by one process for each device"):
            numbers: SimpleQueue[int] = context.SimpleQueue()
            for number in range(devices.n):
                numbers.put(number)
            given = (devices.accelerator, numbers, context.Barrier(devices.n, timeout=120))
            self._pool = ProcessPoolExecutor(devices.n, context, _start, given)
        self._known: dict[tuple[object, ...], float] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)

    def bound(self, least: Least) -> Bound:
        """How fast steps of shards like this one can be, with one shard on each device."""
        flops = sum(n * _flops(product) for product, n in least.products.items())
        products = sum(n * _flops(p) / self._rate(_products, *p) for p, n in least.products.items())
        side = LARGEST[self.devices.accelerator]
        seconds = {
            "matrix products": products,
            "arithmetic": least.operations / self._rate(_products, 1, side, side, side),
            "random numbers": least.uniforms / self._rate(_uniforms),
            "memory": least.moved / self._rate(_triad, round(least.held)),
        }
        amounts = [flops, least.operations, least.uniforms, least.moved]
        units = dict(zip(seconds, zip(amounts, ["GFLOP", "G", "G", "GB"], strict=True), strict=True))
        by = max(seconds, key=lambda name: seconds[name])
        amount, unit = units[by]
        networks = self.devices.n * least.networks
        rates = {name: networks / taken for name, taken in seconds.items() if taken}
        return Bound(rates[by], f"{by}, {amount / seconds[by] / 1e9:.3g} {unit}/s", rates)

    def _rate(self, measure: Callable[..., float], *size: int) -> float:
        """The rate of one device: the mean over all, which measure at the same time."""
        key = (measure, *size)
        if key not in self._known:
            futures = [self._pool.submit(_together, measure, size) for _ in range(self.devices.n)]
            self._known[key] = sum(future.result() for future in futures) / self.devices.n
        return self._known[key]


_process: dict[str, Any] = {}


def _start(accelerator: str, numbers: "SimpleQueue[int]", barrier: "Barrier") -> None:
    torch.set_num_threads(1)
    device = torch.device("cuda", numbers.get()) if accelerator == "cuda" else torch.device("cpu")
    _process.update(device=device, barrier=barrier)


def _together(measure: Callable[..., float], size: tuple[int, ...]) -> float:
    _process["barrier"].wait()
    return measure(_process["device"], *size)


def _products(device: torch.device, batch: int, m: int, k: int, n: int) -> float:
    """Floating-point operations per second of `torch.bmm`, in the fastest memory layout of its operands."""
    left, right = torch.rand(batch, m, k, device=device), torch.rand(batch, k, n, device=device)
    out = torch.empty(batch, m, n, device=device)
    ways = itertools.product((left, left.mT.contiguous().mT), (right, right.mT.contiguous().mT))
    flops = _flops((batch, m, k, n))
    return max(_best(device, flops, lambda a=a, b=b: torch.bmm(a, b, out=out)) for a, b in ways)  # type: ignore[misc]


def _triad(device: torch.device, size: int) -> float:
    """Bytes per second read and written by a = b + 2 c, on arrays that take `size` bytes together.

    At least one MB, because starting an operation takes as long as a small operation.
    """
    a, b, c = torch.ones(3, max(size, 2**20) // 12, device=device)
    return _best(device, 3 * a.nbytes, lambda: torch.add(b, c, alpha=2, out=a))


def _uniforms(device: torch.device) -> float:
    """Uniform random numbers per second; they are drawn on the CPU, also for a GPU."""
    random, out = generator("training", 0), np.empty(2**16, dtype=np.float32)
    return _best(device, out.size, lambda: random.random(out=out, dtype=np.float32))


def _best(device: torch.device, amount: float, run: Callable[[], object]) -> float:
    """`amount` over the shortest time of `run`, averaged over chunks of a hundredth of a second."""

    def seconds(times: int) -> float:
        start = time.perf_counter()
        for _ in range(times):
            run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    seconds(2)
    times = max(1, int(CHUNK_SECONDS / seconds(1)))
    return amount * times / min(seconds(times) for _ in range(CHUNKS))
