"""Tests of definitions: the cases exactly, what is drawn for them, estimates on made-up tables."""

import numpy as np
import pandas as pd
import pytest
import torch

from common.features import generator
from common.verdicts.claims import Verdict
from replications.polysemanticity_definitions.definitions import (
    number_is,
    polysemantic_at,
    polysemantic_share,
    polysemantic_without_superposition,
    some,
)
from replications.polysemanticity_definitions.definitions_model import (
    FIXED,
    THRESHOLDS,
    Case,
    CaseName,
    random_rotation,
)
from tests.replications.under_test import UnderTest, trained, with_verdict

DEFINITIONS = UnderTest("polysemanticity_definitions/definitions")

# neurons, features, polysemantic neurons, superposition by count and by rank, features on several neurons
CASES: dict[CaseName, tuple[int, int, int, int, int, int]] = {
    "aligned": (2, 2, 0, 0, 0, 0),
    "one_more": (2, 3, 2, 1, 1, 1),
    "not_aligned": (2, 2, 1, 0, 0, 1),
    "hadamard": (4, 4, 4, 0, 0, 4),
    "antipodal": (1, 2, 1, 1, 1, 0),
    "incidental": (3, 3, 1, 0, 1, 0),
    "one_large": (1, 11, 0, 0, 0, 0),
    "weak": (2, 2, 0, 0, 0, 1),
}
COLUMNS = (
    "neurons", "features", "polysemantic_neurons", "superposition_by_count", "superposition_by_rank",
    "spread_features",
)  # fmt: skip


@pytest.mark.parametrize("case", FIXED)
@pytest.mark.parametrize("noise", [0.0, 1e-3])
def test_each_case_in_each_sense(case: CaseName, noise: float) -> None:
    metrics = Case([0, 1, 2, 3], case, noise=noise).metrics()
    for name, wanted in zip(COLUMNS, CASES[case], strict=True):
        assert metrics[name].tolist() == 4 * [wanted]


def test_hadamard_is_orthonormal() -> None:
    vectors = np.array(FIXED["hadamard"])
    np.testing.assert_array_equal(vectors @ vectors.T, np.eye(4))
    np.testing.assert_array_equal(np.abs(vectors), 0.5)


def test_networks_are_the_case_shuffled_and_scaled() -> None:
    first, other = Case([0, 1], "one_more", noise=0.0).weights()
    vectors = torch.tensor(FIXED["one_more"], dtype=torch.float64)
    for weights in (first, other):
        scale = weights.abs().max()
        assert 0.5 <= scale <= 2
        # lengths and angles stay; sums over the other axis do not depend on the order
        torch.testing.assert_close(weights.square().sum(dim=0), scale**2 * torch.ones(3).double())
        found = sorted((weights / scale).sum(dim=0).tolist())
        assert found == pytest.approx(sorted(vectors.sum(dim=1).tolist()))
    assert not torch.equal(first, other)
    torch.testing.assert_close(Case([1], "one_more", noise=0.0).weights()[0], other, rtol=0, atol=0)


def test_five_features_in_four_neurons_are_each_on_half() -> None:
    weights = Case(range(20), "five_in_four", noise=0.0).weights()
    assert weights.shape == (20, 4, 5)
    assert ((weights != 0).sum(dim=1) == 2).all()


def test_rotated_features_are_orthogonal_and_uniform() -> None:
    weights = Case(range(200), "rotated", 6, 3, noise=0.0).weights()
    gram = weights.mT @ weights
    torch.testing.assert_close(gram / gram[:, :1, :1], torch.eye(3).double().expand(200, -1, -1))
    # means over 400, of variance 1/5: five standard errors, a false alarm in 10^5 runs of other seeds
    mean = np.mean([random_rotation(generator("start", seed), 5) for seed in range(400)], axis=0)
    assert np.abs(mean).max() < 5 * (1 / 5 / 400) ** 0.5
    np.testing.assert_array_equal(
        (Case([3], "rotated", 4, 4, noise=0.0, turned=False).weights() != 0).sum(dim=1), [[1, 1, 1, 1]]
    )


def test_more_rotated_features_than_neurons_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^n_features: expected at most n_neurons = 2, got 3$"):
        Case([0], "rotated", 2, 3)


def test_thresholds_are_counted_apart() -> None:
    at = Case([0], "one_large", noise=0.0).metrics()["polysemantic_at"][0]
    np.testing.assert_array_equal(at, THRESHOLDS < 0.05)


