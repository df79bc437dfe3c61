"""The settings under which networks are trained and measured, whatever those of the process around them."""

import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from lightning.fabric.utilities import rank_zero

from common.system.environment import undisturbed

KEEPS_DENORMALS = (
    "this processor cannot treat denormal numbers as 0: training may be many times slower, and "
    "numbers may differ from those of other machines"
)
"""The note where that is so; it concerns the machine, so it is given once for all runs."""

_SETTINGS: list[tuple[Callable[[], Any], Callable[[Any], None], Any]] = [
    (torch.get_default_dtype, torch.set_default_dtype, torch.float32),
    (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "highest"),
    (torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms, False),
]
"""Settings of torch that change numbers: how to read one, how to set it, and its value in training."""


@contextmanager
def numerics(note: Callable[[str], None] = warnings.warn) -> Iterator[None]:
    """A context in which training depends only on the spec, not on the environment or the process.

    Denormals are off: decayed moments would slow training down many times. The settings of torch, numpy and
    Python, including the states of their random generators, are restored at the end.
    """
    states = random.getstate(), np.random.get_state()
    with undisturbed(), _rank_zero(), ExitStack() as stack:
        modes: list[AbstractContextManager[object]] = [
            torch.inference_mode(False),
            torch.enable_grad(),
            torch.random.fork_rng(devices=[]),
            np.errstate(divide="warn", over="warn", under="ignore", invalid="warn"),
            *(torch.autocast(d, enabled=False) for d in ("cpu", "cuda") if torch.is_autocast_enabled(d)),
            *([torch.device("cpu")] if torch.get_default_device().type != "cpu" else []),
        ]
        for mode in modes:
            stack.enter_context(mode)
        for get, put, wanted in _SETTINGS:
            if (before := get()) != wanted:
                stack.callback(put, before)
                put(wanted)
        # no model of the suite draws from these generators; one that does gets the same numbers in every run
        torch.manual_seed(0)
        random.seed(0)
        np.random.seed(0)
        if not torch.set_flush_denormal(True):
            note(KEEPS_DENORMALS)
        try:
            yield
        finally:
            torch.set_flush_denormal(False)
            random.setstate(states[0])
            np.random.set_state(states[1])


@contextmanager
def _rank_zero() -> Iterator[None]:
    """Make Lightning treat this process as the first, whatever it read from the environment at import."""
    only: Any = rank_zero.rank_zero_only  # a function with an attribute
    before = only.rank
    only.rank = 0
    try:
        yield
    finally:
        only.rank = before


@contextmanager
def one_thread() -> Iterator[None]:
    """Make torch use one thread: several are slower on such small arrays, many times so on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
