"""Tests of features.py: exact maps of given uniforms, and streams that depend on their seed alone."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from common.features import (
    AnticorrelatedSets,
    Basis,
    Blocks,
    CorrelatedSets,
    Draws,
    Features,
    Independent,
    fill_uniform,
    generator,
)

steady = settings(derandomize=True, max_examples=50, deadline=None, database=None)


@steady
@given(st.lists(st.floats(0, 1, exclude_max=True, width=32), min_size=1, max_size=20), st.floats(0.01, 1))
def test_a_feature_is_zero_where_the_uniform_is_not_below_the_density(u: list[float], density: float) -> None:
    uniform, p = torch.tensor([u], dtype=torch.float64), torch.tensor([[density]], dtype=torch.float64)
    (x,) = Independent(1, 0.5).sample([uniform], {"density": p})
    torch.testing.assert_close(x, torch.where(uniform < p, uniform / p, 0.0).double(), rtol=1e-15, atol=0)
    assert ((x >= 0) & (x <= 1)).all()


@pytest.mark.parametrize("density", [1.0, 0.3, 0.01])
def test_features_have_their_density_and_are_uniform_where_not_zero(density: float) -> None:
    """Two tests at 1e-4 each, of a fixed seed: 2 of 10 000 seeds would have given a false alarm."""
    uniform = torch.from_numpy(generator("training", 1).random((1, 100_000), dtype=np.float32))
    x = Independent(1, 0.5).sample([uniform], {"density": torch.tensor([[density]])})[0][0].numpy()
    active = x[x > 0]
    assert stats.binomtest(len(active), len(x), density).pvalue > 1e-4
    assert stats.kstest(active, "uniform").pvalue > 1e-4


def test_a_stream_depends_on_seed_and_purpose_alone() -> None:
    features = Independent(n_features=2, density=0.5, batch_size=8)

    def first(seeds: list[int], stream: str = "training") -> torch.Tensor:
        # more steps than are drawn in one call
        steps = list(itertools.islice(Draws(features, seeds, stream), Draws.BLOCK + 3))
        return torch.stack(steps).reshape(len(steps), len(seeds), 2, 8)

    both, swapped, alone = first([3, 5]), first([5, 3]), first([5])
    torch.testing.assert_close(both[:, 1], alone[:, 0], rtol=0, atol=0)
    torch.testing.assert_close(swapped[:, 0], alone[:, 0], rtol=0, atol=0)
    assert not torch.equal(both[:, 0], both[:, 1])
    assert not torch.equal(alone, first([5], "evaluation"))
    assert not torch.equal(alone[0], alone[Draws.BLOCK])


@steady
@given(st.integers(0, 2**64 - 1), st.lists(st.sampled_from([2, 6, 1024]), min_size=1, max_size=4))
def test_uniforms_are_those_of_numpy_to_the_bit(seed: int, sizes: list[int]) -> None:
    ours, theirs = (np.random.Generator(np.random.SFC64(seed)) for _ in range(2))
    for size in sizes:
        out = np.empty((2, size // 2), np.float32)
        fill_uniform(ours, out)
        assert np.array_equal(out, theirs.random((2, size // 2), dtype=np.float32))


@steady
@given(st.integers(0, 200), st.integers(0, 300), st.lists(st.integers(1, 70), min_size=1, max_size=3))
def test_blocks_cut_where_they_are_told_to_and_lose_no_batch(start: int, n: int, ends: list[int]) -> None:
    steps = range(start, start + n)
    batches = [torch.tensor(step) for step in steps]
    blocks = [[int(step) for step in block] for block in Blocks(batches, steps, ends)]
    assert [step for block in blocks for step in block] == list(steps)
    for block in blocks:
        assert not any(step % end == 0 for step in block[1:] for end in ends)
    assert all(any(block[0] % end == 0 for end in ends) for block in blocks[1:])


def test_the_basis_draws_nothing() -> None:
    features = Basis(5)
    assert (features.n_uniforms, features.batch_size) == (0, 5)
    assert next(iter(Draws(features, [3, 4]))).shape == (0, 5)
    assert features.sample([], {}) == []


def test_impossible_sizes_name_the_argument() -> None:
    with pytest.raises(ValueError, match=r"^n_features: expected at least 1, got 0$"):
        Independent(n_features=0, density=0.5)
    with pytest.raises(ValueError, match=r"^batch_size: expected at least 1, got 0$"):
        Independent(n_features=2, density=0.5, batch_size=0)


def test_correlated_features_are_on_together_and_independent_otherwise() -> None:
    """Each rate is tested at 1e-5 with a fixed seed: 6 of 100 000 seeds would have given a false alarm."""
    n, p = 100_000, 0.3
    features = CorrelatedSets(n_features=6, set_size=3, density=p, batch_size=n)
    uniforms = next(iter(Draws(features, [0]))).unsqueeze(1)
    x = torch.cat(features.sample(list(uniforms), {"density": torch.tensor([[p]])})).numpy()
    on = x > 0
    for members in ([0, 1, 2], [3, 4, 5]):
        assert (on[members] == on[members[0]]).all()
        active = x[members][:, on[members[0]]]
        assert np.abs(np.corrcoef(active)[np.triu_indices(3, 1)]).max() < 4.5 / active.shape[1] ** 0.5
        for one in active:
            assert stats.kstest(one, "uniform").pvalue > 1e-5
    assert stats.binomtest(int((on[0] & on[3]).sum()), n, p * p).pvalue > 1e-5


def test_of_anticorrelated_features_one_is_on_at_a_time() -> None:
    """Each rate is tested at 1e-5 with a fixed seed: 1 of 10 000 seeds would have given a false alarm."""
    n, p = 100_000, 0.4
    features = AnticorrelatedSets(n_features=4, set_size=2, density=p, batch_size=n)
    assert features.n_uniforms == 2
    uniforms = next(iter(Draws(features, [0]))).unsqueeze(1)
    x = torch.cat(features.sample(list(uniforms), {"density": torch.tensor([[p]])})).numpy()
    on = x > 0
    for first, second in ([0, 1], [2, 3]):
        assert not (on[first] & on[second]).any()
        for one in (first, second):
            assert stats.binomtest(int(on[one].sum()), n, p / 2).pvalue > 1e-5
            assert stats.kstest(x[one][on[one]], "uniform").pvalue > 1e-5
    assert stats.binomtest(int((on[0] & on[2]).sum()), n, p * p / 4).pvalue > 1e-5


def test_sets_of_one_are_independent_features() -> None:
    uniforms = [u[None] for u in torch.rand(3, 50, generator=torch.Generator().manual_seed(0))]
    factors = {"density": torch.tensor([[0.3]])}
    independent = Independent(3, 0.3).sample(uniforms, factors)
    for sets in (CorrelatedSets, AnticorrelatedSets):
        torch.testing.assert_close(sets(3, 1, 0.3).sample(uniforms, factors), independent)


@pytest.mark.parametrize("sets", [CorrelatedSets, AnticorrelatedSets])
def test_a_set_s_features_are_a_divisor_of_all(sets: type[Features]) -> None:
    with pytest.raises(ValueError, match=r"^set_size: expected a divisor of n_features = 6, got 4$"):
        sets(6, 4, 0.5)  # type: ignore[arg-type]


def test_features_are_equal_if_they_sample_alike() -> None:
    assert Independent(3, 0.5) == Independent(3, torch.tensor([0.1, 0.2]), batch_size=8)
    assert hash(Independent(3, 0.5)) == hash(Independent(3, 0.1))
    sets = [CorrelatedSets(6, 2, 0.5), CorrelatedSets(6, 3, 0.5)]
    different = [Independent(4, 0.5), Independent(6, 0.5), *sets]
    assert len(set(different)) == 4
    assert Independent(3, 0.5) != 3


@pytest.mark.parametrize("skip", [0, 5, Draws.BLOCK + 3])
@pytest.mark.parametrize("n_features", [3, 0])
def test_batches_for_a_gpu_are_those_for_the_cpu(n_features: int, skip: int) -> None:
    """By the way that copies a block of steps at once, here from the CPU to itself."""
    features = Independent(n_features, 0.5, batch_size=6) if n_features else Basis(6)
    draws = Draws(features, [3, 5], skip=skip)
    copied = Draws(features, [3, 5], skip=skip)
    copied._here = copied._there  # type: ignore[method-assign]
    for one, other in itertools.islice(zip(draws, copied, strict=False), 2 * Draws.BLOCK):
        assert torch.equal(other, one)
        assert other.is_contiguous()


@pytest.mark.gpu
def test_batches_come_to_the_device_from_pinned_memory(accelerator: str) -> None:
    """Many of them, so that memory is given out again while copies may still be under way."""
    features, seeds = Independent(4, 0.5, batch_size=1024), [*range(20)]
    wanted = itertools.islice(Draws(features, seeds), 20 * Draws.BLOCK)
    found = Draws(features, seeds, device=torch.device(accelerator))
    for one, other in zip(wanted, found, strict=False):
        assert other.device.type == accelerator
        assert torch.equal(other.cpu(), one)
