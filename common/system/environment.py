"""Environment variables that must not affect training; nothing large is imported here."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

FOREIGN = re.compile(
    # Lightning sets arguments of a Trainer from PL_TRAINER_..., and takes a process for one of many from
    # variables that launchers and schedulers set: SLURM, LSF, MPI, torchrun, Kubeflow, TPUs
    "(PL|LT|LIGHTNING|SLURM|LSB|LSF|JSM|OMPI|PMI|PMIX|TORCHELASTIC|KUBERNETES|MASTER|XLA|PT_XLA|XRT|TPU|COLAB)_.*"
    "|(.*_)?(RANK|WORLD_SIZE)"
    # torch reads from these whether and how to compile; those for where compiled code is kept are left
    "|(TORCHDYNAMO|TORCH_DYNAMO|TORCH_COMPILE)_.*|TORCHINDUCTOR_(?!CACHE_DIR$|COMPILE_THREADS$).*"
)
"""The names of these variables."""


@contextmanager
def undisturbed() -> Iterator[None]:
    """Remove the `FOREIGN` variables from the environment, also for processes started in this context."""
    taken = {name: os.environ.pop(name) for name in list(os.environ) if FOREIGN.fullmatch(name)}
    try:
        yield
    finally:
        os.environ.update(taken)
