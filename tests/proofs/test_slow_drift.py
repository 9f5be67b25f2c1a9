"""Drift in small steps: when amounts that rise a little every week are held, and which honest seasons are."""

from typing import Any

from fraud_core.gate.calibration import SEASONS, SLOW_SEEDS, Rate, seasonal, slow_drift
from tests.proofs.conftest import Record

WEEKS = 40


def shown(rate: Rate) -> dict[str, Any]:
    low, high = rate.interval
    return {"held": rate.hits, "of": rate.trials, "low": round(low, 4), "high": round(high, 4)}


def test_amounts_that_rise_a_little_every_week_are_held_and_known_seasons_are_not(full: bool, record: Record) -> None:
    seeds = SLOW_SEEDS if full else SLOW_SEEDS[:2]
    weeks = {rate: [slow_drift(rate, seed, WEEKS) for seed in seeds] for rate in ((0.01, 0.02, 0.04) if full else (0.04,))}
    by_12 = {rate: sum(week is not None and week <= 12 for week in found) for rate, found in weeks.items()}

    years: dict[str, tuple[Rate, Rate]] = {}
    for season in SEASONS if full else SEASONS[3:]:
        rates = [seasonal(season, seed) for seed in (SLOW_SEEDS[:4] if full else SLOW_SEEDS[:1])]
        first, second = (sum((rate[year] for rate in rates), Rate(0, 0)) for year in (0, 1))
        years[season.name] = first, second
    record(
        "slow_drift",
        {
            "series": len(seeds),
            "held_by_week_12": {f"+{rate:.0%} a week": held for rate, held in by_12.items()},
            "first_week_held": {f"+{rate:.0%} a week": found for rate, found in weeks.items()},
            "seasons": {name: {"first_year": shown(a), "second_year": shown(b)} for name, (a, b) in years.items()},
        },
    )
    assert by_12[0.04] >= 0.9 * len(seeds)
    for first, second in years.values():
        assert second.hits <= 0.05 * second.trials
        assert (first + second).hits <= 0.05 * (first + second).trials
