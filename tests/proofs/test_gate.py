"""The drift gate on unshifted simulated partitions, whose seeds and parameters never set a bound, and on the public file."""

from fraud_core.gate.calibration import FALSE_ALARM_SEEDS, POWER_SEEDS, Rate, false_alarms, power
from fraud_core.gate.statistics import scipy_detector
from tests.proofs.conftest import Record


def shown(rate: Rate) -> dict[str, float | int]:
    low, high = rate.interval
    return {"rejected": rate.hits, "of": rate.trials, "low": round(low, 4), "high": round(high, 4)}


def test_unshifted_partitions_are_accepted_and_shifted_ones_rejected(full: bool, record: Record) -> None:
    seeds, judged = (FALSE_ALARM_SEEDS, 50) if full else (FALSE_ALARM_SEEDS[:2], 5)
    alarms = sum((rate for _, rate in false_alarms(seeds, judged, scipy_detector)), Rate(0, 0))
    assert alarms.hits <= 0.011 * alarms.trials

    draws = 200 if full else 8
    cells = {
        rows: power(rows, POWER_SEEDS if full else POWER_SEEDS[:1], draws, scipy_detector)
        for rows in ((1_000, 10_000, 100_000) if full else (10_000,))
    }
    for shift in ("amount x1.3", "hour + 6"):
        assert cells[10_000][shift] == Rate(draws, draws)
    record(
        "gate",
        {
            "false_alarms": shown(alarms),
            "power": {str(rows): {name: shown(rate) for name, rate in cell.items()} for rows, cell in cells.items()},
        },
    )