def test_the_share_of_two_rotated_features_is_that_of_the_theory() -> None:
    """Over 4000 networks: five standard errors, a false alarm in 10^6 runs of other seeds."""
    networks = Case(range(4000), "rotated", 2, 2, noise=0.0).metrics()["polysemantic_at"].numpy()
    for threshold in (0.1, 0.3):
        i = int(np.abs(THRESHOLDS - threshold).argmin())
        theory = 1 - 4 / np.pi * np.arctan(THRESHOLDS[i])
        share = (networks[:, i] / 2).mean()
        assert abs(share - theory) < 5 * (theory * (1 - theory) / 4000) ** 0.5


def made_up(seeds: int = 64) -> pd.DataFrame:
    """A table of networks that are all as the definitions have it; of two in two one in eight is aligned."""
    cases = {**CASES, "five_in_four": (4, 5, 3, 1, 1, 5)}
    rotated = [(d, n, d, 0, 0, n) for d in (4, 16, 64) for n in (2, 4, 16, 64) if n <= d]
    rows = []
    for seed in range(seeds):
        two_in_two = (2, 2, 2 if seed % 8 else 0, 0, 0, 2)
        found = [*cases.items(), *(("rotated", one) for one in (*rotated, two_in_two))]
        rows += [{"case": case, "seed": seed, **dict(zip(COLUMNS, one, strict=True))} for case, one in found]
    table = pd.DataFrame(rows)
    large = (table["case"] == "one_large").to_numpy()[:, None] & (THRESHOLDS < 0.05)
    return table.join(pd.DataFrame(large.astype(float)).add_prefix("polysemantic_at_"))


def test_estimates() -> None:
    table = made_up(8)
    assert number_is(table, "hadamard", "polysemantic_neurons", 4).all()
    assert not number_is(table, "hadamard", "polysemantic_neurons", 3).any()
    assert some(table, "antipodal", "superposition_by_count").all()
    assert not some(table, "antipodal", "spread_features").any()
    assert polysemantic_at(table, "one_large", 0.01).tolist() == 8 * [True]
    assert polysemantic_at(table, "one_large", 0.1).tolist() == 8 * [False]
    assert polysemantic_share(table, 2, 2) == 7 / 8
    assert polysemantic_without_superposition(table, 2, 2).tolist() == [False, *7 * [True]]
    superposed = table.assign(superposition_by_rank=1)
    assert not polysemantic_without_superposition(superposed, 16, 4).any()
    with pytest.raises(ValueError, match=r"^case: no network of 'aligned'$"):
        number_is(table[table["case"] == "rotated"], "aligned", "spread_features", 0)
    with pytest.raises(ValueError, match=r"^case: no network of 'rotated' with 3 features in 4 neurons$"):
        polysemantic_share(table, 4, 3)


def test_verdicts() -> None:
    assert with_verdict(Verdict.REPRODUCED, DEFINITIONS.judged(made_up())) == set(
        DEFINITIONS.judged(made_up(2))
    )
    few = made_up(16)
    assert with_verdict(Verdict.NOT_REPRODUCED, DEFINITIONS.judged(few)) == set()
    more = with_verdict(Verdict.NOT_REPRODUCED, DEFINITIONS.judged(few.assign(superposition_by_count=1)))
    assert {"aligned_count", "not_aligned_count", "hadamard_count", "incidental_count", "rotated_4_4"} <= more
    assert not {"one_more_count", "five_in_four_count", "antipodal_count"} & more
    without = with_verdict(Verdict.NOT_REPRODUCED, DEFINITIONS.judged(few.assign(polysemantic_neurons=0)))
    assert {"one_more_neurons", "five_in_four_neurons", "rotated_64_64"} <= without
    assert not {"aligned_neurons", "one_large"} & without


def test_all_is_as_said_and_controls_lose_their_claims() -> None:
    claims = DEFINITIONS.judged(trained(DEFINITIONS.spec("quick")))
    assert {outcome.verdict for outcome in claims.values()} == {Verdict.REPRODUCED}
    for control, breaks in DEFINITIONS.spec("quick").controls.items():
        broken = trained(DEFINITIONS.spec("quick", control, {"seeds": 16}))
        lost = with_verdict(Verdict.NOT_REPRODUCED, DEFINITIONS.judged(broken))
        assert set(breaks.rejects) <= lost


def test_figures_are_drawn_of_what_is_there() -> None:
    table = made_up(3)
    drawn = DEFINITIONS.figures(table)
    assert list(drawn) == ["definitions"]
    cells = [text.get_text() for text in drawn["definitions"].axes[0].texts]
    assert {"2 of 2", "4 of 4", "0 of 11"} <= set(cells)
    for rows in (table[table["case"] == "aligned"], table[table["case"] == "rotated"]):
        assert list(DEFINITIONS.figures(rows)) == ["definitions"]
