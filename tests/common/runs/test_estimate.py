"""Tests of runs/estimate.py: the share done and the time left, from made-up times."""

import pytest

from common.runs.estimate import Estimate, Work, estimate


def test_before_anything_is_reported_no_time_is_known() -> None:
    assert estimate([Work("a", 10.0), Work("b", 5.0)], 2) == Estimate(0.0, None)
    assert estimate([Work("a", 10.0, since=3.0)], 1) == Estimate(0.0, None)


@pytest.mark.parametrize("unit", [1.0, 1e9])
@pytest.mark.parametrize("pace", [0.5, 1.0, 3.0])
def test_the_pace_so_far_calibrates_what_is_expected_in_any_unit(pace: float, unit: float) -> None:
    """A cheap run is done, a dear one is not: the time left is that of the dear one, at the same pace."""
    work = [Work("cheap", 1 * unit, 1.0, spent=1 * pace), Work("dear", 9 * unit)]
    share, seconds = estimate(work, 1)
    assert share == pytest.approx(0.1)
    assert seconds == pytest.approx(9 * pace)


def test_each_run_gets_its_own_pace_once_enough_of_it_is_done() -> None:
    work = [Work("a", 100.0, 1.0, 100.0), Work("b", 100.0, 0.5, spent=500.0), Work("c", 100.0)]
    _, seconds = estimate(work, 1)
    assert seconds == pytest.approx(
        500 + 400, rel=0.1
    )  # b ten times slower; of c no more is known than of both


@pytest.mark.parametrize(("devices", "seconds"), [(1, 40.0), (2, 20.0), (4, 10.0), (8, 10.0)])
def test_devices_share_the_work_but_not_a_shard(devices: int, seconds: float) -> None:
    work = [Work("a", 10.0, 1.0, spent=10.0), *[Work("a", 10.0)] * 4]
    assert estimate(work, devices).seconds == pytest.approx(seconds)


def test_the_longest_shard_decides_near_the_end() -> None:
    work = [*[Work("a", 1.0, 1.0, spent=1.0)] * 50, Work("a", 50.0, 0.2, spent=10.0), Work("a", 1.0)]
    assert estimate(work, 8).seconds == pytest.approx(40.0)


def test_time_passes_between_reports() -> None:
    work = [Work("a", 10.0, 1.0, spent=10.0), Work("a", 10.0, 0.5, spent=5.0)]
    for since, left in ((0.0, 5.0), (3.0, 2.0), (100.0, 10.0)):
        assert estimate([work[0], work[1]._replace(since=since)], 1).seconds == pytest.approx(left)


def test_when_all_is_done_nothing_is_left() -> None:
    assert estimate([Work("a", 10.0, 1.0, 7.0), Work("b", 3.0, 1.0, 8.0)], 2) == Estimate(1.0, 0.0)
