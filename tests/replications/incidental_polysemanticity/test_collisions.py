"""Tests of collisions.py and start_correlation.py: estimates on made-up tables, and broken trainings."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from common.runs.shard import fit_shard
from common.specs.sweep import shards
from replications.incidental_polysemanticity import collisions, start_correlation
from tests.conftest import SETTLING
from tests.replications.under_test import UnderTest

MODEL = "replications.incidental_polysemanticity.model"
WIDTHS = np.array(list(collisions.PUBLISHED))
COLLISIONS = UnderTest("incidental_polysemanticity/collisions")


def table_of(counts: Any) -> pd.DataFrame:
    """A table of n = 256 with the given counts (widths, networks) at the published widths."""
    counts = np.asarray(counts)
    seeds = np.arange(counts.shape[1])
    rows = pd.DataFrame(
        {"n_hidden": np.repeat(WIDTHS[: len(counts)], len(seeds)), "seed": np.tile(seeds, len(counts))}
    )
    return rows.assign(n_features=256, polysemantic_neurons=counts.ravel())


def test_slope_and_constant_of_the_law_itself() -> None:
    table = table_of(np.repeat(0.75 * collisions.law(256, WIDTHS)[:, None], 3, axis=1))
    assert collisions.log_log_slope(table) == pytest.approx(-1)
    assert collisions.law_constant(table) == pytest.approx(0.75)
    none = table.assign(polysemantic_neurons=0)
    for estimate in (collisions.log_log_slope, collisions.law_constant):
        with pytest.raises(ValueError, match="polysemantic neuron"):
            estimate(none)


def drawn(random: np.random.Generator, mean: Any, sd: Any, networks: int) -> pd.DataFrame:
    """Counts that are normal, so that the tests' distributions are exact."""
    noise = random.standard_normal((len(WIDTHS), networks))
    return table_of(np.asarray(mean)[:, None] + np.asarray(sd)[:, None] * noise)


