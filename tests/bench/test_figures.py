import random

import pytest

from dueline.ids import generated_at_ms, is_generated
from tests.bench.benches.drain import Drain
from tests.bench.figures import percentiles, slope, summary
from tests.bench.made_jobs import made_id
from tests.bench.options import made


def test_percentiles_name_the_extremes_and_what_lies_between() -> None:
    assert percentiles(list(range(1000))) == {
        "min": 0,
        "p50": 500,
        "p90": 900,
        "p99": 990,
        "p999": 999,
        "max": 999,
    }
    assert set(percentiles([]).values()) == {None}


def test_a_summary_has_the_median_and_the_spread_of_every_number() -> None:
    rounds = [
        {"jobs_per_s": rate, "cpu": {"kafka": cpu, "idle": None}, "way": "bulk", "series": [1, 2]}
        for rate, cpu in ((10.0, 1), (40.0, 3), (20.0, 2))
    ]

    assert summary(rounds) == {
        "rounds": 3,
        "jobs_per_s": 20,
        "cpu": {"kafka": 2},
        "spread": {"jobs_per_s": [10.0, 40.0], "cpu": {"kafka": [1, 3]}},
    }


def test_a_slope_is_that_of_the_line_through_the_values() -> None:
    assert slope([0, 1, 2, 3], [5, 7, 9, 11]) == pytest.approx(2)
    assert slope([1], [5]) == 0


def test_made_jobs_follow_from_their_seed_and_carry_their_time() -> None:
    ids = [made_id(random.Random(seed), 1_700_000_000_000) for seed in (1, 1, 2)]

    assert all(is_generated(each) and generated_at_ms(each) == 1_700_000_000_000 for each in ids)
    assert ids[0] == ids[1] != ids[2]


def test_sizes_that_are_not_given_are_the_usual_or_the_quick_ones() -> None:
    assert made(Drain, {"jobs": None, "warm_up": None}, quick=False) == Drain()
    assert made(Drain, {"jobs": 7, "warm_up": None}, quick=True) == Drain(jobs=7, warm_up=50)