def test_p_values_are_uniform_where_all_is_as_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kolmogorov-Smirnov on 300 p-values at 1e-4, of a fixed seed, for the law and for published means."""
    random = np.random.default_rng(5)
    law, sd = collisions.law(256, WIDTHS), np.linspace(1, 4, len(WIDTHS))
    p_law, p_published = [], []
    for _ in range(300):
        table = drawn(random, law, sd, 16)
        p_law.append(collisions.fit_to_law(table))
        theirs = drawn(random, law, sd, 16).groupby("n_hidden")["polysemantic_neurons"]
        published = zip(WIDTHS, theirs.mean(), theirs.std(ddof=0), strict=True)
        monkeypatch.setattr(collisions, "PUBLISHED", {m: (mean, spread) for m, mean, spread in published})
        monkeypatch.setattr(collisions, "READING_ERROR", 0.0)
        p_published.append(collisions.fit_to_published(table))
    assert stats.kstest(p_law, "uniform").pvalue > 1e-4
    assert stats.kstest(p_published, "uniform").pvalue > 1e-4


def test_fits_see_what_is_different() -> None:
    random = np.random.default_rng(6)
    mean, sd = np.array(list(collisions.PUBLISHED.values())).T
    same = drawn(random, mean, sd, 16)
    assert collisions.fit_to_published(same) > 1e-3
    assert collisions.fit_to_published(drawn(random, mean + sd, sd, 16)) < 1e-6
    # the published means themselves do not follow the law
    assert collisions.fit_to_law(same) < 1e-6
    # far outside, and without any spread
    assert collisions.fit_to_law(table_of(np.zeros((16, 4), dtype=int))) < 1e-6


def test_fits_need_published_widths_and_two_networks() -> None:
    table = table_of(np.ones((2, 3)))
    with pytest.raises(ValueError, match="none of the published widths"):
        collisions.fit_to_published(table.assign(n_features=64))
    with pytest.raises(ValueError, match="single network"):
        collisions.fit_to_law(table[table["seed"] == 0])


@pytest.fixture
def settling(small: Any) -> Any:
    """A function that trains 12 small networks, 8 features in 16 neurons, with dotted keys changed."""

    def train(**changes: str) -> pd.DataFrame:
        settings = {
            **SETTLING,
            "features": "{class_path: common.features.Basis, init_args: {}}",
            "sweep": "[{n_features: 8, n_hidden: 16}]",
            "seeds": "12",
            "trainer.max_steps": "5000",
            "shard_size": "12",
            **changes,
        }
        spec = small(**settings)
        return fit_shard(spec, shards(spec)[0]).table

    return train


WIDE = "[{n_features: 32, n_hidden: 256}]"
END_STATE = (collisions.near_zero_or_one, collisions.one_winner, collisions.not_crowded)


def test_the_end_state_of_small_networks_and_what_breaks_it(settling: Any) -> None:
    """Unbroken all claims on the end state hold; each control loses those that it must lose."""
    table = settling()
    for estimate in END_STATE:
        assert estimate(table).mean() >= 0.98
        assert len(estimate(table)) == 12 * 8
    assert collisions.opposite_signs(table).all()
    assert collisions.incidental(table).mean() > 0.5

    without_l1 = settling(**{"model.init_args.l1": "0."})
    assert collisions.near_zero_or_one(without_l1).mean() < 0.5
    assert collisions.one_winner(without_l1).mean() < 0.5
    assert not collisions.incidental(without_l1).any()

    linear = settling(**{"model.class_path": f"{MODEL}.LinearL1Autoencoder"})
    assert not collisions.incidental(linear).any()

    blind = settling(**{"model.class_path": f"{MODEL}.NoInterference"})
    assert collisions.opposite_signs(blind).mean() < 0.9
    assert collisions.not_crowded(blind).mean() < 0.98


def test_start_correlation_and_what_breaks_it(settling: Any) -> None:
    model = f"{MODEL}.StartCorrelation"
    table = settling(**{"model.class_path": model}, sweep=WIDE, seeds="5")
    assert start_correlation.aligned(table).mean() > 0.9
    assert start_correlation.largest_wins(table).mean() < 0.5
    assert table["winner_rank"].mean() < 0.25
    assert table["winner_sigmas"].mean() > 1
    assert start_correlation.heat_map(table).shape == (32, 32)

    other = settling(**{"model.class_path": f"{MODEL}.OtherStart"}, sweep=WIDE, seeds="5")
    assert start_correlation.aligned(other).mean() < 0.7
    assert other["winner_rank"].mean() > 0.3
    assert abs(other["winner_sigmas"].mean()) < 0.5

    stays = settling(**{"model.class_path": model, "model.init_args.l1": "0."}, sweep=WIDE, seeds="5")
    assert start_correlation.largest_wins(stays).mean() > 0.5


def test_what_the_fit_takes_for_published_is_what_the_claims_say() -> None:
    for m, (mean, sd) in collisions.PUBLISHED.items():
        published = COLLISIONS.claims.published(f"count_m{m}")
        assert (published.value, published.n) == (mean, collisions.PUBLISHED_NETWORKS)
        assert published.sd == pytest.approx(sd * (16 / 15) ** 0.5, abs=0.006)


def test_the_figure_shows_our_means_the_published_ones_and_the_law() -> None:
    table = table_of(np.arange(32).reshape(4, 8) + 1)
    axes = COLLISIONS.figures(table)["collisions"].axes[0]
    law, *_ = axes.lines
    assert np.allclose(law.get_ydata(), 256**2 / (4 * np.asarray(law.get_xdata(), dtype=float)))
    published, ours = (bars[0] for bars in axes.containers)
    assert list(ours.get_ydata()) == [4.5, 12.5, 20.5, 28.5]
    assert list(published.get_ydata()) == [72.6, 23.9, 13.7, 10.06]
